//! The slots of a job, and a run in full.

use jiff::Timestamp;
use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{Bias, Decision, PendingResize, RunRecord, SlotRecord};

use crate::output::{table, time};

/// The run that tells most of a slot: the one in it, else the last one that ended.
fn telling(slot: &SlotRecord) -> Option<&RunRecord> {
    slot.holder().or(slot.ended.last())
}

/// Slots in a table.
pub(super) fn slot_table(slots: &[SlotRecord], wide: bool, now: Timestamp) -> String {
    let mut heads = vec![
        "task", "state", "node", "age", "restarts", "ports", "reason",
    ];
    if wide {
        heads.splice(6..6, ["version", "run", "pid", "image"]);
    }
    let checked = |slot: &SlotRecord| telling(slot).is_some_and(|run| run.health.is_some());
    let checked = slots.iter().any(checked);
    if checked {
        heads.insert(2, "health");
    }
    let mut table = table::new(&heads);
    for slot in slots {
        let Some(run) = telling(slot) else {
            let mut cells = vec![String::new(); heads.len()];
            cells[0] = slot.slot.to_string();
            "pending".clone_into(&mut cells[1]);
            cells[heads.len() - 1] = slot.waiting.clone().unwrap_or_default();
            table.add_row(cells);
            continue;
        };
        let ports: Vec<String> = run
            .ports
            .iter()
            .map(|(name, port)| format!("{name}={port}"))
            .collect();
        let mut cells = vec![
            slot.slot.to_string(),
            table::run_state(run.state, run.marks.paused, run.marks.unknown),
            run.node
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            time::age(run.started_at.or(Some(run.created_at)), now),
            run.restarts.to_string(),
            ports.join(" "),
            reason(slot, run),
        ];
        if wide {
            let pid = run
                .pid
                .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let image = run.image.clone().unwrap_or_else(|| "-".to_owned());
            cells.splice(
                6..6,
                [run.version.to_string(), run.run.to_string(), pid, image],
            );
        }
        if checked {
            cells.insert(2, table::health(run.health.as_ref()));
        }
        table.add_row(cells);
    }
    table::render(table)
}

/// Why a slot stands as it does: what it waits for, limits that do not hold, why it is not healthy,
/// how its run ended.
fn reason(slot: &SlotRecord, run: &RunRecord) -> String {
    if let Some(waiting) = &slot.waiting {
        return waiting.clone();
    }
    let limits = run.resizing().map(PendingResize::standing);
    let health = run.health.as_ref().and_then(|health| health.reason.clone());
    limits
        .or(health)
        .or_else(|| run.reason.clone())
        .or_else(|| ending(run))
        .unwrap_or_default()
}

/// `exit code 3`, `signal 9`, `out of memory`.
fn ending(run: &RunRecord) -> Option<String> {
    let exit = run.exit.as_ref()?;
    if exit.out_of_memory {
        return Some("out of memory".to_owned());
    }
    match (exit.signal, exit.code) {
        (Some(signal), _) => Some(format!("died of signal {signal}")),
        (None, Some(0) | None) => None,
        (None, Some(code)) => Some(format!("exit code {code}")),
    }
}

/// A slot with the runs it had.
pub(super) fn slot_detail(slot: &SlotRecord, now: Timestamp) -> String {
    let mut text = String::new();
    if let Some(waiting) = &slot.waiting {
        table::field(&mut text, "Task", &slot.slot.to_string());
        table::field(&mut text, "Waiting", waiting);
    }
    for run in slot.current.iter().chain(&slot.incoming) {
        text.push_str(&run_detail(&slot.slot.to_string(), run));
    }
    if !slot.ended.is_empty() {
        let mut table = table::new(&["earlier run", "state", "node", "version", "ended", "reason"]);
        for run in slot.ended.iter().rev() {
            table.add_row([
                run.run.short(),
                table::run_state(run.state, false, false),
                run.node
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), ToString::to_string),
                run.version.to_string(),
                time::age(run.ended_at, now),
                run.reason
                    .clone()
                    .or_else(|| ending(run))
                    .unwrap_or_default(),
            ]);
        }
        text.push('\n');
        text.push_str(&table::render(table));
    }
    text
}

