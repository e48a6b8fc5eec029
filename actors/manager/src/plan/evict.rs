//! Room that is made for a slot which finds none: others of a priority lower by ten or more are told
//! to end, and what they leave is kept free for it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{
    Claim, Gpu, NodeRecord, NodeStatus, Order, RunRecord, Seldom, SlotRecord,
};
use loom_schemas::spec::{Resources, TaskSpec};

use super::Pass;
use super::ends::end_of;
use super::order::priority_of;
use super::ways::Ways;
use crate::reconcile::Facts;
use crate::scheduler::{Apartness, Candidate, Rank, Request, Room, Sacrifice, fits, least_evicted};
use crate::state::{Draft, Load, State, live_runs, run_event};

/// How much higher a priority has to be to evict.
const MARGIN: u8 = 10;

/// The runs that may be evicted, by node, each node's in the order of their rank.
pub(super) struct Evictable {
    /// Of jobs of at most this priority.
    up_to: u8,
    by_node: BTreeMap<Name, Vec<Candidate>>,
}

/// A node on which room can be made.
pub(super) struct Way {
    pub(super) sacrifice: Sacrifice,
    pub(super) node: Name,
    evicted: Vec<Candidate>,
    /// Placements there that are ending anyway.
    ending: BTreeMap<RunId, Resources>,
    /// Slots of lower priority for which room was being made there.
    displaced: Vec<Slot>,
}

impl Evictable {
    /// Those of jobs of at most this priority.
    fn of(state: &State, up_to: u8) -> Self {
        let mut by_node: BTreeMap<Name, Vec<Candidate>> = BTreeMap::new();
        for (priority, job) in state.jobs_up_to(up_to) {
            for record in state.slots_of(job) {
                let slot = Arc::new(record.slot.clone());
                for run in live_runs(record).filter(|run| run.order == Order::Run) {
                    let Some(node) = &run.node else { continue };
                    let candidate = Candidate::of(slot.clone(), run, priority);
                    by_node.entry(node.clone()).or_default().push(candidate);
                }
            }
        }
        for candidates in by_node.values_mut() {
            candidates.sort_by_key(Candidate::rank);
        }
        Self { up_to, by_node }
    }
}

impl Pass<'_> {
    /// Makes room for a slot that fits no node, if others may be evicted for it; the room that is
    /// kept for it from then on.
    pub(super) fn make_room(
        &mut self,
        draft: &mut Draft,
        facts: &Facts<'_>,
        record: &SlotRecord,
        task: &TaskSpec,
        request: &Request,
    ) -> Option<Claim> {
        let priority = facts.spec.priority;
        let up_to = priority.checked_sub(MARGIN)?;
        draft.state().jobs_up_to(up_to).next()?;
        let key = (request.clone(), priority);
        let only = record.slot.index.node();
        // Where replicas have to be apart, what there is for one is not for another.
        let for_all = only.is_none() && request.apart.is_empty();
        if for_all && self.hopeless.contains(&key) {
            return None;
        }
        let (state, slot) = (draft.state(), &record.slot);
        // Those of higher priorities mostly ask first: who may be evicted for the others is among these.
        let known = self.evictable.take();
        let evictable = known.filter(|known| known.up_to >= up_to);
        let evictable = evictable.unwrap_or_else(|| Evictable::of(state, up_to));
        let evictable = self.evictable.insert(evictable);
        let way = |node: &Arc<NodeRecord>| {
            let candidates = evictable.by_node.get(&node.name);
            let candidates = candidates.map_or(&[][..], Vec::as_slice);
            let up = node.status == NodeStatus::Up;
            let found = || way(state, node, candidates, slot, (priority, up_to), request);
            up.then(found).flatten()
        };
        // Room that is being made for it already counts otherwise for it than for its like.
        let is_like = for_all && state.slot(slot).is_none_or(|slot| slot.claim.is_none());
        let best = if is_like {
            match self.ways.entry(key.clone()) {
                Entry::Vacant(new) => new.insert(Ways::of(state, &way)).take(),
                Entry::Occupied(known) => known.into_mut().take_of(state, &way),
            }
        } else {
            let mut apart = Apartness::with_claims(state);
            let asked = |node: &&Arc<NodeRecord>| only.is_none_or(|only| *only == node.name);
            let nodes = state.nodes().filter(asked);
            let nodes: Vec<_> = nodes
                .filter(|node| apart.allows(request, slot, node))
                .collect();
            let ways = nodes.into_iter().filter_map(way);
            ways.min_by(|a, b| (&a.sacrifice, &a.node).cmp(&(&b.sacrifice, &b.node)))
        };
        let Some(best) = best else {
            if for_all {
                self.hopeless.insert(key);
            }
            return None;
        };
        if let Some(left) = evictable.by_node.get_mut(&best.node) {
            left.retain(|run| {
                !best
                    .evicted
                    .iter()
                    .any(|gone| gone.placement == run.placement)
            });
        }
        self.follows = false;
        Some(carry_out(draft, facts, record, task, best))
    }
}

