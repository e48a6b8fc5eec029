//! What becomes of each slot of a job in one turn.

use std::borrow::Cow;

use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{Order, RunRecord, SlotRecord, Wanted};
use loom_schemas::spec::TaskSpec;
use loom_schemas::units::Millis;
use loom_schemas::words::{Kind, RunState};

use super::leave::Going;
use super::rollout::{Rollout, counts, is_done, is_unhealthy, serves};
use super::verdict::{
    Stand, Unwanted, Why, failures_after, how_it_ended, is_fresh, pause, replicas, spent_after,
    stand, unwanted, version_of,
};
use super::{Action, Facts, NodeStanding, apply, loss};
use crate::depend::has_started;
use crate::state::{is_live, live_runs};

/// A slot, what becomes of it, and by which actions.
pub(super) struct Entry<'a> {
    pub(super) record: Cow<'a, SlotRecord>,
    pub(super) actions: Vec<Action>,
    /// What becomes of its run as far as that has to leave its node.
    pub(super) going: Going,
    /// Whether a run was in it before anything became of it.
    pub(super) was_live: bool,
}

impl<'a> Entry<'a> {
    pub(super) fn new(record: &'a SlotRecord) -> Self {
        Self {
            record: Cow::Borrowed(record),
            actions: Vec::new(),
            going: Going::Stays,
            was_live: live_runs(record).next().is_some(),
        }
    }

    /// Whether nothing becomes of the slot unless there is a node by now.
    pub(super) fn tries_again(&self) -> bool {
        let places = matches!(self.actions[..], [Action::Place | Action::PlaceIncoming]);
        places && self.record.waiting.is_some()
    }

    pub(super) fn act(&mut self, action: Action, facts: &Facts<'_>) {
        apply(&action, self.record.to_mut(), facts);
        self.actions.push(action);
    }

    pub(super) fn stop(&mut self, placement: RunId, reason: String, facts: &Facts<'_>) {
        self.act(Action::Stop { placement, reason }, facts);
    }

    /// Has what is placed in the slot run a version.
    pub(super) fn turn(&mut self, facts: &Facts<'_>, version: u32) {
        if self.record.version != version {
            self.act(Action::Turn(version), facts);
        }
    }

    pub(super) fn look_at_nodes(&mut self, facts: &Facts<'_>) {
        let placements: Vec<RunId> = live_runs(&self.record).map(|run| run.placement).collect();
        for placement in placements {
            let Some(run) = self.record.placed(placement) else {
                continue;
            };
            let Some(node) = &run.node else { continue };
            let action = match (facts.node)(node) {
                NodeStanding::Silent if is_up(run) => Action::MarkUnknown(placement),
                NodeStanding::Up | NodeStanding::Silent => continue,
                NodeStanding::Gone(reason) => loss(&self.record, run, Some(facts.spec), reason),
            };
            self.act(action, facts);
        }
    }

    /// One that takes over takes the place of what has ended.
    pub(super) fn hand_over(&mut self, facts: &Facts<'_>) {
        let ended = !self.record.current.as_ref().is_some_and(is_live);
        let done = |run: &RunRecord| self.is_done_incoming(facts, run);
        let stays = |run: &RunRecord| (is_live(run) && run.order == Order::Run) || done(run);
        if ended && self.record.incoming.as_ref().is_some_and(stays) {
            let retire = Action::Retire {
                failures: 0,
                not_before: None,
            };
            self.act(retire, facts);
        }
        let of_before = |run: &RunRecord| !is_live(run) && run.version != facts.job.version;
        if !ended && self.record.incoming.as_ref().is_some_and(of_before) {
            self.drop_incoming(facts, None);
        }
    }

    /// Whether one that was to take over has done its work already.
    pub(super) fn is_done_incoming(&self, facts: &Facts<'_>, incoming: &RunRecord) -> bool {
        let (job, name) = (facts.job, &self.record.slot.task);
        let wanted = incoming.version == job.version && incoming.round == job.round;
        let task = facts.spec.tasks.get(name).filter(|_| wanted);
        task.is_some_and(|task| is_done(task, incoming))
    }

