//! The plan: reconcile and place for the jobs of which something changed, as edits of a draft.
//!
//! The work of one pass is bounded; what is left stays marked and is taken up by the next pass. So
//! is the cost: it follows what changed, not what there is.

mod assign;
mod backfill;
mod blocked;
mod crowded;
mod diff;
mod ends;
mod evict;
mod failures;
mod gang;
mod job_turn;
mod leaving;
mod order;
mod outside;
mod parts;
mod place;
mod preview;
mod rebalance;
mod relocate;
mod reserve;
mod settle;
mod silent;
mod task_plan;
mod task_turn;
#[cfg(test)]
mod tests;
mod update;
mod ways;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use imbl::OrdMap;
use jiff::Timestamp;
use loom_schemas::ids::{Name, Revision, RunId};
use loom_schemas::record::NodeStatus;
use loom_schemas::words::Strategy;

use crate::reconcile::NodeStanding;
use crate::schedule;
use crate::scheduler::{Apartness, Cluster, Request, Smoothed};
use crate::state::{Draft, State};

pub(crate) use assign::results;
pub use assign::{assigned, assignment, is_assigned, unwanted, whole_assignment};
pub(crate) use backfill::kept;
pub use parts::{PART_BYTES, parts};
pub use preview::preview;
pub use rebalance::{Found, LOOKS, Search, begin, find, progress, stop};
pub use silent::deadlines;
pub use task_turn::{empty_slot, new_run};

use evict::Evictable;
use order::Order;
use ways::Ways;

/// How planning goes about it.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// How nodes that fit are ranked.
    pub strategy: Strategy,
    /// How long after a node went down its runs are lost.
    pub lost_after: Duration,
    /// Since when this manager leads, until nodes have had as long to say what ended before.
    pub unheard_before: Option<Timestamp>,
    /// At most so many slots are changed in one pass.
    pub slots: usize,
    /// The last entry of the log in the state that is planned on.
    pub revision: Revision,
    /// The cores that are in use on nodes, as they said.
    pub measured: OrdMap<Name, Smoothed>,
}

/// What a pass left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Whether another pass has work at once.
    pub more: bool,
    /// When the next pass has work by the clock alone.
    pub due: Option<Timestamp>,
    /// How many jobs were looked at.
    pub jobs: usize,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            lost_after: Duration::from_secs(30),
            unheard_before: None,
            slots: 1000,
            revision: Revision::default(),
            measured: OrdMap::new(),
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
    wake(draft, cluster, now, &lost_at);
    let order = Order::of(draft.state());
    let mut pass = Pass::new(cluster, now, options, &lost_at, ids);
    pass.left = options.slots.max(1);
    for job in order.unwanted.iter().chain(&order.begun) {
        if pass.left > 0 && !pass.plan_job(draft, job, pass.left) {
            draft.state_mut().mark_clean(job);
        }
    }
    for owners in order.wanted.into_values() {
        // What is left of these is not to find its room taken by those that come after them.
        if pass.left == 0 || pass.plan_equals(draft, owners) {
            break;
        }
    }
    let jobs = pass.jobs;
    pass.keep_turn(draft);
    leaving::finish(draft, now);
    rebalance::go_on(draft, now);
    schedule::fire(draft, options.unheard_before, now);
    let state = draft.state();
    let lost = lost_at
        .iter()
        .filter(|(node, at)| **at > now && state.load(node).is_some());
    let due = lost
        .map(|(_, at)| *at)
        .chain(state.next_delay(now))
        .chain(state.next_due(now))
        .chain(state.next_firing(now))
        .chain(rebalance::due(state, now))
        .min();
    let more = state.dirty().next().is_some() || cluster.queue().looks_for_gang();
    // For a gang that waits it counts as well when room will be free.
    let is_known = cluster.queue().has_gangs() && draft.state_mut().free_ending();
    Planned {
        more: more || is_known,
        due,
        jobs,
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

/// Marks the jobs that the clock or free capacity gives something to do.
fn wake(
    draft: &mut Draft,
    cluster: &mut Cluster,
    now: Timestamp,
    lost_at: &BTreeMap<Name, Timestamp>,
) {
    let queue = cluster.queue();
    queue.follow(draft.state().waiting_slots());
    if queue.has_gangs() {
        draft.state_mut().free_ending();
    }
    let state = draft.state();
    let mut jobs: BTreeSet<Name> = state.delay_over(now).map(|slot| slot.job.clone()).collect();
    jobs.extend(state.due(now).cloned());
    jobs.extend(leaving::left_alone(state));
    for (node, _) in lost_at.iter().filter(|(_, at)| **at <= now) {
        let placements = state
            .load(node)
            .into_iter()
            .flat_map(|load| load.placements.values());
        jobs.extend(placements.map(|slot| slot.job.clone()));
    }
    if state.waiting_may_fit() {
        jobs.extend(queue.unknown());
        let mut apart = Apartness::of(state);
        for node in state.freed().filter_map(|node| state.node(node)) {
            let room_for = |rank| evict::room_for(state, node, rank, now);
            queue.woken_by(node, &room_for, &mut apart, &mut jobs);
            // Room is made here for these.
            let claims = state.load(&node.name).into_iter();
            let claims = claims.flat_map(|load| load.claims.keys());
            jobs.extend(claims.map(|slot| slot.job.clone()));
        }
    }
    let waits = |job: &Name, task: &Name| {
        let mut slots = state.slots_of_task(job, task);
        slots.any(|slot| slot.waiting.is_some())
    };
    jobs.extend(queue.next_gang(state.reserved().is_some(), waits));
    let state = draft.state_mut();
    state.mark_waiting_tried();
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
    /// The node that `round-robin` chose last in this pass.
    turn: Option<Name>,
    /// What was refused in this pass: nothing becomes free in it, so it is not tried again.
    refused: HashMap<Request, String>,
    /// Those of which no eviction makes room for a priority, in this pass.
    hopeless: HashSet<(Request, u8)>,
    /// Who may be evicted, once somebody asked.
    evictable: Option<Evictable>,
    /// How, for those of a request and priority.
    ways: HashMap<(Request, u8), Ways>,
    /// How often something became free.
    looks: u32,
    left: usize,
    /// How many jobs were looked at.
    jobs: usize,
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
            turn: None,
            refused: HashMap::new(),
            hopeless: HashSet::new(),
            evictable: None,
            ways: HashMap::new(),
            looks: 0,
            left: usize::MAX,
            jobs: 0,
        }
    }

    /// Something became free: what the nodes have left is looked at anew.
    fn look_anew(&mut self) {
        self.looks += 1;
        self.follows = false;
        self.refused.clear();
        self.hopeless.clear();
        self.evictable = None;
        self.ways.clear();
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
