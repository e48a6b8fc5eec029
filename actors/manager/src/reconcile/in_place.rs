//! Runs that go on under the wanted version, as they are or held to other limits.

use loom_schemas::record::{Order, RunRecord};

use super::change::{Change, change_at};
use super::turn::Entry;
use super::verdict::{is_fresh, unwanted, version_of};
use super::{Action, Facts, grows};
use crate::state::live_runs;

impl Entry<'_> {
    /// Runs to which the wanted version changes nothing go on under it.
    pub(super) fn adopt(&mut self, facts: &Facts<'_>) {
        let job = facts.job;
        if self.record.version == job.version {
            let of_it = |run: &RunRecord| run.version == job.version;
            if live_runs(&self.record).all(of_it) {
                return;
            }
        }
        if unwanted(job, facts.spec, &self.record).is_some() || is_fresh(&self.record, job) {
            return;
        }
        let (name, index) = (&self.record.slot.task, &self.record.slot.index);
        let Some(task) = facts.spec.tasks.get(name) else {
            return;
        };
        let goes_on = |version: u32| {
            let old = facts.task_of(name, version);
            let same = |old| change_at(old, task, index) == Change::Adopt;
            version != job.version && old.is_some_and(same)
        };
        let runs = live_runs(&self.record).filter(|run| run.order == Order::Run);
        let belongs = |run: &RunRecord| run.node.as_ref().is_none_or(facts.belongs);
        let runs = runs.filter(|run| run.round == job.round && goes_on(run.version));
        let runs = runs.filter(|run| belongs(run));
        let adopted: Vec<Action> = runs
            .filter(|run| run.told_version() != job.version)
            .map(|run| match run.resizing() {
                // Its limits may be others by now: its node says when they are these.
                Some(_) => Action::Resize(run.placement),
                None => Action::Adopt(run.placement),
            })
            .collect();
        let empty = live_runs(&self.record).next().is_none();
        let turns = empty && goes_on(version_of(&self.record, job));
        for action in adopted {
            self.act(action, facts);
        }
        if turns {
            // Its next run is no other than before.
            self.turn(facts, job.version);
        }
    }

    /// Whether a run can be held to the limits of the wanted version where it is, and nothing else
    /// of it differs.
    pub(super) fn may_resize(&self, facts: &Facts<'_>, run: &RunRecord) -> bool {
        let (name, index) = (&self.record.slot.task, &self.record.slot.index);
        let old = facts.task_of(name, run.version);
        let (Some(old), Some(new)) = (old, facts.spec.tasks.get(name)) else {
            return false;
        };
        let node = run.node.as_ref().filter(|node| (facts.belongs)(node));
        let room = node.and_then(|node| (facts.room)(node));
        let fits = |room| grows(&room, &run.reserved, &new.resources_of(index)).is_ok();
        change_at(old, new, index) == Change::Resize && room.is_some_and(fits)
    }
}
