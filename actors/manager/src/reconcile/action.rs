//! The changes of a slot, and how they are carried out on its record.

use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::{
    ENDED_RUNS_KEPT, Marks, Order, PendingResize, Resize, RunRecord, SlotRecord,
};
use loom_schemas::spec::{JobSpec, Resources};
use loom_schemas::words::{Kind, RunState};

use super::Facts;
use super::change::{Change, change_at};
use super::room::both;
use super::verdict::spent_after;
use crate::state::{is_live, live_runs};

/// One change of a slot. Placements are named by their first run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nobody knows how the run is: its node is silent.
    MarkUnknown(RunId),
    /// The run will never be taken back.
    Lose {
        /// Which.
        placement: RunId,
        /// In words.
        reason: String,
    },
    /// The run shall end.
    Stop {
        /// Which.
        placement: RunId,
        /// In words.
        reason: String,
    },
    /// The run goes on under the wanted version, which changes nothing that it would see.
    Adopt(RunId),
    /// The run goes on, and is of the wanted version once it is held to the limits of that.
    Resize(RunId),
    /// What is placed in the slot from now on runs this version.
    Turn(u32),
    /// The run that ended makes room for another, or for the one that takes over from it.
    Retire {
        /// Placements that failed in a row.
        failures: u32,
        /// No new placement before.
        not_before: Option<Timestamp>,
    },
    /// The run that was to take over has ended before it could.
    Drop {
        /// Placements that failed in a row.
        failures: u32,
        /// No new placement before.
        not_before: Option<Timestamp>,
    },
    /// The slot is not wanted now: it forgets what it waits for and its failures, but for those that say
    /// what the run in it came to.
    Rest,
    /// The slot is no longer part of the job.
    Remove,
    /// The slot needs a node; always the last action of its slot.
    Place,
    /// The slot needs a node for the run that is to take over; always the last action of its slot.
    PlaceIncoming,
}

/// Carries out an action on the record of its slot; `Place`, `PlaceIncoming` and `Remove` are the
/// planner's.
pub fn apply(action: &Action, record: &mut SlotRecord, facts: &Facts<'_>) {
    match action {
        Action::MarkUnknown(placement) => edit(record, *placement, |run| {
            run.marks.unknown |= run.state == RunState::Running;
        }),
        Action::Lose { .. } | Action::Retire { .. } | Action::Drop { .. } => {
            give_up(action, record, facts.now);
        }
        Action::Stop { placement, reason } => edit(record, *placement, |run| {
            if run.order == Order::Run {
                run.order = Order::Stop {
                    reason: reason.clone(),
                };
            }
        }),
        Action::Adopt(placement) => {
            let reserved = wanted(record, facts);
            edit(record, *placement, |run| {
                run.version = facts.job.version;
                run.reserved = reserved.unwrap_or_else(|| run.reserved.clone());
            });
            record.version = facts.job.version;
        }
        Action::Turn(version) => {
            if speaks_not(record, *version, facts) {
                record.failed_placements = 0;
                record.not_before = None;
            }
            record.version = *version;
        }
        Action::Resize(placement) => {
            let Some(wanted) = wanted(record, facts) else {
                return;
            };
            edit(record, *placement, |run| {
                run.reserved = both(&run.reserved, &wanted);
                let before = run.resize.take().map(|before| *before).unwrap_or_default();
                run.resize = Some(Box::new(Resize {
                    orders: before.orders + 1,
                    pending: Some(PendingResize {
                        version: facts.job.version,
                        wanted,
                        since: facts.now,
                        refused: None,
                    }),
                    ..before
                }));
            });
            record.version = facts.job.version;
        }
        Action::Rest => {
            if record.current.as_ref().is_none_or(is_live) {
                record.failed_placements = 0;
            }
            record.not_before = None;
            record.waiting = None;
        }
        Action::Remove | Action::Place | Action::PlaceIncoming => {}
    }
}

/// Whether what failed in a slot says nothing about a version that it is turned to: its next run is
/// another than the last, and no run of a batch is on its node that was told what was spent.
fn speaks_not(record: &SlotRecord, version: u32, facts: &Facts<'_>) -> bool {
    let (name, index) = (&record.slot.task, &record.slot.index);
    let old = facts.task_of(name, record.version);
    let new = facts.task_at(name, version);
    let same = old
        .zip(new)
        .is_some_and(|(old, new)| change_at(old, new, index) == Change::Adopt);
    let told = facts.spec.kind == Kind::Batch && live_runs(record).next().is_some();
    record.version != version && !same && !told
}

/// Carries out what [`loss`] says, and the like.
pub fn give_up(action: &Action, record: &mut SlotRecord, now: Timestamp) {
    let (failures, not_before) = match action {
        Action::Lose { placement, reason } => {
            return edit(record, *placement, |run| {
                // First terminal state wins; only what has not ended is lost.
                if run.state.is_terminal() {
                    return;
                }
                run.state = RunState::Lost;
                run.reason = Some(reason.clone());
                run.ended_at = Some(now);
                run.marks = Marks::default();
                run.health = None;
            });
        }
        Action::Retire {
            failures,
            not_before,
        } => {
            retire(record);
            (failures, not_before)
        }
        Action::Drop {
            failures,
            not_before,
        } => {
            let ended = record.incoming.take();
            keep_ended(record, ended);
            (failures, not_before)
        }
        _ => return,
    };
    record.failed_placements = *failures;
    record.not_before = *not_before;
}

/// Moves the run of a slot to those that ended, and begins with a clean sheet; one that was to take
/// over takes its place.
pub fn retire(record: &mut SlotRecord) {
    let ended = record.current.take();
    keep_ended(record, ended);
    record.current = record.incoming.take();
    record.failed_placements = 0;
    record.not_before = None;
    if record.current.is_some() {
        record.waiting = None;
    }
}

/// What a run of the slot holds as the wanted version says.
fn wanted(record: &SlotRecord, facts: &Facts<'_>) -> Option<Resources> {
    let task = facts.spec.tasks.get(&record.slot.task)?;
    Some(task.resources_of(&record.slot.index))
}

fn keep_ended(record: &mut SlotRecord, ended: Option<RunRecord>) {
    record.ended.extend(ended.map(|run| RunRecord {
        will_restart: false,
        resize: None,
        ..run
    }));
    let over = record.ended.len().saturating_sub(ENDED_RUNS_KEPT);
    record.ended.drain(..over);
}

fn edit(record: &mut SlotRecord, placement: RunId, edit: impl FnOnce(&mut RunRecord)) {
    if let Some(run) = record.placed_mut(placement) {
        edit(run);
    }
}

/// How a live placement is given up: its run is lost, or where it ended and its node would have
/// started it again, another placement takes over from it. Of a batch its attempts are counted.
pub fn loss(
    record: &SlotRecord,
    run: &RunRecord,
    spec: Option<&JobSpec>,
    reason: String,
) -> Action {
    let batch = spec.filter(|spec| spec.kind == Kind::Batch);
    let task = batch.and_then(|spec| spec.tasks.get(&record.slot.task));
    let before = record.failed_placements;
    let failures = task.map_or(before, |task| spent_after(task, before, run));
    let not_before = None;
    if !run.state.is_terminal() {
        let placement = run.placement;
        return Action::Lose { placement, reason };
    }
    let incoming = record.incoming.as_ref();
    if incoming.is_some_and(|incoming| incoming.placement == run.placement) {
        return Action::Drop {
            failures,
            not_before,
        };
    }
    Action::Retire {
        failures,
        not_before,
    }
}
