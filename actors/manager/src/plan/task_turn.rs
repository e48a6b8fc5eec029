//! The slots of one task while they are placed, and what is put in them.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use loom_schemas::event::{About, Event};
use loom_schemas::ids::{Index, Name, RunId, Slot};
use loom_schemas::record::{JobRecord, Marks, Order, RunRecord, Seldom, SlotRecord};
use loom_schemas::spec::{JobSpec, Resources, TaskSpec};
use loom_schemas::words::{RunState, Strategy};

use super::failures;
use crate::scheduler::{Affinities, Request, Siblings};
use crate::state::{Draft, State, live_runs};

/// What the slots of one task share while they are placed.
pub(super) struct TaskTurn {
    /// What a slot needs that has nothing of its own, once it was asked for.
    request: Option<Request>,
    /// How nodes are ranked, where the job says.
    pub(super) strategy: Option<Strategy>,
    /// What speaks for nodes and against them, once that was asked for.
    affinities: Option<Affinities>,
    pub(super) siblings: Siblings,
    /// Where it failed lately, and how often.
    failed: Vec<(Name, u8)>,
    first_waiting: Option<Slot>,
    /// What was refused because of the replicas there are: none of them goes in this pass.
    pub(super) refused: HashMap<Request, String>,
    /// Until when those of its slots that wait already, and ask for nothing of their own, wait on: one
    /// like them was refused, and nobody can be evicted for it.
    pub(super) refused_until: Option<u32>,
    /// Why its job may make no other job now, where its replicas are jobs.
    pub(super) full: Option<String>,
}

impl TaskTurn {
    pub(super) fn of(state: &State, job: &JobRecord, name: &Name, now: Timestamp) -> Self {
        let slots = || state.slots_of_task(&job.name, name).map(AsRef::as_ref);
        let mut turn = Self {
            request: None,
            strategy: state.spec(job).and_then(|spec| spec.strategy),
            affinities: None,
            siblings: Siblings::default(),
            failed: failures::of_task(slots(), now),
            first_waiting: None,
            refused: HashMap::new(),
            refused_until: None,
            full: None,
        };
        for record in slots() {
            for node in live_runs(record).filter_map(|run| run.node.as_ref()) {
                turn.siblings.add(node);
            }
        }
        turn
    }

    /// Where a slot of it would better not go, and how often it or another failed there.
    pub(super) fn failed_for(&self, record: &SlotRecord, now: Timestamp) -> Vec<(Name, u8)> {
        let mut failed = self.failed.clone();
        failed.extend(failures::last_of_slot(record, now).map(|node| (node.clone(), 1)));
        failed
    }

    /// What the slot of this index needs.
    pub(super) fn request_of(&mut self, job: &JobSpec, task: &TaskSpec, index: &Index) -> Request {
        if task.has_own(index) {
            return Request::of_slot(job, task, index);
        }
        let request = &mut self.request;
        request
            .get_or_insert_with(|| Request::of_slot(job, task, index))
            .clone()
    }

    /// What speaks for nodes and against them; the same for all slots.
    pub(super) fn affinities_of(&mut self, task: &TaskSpec) -> Affinities {
        let affinities = &mut self.affinities;
        let affinities = affinities.get_or_insert_with(|| Affinities::of(task));
        affinities.clone()
    }

    /// Writes down why a slot waits: in words for the first of a task, empty for those after it,
    /// which wait for the same (a view fills them in), so that one new count is one new record.
    pub(super) fn wait(
        &mut self,
        draft: &mut Draft,
        now: Timestamp,
        record: &mut SlotRecord,
        why: String,
    ) {
        if record.waiting.is_none() {
            let about = About::Task {
                job: record.slot.job.clone(),
                task: record.slot.task.clone(),
                index: record.slot.index.clone(),
            };
            let mut event = Event::new(now, about, RunState::Pending.as_str());
            event.reason = Some(why.clone());
            draft.event(event);
        }
        // On a node of its own, or where room is made for it, each waits for something of its own.
        if record.slot.index.node().is_some() || record.claim.is_some() {
            record.waiting = Some(why);
            return;
        }
        let first = self
            .first_waiting
            .get_or_insert_with(|| record.slot.clone());
        record.waiting = Some(if *first == record.slot {
            why
        } else {
            String::new()
        });
    }
}

/// A slot nothing was ever in.
pub fn empty_slot(slot: Slot) -> SlotRecord {
    SlotRecord {
        slot,
        version: 0,
        current: None,
        incoming: Seldom::NONE,
        ended: Vec::new(),
        failed_placements: 0,
        not_before: None,
        waiting: None,
        claim: Seldom::NONE,
        reservation: Seldom::NONE,
    }
}

/// The first run of a new placement of a job's wanted version, not yet on a node.
pub fn new_run(job: &JobRecord, run: RunId, reserved: Resources, now: Timestamp) -> RunRecord {
    RunRecord {
        run,
        placement: run,
        version: job.version,
        round: job.round,
        node: None,
        decision: None,
        state: RunState::Scheduled,
        marks: Marks::default(),
        health: None,
        order: Order::Run,
        evicted_for: Seldom::NONE,
        reserved,
        ports: BTreeMap::new(),
        gpus: Seldom::NONE,
        restarts: 0,
        will_restart: false,
        restart_orders: 0,
        resize: None,
        pid: None,
        image: None,
        exit: None,
        reason: None,
        unenforced: Vec::new(),
        child: None,
        filled: BTreeMap::new(),
        result: None,
        created_at: now,
        placed_at: now,
        started_at: None,
        ended_at: None,
        change: 0,
    }
}
