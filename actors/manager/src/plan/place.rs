//! Where the run of a slot goes, and what is put into it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{Claim, ClusterRecord, Decision, RunRecord, Seldom, SlotRecord};
use loom_schemas::spec::{Operator, SubJob, TaskSpec};
use loom_schemas::words::Strategy;

use super::ends::longest;
use super::task_turn::{TaskTurn, new_run};
use super::{Pass, backfill, evict};
use crate::reconcile::{Facts, version_of};
use crate::scheduler::{
    Cause, Cluster, Placement, Preferences, Rank, Request, Room, WhyNot, fits, noticed, seed,
};
use crate::state::{Draft, Key, State, is_live, run_event};
use crate::subjob::{self, NotMade};

/// How long until a child job is called after another second.
const NAME_PAUSE: Duration = Duration::from_secs(1);

impl Pass<'_> {
    /// Finds a node for a run of the slot's version, or writes down why there is none.
    pub(super) fn place(
        &mut self,
        draft: &mut Draft,
        facts: &Facts<'_>,
        record: &mut SlotRecord,
        turns: &mut BTreeMap<(Name, u32), TaskTurn>,
    ) -> Option<RunRecord> {
        let name = record.slot.task.clone();
        let version = match record.version {
            0 => version_of(record, facts.job),
            version => version,
        };
        let task = facts.task_at(&name, version)?;
        let turn = turns
            .entry((name.clone(), version))
            .or_insert_with(|| TaskTurn::of(draft.state(), facts.job, &name, facts.now));
        record.not_before = None;
        if let Operator::Job(sub) = &task.operator {
            let made = (version, (self.ids)());
            return start_job(draft, facts, record, (task, sub), made, turn);
        }
        let request = turn.request_of(facts.spec, task, &record.slot.index);
        let asked = (task, version, &request);
        if let ControlFlow::Break(run) = self.relocate(draft, facts, record, asked, turns) {
            return run;
        }
        let turn = turns.get_mut(&(name, version))?;
        let is_pinned = record.slot.index.node().is_some();
        let own = own_node(record).cloned();
        let refused = if request.apart.is_empty() {
            self.refused.get(&request)
        } else {
            // Other replicas are apart from others.
            turn.refused.get(&request).filter(|_| own.is_none())
        };
        let for_all = !is_pinned && record.claim.is_none();
        let refused = refused.filter(|_| for_all).cloned();
        let is_new = refused.is_none();
        let run = (self.ids)();
        self.write_use(draft);
        let state = draft.state();
        let found = match refused {
            Some(why) => Err(why),
            None => self.find_node(state, task, &request, turn, record, run),
        };
        let (run, placement, borrowed) = match found {
            Ok(placement) => (run, placement, None),
            Err(mut why) => {
                if is_new {
                    why = backfill::kept(state, &request, why);
                }
                if for_all && is_new {
                    if request.apart.is_empty() {
                        self.refused.insert(request.clone(), why.clone());
                    } else if own.is_none() {
                        turn.refused.insert(request.clone(), why.clone());
                    }
                }
                let Some((run, placement, how)) =
                    self.borrow(state, facts, task, &request, turn, record)
                else {
                    self.wait(draft, facts, record, task, (&request, why), turn);
                    if for_all && own.is_none() && !task.has_own(&record.slot.index) {
                        let in_vain = record.claim.is_none() && draft.state().reserved().is_none();
                        turn.refused_until = in_vain.then_some(self.looks);
                    }
                    return None;
                };
                (run, placement, state.reserved().cloned().zip(Some(how)))
            }
        };
        let new = self.scheduled(facts, record, task, (version, run), placement, turns);
        draft.event(run_event(facts.now, &record.slot, &new, "scheduled"));
        if let Some((holder, how)) = borrowed {
            backfill::lend(draft, &holder, how, [&new]);
        }
        Some(new)
    }

    /// The run of a slot for which a place was found.
    pub(super) fn scheduled(
        &mut self,
        facts: &Facts<'_>,
        record: &mut SlotRecord,
        task: &TaskSpec,
        (version, run): (u32, RunId),
        placement: Placement,
        turns: &mut BTreeMap<(Name, u32), TaskTurn>,
    ) -> RunRecord {
        (record.waiting, record.reservation) = (None, Seldom::NONE);
        let is_chosen = record.slot.index.node().is_none();
        if is_chosen && placement.strategy == Strategy::RoundRobin {
            self.turn = Some(placement.node.clone());
        }
        // Replicas of other versions are to be apart from it as well.
        let name = &record.slot.task;
        let of_task = (name.clone(), 0)..=(name.clone(), u32::MAX);
        let others = turns
            .range_mut(of_task)
            .filter(|((_, at), _)| *at != version);
        others.for_each(|(_, other)| other.siblings.add(&placement.node));
        let reserved = task.resources_of(&record.slot.index);
        let new = RunRecord {
            version,
            ..new_run(facts.job, run, reserved, facts.now)
        };
        self.placed(new, placement, record.claim.take())
    }

    /// A run on the node that was found for it.
    fn placed(&self, run: RunRecord, found: Placement, claim: Option<Claim>) -> RunRecord {
        let evicted = claim.filter(|claim| claim.node == found.node);
        RunRecord {
            node: Some(found.node),
            decision: Some(Box::new(Decision {
                strategy: found.strategy,
                revision: self.options.revision,
                seed: seed(run.run),
                score: found.score,
                bias: found.bias,
                runners_up: found.runners_up,
                evicted: evicted.map(|claim| claim.evicted).unwrap_or_default(),
                moved: None,
            })),
            ports: found.ports,
            gpus: Some(found.gpus).filter(|gpus| !gpus.is_empty()).into(),
            ..run
        }
    }

    /// Has a slot wait that was refused: for the room that is made for it, if any is, else for
    /// whatever may fit it.
    fn wait(
        &mut self,
        draft: &mut Draft,
        facts: &Facts<'_>,
        record: &mut SlotRecord,
        task: &TaskSpec,
        (request, why): (&Request, String),
        turn: &mut TaskTurn,
    ) {
        let claim = record.claim.take();
        let queue = self.cluster.queue();
        let rank = Rank {
            priority: facts.spec.priority,
            borrows: longest(facts.spec, task, record.failed_placements).is_some(),
            gang: false,
        };
        queue.note(&record.slot, request, rank);
        record.reservation = Seldom::NONE;
        // What was opened for it is closed again.
        self.follows &= claim.is_none();
        let claim =
            claim.filter(|claim| evict::will_do(draft.state(), &record.slot, claim, request));
        let claim = claim.or_else(|| self.make_room(draft, facts, record, task, request));
        let why = match &claim {
            Some(claim) => evict::words(claim),
            None => cannot_leave(facts, task, record, why),
        };
        record.claim = claim.into();
        turn.wait(draft, facts.now, record, why);
    }

    /// Where a run goes: to the node that its slot is of, or to the best that has room. Why not, in
    /// words, where there is none.
    pub(super) fn find_node(
        &mut self,
        state: &State,
        task: &TaskSpec,
        request: &Request,
        turn: &mut TaskTurn,
        record: &SlotRecord,
        run: RunId,
    ) -> Result<Placement, String> {
        self.follow(state);
        let cluster = &mut *self.cluster;
        if let Some(claim) = record.claim.as_ref()
            && let Some(load) = state.load(&claim.node)
        {
            cluster.open_claim(load, claim);
        }
        let placed = if let Some(node) = record.slot.index.node() {
            let placed = cluster.place_on(node, task, request, run);
            placed.map_err(|cause| format!("node {node}: {cause}"))
        } else {
            choose(cluster, (task, request), turn, record, run, self.now)
        };
        recheck(state, placed?, request, &record.slot).map_err(|why| why.to_string())
    }

    /// Has the nodes be as the state says, where they do not follow it yet.
    pub(super) fn follow(&mut self, state: &State) {
        if std::mem::replace(&mut self.follows, true) {
            return;
        }
        self.cluster.follow(state);
        // What is placed in this pass is not in the state's own word of it.
        if let Some(node) = &self.turn {
            self.cluster.turn_to(node);
        }
    }

    /// Writes down what was measured before the first choice is made from it.
    pub(super) fn write_use(&mut self, draft: &mut Draft) {
        if self.follows || !self.cluster.wants_measures(self.now) {
            return;
        }
        for (node, record) in noticed(draft.state(), &self.options.measured) {
            match record {
                Some(record) => draft.put_use(&node, record),
                None => draft.delete(Key::Use(node)),
            }
        }
    }

    /// Writes down where `round-robin` goes on.
    pub(super) fn keep_turn(&self, draft: &mut Draft) {
        let Some(turn) = &self.turn else {
            return;
        };
        let record = draft.state().cluster().cloned().unwrap_or_default();
        if record.last_placed.as_ref() != Some(turn) {
            draft.put_cluster(ClusterRecord {
                last_placed: Some(turn.clone()),
                ..record
            });
        }
    }
}

