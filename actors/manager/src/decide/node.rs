//! What nodes say of themselves, and what is said of them.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::error::WireError;
use loom_schemas::event::{About, Event};
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{NodeRecord, NodeStatus, RunRecord, SlotRecord};
use loom_schemas::wire::{Bye, Hello};
use loom_schemas::words::RunState;

use super::recover::heard;
use super::report::report_all;
use crate::plan::deadlines;
use crate::reconcile::{Action, give_up, loss};
use crate::state::{Draft, State, is_live, run_event};

/// A node says who it is and everything it has.
///
/// Its reports are taken in; runs that should be with it and are not are lost; runs it should not
/// have are stopped, but not by a `recovering` leader, who takes them up where their slot is empty.
pub fn hello(draft: &mut Draft, node: &Name, hello: &Hello, recovering: bool, now: Timestamp) {
    hello_part(draft, node, hello, recovering, now);
    if !recovering {
        let has: BTreeSet<RunId> = hello.runs.iter().map(|run| run.placement).collect();
        lose_missing(draft, node, &has, now);
    }
}

/// The same of a part of all it has: nothing is missing before all was told, see [`lose_missing`].
pub fn hello_part(draft: &mut Draft, node: &Name, hello: &Hello, recovering: bool, now: Timestamp) {
    let old = draft.state().node(node).cloned();
    let was_up = old.as_ref().is_some_and(|old| old.status == NodeStatus::Up);
    draft.put_node(NodeRecord {
        name: node.clone(),
        info: hello.info.clone(),
        status: NodeStatus::Up,
        since: old.as_ref().filter(|_| was_up).map_or(now, |old| old.since),
        reason: None,
        // A node may have obeyed assignments that a rewound log knows nothing of.
        generation: old
            .as_ref()
            .map_or(0, |old| old.generation)
            .max(hello.generation),
        back_by: None,
        lost: false,
        // What people said of it holds whatever its agent does.
        labels: old
            .as_ref()
            .map(|old| old.labels.clone())
            .unwrap_or_default(),
        taints: old
            .as_ref()
            .map(|old| old.taints.clone())
            .unwrap_or_default(),
        drain: old.as_ref().and_then(|old| old.drain.clone()),
    });
    if !was_up {
        draft.event(Event::new(now, About::Node { node: node.clone() }, "up"));
    }
    report_all(draft, node, hello, recovering, now);
}

/// What came of a node being heard again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Up {
    /// It is up, as it was all along or from now on.
    Up,
    /// Its runs may have been given up meanwhile, or it is not known: it has to say `hello`.
    NeedsHello,
}

/// Whether a node is down and its runs may have been given up.
pub fn is_given_up(state: &State, node: &Name, lost_after: Duration, now: Timestamp) -> bool {
    let down = state
        .node(node)
        .is_some_and(|node| node.status != NodeStatus::Up);
    let deadline = || deadlines(state, lost_after).remove(node);
    down && deadline().is_none_or(|at| at <= now)
}

/// A node is heard again without having restarted.
pub fn node_up(draft: &mut Draft, node: &Name, lost_after: Duration, now: Timestamp) -> Up {
    let Some(old) = draft.state().node(node).cloned() else {
        return Up::NeedsHello;
    };
    if old.status == NodeStatus::Up {
        return Up::Up;
    }
    if is_given_up(draft.state(), node, lost_after, now) {
        return Up::NeedsHello;
    }
    draft.put_node(NodeRecord {
        status: NodeStatus::Up,
        since: now,
        reason: None,
        back_by: None,
        ..NodeRecord::clone(&old)
    });
    draft.event(Event::new(now, About::Node { node: node.clone() }, "up"));
    for (placement, mut record) in placements(draft, node) {
        let slot = record.slot.clone();
        let run = record.placed_mut(placement);
        let Some(run) = run.filter(|run| run.marks.unknown) else {
            continue;
        };
        run.marks.unknown = false;
        let mut event = run_event(now, &slot, run, RunState::Running.as_str());
        event.reason = Some("its node is back".to_owned());
        draft.event(event);
        draft.put_slot(record);
    }
    Up::Up
}

