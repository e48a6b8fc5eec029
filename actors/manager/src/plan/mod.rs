//! The plan: reconcile and place for the jobs of which something changed, as edits of a draft.
//!
//! The work of one pass is bounded; what is left stays marked and is taken up by the next pass. So
//! is the cost: it follows what changed, not what there is.

mod assign;
mod blocked;
mod diff;
mod parts;
mod place;
mod preview;
mod settle;
mod silent;
mod task_plan;
mod task_turn;
#[cfg(test)]
mod tests;
mod update;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::event::Event;
use loom_schemas::ids::{Name, Revision, RunId};
use loom_schemas::record::{JobRecord, NodeStatus, SlotRecord};
use loom_schemas::spec::PRIORITY;
use loom_schemas::words::{RunState, Strategy};

use crate::depend::{Gates, decided_by};
use crate::reconcile::{Action, Facts, NodeStanding, Step, apply, reconcile};
use crate::schedule;
use crate::scheduler::{Cluster, Request};
use crate::state::{Draft, Key, State, is_live, run_event};
use crate::subjob;
use crate::system::{self, may_run_on};

pub(crate) use assign::results;
pub use assign::{assigned, assignment, is_assigned, unwanted, whole_assignment};
pub use parts::{PART_BYTES, parts};
pub use preview::preview;
pub use silent::deadlines;
pub use task_turn::{empty_slot, new_run};

use settle::settle_job;
use task_turn::TaskTurn;

/// How planning goes about it.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// How nodes that fit are ranked.
    pub strategy: Strategy,
    /// How long after a node went down its runs are lost.
    pub lost_after: Duration,
    /// At most so many slots are changed in one pass.
    pub slots: usize,
    /// The last entry of the log in the state that is planned on.
    pub revision: Revision,
}

/// What a pass left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Whether another pass has work at once.
    pub more: bool,
    /// When the next pass has work by the clock alone.
    pub due: Option<Timestamp>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            lost_after: Duration::from_secs(30),
            slots: 1000,
            revision: Revision::default(),
        }
    }
}

/// Plans every job of which something changed; the edits and events are in the draft.
pub fn plan(
    draft: &mut Draft,
    now: Timestamp,
    options: &PlanOptions,
    ids: &mut dyn FnMut() -> RunId,
) -> Planned {
    let mut cluster = Cluster::empty(options.strategy);
    plan_on(&mut cluster, draft, now, options, ids)
}

/// The same with nodes that are kept from pass to pass, whatever became of the passes before.
pub fn plan_on(
    cluster: &mut Cluster,
    draft: &mut Draft,
    now: Timestamp,
    options: &PlanOptions,
    ids: &mut dyn FnMut() -> RunId,
) -> Planned {
    let lost_at = deadlines(draft.state(), options.lost_after);
    schedule::fire(draft, now);
    wake(draft, now, &lost_at);
    let jobs = by_priority(draft.state());
    // Every job gets a share, so that a large one does not keep the others waiting.
    let share = (options.slots / jobs.len().clamp(1, 8)).max(1);
    let mut pass = Pass::new(cluster, now, options, &lost_at, ids);
    pass.left = options.slots.max(1);
    let mut unfinished = None;
    for (priority, job) in jobs {
        // What was left of a job is not to find its room taken by one that comes after it.
        if pass.left == 0 || unfinished.is_some_and(|first| first > priority) {
            break;
        }
        let limit = share.min(pass.left);
        if pass.plan_job(draft, &job, limit) {
            unfinished = unfinished.or(Some(priority));
        } else {
            draft.state_mut().mark_clean(&job);
        }
    }
    pass.keep_turn(draft);
    let state = draft.state();
    let lost = lost_at
        .iter()
        .filter(|(node, at)| **at > now && state.load(node).is_some());
    let due = lost
        .map(|(_, at)| *at)
        .chain(state.next_delay(now))
        .chain(state.next_due(now))
        .chain(state.next_firing(now))
        .min();
    Planned {
        more: state.dirty().next().is_some(),
        due,
    }
}