/// The best of some nodes for a run of a slot, of which its room is taken.
pub(super) fn choose(
    cluster: &mut Cluster,
    (task, request): (&TaskSpec, &Request),
    turn: &mut TaskTurn,
    record: &SlotRecord,
    run: RunId,
    now: Timestamp,
) -> Result<Placement, String> {
    let failed = turn.failed_for(record, now);
    let mut preferences = Preferences {
        strategy: turn.strategy,
        affinities: turn.affinities_of(task),
        spread: &task.spread,
        siblings: Some(&mut turn.siblings),
        failed: &failed,
        own: own_node(record),
    };
    let placed = cluster.place(task, request, run, &mut preferences);
    placed.map_err(|why| why.to_string())
}

/// Has the child job made that is a slot's run; none if it cannot be made yet.
fn start_job(
    draft: &mut Draft,
    facts: &Facts<'_>,
    record: &mut SlotRecord,
    (task, sub): (&TaskSpec, &SubJob),
    made: (u32, RunId),
    turn: &mut TaskTurn,
) -> Option<RunRecord> {
    let started = match turn.full.clone() {
        Some(why) => Err(NotMade::Full(why)),
        None => subjob::start(draft, facts.job, task, sub, &record.slot, made, facts.now),
    };
    let (new, what) = match started {
        Ok(new) => (new, "scheduled"),
        Err(NotMade::Ever(why)) => {
            let new = subjob::rejected(facts.job, made, why, facts.now);
            let state = new.state.as_str();
            (new, state)
        }
        Err(NotMade::Full(why)) => {
            turn.full = Some(why.clone());
            turn.wait(draft, facts.now, record, why);
            return None;
        }
        Err(NotMade::Yet(why)) => {
            record.not_before = facts.now.checked_add(NAME_PAUSE).ok();
            turn.wait(draft, facts.now, record, why);
            return None;
        }
    };
    draft.event(run_event(facts.now, &record.slot, &new, what));
    record.waiting = None;
    Some(new)
}

