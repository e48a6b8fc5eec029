//! When a gang that waits can start at the earliest, and the room that is kept for it from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{Claim, Seldom, SlotRecord};
use loom_schemas::spec::Resources;
use loom_schemas::words::Strategy;
use uuid::Uuid;

use super::Pass;
use super::backfill::{claims, unreserved};
use super::ends::{OVERDUE, known_end};
use super::gang::{Member, is_of, key_of, same_request};
use super::order::priority_of;
use super::place::choose;
use super::task_turn::TaskTurn;
use crate::reconcile::Facts;
use crate::scheduler::{Cluster, Outlooks, Request, Room, earliest, fits};
use crate::state::{Draft, Held, State};

/// When a gang that waits can start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// At the latest then: room is kept for it.
    At(Timestamp, Vec<Claim>),
    /// This one is before it in the queue.
    Behind(Slot),
    /// Nobody knows.
    Unknown,
    /// Not on the nodes there are, even if nothing else ran on them.
    Never,
}

impl When {
    /// The room that is kept.
    pub(super) fn claims(&self) -> Option<Vec<Claim>> {
        match self {
            Self::At(_, claims) => Some(claims.clone()),
            _ => None,
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at, _) => write!(f, "room is kept for all of it to start by {at:.0}"),
            Self::Behind(slot) => write!(f, "gang {}/{} is before it", slot.job, slot.task),
            Self::Unknown => f.write_str(
                "nobody knows when all fit, for runs without a time limit are in their way",
            ),
            Self::Never => f.write_str("not all fit the nodes there are, even if nothing else ran"),
        }
    }
}

/// What a gang is tried on that is not there yet.
struct Ahead<'a, 'f> {
    facts: &'a Facts<'f>,
    name: &'a Name,
    members: &'a [Member],
    state: &'a State,
    strategy: Strategy,
}

impl Pass<'_> {
    /// Looks when a gang can start, and whether room is to be kept for it: for the first in the queue
    /// of which that is known.
    pub(super) fn reserve(
        &mut self,
        draft: &mut Draft,
        facts: &Facts<'_>,
        name: &Name,
        members: &[Member],
    ) -> When {
        let holder = draft.state().reserved().cloned();
        let other = holder
            .as_ref()
            .filter(|holder| !is_of(&holder.slot, facts.job, name));
        if let Some(other) = other
            && is_before(draft.state(), &other.slot, facts, name)
        {
            return When::Behind(other.slot.clone());
        }
        let state = match &holder {
            Some(holder) => unreserved(draft.state(), holder),
            None => draft.state().clone(),
        };
        let ahead = Ahead {
            facts,
            name,
            members,
            state: &state,
            strategy: self.options.strategy,
        };
        let own = holder.as_ref().filter(|_| other.is_none());
        let kept = own.and_then(|own| own.reservation.as_ref());
        let promised = kept.and_then(|kept| ahead.as_promised(kept));
        let looks = self.cluster.outlooks();
        let when = match (ahead.when(looks, promised), promised) {
            // What is late by a moment is no reason to let others come between.
            (When::At(at, claims), Some(promised)) if at <= promised => When::At(at, claims),
            (_, Some(promised)) => When::At(promised, kept.cloned().unwrap_or_default()),
            (when, None) => when,
        };
        if let (Some(other), When::At(..)) = (other, &when) {
            draft.put_slot(SlotRecord {
                reservation: Seldom::NONE,
                ..SlotRecord::clone(other)
            });
        }
        when
    }
}

/// Whether the gang of a slot is before another one in the queue.
pub(super) fn is_before(state: &State, slot: &Slot, facts: &Facts<'_>, name: &Name) -> bool {
    let Some(job) = state.job(&slot.job) else {
        return false;
    };
    let other = key_of(job, priority_of(state, &slot.job), &slot.task);
    other < key_of(facts.job, facts.spec.priority, name)
}