/// Plans one job alone, whole.
fn plan_job(
    draft: &mut Draft,
    job: &Name,
    now: Timestamp,
    options: &PlanOptions,
    ids: &mut dyn FnMut() -> RunId,
) {
    let lost_at = deadlines(draft.state(), options.lost_after);
    let mut cluster = Cluster::empty(options.strategy);
    let mut pass = Pass::new(&mut cluster, now, options, &lost_at, ids);
    // The second turn sees what waits since the first.
    for _ in 0..2 {
        if !pass.plan_job(draft, job, usize::MAX) {
            break;
        }
    }
}

/// The jobs of which something changed with their priorities, the highest first.
fn by_priority(state: &State) -> Vec<(u8, Name)> {
    let priority = |name: &Name| {
        let spec = state.job(name).and_then(|job| state.spec(job));
        spec.map_or(PRIORITY, |spec| spec.priority)
    };
    let jobs = state.dirty().map(|name| (priority(name), name.clone()));
    let mut jobs: Vec<(u8, Name)> = jobs.collect();
    // Equals stay in the order of their names.
    jobs.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    jobs
}

/// Marks the jobs that the clock or free capacity gives something to do.
fn wake(draft: &mut Draft, now: Timestamp, lost_at: &BTreeMap<Name, Timestamp>) {
    let state = draft.state();
    let mut jobs: Vec<Name> = state.delay_over(now).map(|slot| slot.job.clone()).collect();
    jobs.extend(state.due(now).cloned());
    for (node, _) in lost_at.iter().filter(|(_, at)| **at <= now) {
        let placements = state
            .load(node)
            .into_iter()
            .flat_map(|load| load.placements.values());
        jobs.extend(placements.map(|slot| slot.job.clone()));
    }
    if state.waiting_may_fit() {
        jobs.extend(state.waiting().map(|slot| slot.job.clone()));
    }
    let state = draft.state_mut();
    state.mark_waiting_tried();
    jobs.dedup();
    for job in &jobs {
        state.mark_dirty(job);
    }
}

/// One pass over the jobs of which something changed.
struct Pass<'a> {
    now: Timestamp,
    options: &'a PlanOptions,
    lost_at: &'a BTreeMap<Name, Timestamp>,
    ids: &'a mut dyn FnMut() -> RunId,
    cluster: &'a mut Cluster,
    /// Whether the cluster follows this pass: from the first run that is placed on.
    follows: bool,
    /// What was refused in this pass: nothing becomes free in it, so it is not tried again.
    refused: HashMap<Request, String>,
    left: usize,
}

impl<'a> Pass<'a> {
    /// A pass that may change any number of slots.
    fn new(
        cluster: &'a mut Cluster,
        now: Timestamp,
        options: &'a PlanOptions,
        lost_at: &'a BTreeMap<Name, Timestamp>,
        ids: &'a mut dyn FnMut() -> RunId,
    ) -> Self {
        Self {
            now,
            options,
            lost_at,
            ids,
            cluster,
            follows: false,
            refused: HashMap::new(),
            left: usize::MAX,
        }
    }

    /// Something became free: what the nodes have left is looked at anew.
    fn look_anew(&mut self) {
        self.follows = false;
        self.refused.clear();
    }