    pub(super) fn decide(&mut self, facts: &Facts<'_>, sums: &Sums, rollout: &mut Rollout) {
        let unwanted = unwanted(facts.job, facts.spec, &self.record);
        let failing = || sums.failing.clone().map(Unwanted::JobStopped);
        match unwanted.or_else(failing) {
            Some(why) => self.clear(&why, facts),
            None => self.fill(facts, rollout),
        }
    }

    fn clear(&mut self, why: &Unwanted, facts: &Facts<'_>) {
        let live: Vec<(RunId, bool)> = live_runs(&self.record)
            .map(|run| (run.placement, run.order == Order::Run))
            .collect();
        for (placement, _) in live.iter().filter(|(_, goes_on)| *goes_on) {
            self.stop(*placement, why.reason(), facts);
        }
        if !live.is_empty() {
            return;
        }
        if self.record.incoming.is_some() {
            self.drop_incoming(facts, None);
        }
        let record = &self.record;
        if matches!(why, Unwanted::Removed(_)) {
            self.act(Action::Remove, facts);
        } else if (record.failed_placements > 0 && record.current.is_none())
            || record.not_before.is_some()
            || record.waiting.is_some()
        {
            self.act(Action::Rest, facts);
        }
    }

    fn fill(&mut self, facts: &Facts<'_>, rollout: &mut Rollout) {
        let name = self.record.slot.task.clone();
        let (job, kind) = (facts.job, facts.spec.kind);
        let version = version_of(&self.record, job);
        let Some(task) = facts.task_at(&name, version) else {
            return;
        };
        self.tidy(facts, task);
        match stand(job, kind, task, &self.record) {
            Stand::Done | Stand::Failed => {}
            Stand::Live => self.renew(facts, task, rollout),
            Stand::Again(why) => {
                let (failures, not_before) = self.retirement(facts, task, why);
                let retire = Action::Retire {
                    failures,
                    not_before,
                };
                self.act(retire, facts);
                self.place_when_due(facts, rollout, Action::Place);
            }
            Stand::Empty => {
                let of_before = |run: &RunRecord| run.round != job.round;
                let record = &self.record;
                let stale = record.failed_placements > 0 || record.not_before.is_some();
                if stale && record.ended.last().is_some_and(of_before) {
                    self.act(Action::Rest, facts);
                }
                self.place_when_due(facts, rollout, Action::Place);
            }
        }
    }

    /// One that was to take over and has ended makes room for another.
    fn tidy(&mut self, facts: &Facts<'_>, task: &TaskSpec) {
        let Some(incoming) = self.record.incoming.as_ref() else {
            return;
        };
        if self.is_done_incoming(facts, incoming) {
            // It takes its place once what it took over from has ended.
        } else if !is_live(incoming) {
            self.drop_incoming(facts, Some(task));
        } else if !self.record.current.as_ref().is_some_and(is_live) {
            // It was told to end, and is all there is.
            let retire = Action::Retire {
                failures: 0,
                not_before: None,
            };
            self.act(retire, facts);
        }
    }

    /// Its failures count if a task is given.
    fn drop_incoming(&mut self, facts: &Facts<'_>, task: Option<&TaskSpec>) {
        let Some(run) = self.record.incoming.as_ref() else {
            return;
        };
        let before = self.record.failed_placements;
        let failed = matches!(
            run.state,
            RunState::Failed | RunState::Rejected | RunState::Completed
        );
        let (failures, not_before) = match task {
            Some(task) if failed && run.order == Order::Run => {
                pause_after(task, before, run, facts.now)
            }
            Some(_) if run.order == Order::Run => (before, None),
            _ => (0, None),
        };
        let drop = Action::Drop {
            failures,
            not_before,
        };
        self.act(drop, facts);
    }

