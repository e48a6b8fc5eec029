//! What nodes report of their runs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{ENDED_RUNS_KEPT, Marks, NodeStatus, Order, RunRecord, SlotRecord};
use loom_schemas::wire::{Hello, Holding, RunReport};
use loom_schemas::words::{HealthStatus, RunState};

use super::adopt::adopt;
use super::limits::tell_limits;
use super::merge::{believed, merge};
use crate::plan::unwanted;
use crate::state::{Draft, is_live, run_event};

/// What a node told that its placements hold.
type Holdings<'a> = BTreeMap<RunId, &'a Holding>;

/// Takes in what a node reports of its runs.
///
/// A run only moves forward, so reports may come late, twice and in any order. A restart on the
/// node is a new run in the same slot; the former goes to those that ended. What the state knows
/// nothing of is stopped if it lives (`recovering` leaders take it up or leave it alone instead),
/// and forgotten if it has ended; both are in the deltas of the finished draft.
pub fn report(
    draft: &mut Draft,
    node: &Name,
    reports: &[RunReport],
    recovering: bool,
    now: Timestamp,
) {
    let nothing = Holdings::new();
    for report in reports {
        take_in(draft, node, report, now);
        answer(draft, node, report, recovering.then_some(&nothing), now);
    }
}

/// The same of a `hello`, which also tells what the runs hold.
pub(super) fn report_all(
    draft: &mut Draft,
    node: &Name,
    hello: &Hello,
    recovering: bool,
    now: Timestamp,
) {
    let told = hello.holdings.iter();
    let holdings: Holdings<'_> = told.map(|told| (told.placement, told)).collect();
    for report in &hello.runs {
        take_in(draft, node, report, now);
        answer(draft, node, report, recovering.then_some(&holdings), now);
    }
}

/// Has the node stop or forget what it should not have; a recovering leader takes it up, with what
/// it holds.
fn answer(
    draft: &mut Draft,
    node: &Name,
    report: &RunReport,
    recovering: Option<&Holdings<'_>>,
    now: Timestamp,
) {
    let lives = !report.state.is_terminal() || report.will_restart;
    let assigned = crate::plan::is_assigned(draft.state(), node, report.placement);
    if assigned {
        return;
    }
    if !lives {
        return draft.forget(node, report.placement);
    }
    // A late report of a run that a later one of the same placement has followed.
    if ended_here(draft, report) {
        return;
    }
    if let Some(holdings) = recovering {
        let held = holdings.get(&report.placement).copied();
        adopt(draft, node, report, held, now);
        return;
    }
    let order = unwanted(draft.state(), report, "it is not wanted any more");
    draft.stop_unknown(node, order);
}

/// Whether the reported run is known to have ended by its own node's word, so that the report is
/// only late.
fn ended_here(draft: &Draft, report: &RunReport) -> bool {
    let Some(record) = draft.state().slot(&report.slot) else {
        return false;
    };
    let runs = record
        .ended
        .iter()
        .chain(&record.current)
        .chain(&record.incoming);
    runs.filter(|run| run.placement == report.placement && run.state != RunState::Lost)
        .any(|run| run.restarts >= report.restarts && run.state.is_terminal())
}

