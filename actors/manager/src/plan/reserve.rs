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
use super::ends::{OVERDUE, end_of};
use super::gang::{Member, is_of, key_of, same_request};
use super::order::priority_of;
use super::place::choose;
use super::task_turn::TaskTurn;
use crate::reconcile::Facts;
use crate::scheduler::{Cluster, Outlook, Request, Room, earliest, fits, how_many};
use crate::state::{Draft, Held, State, live_runs};

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
        &self,
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
        let when = match (ahead.when(), kept.and_then(|kept| ahead.as_promised(kept))) {
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
    fn when(&self) -> When {
        let outlooks = self.outlooks();
        let rooms_at = |at: Timestamp| -> Vec<(Name, Room)> {
            let nodes = outlooks.iter();
            nodes
                .map(|node| (node.node.clone(), node.room_at(at)))
                .collect()
        };
        let found = match same_request(self.members) {
            Some(request) => {
                let all = self.members.len();
                let fit = |at| {
                    let mut left = all;
                    for node in &outlooks {
                        left -= how_many(&node.room_at(at), request, left);
                        if left == 0 {
                            return Some(());
                        }
                    }
                    None
                };
                let found = earliest(&outlooks, fit);
                found.and_then(|(at, ())| Some((at, self.places(rooms_at(at))?)))
            }
            None => earliest(&outlooks, |at| self.places(rooms_at(at))),
        };
        let Some((at, nodes)) = found else {
            let empty = self.state.nodes();
            let empty = empty.map(|node| (node.name.clone(), Room::of(node, None)));
            return match self.places(empty.collect()) {
                Some(_) => When::Unknown,
                None => When::Never,
            };
        };
        let ending = |node: &Name| -> Vec<(RunId, Resources)> {
            let outlook = outlooks.iter().find(|outlook| outlook.node == *node);
            let ends = outlook.into_iter().flat_map(|outlook| &outlook.ends);
            let ends = ends.filter(|(end, _)| *end <= at);
            ends.map(|(_, run)| (run.placement, run.reserved.clone()))
                .collect()
        };
        let members = nodes.iter().zip(self.members).map(|(node, member)| {
            let ports: BTreeSet<u16> = member.request.fixed_ports.iter().copied().collect();
            (node, self.reserved(member), ports)
        });
        When::At(at, claims(members, at, ending))
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

    /// The nodes that could have a member if nothing else ran, with what is known of their runs.
    fn outlooks(&self) -> Vec<Outlook<'_>> {
        let now = self.facts.now;
        let could = |node: &&std::sync::Arc<loom_schemas::record::NodeRecord>| {
            let empty = Room::of(node, None);
            let mut requests = self.members.iter().map(|member| &member.request);
            requests.any(|request| how_many(&empty, request, 1) > 0)
        };
        let outlook = |node: &std::sync::Arc<loom_schemas::record::NodeRecord>| {
            let load = self.state.load(&node.name);
            let placements = load.into_iter().flat_map(|load| &load.placements);
            let ends = placements.filter_map(|(placement, slot)| {
                let record = self.state.slot(slot)?;
                let run = live_runs(record).find(|run| run.placement == *placement)?;
                Some((end_of(self.state, record, run, now)?, run))
            });
            Outlook {
                node: node.name.clone(),
                room: Room::of(node, load),
                ends: ends.collect(),
            }
        };
        self.state.nodes().filter(could).map(outlook).collect()
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
