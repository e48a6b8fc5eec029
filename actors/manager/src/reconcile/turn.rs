//! What becomes of each slot of a job in one turn.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::record::{Health, Order, RunRecord, SlotRecord, Wanted};
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::{Kind, RunState};

use super::verdict::{
    Stand, Unwanted, Why, failures_after, how_it_ended, pause, replicas, stand, unwanted,
};
use super::{Action, Facts, NodeStanding, apply, loss, same_in_place};
use crate::depend::has_started;
use crate::state::live_runs;

/// A slot, what becomes of it, and by which actions.
pub(super) struct Entry<'a> {
    pub(super) record: Cow<'a, SlotRecord>,
    pub(super) actions: Vec<Action>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(record: &'a SlotRecord) -> Self {
        Self {
            record: Cow::Borrowed(record),
            actions: Vec::new(),
        }
    }

    fn act(&mut self, action: Action, facts: &Facts<'_>) {
        apply(&action, self.record.to_mut(), facts);
        self.actions.push(action);
    }

    pub(super) fn look_at_node(&mut self, facts: &Facts<'_>) {
        let Some(run) = live_runs(&self.record).next() else {
            return;
        };
        let Some(node) = &run.node else { return };
        let action = match (facts.node)(node) {
            NodeStanding::Silent if is_up(run) => Action::MarkUnknown,
            NodeStanding::Up | NodeStanding::Silent => return,
            NodeStanding::Gone(reason) => loss(&self.record, run, reason),
        };
        self.act(action, facts);
    }

    pub(super) fn decide(&mut self, facts: &Facts<'_>, sums: &mut Sums) {
        let unwanted = unwanted(facts.job, facts.spec, &self.record);
        let failing = || sums.failing.clone().map(Unwanted::JobStopped);
        match unwanted.or_else(failing) {
            Some(why) => self.clear(&why, facts),
            None => self.fill(facts, sums),
        }
    }

    fn clear(&mut self, why: &Unwanted, facts: &Facts<'_>) {
        let wanted_so_far = live_runs(&self.record)
            .next()
            .map(|run| run.order == Order::Run);
        if let Some(wanted_so_far) = wanted_so_far {
            if wanted_so_far {
                self.act(
                    Action::Stop {
                        reason: why.reason(),
                    },
                    facts,
                );
            }
            return;
        }
        let record = &self.record;
        if matches!(why, Unwanted::Removed(_)) {
            self.act(Action::Remove, facts);
        } else if record.failed_placements > 0
            || record.not_before.is_some()
            || record.waiting.is_some()
        {
            self.act(Action::Rest, facts);
        }
    }

    fn fill(&mut self, facts: &Facts<'_>, sums: &mut Sums) {
        let name = self.record.slot.task.clone();
        let Some(task) = facts.spec.tasks.get(&name) else {
            return;
        };
        match stand(facts.job, facts.spec.kind, task, &self.record) {
            Stand::Done | Stand::Failed => {}
            Stand::Live => self.renew(facts, task, sums),
            Stand::Again(why) => {
                let retire = self.retirement(facts, task, why);
                self.act(retire, facts);
                self.place_when_due(facts);
            }
            Stand::Empty => {
                let of_before = |run: &RunRecord| run.round != facts.job.round;
                let record = &self.record;
                let stale = record.failed_placements > 0 || record.not_before.is_some();
                if stale && record.ended.last().is_some_and(of_before) {
                    self.act(Action::Rest, facts);
                }
                self.place_when_due(facts);
            }
        }
    }

    fn place_when_due(&mut self, facts: &Facts<'_>) {
        if (facts.waits)(&self.record.slot.task) && !has_started(facts.job, &self.record) {
            return;
        }
        if self.record.not_before.is_none_or(|at| at <= facts.now) {
            self.actions.push(Action::Place);
        }
    }

    fn retirement(&self, facts: &Facts<'_>, task: &TaskSpec, why: Why) -> Action {
        let before = self.record.failed_placements;
        let Some(run) = self.record.current.as_ref() else {
            return Action::Retire {
                failures: before,
                not_before: None,
            };
        };
        match why {
            Why::Ordered => Action::Retire {
                failures: 0,
                not_before: None,
            },
            Why::Lost => Action::Retire {
                failures: before,
                not_before: None,
            },
            Why::Failed => {
                let failures = failures_after(task, before, run);
                let from = run.ended_at.unwrap_or(facts.now);
                let until = from.checked_add(std::time::Duration::from(pause(task, failures)));
                // A pause that is over counts as over, whenever it is looked at.
                let not_before = until.ok().filter(|at| *at > facts.now);
                Action::Retire {
                    failures,
                    not_before,
                }
            }
        }
    }

    /// A live run of another round or version.
    fn renew(&mut self, facts: &Facts<'_>, task: &TaskSpec, sums: &mut Sums) {
        let job = facts.job;
        let Some(run) = live_runs(&self.record).next() else {
            return;
        };
        if run.order != Order::Run {
            return;
        }
        if run.round != job.round {
            return self.act(
                Action::Stop {
                    reason: "a new round began".to_owned(),
                },
                facts,
            );
        }
        if run.version == job.version {
            return;
        }
        let old = (facts.task_of)(&self.record.slot.task, run.version);
        if old.is_some_and(|old| same_in_place(old, task)) {
            return self.act(Action::Adopt, facts);
        }
        let name = self.record.slot.task.clone();
        let blocked = sums.unsettled.entry(name.clone()).or_default();
        if serves(run, &name, facts, task) {
            if *blocked > 0 {
                return;
            }
            *blocked += 1;
        }
        let reason = format!("replaced by version {}", job.version);
        self.act(Action::Stop { reason }, facts);
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
    /// Wanted slots by task that are on their way: while there is one, no run is replaced.
    unsettled: BTreeMap<Name, usize>,
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
            let Some(task) = facts.spec.tasks.get(&record.slot.task) else {
                continue;
            };
            let stand = stand(facts.job, facts.spec.kind, task, record);
            if !is_settled(stand, record, facts, task) {
                *sums.unsettled.entry(record.slot.task.clone()).or_default() += 1;
            }
            if stand == Stand::Failed
                && facts.spec.kind == Kind::Batch
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

/// Whether a run is running as far as anybody knows.
fn is_up(run: &RunRecord) -> bool {
    run.state == RunState::Running && !run.marks.unknown
}

/// Whether a run of a wanted task does its work as far as anybody knows: where its version has it
/// checked, it is healthy.
fn serves(run: &RunRecord, name: &Name, facts: &Facts<'_>, wanted: &TaskSpec) -> bool {
    let of_version = || {
        let old = (facts.task_of)(name, run.version)?;
        // One that goes on under the wanted version is measured by that.
        (!same_in_place(old, wanted)).then_some(old)
    };
    let task = if run.version == facts.job.version {
        wanted
    } else {
        of_version().unwrap_or(wanted)
    };
    let checked = task.health.is_some();
    is_up(run) && (!checked || run.health.as_ref().is_some_and(Health::is_healthy))
}

fn is_settled(stand: Stand, record: &SlotRecord, facts: &Facts<'_>, task: &TaskSpec) -> bool {
    match stand {
        Stand::Done | Stand::Failed => true,
        Stand::Again(_) => false,
        Stand::Live => live_runs(record)
            .all(|run| serves(run, &record.slot.task, facts, task) && run.order == Order::Run),
        // A slot that never found a node does not hold up the others: they may make room for it.
        Stand::Empty => record.ended.is_empty() && record.waiting.is_some(),
    }
}