    /// Whether more is to be done for the job than was allowed.
    fn plan_job(&mut self, draft: &mut Draft, name: &Name, limit: usize) -> bool {
        schedule::settle(draft, name, self.now);
        subjob::mirror(draft, name, self.now);
        let more = system::follow(draft, name, limit) > limit;
        let before = draft.state().clone();
        let Some(job) = before.job(name) else {
            return false;
        };
        let Some(version) = before.version(name, job.version) else {
            return false;
        };
        let (now, lost_at) = (self.now, self.lost_at);
        let standing = |node: &Name| node_standing(&before, node, lost_at, now);
        let kept = |version: u32| Some(&before.version(name, version)?.spec);
        let belongs = |node: &Name| may_run_on(&before, &version.spec, node);
        let gates = Gates::of(&before, job, &version.spec);
        let waits = |task: &Name| gates.is_closed(task);
        let facts = Facts {
            job,
            spec: &version.spec,
            version: &kept,
            node: &standing,
            belongs: &belongs,
            waits: &waits,
            now,
        };
        let found = reconcile(&facts, before.slots_of(name).map(AsRef::as_ref), limit);
        draft.state_mut().set_due(name, found.due);
        let mut job = JobRecord::clone(job);
        if found.healthy {
            job.healthy.insert(job.version);
        }
        if let Some(change) = &found.update
            && update::carry_out(draft, &mut job, change, now)
        {
            // Another version is wanted now.
            return true;
        }
        let mut turns: BTreeMap<(Name, u32), TaskTurn> = BTreeMap::new();
        // What turns out to wait does not hold up others any more: they are looked at once more.
        let mut more = more || found.more;
        let mut changed = 0;
        for step in found.steps {
            if changed == limit {
                more = true;
                break;
            }
            let slot = step.slot.clone();
            let earlier = draft.state().slot(&slot).cloned();
            more |= self.carry_out(draft, &facts, step, &mut turns);
            changed += usize::from(draft.state().slot(&slot) != earlier.as_ref());
        }
        self.left -= changed.min(self.left);
        // What was ordered to end just now ends with its job.
        subjob::mirror(draft, name, now);
        settle_job(draft, &job, version, &gates, now);
        for waiting in decided_by(draft.state(), name) {
            draft.state_mut().mark_dirty(&waiting);
        }
        // A run that was given up just now leaves a slot that its node does not need.
        more || system::follow(draft, name, limit) > 0
    }

    /// True if the job has to be looked at once more: the slot waits for a node and did not before,
    /// or its run has ended already.
    fn carry_out(
        &mut self,
        draft: &mut Draft,
        facts: &Facts<'_>,
        step: Step,
        turns: &mut BTreeMap<(Name, u32), TaskTurn>,
    ) -> bool {
        let slot = step.slot;
        let mut record = match draft.state().slot(&slot) {
            Some(record) => SlotRecord::clone(record),
            None => empty_slot(slot),
        };
        let waited = record.waiting.is_some();
        let mut is_over = false;
        for action in &step.actions {
            match action {
                Action::Remove => {
                    draft.delete(Key::Slot(record.slot));
                    return false;
                }
                Action::Place | Action::PlaceIncoming => {
                    if let Some(run) = self.place(draft, facts, &mut record, turns) {
                        is_over = !is_live(&run);
                        match action {
                            Action::Place => record.current = Some(run),
                            _ => record.incoming = Some(run).into(),
                        }
                    }
                }
                _ => {
                    apply(action, &mut record, facts);
                    if let Some(event) = event_of(action, &record, facts.now) {
                        draft.event(event);
                    }
                }
            }
        }
        let waits = record.waiting.is_some() && !waited;
        draft.put_slot(record);
        waits || is_over
    }
}

fn event_of(action: &Action, record: &SlotRecord, now: Timestamp) -> Option<Event> {
    match action {
        Action::MarkUnknown(placement) => {
            let run = record.placed(*placement)?;
            let mut event = run_event(now, &record.slot, run, "unknown");
            event.reason = Some("its node is silent".to_owned());
            Some(event)
        }
        Action::Lose { placement, .. } => {
            let run = record.placed(*placement)?;
            let lost = RunState::Lost.as_str();
            Some(run_event(now, &record.slot, run, lost))
        }
        _ => None,
    }
}

fn node_standing(
    state: &State,
    node: &Name,
    lost_at: &BTreeMap<Name, Timestamp>,
    now: Timestamp,
) -> NodeStanding {
    match state.node(node) {
        None => NodeStanding::Gone(format!("node {node} is not known")),
        Some(record) if record.status == NodeStatus::Up => NodeStanding::Up,
        Some(record) if record.lost => {
            let why = record.reason.as_deref().unwrap_or("somebody said so");
            NodeStanding::Gone(format!("node {node} is lost: {why}"))
        }
        Some(record) if lost_at.get(node).is_some_and(|at| *at <= now) => {
            NodeStanding::Gone(format!("node {node} is down since {:.0}", record.since))
        }
        Some(_) => NodeStanding::Silent,
    }
}
