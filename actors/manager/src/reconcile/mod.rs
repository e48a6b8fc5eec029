//! Reconcile: what has to change so that a job's slots become what the job wants.
//!
//! Pure, and settled after one turn: carrying the actions out and asking again yields nothing, until
//! a report, a request or the clock brings something new.
//!
//! - Scale-down stops the highest indexes; a slot is removed once its run has ended.
//! - A batch of which a slot has spent its attempts is over: its other slots are stopped, nothing
//!   is placed any more, and once none is live the job is `failed`.
//! - A service's slot is placed again after a pause that grows, on another node if there is one.
//! - A new version takes slots over as `update` of the job says, which `rollout` decides.
//! - Where only limits differ its runs go on, held to the new ones, where their nodes have room.
//! - Runs on a silent node are marked `unknown`, and `lost` once its time is up.

mod action;
mod change;
mod gang;
mod in_place;
mod leave;
mod rollout;
mod room;
mod status;
#[cfg(test)]
mod tests;
mod turn;
mod verdict;

use std::collections::BTreeMap;

use jiff::Timestamp;
use loom_schemas::ids::{Index, Name, Slot};
use loom_schemas::record::{JobRecord, RunRecord, SlotRecord};
use loom_schemas::spec::{JobSpec, TaskSpec};

use crate::scheduler::Room;

pub use action::{Action, apply, give_up, loss, retire};
pub use change::{Change, change, change_at, same_in_place};
pub use gang::Gang;
pub use leave::{Leave, leave_of};
pub use rollout::{UpdateChange, serves};
pub use room::{grown, grows};
pub use status::{JobStanding, status};
pub use verdict::{
    Stand, Why, failures_after, how_it_ended, is_stopped, pause, replicas, stand, stopped_by,
    unstopped, version_of,
};

use gang::Gangs;
use leave::Moves;
use rollout::Rollout;
use turn::{Entry, Sums};
use verdict::unwanted;

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
    /// Another version of the job, if it is kept.
    pub version: &'a dyn Fn(u32) -> Option<&'a JobSpec>,
    /// How a node stands.
    pub node: &'a dyn Fn(&Name) -> NodeStanding,
    /// Whether the wanted version may run on a node, whatever room that has.
    pub belongs: &'a dyn Fn(&Name) -> bool,
    /// What a node has left; none if it is not known.
    pub room: &'a dyn Fn(&Name) -> Option<Room>,
    /// Why and when the runs of a task have to leave a node.
    pub leave: &'a dyn Fn(&Name, &TaskSpec) -> Option<Leave>,
    /// Why a run of a slot is to go to another node, where it is being moved.
    pub moves: &'a dyn Fn(&Slot, &RunRecord) -> Option<Leave>,
    /// Whether a task waits for others, so that nothing of it is started for the first time.
    pub waits: &'a dyn Fn(&Name) -> bool,
    /// The time.
    pub now: Timestamp,
}

impl<'a> Facts<'a> {
    /// A task as another version of the job says it.
    pub(crate) fn task_of(&self, task: &Name, version: u32) -> Option<&'a TaskSpec> {
        (self.version)(version)?.tasks.get(task)
    }

    /// A task as a version of the job says it; as the wanted one does where that is not kept.
    pub fn task_at(&self, task: &Name, version: u32) -> Option<&'a TaskSpec> {
        if version == self.job.version {
            return self.spec.tasks.get(task);
        }
        self.task_of(task, version)
            .or_else(|| self.spec.tasks.get(task))
    }
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
    /// Slots that are placed together or not at all, however many.
    pub gangs: Vec<Gang>,
    /// Gangs of which the places that are held have to be given back.
    pub broken: Vec<Name>,
    /// Whether more slots have to change than was asked for.
    pub more: bool,
    /// How far the update has come. One that is paused or goes back changes no slot in this turn.
    pub update: Option<UpdateChange>,
    /// Whether the wanted version has proved healthy: it is one to go back to.
    pub healthy: bool,
    /// When the clock alone brings something about the update.
    pub due: Option<Timestamp>,
}

/// What has to change in a job's slots, which come by task and index, at most `limit` of them. Those
/// that wait for a node already are tried again beside that: most of them stay as they are.
pub fn reconcile<'a>(
    facts: &Facts<'_>,
    slots: impl IntoIterator<Item = &'a SlotRecord>,
    limit: usize,
) -> Steps {
    let mut entries: Vec<Entry<'a>> = slots.into_iter().map(Entry::new).collect();
    for entry in &mut entries {
        entry.look_at_nodes(facts);
        entry.hand_over(facts);
        entry.adopt(facts);
    }
    // What ends for its node's sake is on its way before anything takes a version over.
    let mut moves = Moves::of(facts, &entries);
    for entry in &mut entries {
        entry.leave(facts, &mut moves);
    }
    let mut rollout = Rollout::of(facts, &entries);
    let mut found = Steps {
        due: rollout.due().into_iter().chain(moves.due()).min(),
        update: rollout.change(facts),
        healthy: rollout.is_proved(facts),
        ..Steps::default()
    };
    if found.update.as_ref().is_some_and(UpdateChange::is_first) {
        found.more = true;
        return found;
    }
    // One that failed and goes on may be done as well.
    found.more = matches!(found.update, Some(UpdateChange::GoesOn(_)));
    rollout.turn(facts, &mut entries);
    let sums = Sums::of(facts, &entries);
    let mut gangs = Gangs::of(facts, &entries);
    let missing = if sums.present < sums.wanted && sums.failing.is_none() {
        let most = if gangs.is_empty() {
            limit.saturating_add(1)
        } else {
            usize::MAX
        };
        Present::of(&entries).missing(facts, most)
    } else {
        Vec::new()
    };
    let (mut changes, mut is_full) = (0, false);
    for mut entry in entries {
        if is_full && !gangs.has(&entry.record.slot) {
            continue;
        }
        entry.decide(facts, &sums, &mut rollout);
        if gangs.take(facts, &mut entry) || entry.actions.is_empty() {
            continue;
        }
        if !entry.tries_again() {
            is_full |= changes == limit;
            if is_full {
                found.more = true;
                continue;
            }
            changes += 1;
        }
        let slot = entry.record.slot.clone();
        found.steps.push(Step {
            slot,
            actions: entry.actions,
        });
    }
    let left = limit - changes;
    begin(facts, missing, left, (&mut gangs, &mut rollout), &mut found);
    gangs.finish(facts, &mut found);
    found
}

/// What is to be done in slots that have no record yet, in so many of them beside those of gangs.
fn begin(
    facts: &Facts<'_>,
    missing: Vec<Slot>,
    mut left: usize,
    (gangs, rollout): (&mut Gangs, &mut Rollout),
    found: &mut Steps,
) {
    for slot in missing {
        let is_of_gang = gangs.has(&slot);
        if left == 0 && !is_of_gang {
            found.more = true;
            continue;
        }
        let version = rollout.fresh_version(facts, &slot.task);
        let step = Step {
            slot,
            actions: vec![Action::Turn(version), Action::Place],
        };
        if is_of_gang {
            gangs.take_missing(step);
        } else {
            left -= 1;
            found.steps.push(step);
        }
    }
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