    /// Has the slot placed, at the version that it is to run now.
    fn place_when_due(&mut self, facts: &Facts<'_>, rollout: &mut Rollout, place: Action) {
        if (facts.waits)(&self.record.slot.task) && !has_started(facts.job, &self.record) {
            return;
        }
        let (job, name) = (facts.job, &self.record.slot.task);
        let version = if is_fresh(&self.record, job) {
            rollout.fresh_version(facts, name)
        } else {
            match version_of(&self.record, job) {
                version if version == job.version => version,
                // What is not turned comes back as the last healthy version.
                other => facts.old_version(name, other),
            }
        };
        self.turn(facts, version);
        if self.record.not_before.is_none_or(|at| at <= facts.now) {
            self.actions.push(place);
        }
    }

    fn retirement(&self, facts: &Facts<'_>, task: &TaskSpec, why: Why) -> (u32, Option<Timestamp>) {
        let before = self.record.failed_placements;
        let Some(run) = self.record.current.as_ref() else {
            return (before, None);
        };
        let batch = facts.spec.kind == Kind::Batch;
        match why {
            // It did not fail, and what it has spent it has spent.
            Why::Ordered if run.evicted_for.is_some() => (before, None),
            Why::Ordered => (0, None),
            Why::Lost if batch => (spent_after(task, before, run), None),
            Why::Lost => (before, None),
            // Its node was stopped, which is no attempt of its own.
            Why::Failed if batch && run.state == RunState::Killed => {
                (before, pause_after(task, before, run, facts.now).1)
            }
            Why::Failed if batch => {
                let (_, not_before) = pause_after(task, before, run, facts.now);
                (spent_after(task, before, run), not_before)
            }
            Why::Failed => pause_after(task, before, run, facts.now),
        }
    }

    /// A live run, and one that takes over from it.
    fn renew(&mut self, facts: &Facts<'_>, task: &TaskSpec, rollout: &mut Rollout) {
        let job = facts.job;
        let Some(run) = self.record.current.clone() else {
            return;
        };
        if run.round != job.round {
            return self.stop_all("a new round began", facts);
        }
        if run.order != Order::Run {
            return;
        }
        let moves = version_of(&self.record, job) == run.version;
        match self.going {
            _ if !moves => {}
            Going::Stays => {}
            Going::Waits => return,
            Going::Doubles => {
                if rollout.may_double(facts, &self.record.slot.task) {
                    self.double(facts.now);
                }
                return;
            }
        }
        let turned = version_of(&self.record, job) == job.version;
        let reason = format!("replaced by version {}", job.version);
        let incoming = self.record.incoming.as_ref().cloned();
        if let Some(incoming) = incoming {
            let outdated = incoming.version != job.version || run.version == job.version;
            if outdated && is_live(&incoming) && incoming.order == Order::Run {
                let name = &self.record.slot.task;
                if !serves(facts, name, &incoming) || serves(facts, name, &run) {
                    return self.stop(incoming.placement, reason, facts);
                }
                // Of the two it is the one that does its work: it stays until another does.
                if run.version != job.version {
                    self.stop(run.placement, reason, facts);
                }
                return;
            }
            let proved = counts(facts, task, &incoming) || self.is_done_incoming(facts, &incoming);
            if turned && proved {
                self.stop(run.placement, reason, facts);
            }
            return;
        }
        if !turned || run.version == job.version {
            return self.rest(facts);
        }
        if run.told_version() == job.version {
            // How long that may take, its update says.
            return self.rest(facts);
        }
        if self.may_resize(facts, &run) {
            self.act(Action::Resize(run.placement), facts);
            return self.rest(facts);
        }
        // What serves nobody has nothing to hand over.
        let worth = run.state == RunState::Running && !is_unhealthy(&run);
        if facts.is_stop_first(task) || !worth {
            return self.stop(run.placement, reason, facts);
        }
        if rollout.may_double(facts, &self.record.slot.task) {
            self.place_when_due(facts, rollout, Action::PlaceIncoming);
        }
    }