/// Why there is no place, with why one is looked for, where the slot's run has to leave its node.
fn cannot_leave(facts: &Facts<'_>, task: &TaskSpec, record: &SlotRecord, why: String) -> String {
    let leave = own_node(record).and_then(|node| (facts.leave)(node, task));
    match leave.filter(|leave| leave.from <= facts.now) {
        Some(leave) => format!("{}, but {why}", leave.reason),
        None => why,
    }
}

/// Where the slot's own run is, while another is to take over from it.
pub(super) fn own_node(record: &SlotRecord) -> Option<&Name> {
    record
        .current
        .as_ref()
        .filter(|run| is_live(run))?
        .node
        .as_ref()
}

/// Looks at the state itself before a placement is written: nothing is ever promised twice.
pub(super) fn recheck(
    state: &State,
    placed: Placement,
    request: &Request,
    slot: &Slot,
) -> Result<Placement, WhyNot> {
    let room = state
        .node(&placed.node)
        .map(|node| Room::keeping(node, state.load(&placed.node), |other| other != slot));
    match room.map_or(Err(Cause::Down), |room| fits(&room, request)) {
        Ok(()) => Ok(placed),
        Err(cause) => Err(WhyNot {
            counts: BTreeMap::from([(cause, 1)]),
        }),
    }
}