/// The nodes on which the other replicas of a slot's task are, or are to be, one for each.
pub(super) fn others(state: &State, slot: &Slot) -> Vec<Arc<NodeRecord>> {
    let replicas = state.slots_of_task(&slot.job, &slot.task);
    let nodes = replicas
        .filter(|other| other.slot != *slot)
        .flat_map(|other| {
            let runs = live_runs(other).filter_map(|run| run.node.as_ref());
            runs.chain(other.claim.as_ref().map(|claim| &claim.node))
        });
    nodes.filter_map(|node| state.node(node).cloned()).collect()
}

/// Whether the room that is being made for a slot will do once those that are ending have ended.
pub(super) fn will_do(state: &State, slot: &Slot, claim: &Claim, request: &Request) -> bool {
    let Some((node, load)) = state.node(&claim.node).zip(state.load(&claim.node)) else {
        return false;
    };
    let awaited = |placement: &&RunId| load.placements.contains_key(*placement);
    let ending: BTreeSet<RunId> = claim.awaits.keys().filter(awaited).copied().collect();
    let room = Room::keeping(node, Some(load), |other| other != slot);
    let room = without(state, load, room, &ending);
    !ending.is_empty() && fits(&room, request).is_ok()
}

/// A room once some of its placements have ended.
fn without(state: &State, load: &Load, mut room: Room, ended: &BTreeSet<RunId>) -> Room {
    for run in runs_of(state, load).filter(|(_, run)| ended.contains(&run.placement)) {
        room.give_up(run.1);
    }
    room
}

fn runs_of<'a>(
    state: &'a State,
    load: &'a Load,
) -> impl Iterator<Item = (&'a Arc<Slot>, &'a RunRecord)> {
    load.placements.iter().filter_map(|(placement, slot)| {
        let mut runs = live_runs(state.slot(slot)?);
        Some((slot, runs.find(|run| run.placement == *placement)?))
    })
}

/// What a node may have left for those of a rank, once all that may be evicted for it is gone.
pub(super) fn room_for(state: &State, node: &Arc<NodeRecord>, rank: Rank, now: Timestamp) -> Room {
    let load = state.load(&node.name);
    // Room that is kept for a gang is for those above it, and for whoever may use it meanwhile; what is
    // made for one that is lower can be taken from it, but not by a gang, which evicts nobody.
    let reserved = state.reserved().map(|holder| &holder.slot);
    let is_lower = |slot: &Slot| priority_of(state, &slot.job) < rank.priority;
    let respected = |slot: &Slot| {
        if reserved == Some(slot) {
            !rank.borrows && !is_lower(slot)
        } else {
            rank.gang || !is_lower(slot)
        }
    };
    let mut room = Room::keeping(node, load, respected);
    if rank.gang {
        // A gang evicts nobody; but it may be known from now on when a member fits here.
        for (slot, run) in load.into_iter().flat_map(|load| runs_of(state, load)) {
            let record = state.slot(slot);
            if record.is_some_and(|record| end_of(state, record, run, now).is_some()) {
                room.give_up(run);
            }
        }
        return room;
    }
    let (Some(load), Some(up_to)) = (load, rank.priority.checked_sub(MARGIN)) else {
        return room;
    };
    if state.jobs_up_to(up_to).next().is_none() {
        return room;
    }
    for (slot, run) in runs_of(state, load) {
        if priority_of(state, &slot.job) <= up_to {
            room.give_up(run);
        }
    }
    room
}

