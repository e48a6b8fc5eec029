//! Reconcile: what has to change so that a job's slots become what the job wants.
//!
//! Pure, and settled after one turn: carrying the actions out and asking again yields nothing, until
//! a report, a request or the clock brings something new.
//!
//! - Scale-down stops the highest indexes; a slot is removed once its run has ended.
//! - A batch of which a slot has spent its attempts is over: its other slots are stopped, nothing
//!   is placed any more, and once none is live the job is `failed`.
//! - A service's slot is placed again after a pause that grows, on another node if there is one.
//! - A new version replaces runs one at a time for each task: the old one is stopped, and the next
//!   is not touched before its successor runs and, where it is checked, is healthy. Runs that are
//!   not running, or checked and not healthy, serve nobody and are replaced at once: a version that
//!   never gets healthy makes way for the next. What a version changes in place needs no
//!   replacement.
//! - Runs on a silent node are marked `unknown`, and `lost` once its time is up.

mod status;
#[cfg(test)]
mod tests;
mod turn;
mod verdict;

use std::collections::BTreeMap;

use jiff::Timestamp;
use loom_schemas::ids::{Index, Name, Slot};
use loom_schemas::record::{ENDED_RUNS_KEPT, JobRecord, Order, RunRecord, SlotRecord};
use loom_schemas::spec::{JobSpec, TaskSpec};
use loom_schemas::words::RunState;

use crate::state::is_live;

pub use status::{JobStanding, status};
pub use verdict::{Stand, Why, failures_after, how_it_ended, pause, replicas, stand, stopped_by};

use turn::{Entry, Sums};
use verdict::{is_stopped, unwanted};

/// Why a slot is not wanted, in words; none if it is.
pub fn unwanted_reason(job: &JobRecord, spec: &JobSpec, slot: &SlotRecord) -> Option<String> {
    unwanted(job, spec, slot).map(|why| why.reason())
}

/// What is known about a job beside its slots.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The job.
    pub job: &'a JobRecord,
    /// Its wanted version.
    pub spec: &'a JobSpec,
    /// A task as another version of the job says it.
    pub task_of: &'a dyn Fn(&Name, u32) -> Option<&'a TaskSpec>,
    /// How a node stands.
    pub node: &'a dyn Fn(&Name) -> NodeStanding,
    /// Whether a task waits for others, so that nothing of it is started for the first time.
    pub waits: &'a dyn Fn(&Name) -> bool,
    /// The time.
    pub now: Timestamp,
}

/// How the node of a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeStanding {
    /// It answers.
    Up,
    /// It is silent, its time is not up.
    Silent,
    /// Its runs will never be taken back; the reason in words.
    Gone(String),
}

/// One change of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nobody knows how the run is: its node is silent.
    MarkUnknown,
    /// The run will never be taken back.
    Lose {
        /// In words.
        reason: String,
    },
    /// The run shall end.
    Stop {
        /// In words.
        reason: String,
    },
    /// The run goes on under the wanted version, which changes nothing that it would see.
    Adopt,
    /// The run that ended makes room for another.
    Retire {
        /// Placements that failed in a row.
        failures: u32,
        /// No new placement before.
        not_before: Option<Timestamp>,
    },
    /// The slot is not wanted now: it forgets its failures and what it waits for.
    Rest,
    /// The slot is no longer part of the job.
    Remove,
    /// The slot needs a node; always the last action of its slot.
    Place,
}

/// The changes of one slot, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The slot.
    pub slot: Slot,
    /// What to do with it.
    pub actions: Vec<Action>,
}

/// What has to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// A step for each slot that changes.
    pub steps: Vec<Step>,
    /// Whether more slots have to change than was asked for.
    pub more: bool,
}

/// What has to change in a job's slots, which come by task and index, at most `limit` of them.
pub fn reconcile<'a>(
    facts: &Facts<'_>,
    slots: impl IntoIterator<Item = &'a SlotRecord>,
    limit: usize,
) -> Steps {
    let mut entries: Vec<Entry<'a>> = slots.into_iter().map(Entry::new).collect();
    for entry in &mut entries {
        entry.look_at_node(facts);
    }
    let mut sums = Sums::of(facts, &entries);
    let missing = if sums.present < sums.wanted && sums.failing.is_none() {
        Present::of(&entries).missing(facts, limit.saturating_add(1))
    } else {
        Vec::new()
    };
    let mut found = Steps::default();
    for mut entry in entries {
        entry.decide(facts, &mut sums);
        if entry.actions.is_empty() {
            continue;
        }
        if found.steps.len() == limit {
            found.more = true;
            return found;
        }
        let slot = entry.record.slot.clone();
        found.steps.push(Step {
            slot,
            actions: entry.actions,
        });
    }
    for slot in missing {
        if found.steps.len() == limit {
            found.more = true;
            break;
        }
        found.steps.push(Step {
            slot,
            actions: vec![Action::Place],
        });
    }
    found
}

