//! Room that is kept for the first gang that waits, and who may use it before: EASY backfill (D. A.
//! Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995; A. W. Mu'alem and D. G. Feitelson, IEEE TPDS
//! 12(6), 2001), on nodes with several resources.
//!
//! The gang has a claim on each node that it will use, for the time at which all of it fits. A claim
//! leaves to everybody what its node has beside it then; who ends before, or is of a higher priority,
//! may have all that is free now.

use std::collections::BTreeSet;

use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{Claim, RunRecord, Seldom, SlotRecord};
use loom_schemas::spec::{Resources, TaskSpec};

use super::Pass;
use super::ends::longest;
use super::order::priority_of;
use super::task_turn::TaskTurn;
use crate::reconcile::Facts;
use crate::scheduler::{Placement, Request, Room, fits};
use crate::state::{Draft, State};

/// Why somebody may use room that is kept for a gang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Borrows {
    /// It ends before the gang needs it.
    EndsBefore,
    /// Its priority is higher.
    GoesFirst,
}

/// Whether what a slot is to run, which has spent so many starts, may use what is kept.
pub(super) fn borrows(
    facts: &Facts<'_>,
    task: &TaskSpec,
    spent: u32,
    state: &State,
    holder: &SlotRecord,
) -> Option<Borrows> {
    if facts.spec.priority > priority_of(state, &holder.slot.job) {
        return Some(Borrows::GoesFirst);
    }
    let lasts = longest(facts.spec, task, spent)?;
    let end = facts.now.checked_add(lasts).ok()?;
    (end <= reserved_at(holder)?).then_some(Borrows::EndsBefore)
}

/// The time for which room is kept for a gang.
pub(crate) fn reserved_at(holder: &SlotRecord) -> Option<Timestamp> {
    holder
        .reservation
        .iter()
        .flatten()
        .find_map(|claim| claim.at)
}

/// Why there is no room, with whom it is kept for where there is some.
pub(crate) fn kept(state: &State, request: &Request, why: String) -> String {
    let Some(holder) = state.reserved() else {
        return why;
    };
    let has_room = |claim: &&Claim| {
        let node = state.node(&claim.node);
        let room = node
            .map(|node| Room::keeping(node, state.load(&claim.node), |slot| *slot != holder.slot));
        room.is_some_and(|room| fits(&room, request).is_ok())
    };
    let (mut claims, at) = (holder.reservation.iter().flatten(), reserved_at(holder));
    match (claims.find(has_room), at) {
        (Some(claim), Some(at)) => {
            let (node, of) = (&claim.node, &holder.slot);
            format!(
                "{why}; room on {node} is kept for gang {}/{} to start by {at:.0}",
                of.job, of.task
            )
        }
        _ => why,
    }
}

/// A state in which nothing is kept for a gang.
pub(super) fn unreserved(state: &State, holder: &SlotRecord) -> State {
    let mut draft = Draft::new(state.clone());
    draft.put_slot(SlotRecord {
        reservation: Seldom::NONE,
        ..holder.clone()
    });
    draft.state().clone()
}

/// Writes down that some runs use what is kept for a gang.
pub(super) fn lend<'a>(
    draft: &mut Draft,
    holder: &SlotRecord,
    how: Borrows,
    runs: impl IntoIterator<Item = &'a RunRecord>,
) {
    let mut next = holder.clone();
    match how {
        // It is reserved anew, for another time; until then nobody else comes between.
        Borrows::GoesFirst => draft.state_mut().mark_dirty(&holder.slot.job),
        Borrows::EndsBefore => {
            for run in runs {
                let mut claims = next.reservation.iter_mut().flatten();
                let claim = claims.find(|claim| Some(&claim.node) == run.node.as_ref());
                if let Some(claim) = claim {
                    claim.awaits.insert(run.placement, run.reserved.clone());
                }
            }
        }
    }
    if next != *holder {
        draft.put_slot(next);
    }
}

impl Pass<'_> {
    /// A place in room that is kept for a gang, if the slot may use it.
    pub(super) fn borrow(
        &mut self,
        state: &State,
        facts: &Facts<'_>,
        task: &TaskSpec,
        request: &Request,
        turn: &mut TaskTurn,
        record: &SlotRecord,
    ) -> Option<(RunId, Placement, Borrows)> {
        let holder = state.reserved()?;
        let how = borrows(facts, task, record.failed_placements, state, holder)?;
        let has_room = |claim: &Claim| {
            let node = state.node(&claim.node);
            node.is_some_and(|node| {
                let load = state.load(&claim.node);
                let room = Room::keeping(node, load, |slot| *slot != holder.slot);
                fits(&room, request).is_ok()
            })
        };
        if !holder.reservation.iter().flatten().any(has_room) {
            return None;
        }
        let free = unreserved(state, holder);
        self.follows = false;
        let run = (self.ids)();
        let found = self.find_node(&free, task, request, turn, record, run);
        self.follows = false;
        Some((run, found.ok()?, how))
    }
}

/// The claims of a gang on the nodes that its members go to, from that time on.
pub(super) fn claims<'a>(
    members: impl IntoIterator<Item = (&'a Name, Resources, BTreeSet<u16>)>,
    at: Timestamp,
    ending: impl Fn(&Name) -> Vec<(RunId, Resources)>,
) -> Vec<Claim> {
    let mut claims: Vec<Claim> = Vec::new();
    for (node, reserved, ports) in members {
        let known = claims.iter_mut().find(|claim| claim.node == *node);
        if let Some(claim) = known {
            claim.reserved.add(&reserved);
            claim.ports.extend(ports);
            continue;
        }
        claims.push(Claim {
            node: node.clone(),
            reserved,
            ports,
            awaits: ending(node).into_iter().collect(),
            evicted: Vec::new(),
            at: Some(at),
            moves: None,
        });
    }
    claims
}