fn take_in(draft: &mut Draft, node: &Name, report: &RunReport, now: Timestamp) {
    let Some(record) = draft.state().slot(&report.slot) else {
        return;
    };
    let mut record = SlotRecord::clone(record);
    let before = record.clone();
    // The one that is to take over is taken for the current one meanwhile.
    let of_placement = |run: &RunRecord| run.placement == report.placement;
    let is_incoming = record.incoming.as_ref().is_some_and(of_placement);
    if is_incoming {
        record.incoming.swap(&mut record.current);
    }
    let node_is_up = draft
        .state()
        .node(node)
        .is_some_and(|n| n.status == NodeStatus::Up);
    let Some(place) = Place::find(&record, node, report) else {
        return;
    };
    let run = match place {
        Place::Current => record.current.as_mut(),
        Place::Ended(at) => record.ended.get_mut(at),
        Place::Follows => {
            follow(&mut record, report, now);
            record.current.as_mut()
        }
        Place::Instead => {
            give_up_current(draft, &mut record, node, now);
            follow(&mut record, report, now);
            record.current.as_mut()
        }
        Place::Before(at) => {
            let Some(pattern) = record.current.as_ref().or(record.ended.get(at)) else {
                return;
            };
            let run = RunRecord {
                resize: None,
                ..restarted(pattern, report, now)
            };
            record.ended.insert(at, run);
            record.ended.get_mut(at)
        }
    };
    let Some(run) = run else { return };
    let first = !matches!(place, Place::Current | Place::Ended(_));
    let was = if first { None } else { Some(run.clone()) };
    merge(run, report, node_is_up, now);
    if matches!(place, Place::Ended(_) | Place::Before(_)) {
        // Its successor is here already.
        run.will_restart = false;
    }
    tell(draft, &report.slot, was.as_ref(), run, report, now);
    if record.ended.len() > ENDED_RUNS_KEPT {
        record.ended.remove(0);
    }
    keep_last_result(&mut record);
    if is_incoming {
        record.incoming.swap(&mut record.current);
    }
    if record != before {
        draft.put_slot(record);
    }
}

/// Of the results of a slot only the last is kept: six of them in each change of it would be more
/// than a commit takes.
fn keep_last_result(record: &mut SlotRecord) {
    let runs = record
        .current
        .iter_mut()
        .chain(record.ended.iter_mut().rev());
    for run in runs.filter(|run| run.result.is_some()).skip(1) {
        run.result = None;
    }
}

/// Where in a slot a reported run belongs.
enum Place {
    /// It is the current run.
    Current,
    /// It is among those that ended.
    Ended(usize),
    /// It follows the current run, on the same placement.
    Follows,
    /// It stands in place of the current run, which its node knows nothing of any more.
    Instead,
    /// It is new but older than others of its placement: its place among those that ended.
    Before(usize),
}

impl Place {
    fn find(record: &SlotRecord, node: &Name, report: &RunReport) -> Option<Self> {
        let of_placement =
            |run: &RunRecord| run.placement == report.placement && run.node.as_ref() == Some(node);
        if let Some(at) = record.ended.iter().position(|run| run.run == report.run) {
            return of_placement(&record.ended[at]).then_some(Self::Ended(at));
        }
        let ended: Vec<usize> = (0..record.ended.len())
            .filter(|at| of_placement(&record.ended[*at]))
            .collect();
        let current = record.current.as_ref().filter(|run| of_placement(run));
        match current {
            Some(run) if run.run == report.run => return Some(Self::Current),
            Some(run) if report.restarts > run.restarts => {
                // What was lost or given up is not taken back.
                return is_live(run).then_some(Self::Follows);
            }
            // A node that lost its last notes counts, and names, its restarts anew.
            Some(run) if is_live(run) && is_later(report, run) => return Some(Self::Instead),
            Some(run) if report.restarts == run.restarts => return None,
            None if ended.is_empty() => return None,
            _ => {}
        }
        let older = |at: &&usize| record.ended[**at].restarts < report.restarts;
        let at = match (ended.iter().rev().find(older), ended.first()) {
            (Some(at), _) => at + 1,
            (None, Some(first)) => *first,
            (None, None) => record.ended.len(),
        };
        // A later run than all that ended, of a placement that was given up.
        if current.is_none() && ended.last().is_some_and(|last| *last + 1 == at) {
            return None;
        }
        Some(Self::Before(at))
    }
}

/// Whether a live run began after the one that the slot has: version 7 ids tell the time.
fn is_later(report: &RunReport, run: &RunRecord) -> bool {
    let lives = !report.state.is_terminal() || report.will_restart;
    // Ids of one clock only are compared: the placement's is the manager's.
    let by_node = report.run != report.placement && run.run != run.placement;
    lives && by_node && report.restarts <= run.restarts && report.run > run.run
}