/// `epvm 0.4291, before node-2 0.6097, node-3 0.6982 (-20 points) (at 1.57)`: the costs of the node
/// and of the next best with what counted beside their room, and the revision that was seen.
fn chosen(decision: &Decision) -> String {
    let Decision {
        strategy,
        revision,
        score,
        bias,
        runners_up,
        evicted,
        moved,
        ..
    } = decision;
    let next = runners_up.iter().map(|next| {
        format!(
            "{} {}{}",
            next.node,
            table::score(next.score),
            counted(next.bias)
        )
    });
    let next: Vec<String> = next.collect();
    let before = if next.is_empty() { "" } else { ", before " };
    let next = next.join(", ");
    let evicted: Vec<String> = evicted.iter().map(Slot::to_string).collect();
    let gone = match evicted.as_slice() {
        [] => String::new(),
        gone => format!("; evicted for it: {}", gone.join(", ")),
    };
    let score = format!("{}{}", table::score(*score), counted(*bias));
    let moved = match moved {
        Some(by) => format!("; moved by {by}"),
        None => String::new(),
    };
    format!("{strategy} {score}{before}{next} (at {revision}){gone}{moved}")
}

/// ` (+80 points, failed 2 times, shunned)`: what counted beside the room, if anything did.
fn counted(bias: Bias) -> String {
    let Bias {
        failures,
        shunned,
        points,
    } = bias;
    let times = if failures == 1 { "time" } else { "times" };
    let parts = [
        (points != 0).then(|| format!("{points:+} points")),
        (failures > 0).then(|| format!("failed {failures} {times}")),
        shunned.then(|| "shunned".to_owned()),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return String::new();
    }
    format!(" ({})", parts.join(", "))
}

/// What a run has of its node, and what it is not held to there.
fn held(text: &mut String, run: &RunRecord) {
    for (name, port) in &run.ports {
        table::field(text, "Port", &format!("{name} {port}"));
    }
    for gpu in run.own_gpus() {
        table::field(text, "Gpu", &format!("{} {}", gpu.name, gpu.id));
    }
    if let Some(pending) = run.resizing() {
        table::field(text, "Limits", &pending.standing());
    }
    for what in &run.unenforced {
        table::field(text, "Not held", what);
    }
}

/// A run in full.
pub(super) fn run_detail(slot: &str, run: &RunRecord) -> String {
    let mut text = String::new();
    table::field(&mut text, "Task", slot);
    table::field(&mut text, "Run", &run.run.to_string());
    let state = table::run_state(run.state, run.marks.paused, run.marks.unknown);
    table::field(&mut text, "State", &state);
    if let Some(health) = &run.health {
        let mut word = table::health(Some(health));
        if let Some(reason) = &health.reason {
            word = format!("{word}: {reason}");
        }
        let word = format!("{word} (since {})", time::full(health.since));
        table::field(&mut text, "Health", &word);
    }
    table::field(
        &mut text,
        "Reason",
        run.reason.as_deref().unwrap_or_default(),
    );
    table::field(
        &mut text,
        "Node",
        run.node.as_ref().map_or("-", Name::as_str),
    );
    if let Some(decision) = &run.decision {
        table::field(&mut text, "Chosen", &chosen(decision));
    }
    table::field(&mut text, "Version", &run.version.to_string());
    if let Some(pid) = run.pid {
        table::field(&mut text, "Pid", &pid.to_string());
    }
    if let Some(image) = &run.image {
        table::field(&mut text, "Image", image);
    }
    if let Some(exit) = &run.exit {
        if let Some(code) = exit.code {
            table::field(&mut text, "Exit code", &code.to_string());
        }
        if let Some(signal) = exit.signal {
            table::field(&mut text, "Signal", &signal.to_string());
        }
        if exit.out_of_memory {
            table::field(&mut text, "Memory", "the kernel killed it for memory");
        }
    }
    held(&mut text, run);
    for (name, value) in &run.filled {
        table::field(&mut text, "Filled in", &format!("{name} = {value}"));
    }
    if let Some(result) = &run.result {
        table::field(&mut text, "Result", result);
    }
    if run.restarts > 0 {
        table::field(&mut text, "Restarts", &run.restarts.to_string());
    }
    if let Some(at) = run.started_at {
        table::field(&mut text, "Started", &time::full(at));
    }
    if let Some(at) = run.ended_at {
        table::field(&mut text, "Ended", &time::full(at));
    }
    text
}
