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
//!   is not touched before its successor runs. Runs that are not running serve nobody and are
//!   replaced at once. What a version changes in place needs no replacement.
//! - Runs on a silent node are marked `unknown`, and `lost` once its time is up.

mod status;
#[cfg(test)]
mod tests;
mod verdict;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{
    ENDED_RUNS_KEPT, JobRecord, Order, RunRecord, SlotRecord, Wanted,
};
use loom_schemas::spec::{JobSpec, TaskSpec};
use loom_schemas::words::{Kind, RunState};

use crate::state::{is_live, live_runs};

pub use status::{JobStanding, status};
pub use verdict::{
    Stand, Why, failures_after, how_it_ended, pause, replicas, stand, stopped_by,
};

use verdict::{Unwanted, unwanted};

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

/// What has to change in a job's slots, at most `limit` of them.
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
    let present: HashSet<(Name, u32)> = if sums.present < sums.wanted {
        entries.iter().map(|e| (e.record.slot.task.clone(), e.record.slot.index)).collect()
    } else {
        HashSet::new()
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
        found.steps.push(Step { slot, actions: entry.actions });
    }
    if sums.present < sums.wanted && sums.failing.is_none() {
        add_missing(facts, &present, limit, &mut found);
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
        }),
        Action::Stop { reason } => each_live(record, |run| {
            if run.order == Order::Run {
                run.order = Order::Stop { reason: reason.clone() };
            }
        }),
        Action::Adopt => each_live(record, |run| run.version = facts.job.version),
        Action::Retire { failures, not_before } => {
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
    let retired = record.current.take().map(|run| RunRecord { will_restart: false, ..run });
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
        Action::Retire { failures: record.failed_placements, not_before: None }
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
        ..old.clone()
    };
    alike == *new
}

fn each_live(record: &mut SlotRecord, mut edit: impl FnMut(&mut RunRecord)) {
    record.current.iter_mut().chain(&mut record.incoming).filter(|r| is_live(r)).for_each(&mut edit);
}

/// A slot, what becomes of it, and by which actions.
struct Entry<'a> {
    record: Cow<'a, SlotRecord>,
    actions: Vec<Action>,
}

impl<'a> Entry<'a> {
    fn new(record: &'a SlotRecord) -> Self {
        Self { record: Cow::Borrowed(record), actions: Vec::new() }
    }

    fn act(&mut self, action: Action, facts: &Facts<'_>) {
        apply(&action, self.record.to_mut(), facts);
        self.actions.push(action);
    }

    fn look_at_node(&mut self, facts: &Facts<'_>) {
        let Some(run) = live_runs(&self.record).next() else { return };
        let Some(node) = &run.node else { return };
        let action = match (facts.node)(node) {
            NodeStanding::Silent if serves(run) => Action::MarkUnknown,
            NodeStanding::Up | NodeStanding::Silent => return,
            NodeStanding::Gone(reason) => loss(&self.record, run, reason),
        };
        self.act(action, facts);
    }

    fn decide(&mut self, facts: &Facts<'_>, sums: &mut Sums) {
        let unwanted = unwanted(facts.job, facts.spec, &self.record);
        let failing = || sums.failing.clone().map(Unwanted::JobStopped);
        match unwanted.or_else(failing) {
            Some(why) => self.clear(&why, facts),
            None => self.fill(facts, sums),
        }
    }