impl Ahead<'_, '_> {
    /// When they can start; unknown where that is no sooner than was promised.
    fn when(&self, looks: &mut Outlooks, promised: Option<Timestamp>) -> When {
        let (state, now, all) = (self.state, self.facts.now, self.members.len());
        looks.follow(state, now, &|record, run| {
            known_end(state, record, run, now)
        });
        let found = match same_request(self.members) {
            Some(request) => {
                let at = looks.earliest(request, all);
                let sooner = at.filter(|at| promised.is_none_or(|promised| *at < promised));
                if sooner.is_none() && promised.is_some() {
                    // What is kept will do.
                    return When::Unknown;
                }
                sooner.and_then(|at| Some((at, self.places_at(looks, at)?)))
            }
            None => earliest(&looks.times(), |at| self.places_at(looks, at)),
        };
        let Some((at, nodes)) = found else {
            let empty = || {
                let nodes = state.nodes();
                nodes.map(|node| (node.name.clone(), Room::of(node, None)))
            };
            let fit = || self.places(empty().collect()).is_some();
            let ever = match same_request(self.members) {
                Some(request) => looks.fit_ever(request, all, fit),
                None => fit(),
            };
            return if ever { When::Unknown } else { When::Never };
        };
        let ending = |node: &Name| -> Vec<(RunId, Resources)> {
            let ended = looks.ended(node, at);
            ended
                .map(|run| (run.placement, run.reserved.clone()))
                .collect()
        };
        let members = nodes.iter().zip(self.members).map(|(node, member)| {
            let ports: BTreeSet<u16> = member.request.fixed_ports.iter().copied().collect();
            (node, self.reserved(member), ports)
        });
        When::At(at, claims(members, at, ending))
    }

    /// The node of each member at a time; none if not all fit then.
    fn places_at(&self, looks: &Outlooks, at: Timestamp) -> Option<Vec<Name>> {
        let rooms = self.state.nodes().map(|node| {
            let mut room = Room::of(node, self.state.load(&node.name));
            looks
                .ended(&node.name, at)
                .for_each(|run| room.give_up(run));
            (node.name.clone(), room)
        });
        self.places(rooms.collect())
    }

    /// The time for which these claims were made, if all still fits then.
    fn as_promised(&self, kept: &[Claim]) -> Option<Timestamp> {
        let at = kept.first()?.at?;
        let is_late = at.checked_add(OVERDUE).ok()? <= self.facts.now;
        let request = &self.members.first()?.request;
        let will_do = |claim: &Claim| {
            let Some(node) = self.state.node(&claim.node) else {
                return false;
            };
            let load = self.state.load(&claim.node);
            let mut room = Room::of(node, load);
            for (placement, slot) in load.into_iter().flat_map(|load| &load.placements) {
                let record = self.state.slot(slot);
                let run = record.and_then(|record| record.placed(*placement));
                if let Some(run) = run.filter(|_| claim.awaits.contains_key(placement)) {
                    room.give_up(run);
                }
            }
            let all = Request {
                amounts: Held::of(&claim.reserved),
                gpus: claim.reserved.gpus().clone(),
                ..request.clone()
            };
            fits(&room, &all).is_ok()
        };
        let sum = |all: &mut dyn Iterator<Item = Resources>| {
            all.fold(Held::default(), |mut sum, one| {
                sum.add(&Held::of(&one));
                sum
            })
        };
        let asked = sum(&mut self.members.iter().map(|member| self.reserved(member)));
        let same = sum(&mut kept.iter().map(|claim| claim.reserved.clone())) == asked;
        (!is_late && same && kept.iter().all(will_do)).then_some(at)
    }

    fn reserved(&self, member: &Member) -> Resources {
        let task = self.facts.task_at(self.name, member.version);
        let reserved = task.map(|task| task.resources_of(&member.record.slot.index));
        reserved.unwrap_or_default()
    }

    /// The node of each member on nodes with so much left; none if not all fit.
    fn places(&self, rooms: Vec<(Name, Room)>) -> Option<Vec<Name>> {
        let mut cluster = Cluster::new(rooms, self.strategy, None);
        let mut turns: BTreeMap<u32, TaskTurn> = BTreeMap::new();
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(self.members[*at].request.amounts));
        let mut nodes: Vec<(usize, Name)> = Vec::new();
        for at in order {
            let member = &self.members[at];
            let task = self.facts.task_at(self.name, member.version)?;
            let turn = turns.entry(member.version).or_insert_with(|| {
                TaskTurn::of(self.state, self.facts.job, self.name, self.facts.now)
            });
            let (now, nobody) = (self.facts.now, RunId(Uuid::nil()));
            let (request, record) = (&member.request, &member.record);
            let placed = choose(&mut cluster, (task, request), turn, record, nobody, now);
            nodes.push((at, placed.ok()?.node));
        }
        nodes.sort_by_key(|(at, _)| *at);
        Some(nodes.into_iter().map(|(_, node)| node).collect())
    }
}