/// A node is silent; its runs are marked by the next plans, and lost once their time is up.
pub fn node_down(draft: &mut Draft, node: &Name, reason: &str, now: Timestamp) {
    go_down(draft, node, reason, None, now);
}

/// Somebody says that a node is not coming back as it was: its runs are lost with the next plan,
/// and nobody waits for its `hello`. `not-found` if there is no such node; true if anything changed.
pub fn node_lost(
    draft: &mut Draft,
    node: &Name,
    by: &str,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<bool, WireError> {
    let Some(old) = draft.state().node(node).cloned() else {
        if !draft.state().awaits(node) {
            return Err(WireError::not_found(format!("no node {node}")));
        }
        // It was heard, and went before it had said who it is.
        heard(draft, node);
        return Ok(true);
    };
    if old.lost {
        return Ok(false);
    }
    let was_down = old.status != NodeStatus::Up;
    let why = reason.map_or_else(
        || format!("{by} said so"),
        |reason| format!("{by}: {reason}"),
    );
    draft.put_node(NodeRecord {
        status: NodeStatus::Down,
        since: if was_down { old.since } else { now },
        reason: Some(why.clone()),
        back_by: None,
        lost: true,
        ..NodeRecord::clone(&old)
    });
    heard(draft, node);
    let mut event = Event::new(now, About::Node { node: node.clone() }, "lost");
    event.reason = Some(why);
    event.by = Some(by.to_owned());
    draft.event(event);
    Ok(true)
}

/// The agent of a node ends; its tasks go on.
pub fn bye(draft: &mut Draft, node: &Name, bye: &Bye, now: Timestamp) {
    match bye.back_within {
        Some(seconds) => {
            let back_by = now.checked_add(Duration::from_secs(seconds)).ok();
            go_down(
                draft,
                node,
                &format!("it will be back within {seconds} s"),
                back_by,
                now,
            );
        }
        None => go_down(draft, node, "it said bye", None, now),
    }
}

fn go_down(
    draft: &mut Draft,
    node: &Name,
    reason: &str,
    back_by: Option<Timestamp>,
    now: Timestamp,
) {
    let Some(old) = draft.state().node(node).cloned() else {
        return;
    };
    if old.status != NodeStatus::Up {
        return;
    }
    draft.put_node(NodeRecord {
        status: NodeStatus::Down,
        since: now,
        reason: Some(reason.to_owned()),
        back_by,
        ..NodeRecord::clone(&old)
    });
    let mut event = Event::new(now, About::Node { node: node.clone() }, "down");
    event.reason = Some(reason.to_owned());
    draft.event(event);
}

/// Gives up the placements that a node should have and has not. One that never got beyond
/// `scheduled` may not have reached it yet and is assigned again.
pub fn lose_missing(draft: &mut Draft, node: &Name, has: &BTreeSet<RunId>, now: Timestamp) {
    for (placement, mut record) in placements(draft, node) {
        let reached = |run: &&RunRecord| is_live(run);
        let Some(run) = record.placed(placement).filter(reached) else {
            continue;
        };
        if has.contains(&placement) || run.state.rank() <= RunState::Scheduled.rank() {
            continue;
        }
        let job = draft.state().job(&record.slot.job);
        let spec = job.and_then(|job| draft.state().spec(job));
        let action = loss(
            &record,
            run,
            spec,
            format!("node {node} does not have it any more"),
        );
        give_up(&action, &mut record, now);
        if let Action::Lose { placement, .. } = action
            && let Some(run) = record.placed(placement)
        {
            draft.event(run_event(now, &record.slot, run, RunState::Lost.as_str()));
        }
        draft.put_slot(record);
    }
}

fn placements(draft: &Draft, node: &Name) -> Vec<(RunId, SlotRecord)> {
    let state = draft.state();
    let Some(load) = state.load(node) else {
        return Vec::new();
    };
    let records = load
        .placements
        .iter()
        .filter_map(|(placement, slot)| Some((*placement, SlotRecord::clone(state.slot(slot)?))));
    records.collect()
}