    fn clear(&mut self, why: &Unwanted, facts: &Facts<'_>) {
        let wanted_so_far = live_runs(&self.record).next().map(|run| run.order == Order::Run);
        if let Some(wanted_so_far) = wanted_so_far {
            if wanted_so_far {
                self.act(Action::Stop { reason: why.reason() }, facts);
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
        let Some(task) = facts.spec.tasks.get(&name) else { return };
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
        if self.record.not_before.is_none_or(|at| at <= facts.now) {
            self.actions.push(Action::Place);
        }
    }

    fn retirement(&self, facts: &Facts<'_>, task: &TaskSpec, why: Why) -> Action {
        let before = self.record.failed_placements;
        let Some(run) = self.record.current.as_ref() else {
            return Action::Retire { failures: before, not_before: None };
        };
        match why {
            Why::Ordered => Action::Retire { failures: 0, not_before: None },
            Why::Lost => Action::Retire { failures: before, not_before: None },
            Why::Failed => {
                let failures = failures_after(task, before, run);
                let from = run.ended_at.unwrap_or(facts.now);
                let until = from.checked_add(std::time::Duration::from(pause(task, failures)));
                // A pause that is over counts as over, whenever it is looked at.
                let not_before = until.ok().filter(|at| *at > facts.now);
                Action::Retire { failures, not_before }
            }
        }
    }

    /// A live run of another round or version.
    fn renew(&mut self, facts: &Facts<'_>, task: &TaskSpec, sums: &mut Sums) {
        let job = facts.job;
        let Some(run) = live_runs(&self.record).next() else { return };
        if run.order != Order::Run {
            return;
        }
        if run.round != job.round {
            return self.act(Action::Stop { reason: "a new round began".to_owned() }, facts);
        }
        if run.version == job.version {
            return;
        }
        let old = (facts.task_of)(&self.record.slot.task, run.version);
        if old.is_some_and(|old| same_in_place(old, task)) {
            return self.act(Action::Adopt, facts);
        }
        let blocked = sums.unsettled.entry(self.record.slot.task.clone()).or_default();
        if serves(run) {
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
struct Sums {
    /// Slots wanted in all.
    wanted: usize,
    /// Slots of those that have a record.
    present: usize,
    /// Why the whole job is over, where a slot of a batch has spent its attempts.
    failing: Option<String>,
    /// Wanted slots by task that are on their way: while there is one, no run is replaced.
    unsettled: BTreeMap<Name, usize>,
}

impl Sums {
    fn of(facts: &Facts<'_>, entries: &[Entry<'_>]) -> Self {
        let mut sums = Self::default();
        if facts.job.wanted == Wanted::Run && !facts.job.status.is_terminal() {
            let tasks = facts.spec.tasks.iter();
            sums.wanted = tasks.map(|(name, task)| replicas(facts.job, name, task) as usize).sum();
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
            let Some(task) = facts.spec.tasks.get(&record.slot.task) else { continue };
            let stand = stand(facts.job, facts.spec.kind, task, record);
            if !is_settled(stand, record) {
                *sums.unsettled.entry(record.slot.task.clone()).or_default() += 1;
            }
            if stand == Stand::Failed
                && facts.spec.kind == Kind::Batch
                && let Some(run) = &record.current
            {
                let this = (run.ended_at, format!("{} {}", record.slot, how_it_ended(run)));
                first = Some(first.map_or(this.clone(), |first| first.min(this)));
            }
        }
        sums.failing = first.map(|(_, how)| how);
        sums
    }
}

/// Whether a run does its work as far as anybody knows.
fn serves(run: &RunRecord) -> bool {
    run.state == RunState::Running && !run.marks.unknown
}

fn is_settled(stand: Stand, record: &SlotRecord) -> bool {
    match stand {
        Stand::Done | Stand::Failed => true,
        Stand::Again(_) => false,
        Stand::Live => live_runs(record).all(|run| serves(run) && run.order == Order::Run),
        // A slot that never found a node does not hold up the others: they may make room for it.
        Stand::Empty => record.ended.is_empty() && record.waiting.is_some(),
    }
}

fn add_missing(
    facts: &Facts<'_>,
    present: &HashSet<(Name, u32)>,
    limit: usize,
    found: &mut Steps,
) {
    for (name, task) in &facts.spec.tasks {
        for index in 0..replicas(facts.job, name, task) {
            let at = (name.clone(), index);
            if present.contains(&at) || facts.job.stopped_slots.contains(&at) {
                continue;
            }
            if found.steps.len() == limit {
                found.more = true;
                return;
            }
            let slot = Slot::new(facts.job.name.clone(), at.0, index);
            found.steps.push(Step { slot, actions: vec![Action::Place] });
        }
    }
}
