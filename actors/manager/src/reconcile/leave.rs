//! Runs that have to leave their node: it is drained, or has a taint that evicts them, or they are
//! moved to where they cost less.
//!
//! - A run that serves leaves as an update of its job would replace it: with start-first another
//!   runs elsewhere and counts before it ends; with stop-first it ends first, while no more than
//!   `parallel` slots of the task are down.
//! - A run that does not serve has nothing to lose and leaves at once.
//! - A batch that runs is let run.
//! - Past the deadline all that are left are stopped.

use std::collections::BTreeMap;

use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{NodeRecord, Order, RunRecord, SlotRecord, Taint};
use loom_schemas::spec::TaskSpec;
use loom_schemas::units::Millis;
use loom_schemas::words::{Kind, RunState, TaintEffect};

use super::rollout::{counts, counts_at, is_unhealthy};
use super::turn::Entry;
use super::verdict::{replicas, unwanted, version_of};
use super::{Action, Facts};
use crate::scheduler::tolerates;
use crate::state::is_live;

/// Why and when a run has to leave its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// In words, with who wants it so.
    pub reason: String,
    /// From then on it looks for another place.
    pub from: Timestamp,
    /// From then on it is stopped, whatever that means for its job; never if none.
    pub deadline: Option<Timestamp>,
}

impl Leave {
    /// Whether it is time to go, wherever to.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// When the clock alone brings something.
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let times = self.deadline.into_iter().chain([self.from]);
        times.filter(|at| *at > now).min()
    }
}

/// Why and when the runs of a task have to leave a node; none if they may stay. Of several reasons
/// the one that ends first.
pub fn leave_of(node: &NodeRecord, task: &TaskSpec) -> Option<Leave> {
    let drain = node.drain.as_ref().map(|drain| Leave {
        reason: format!("node {} is drained by {}", node.name, drain.by_whom()),
        from: drain.at,
        deadline: drain.deadline,
    });
    let taints = node
        .taints
        .iter()
        .filter_map(|taint| evicted(node, task, taint));
    let all: Vec<Leave> = drain.into_iter().chain(taints).collect();
    let from = all.iter().map(|leave| leave.from).min()?;
    let ends = |leave: &Leave| (leave.deadline.unwrap_or(Timestamp::MAX), leave.from);
    let first = all.into_iter().min_by_key(ends)?;
    Some(Leave { from, ..first })
}

fn evicted(node: &NodeRecord, task: &TaskSpec, taint: &Taint) -> Option<Leave> {
    if taint.effect != TaintEffect::Evict {
        return None;
    }
    let later = |by: Millis| taint.at.checked_add(std::time::Duration::from(by)).ok();
    let tolerated = task.tolerations.iter().filter(|t| tolerates(t, taint));
    let mut from = taint.at;
    for toleration in tolerated {
        // One without an end tolerates it for good.
        from = from.max(later(toleration.stay?).unwrap_or(Timestamp::MAX));
    }
    Some(Leave {
        reason: format!("node {} is tainted {taint} by {}", node.name, taint.by),
        from,
        deadline: Some(later(taint.after).unwrap_or(Timestamp::MAX).max(from)),
    })
}

/// Which runs have to leave now, and how many more of each task may be down for it.
#[derive(Default)]
pub(super) struct Moves {
    /// Slots of each task that are down, of those of which some have to leave.
    down: BTreeMap<Name, u32>,
    due: Option<Timestamp>,
}

impl Moves {
    pub(super) fn of(facts: &Facts<'_>, entries: &[Entry<'_>]) -> Self {
        let mut moves = Self::default();
        for Entry { record, .. } in entries {
            let Some(leave) = record
                .current
                .as_ref()
                .and_then(|run| leave(facts, record, run))
            else {
                continue;
            };
            moves.due = moves.due.into_iter().chain(leave.due(facts.now)).min();
            if leave.from <= facts.now {
                moves.down.entry(record.slot.task.clone()).or_default();
            }
        }
        for (name, down) in &mut moves.down {
            let Some(task) = facts.spec.tasks.get(name) else {
                continue;
            };
            *down = replicas(facts.job, name, task);
            for Entry { record, .. } in entries.iter().filter(|e| e.record.slot.task == *name) {
                if unwanted(facts.job, facts.spec, record).is_some() {
                    continue;
                }
                let runs = record.current.iter().chain(&record.incoming);
                for run in runs.filter(|run| is_live(run)) {
                    let task = facts.task_at(name, run.version).unwrap_or(task);
                    let at = counts_at(facts, task, run).filter(|at| *at > facts.now);
                    moves.due = moves.due.into_iter().chain(at).min();
                }
                let up = record.current.as_ref();
                *down -= u32::from(up.is_some_and(|run| is_up(facts, name, run))).min(*down);
            }
        }
        moves
    }

    /// When the clock alone brings something.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Whether one more slot of the task may be down; it then is.
    fn may_stop(&mut self, facts: &Facts<'_>, name: &Name) -> bool {
        let down = self.down.entry(name.clone()).or_default();
        let may = *down < facts.spec.update.parallel.max(1);
        *down += u32::from(may);
        may
    }
}