/// How room can be made on a node, if it can.
fn way(
    state: &State,
    node: &Arc<NodeRecord>,
    candidates: &[Candidate],
    slot: &Slot,
    (priority, up_to): (u8, u8),
    request: &Request,
) -> Option<Way> {
    let empty = Load::default();
    let load = state.load(&node.name).unwrap_or(&empty);
    // Room is made for the higher one first, whoever came before.
    let is_lower = |other: &Slot| other != slot && priority_of(state, &other.job) < priority;
    if candidates.is_empty() && !load.claims.keys().any(is_lower) {
        return None;
    }
    let respected = |other: &Slot| other != slot && !is_lower(other);
    let promised: BTreeSet<RunId> = load
        .claims
        .iter()
        .filter(|(other, _)| respected(other))
        .flat_map(|(_, claim)| claim.awaits.keys().copied())
        .collect();
    let is_ending = |run: &RunRecord| run.order != Order::Run && !promised.contains(&run.placement);
    let ending: BTreeMap<RunId, Resources> = runs_of(state, load)
        .filter(|(_, run)| is_ending(run))
        .map(|(_, run)| (run.placement, held_by(run)))
        .collect();
    let room = Room::keeping(node, Some(load), respected);
    let room = without(state, load, room, &ending.keys().copied().collect());
    let may_go = |run: &&Candidate| run.priority <= up_to && !ending.contains_key(&run.placement);
    let candidates: Vec<Candidate> = candidates.iter().filter(may_go).cloned().collect();
    let evicted = least_evicted(&room, request, &candidates)?;
    let evicted: Vec<Candidate> = evicted
        .into_iter()
        .map(|at| candidates[at].clone())
        .collect();
    Some(Way {
        sacrifice: Sacrifice::of(&evicted),
        node: node.name.clone(),
        evicted,
        ending,
        displaced: load
            .claims
            .keys()
            .filter(|other| is_lower(other))
            .cloned()
            .collect(),
    })
}

/// Tells those that are evicted to end, and takes back what was promised to lower ones.
fn carry_out(
    draft: &mut Draft,
    facts: &Facts<'_>,
    record: &SlotRecord,
    task: &TaskSpec,
    way: Way,
) -> Claim {
    let (slot, priority) = (&record.slot, facts.spec.priority);
    for other in &way.displaced {
        if let Some(other) = draft.state().slot(other) {
            let mut other = SlotRecord::clone(other);
            other.claim = Seldom::NONE;
            let claims = other.reservation.take().unwrap_or_default();
            let claims = claims.into_iter().filter(|claim| claim.node != way.node);
            let claims: Vec<Claim> = claims.collect();
            other.reservation = Some(claims).filter(|claims| !claims.is_empty()).into();
            draft.put_slot(other);
        }
    }
    let mut awaits = way.ending;
    for gone in &way.evicted {
        let Some(other) = draft.state().slot(&gone.slot) else {
            continue;
        };
        let mut other = SlotRecord::clone(other);
        let lower = gone.priority;
        if let Some(run) = other.placed_mut(gone.placement) {
            let reason = format!("evicted for {slot} (priority {priority}, its own is {lower})");
            run.order = Order::Stop {
                reason: reason.clone(),
            };
            run.evicted_for = Some(slot.clone()).into();
            awaits.insert(run.placement, held_by(run));
            let mut event = run_event(facts.now, &gone.slot, run, "evicted");
            event.reason = Some(reason);
            draft.event(event);
        }
        draft.put_slot(other);
    }
    let ports = task.ports.values().filter_map(|port| port.host);
    Claim {
        node: way.node,
        reserved: task.resources_of(&slot.index),
        ports: ports.collect(),
        awaits,
        evicted: way
            .evicted
            .iter()
            .map(|gone| Slot::clone(&gone.slot))
            .collect(),
        at: None,
        moves: None,
    }
}

/// What a run holds, its gpus by what they are and not by what was asked for.
fn held_by(run: &RunRecord) -> Resources {
    let gpus = Some(run.own_gpus()).filter(|gpus| !gpus.is_empty());
    Resources {
        gpus: gpus.map(|gpus| Box::new(Gpu::counts(gpus))),
        ..run.reserved.clone()
    }
}

/// What a slot waits for whose room is being made, in words.
pub(super) fn words(claim: &Claim) -> String {
    let node = &claim.node;
    let evicted: Vec<String> = claim.evicted.iter().take(3).map(Slot::to_string).collect();
    match claim.evicted.len() {
        0 => format!("room is kept for it on {node} until what ends there has ended"),
        1..=3 => format!(
            "evicts {} on {node}, and waits until it has ended",
            evicted.join(", ")
        ),
        many => format!(
            "evicts {} and {} more on {node}, and waits until they have ended",
            evicted.join(", "),
            many - 3
        ),
    }
}