    /// Nothing is to take over from its run any more.
    fn rest(&mut self, facts: &Facts<'_>) {
        if self.record.waiting.is_some() || self.record.not_before.is_some() {
            self.act(Action::Rest, facts);
        }
    }

    fn stop_all(&mut self, reason: &str, facts: &Facts<'_>) {
        let runs = live_runs(&self.record).filter(|run| run.order == Order::Run);
        let placements: Vec<RunId> = runs.map(|run| run.placement).collect();
        for placement in placements {
            self.stop(placement, reason.to_owned(), facts);
        }
    }
}

/// What one slot has to know of the others.
#[derive(Default)]
pub(super) struct Sums {
    /// Slots wanted in all.
    pub(super) wanted: usize,
    /// Slots of those that have a record.
    pub(super) present: usize,
    /// Why the whole job is over, where a slot of a batch has spent its attempts.
    pub(super) failing: Option<String>,
}

impl Sums {
    pub(super) fn of(facts: &Facts<'_>, entries: &[Entry<'_>]) -> Self {
        let mut sums = Self::default();
        // The slots of a system job are there if they are wanted; of a schedule its firings run.
        let counts = facts.spec.kind != Kind::System && facts.spec.schedule.is_none();
        if counts && facts.job.wanted == Wanted::Run && !facts.job.status.is_terminal() {
            let tasks = facts.spec.tasks.iter();
            sums.wanted = tasks
                .map(|(name, task)| replicas(facts.job, name, task) as usize)
                .sum();
        }
        let mut first: Option<(Option<Timestamp>, String)> = None;
        for Entry { record, .. } in entries {
            match unwanted(facts.job, facts.spec, record) {
                None => sums.present += 1,
                Some(Unwanted::SlotStopped) => {
                    sums.present += 1;
                    continue;
                }
                Some(_) => continue,
            }
            if facts.spec.kind != Kind::Batch {
                continue;
            }
            let version = version_of(record, facts.job);
            let Some(task) = facts.task_at(&record.slot.task, version) else {
                continue;
            };
            if stand(facts.job, facts.spec.kind, task, record) == Stand::Failed
                && let Some(run) = &record.current
            {
                let this = (
                    run.ended_at,
                    format!("{} {}", record.slot, how_it_ended(run)),
                );
                first = Some(first.map_or(this.clone(), |first| first.min(this)));
            }
        }
        sums.failing = first.map(|(_, how)| how);
        sums
    }
}

impl Facts<'_> {
    /// The version that a slot comes back as which is not to run the wanted one yet.
    fn old_version(&self, task: &Name, last: u32) -> u32 {
        let kept = |version: &u32| self.task_of(task, *version).is_some();
        let healthy = self.healthy_version(task);
        healthy
            .or(Some(last).filter(kept))
            .unwrap_or(self.job.version)
    }
}

/// So many placements have failed in a row with this one, and no other comes before.
fn pause_after(
    task: &TaskSpec,
    before: u32,
    run: &RunRecord,
    now: Timestamp,
) -> (u32, Option<Timestamp>) {
    let failures = failures_after(task, before, run);
    let pause = spread(pause(task, failures), run.run);
    // From when it is put away, by a manager's clock: its node's own may be off by any time.
    let until = now.checked_add(std::time::Duration::from(pause));
    (failures, until.ok().filter(|at| *at > now))
}

/// A pause less up to a quarter of it, by the random end of a run's id: what failed at once does not
/// come back at once.
pub(super) fn spread(pause: Millis, run: RunId) -> Millis {
    let random = u64::try_from(run.0.as_u128() & 0xffff).unwrap_or_default();
    let most = pause.0 / 4;
    Millis(pause.0 - most.saturating_mul(random) / 0x1_0000)
}

/// Whether a run is running as far as anybody knows.
fn is_up(run: &RunRecord) -> bool {
    run.state == RunState::Running && !run.marks.unknown
}