/// Carries out an action on the record of its slot; `Place` and `Remove` are the planner's.
pub fn apply(action: &Action, record: &mut SlotRecord, facts: &Facts<'_>) {
    match action {
        Action::MarkUnknown => each_live(record, |run| {
            run.marks.unknown |= run.state == RunState::Running;
        }),
        Action::Lose { reason } => each_live(record, |run| {
            // First terminal state wins; only what has not ended is lost.
            if run.state.is_terminal() {
                return;
            }
            run.state = RunState::Lost;
            run.reason = Some(reason.clone());
            run.ended_at = Some(facts.now);
            run.marks = loom_schemas::record::Marks::default();
            run.health = None;
        }),
        Action::Stop { reason } => each_live(record, |run| {
            if run.order == Order::Run {
                run.order = Order::Stop {
                    reason: reason.clone(),
                };
            }
        }),
        Action::Adopt => each_live(record, |run| run.version = facts.job.version),
        Action::Retire {
            failures,
            not_before,
        } => {
            retire(record);
            record.failed_placements = *failures;
            record.not_before = *not_before;
        }
        Action::Rest => {
            record.failed_placements = 0;
            record.not_before = None;
            record.waiting = None;
        }
        Action::Remove | Action::Place => {}
    }
}

/// Moves the run of a slot to those that ended, and begins with a clean sheet.
pub fn retire(record: &mut SlotRecord) {
    let retired = record.current.take().map(|run| RunRecord {
        will_restart: false,
        ..run
    });
    record.ended.extend(retired);
    let over = record.ended.len().saturating_sub(ENDED_RUNS_KEPT);
    record.ended.drain(..over);
    record.failed_placements = 0;
    record.not_before = None;
}

/// How a live placement is given up: its run is lost, or where it ended and its node would have
/// started it again, another placement takes over from it.
pub fn loss(record: &SlotRecord, run: &RunRecord, reason: String) -> Action {
    if run.state.is_terminal() {
        Action::Retire {
            failures: record.failed_placements,
            not_before: None,
        }
    } else {
        Action::Lose { reason }
    }
}

/// Whether a run of the first spec can go on under the second: only what the manager and the task
/// actor read anew differs. A change of resources replaces the run, as drivers cannot resize yet.
pub fn same_in_place(old: &TaskSpec, new: &TaskSpec) -> bool {
    let alike = TaskSpec {
        replicas: new.replicas,
        restart: new.restart.clone(),
        timeout: new.timeout.clone(),
        health: new.health.clone(),
        ..old.clone()
    };
    alike == *new
}

fn each_live(record: &mut SlotRecord, mut edit: impl FnMut(&mut RunRecord)) {
    record
        .current
        .iter_mut()
        .chain(&mut record.incoming)
        .filter(|r| is_live(r))
        .for_each(&mut edit);
}

/// The indexes of each task that have a record, in order.
#[derive(Default)]
struct Present<'a>(BTreeMap<&'a Name, Vec<u32>>);

impl<'a> Present<'a> {
    fn of(entries: &'a [Entry<'_>]) -> Self {
        let mut present = Self::default();
        // Slots come by task and index.
        for chunk in entries.chunk_by(|a, b| a.record.slot.task == b.record.slot.task) {
            let numbers = chunk
                .iter()
                .filter_map(|entry| entry.record.slot.index.number());
            let indexes = numbers.collect();
            present.0.insert(&chunk[0].record.slot.task, indexes);
        }
        present
    }

    /// At most `limit` wanted slots that have no record.
    fn missing(&self, facts: &Facts<'_>, limit: usize) -> Vec<Slot> {
        let job = facts.job;
        let may_start = facts
            .spec
            .tasks
            .iter()
            .filter(|(name, _)| !(facts.waits)(name));
        let tasks = may_start.flat_map(|(name, task)| {
            let present = self.0.get(name).map_or(&[][..], Vec::as_slice);
            let absent = move |index: &u32| present.binary_search(index).is_err();
            (0..replicas(job, name, task))
                .filter(absent)
                .map(move |index| (name, index))
        });
        let wanted = tasks.filter(|(name, index)| !is_stopped(job, name, &Index::Number(*index)));
        let slots = wanted.map(|(name, index)| Slot::new(job.name.clone(), name.clone(), index));
        slots.take(limit).collect()
    }
}