/// Why a run has to leave, at some time; none if its node would not hear of it.
fn leave(facts: &Facts<'_>, record: &SlotRecord, run: &RunRecord) -> Option<Leave> {
    let goes_on = is_live(run) && run.order == Order::Run && !run.marks.unknown;
    // A run of a system job has nowhere else to go.
    if !goes_on || facts.spec.kind == Kind::System {
        return None;
    }
    let task = facts.task_at(&record.slot.task, run.version)?;
    let of_node = (facts.leave)(run.node.as_ref()?, task);
    of_node.or_else(|| (facts.moves)(&record.slot, run))
}

fn is_up(facts: &Facts<'_>, name: &Name, run: &RunRecord) -> bool {
    let task = facts.task_at(name, run.version);
    task.is_some_and(|task| counts(facts, task, run))
}

/// What becomes of a run that goes on for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    /// It stays, or whatever else is to become of it does.
    Stays,
    /// It waits for its turn, or for what takes over.
    Waits,
    /// Another is placed that takes over from it.
    Doubles,
}

/// What becomes of the run in a slot, as far as it has to leave its node, beside one that takes over
/// and may be done with its work; which run ends and why where one does.
fn going(
    facts: &Facts<'_>,
    moves: &mut Moves,
    task: &TaskSpec,
    record: &SlotRecord,
    (run, incoming): (&RunRecord, Option<(&RunRecord, bool)>),
) -> Result<Going, (RunId, String)> {
    let now = facts.now;
    let due = |run: &RunRecord| leave(facts, record, run).filter(|leave| leave.from <= now);
    let Some(leave) = due(run) else {
        return Ok(Going::Stays);
    };
    if leave.is_over(now) {
        return Err((run.placement, leave.reason));
    }
    // What is replaced anyway is replaced elsewhere.
    if version_of(record, facts.job) != run.version {
        return Ok(Going::Stays);
    }
    if let Some((incoming, is_done)) = incoming {
        return match due(incoming) {
            _ if incoming.version != run.version => Ok(Going::Stays),
            Some(leave) => Err((incoming.placement, leave.reason)),
            None if is_done || counts(facts, task, incoming) => Err((run.placement, leave.reason)),
            None => Ok(Going::Waits),
        };
    }
    // What serves nobody has nothing to hand over.
    if run.state != RunState::Running || is_unhealthy(run) {
        return Err((run.placement, leave.reason));
    }
    if facts.spec.kind == Kind::Batch {
        return Ok(Going::Waits);
    }
    if !facts.is_stop_first(task) {
        return Ok(Going::Doubles);
    }
    // What somebody paused does nothing; of one that was not checked yet nobody knows.
    if run.marks.paused || moves.may_stop(facts, &record.slot.task) {
        Err((run.placement, leave.reason))
    } else {
        Ok(Going::Waits)
    }
}

impl Entry<'_> {
    /// Has the run end, where it has to leave its node and may do so now.
    pub(super) fn leave(&mut self, facts: &Facts<'_>, moves: &mut Moves) {
        let record = self.record.as_ref();
        let goes_on = |run: &&RunRecord| is_live(run) && run.order == Order::Run;
        let Some(run) = record.current.as_ref().filter(goes_on) else {
            return;
        };
        if unwanted(facts.job, facts.spec, record).is_some() || run.round != facts.job.round {
            return;
        }
        let Some(task) = facts.task_at(&record.slot.task, run.version) else {
            return;
        };
        // One that has ended is dropped in this turn, and another may take over.
        let incoming = record.incoming.as_ref();
        let incoming = incoming.map(|run| (run, self.is_done_incoming(facts, run)));
        let incoming = incoming.filter(|(run, is_done)| *is_done || is_live(run));
        match going(facts, moves, task, record, (run, incoming)) {
            Ok(going) => self.going = going,
            Err((placement, reason)) => {
                self.going = Going::Waits;
                self.stop(placement, reason, facts);
            }
        }
    }

    /// Another is placed that takes over from the slot's run, on the version that this one is of.
    pub(super) fn double(&mut self, now: Timestamp) {
        if self.record.not_before.is_none_or(|at| at <= now) {
            self.actions.push(Action::PlaceIncoming);
        }
    }
}