/// The current run is one that its node does not know any more: nobody will report its end.
fn give_up_current(draft: &mut Draft, record: &mut SlotRecord, node: &Name, now: Timestamp) {
    let Some(run) = record.current.as_mut() else {
        return;
    };
    if run.state.is_terminal() {
        return;
    }
    run.state = RunState::Lost;
    run.reason = Some(format!("node {node} runs another in its place"));
    run.ended_at = Some(now);
    run.marks = Marks::default();
    let event = run_event(now, &record.slot, run, RunState::Lost.as_str());
    draft.event(event);
}

/// The run of the report takes the place of the current one, which its node has restarted.
fn follow(record: &mut SlotRecord, report: &RunReport, now: Timestamp) {
    let Some(former) = record.current.take() else {
        return;
    };
    record.current = Some(restarted(&former, report, now));
    record.ended.push(RunRecord {
        will_restart: false,
        marks: Marks::default(),
        health: None,
        resize: None,
        ..former
    });
}

/// A run of the same placement as `pattern`, as if nothing were reported of it yet.
fn restarted(pattern: &RunRecord, report: &RunReport, now: Timestamp) -> RunRecord {
    RunRecord {
        run: report.run,
        state: RunState::Pending,
        marks: Marks::default(),
        health: None,
        restarts: report.restarts,
        will_restart: false,
        pid: None,
        image: None,
        exit: None,
        reason: None,
        unenforced: Vec::new(),
        filled: std::collections::BTreeMap::new(),
        result: None,
        created_at: made_at(report.run).map_or(now, |at| believed(pattern, at, now)),
        started_at: None,
        ended_at: None,
        change: 0,
        ..pattern.clone()
    }
}

/// A version 7 id says when it was made.
fn made_at(run: RunId) -> Option<Timestamp> {
    let (secs, nanos) = run.0.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(secs).ok()?, i32::try_from(nanos).ok()?).ok()
}

pub(super) fn tell(
    draft: &mut Draft,
    slot: &loom_schemas::ids::Slot,
    was: Option<&RunRecord>,
    run: &RunRecord,
    report: &RunReport,
    now: Timestamp,
) {
    let before = was.map_or(RunState::Pending, |was| was.state);
    if run.state != before {
        let mut event = run_event(now, slot, run, run.state.as_str());
        let between =
            |state: &RunState| state.rank() > before.rank() && state.rank() < run.state.rank();
        event.passed = RunState::ALL
            .into_iter()
            .filter(|state| between(state) && report.passed.contains(state))
            .collect();
        if let (None, Order::Stop { reason }) = (&event.reason, &run.order) {
            event.reason = Some(reason.clone());
        }
        draft.event(event);
    }
    let marks = was.map_or(Marks::default(), |was| was.marks);
    if run.state.is_terminal() {
        return;
    }
    let marked = [
        (marks.paused, run.marks.paused, "paused", "resumed"),
        (marks.unknown, run.marks.unknown, "unknown", "running"),
    ];
    for (old, new, set, cleared) in marked {
        if old != new {
            let mut event = run_event(now, slot, run, if new { set } else { cleared });
            if cleared == "running" && !new {
                let by_node = was.is_some_and(|was| was.reason.is_some());
                let back = ["its node is back", "its node can see it again"];
                event.reason = Some(back[usize::from(by_node)].to_owned());
            }
            draft.event(event);
        }
    }
    tell_health(draft, slot, was, run, now);
    tell_limits(draft, slot, was, run, now);
}

/// A run that is found to do its work, or not to do it any more.
fn tell_health(
    draft: &mut Draft,
    slot: &loom_schemas::ids::Slot,
    was: Option<&RunRecord>,
    run: &RunRecord,
    now: Timestamp,
) {
    let Some(health) = &run.health else { return };
    let before = was.and_then(|was| was.health.as_ref());
    let turned = before.map(|before| before.status) != Some(health.status);
    if turned
        && matches!(
            health.status,
            HealthStatus::Healthy | HealthStatus::Unhealthy
        )
    {
        let mut event = run_event(now, slot, run, health.status.as_str());
        event.reason.clone_from(&health.reason);
        draft.event(event);
    }
}
