//! Gangs: tasks whose slots start together or not at all.
//!
//! A gang starts together whenever no run of it goes on: at first, in a new round, and when all of it
//! was lost or is replaced. While any does the others are placed one by one, like those of any task.

use std::collections::BTreeMap;

use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{Order, RunRecord};
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::Kind;

use super::turn::Entry;
use super::verdict::{Stand, stand, unstopped, unwanted, version_of};
use super::{Action, Facts, Step, Steps};
use crate::state::live_runs;

/// The slots of a gang that are to be placed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gang {
    /// The task.
    pub task: Name,
    /// A step for each slot that has no place yet, the last action of which is to place it; none where
    /// all are placed and held.
    pub steps: Vec<Step>,
}

/// The gangs of a job that start together, while its slots are decided on.
#[derive(Default)]
pub(super) struct Gangs(BTreeMap<Name, Gathering>);

/// How far one of them is.
#[derive(Default)]
struct Gathering {
    steps: Vec<Step>,
    /// Wanted slots that need no place: they are held, or have nothing left to do.
    settled: usize,
    /// Whether some of it are placed and held.
    is_held: bool,
    /// Whether what is held cannot stay as it is.
    is_broken: bool,
}

impl Gangs {
    pub(super) fn of(facts: &Facts<'_>, entries: &[Entry<'_>]) -> Self {
        let is_gang = |task: &TaskSpec| task.gang && facts.spec.kind != Kind::System;
        let gangs = facts.spec.tasks.iter().filter(|(_, task)| is_gang(task));
        let mut gangs: BTreeMap<Name, Gathering> = gangs
            .map(|(name, _)| (name.clone(), Gathering::default()))
            .collect();
        for name in facts.job.held.keys() {
            let is_broken = !gangs.contains_key(name);
            let held = gangs.entry(name.clone()).or_default();
            (held.is_held, held.is_broken) = (true, is_broken);
        }
        if gangs.is_empty() {
            return Self::default();
        }
        let goes_on = |run: &RunRecord| run.order == Order::Run && run.round == facts.job.round;
        for Entry { record, .. } in entries {
            let name = &record.slot.task;
            let has_started = || live_runs(record).any(goes_on);
            if gangs.get(name).is_some_and(|gang| !gang.is_held) && has_started() {
                gangs.remove(name);
            }
        }
        Self(gangs)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a slot is of one of them.
    pub(super) fn has(&self, slot: &Slot) -> bool {
        self.0.contains_key(&slot.task)
    }

    /// Takes what was decided of a slot, where it waits for the others of its gang.
    pub(super) fn take(&mut self, facts: &Facts<'_>, entry: &mut Entry<'_>) -> bool {
        let name = &entry.record.slot.task;
        let Some(gang) = self.0.get_mut(name) else {
            return false;
        };
        if gang.is_held && entry.was_live {
            // Its node knows nothing of it: whatever is to become of it, its place is given back.
            let mut versions = live_runs(&entry.record).map(|run| run.version);
            let (new, old) = (facts.job.version, facts.healthy_version(name));
            let is_current = versions.all(|version| version == new || Some(version) == old);
            gang.is_broken |= !entry.actions.is_empty() || !is_current;
            gang.settled += 1;
            return true;
        }
        if entry.actions.last() == Some(&Action::Place) {
            let (slot, actions) = (
                entry.record.slot.clone(),
                std::mem::take(&mut entry.actions),
            );
            gang.steps.push(Step { slot, actions });
            return true;
        }
        let (job, kind) = (facts.job, facts.spec.kind);
        let task = facts.task_at(name, version_of(&entry.record, job));
        let is_over = |task| {
            let stands = stand(job, kind, task, &entry.record);
            matches!(stands, Stand::Done | Stand::Failed)
        };
        let wanted = unwanted(job, facts.spec, &entry.record).is_none();
        gang.settled += usize::from(wanted && task.is_some_and(is_over));
        false
    }

    /// Takes a slot that has no record yet.
    pub(super) fn take_missing(&mut self, step: Step) {
        if let Some(gang) = self.0.get_mut(&step.slot.task) {
            gang.steps.push(step);
        }
    }

    /// Those that can be placed and those that cannot stay as they are; of the others what is to be done
    /// to their slots meanwhile.
    pub(super) fn finish(self, facts: &Facts<'_>, found: &mut Steps) {
        for (name, gang) in self.0 {
            let task = facts.spec.tasks.get(&name);
            let wanted = task.map_or(0, |task| unstopped(facts.job, &name, task) as usize);
            let is_whole = gang.steps.len() + gang.settled == wanted;
            if gang.is_broken || (gang.is_held && !is_whole) {
                found.broken.push(name);
            } else if is_whole && (gang.is_held || !gang.steps.is_empty()) {
                found.gangs.push(Gang {
                    task: name,
                    steps: gang.steps,
                });
            } else {
                // Some of it are not to be placed yet.
                let rest = gang.steps.into_iter().map(|mut step| {
                    step.actions.pop();
                    step
                });
                found
                    .steps
                    .extend(rest.filter(|step| !step.actions.is_empty()));
            }
        }
    }
}
