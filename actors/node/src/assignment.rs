//! What a node shall have, whose word it takes for that, and what it must do to have it. Pure.
//!
//! Leaders are told apart by their epoch and the states of one leader by the generation, so the
//! two are compared as a pair; a delta is taken only on the very generation it was made for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use loom_schemas::ids::{Epoch, RunId};
use loom_schemas::wire::{Assign, AssignReply, Assigned};

/// What a node shall have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Assignment {
    /// The cluster it belongs to; none until a leader first spoke to it.
    pub(crate) cluster: Option<String>,
    /// The highest epoch ever seen; a lower one is refused.
    pub(crate) epoch: Epoch,
    /// The epoch the set below was last changed in.
    pub(crate) taken_in: Epoch,
    /// The generation of the set below.
    pub(crate) generation: u64,
    /// The set, by placement.
    pub(crate) placements: BTreeMap<RunId, Arc<Assigned>>,
    /// The labels that people gave the node.
    pub(crate) labels: BTreeMap<String, String>,
}

/// What a node makes of an assignment it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the newest: carry it out.
    Take,
    /// It is what the node has already, or an earlier one of the same leader: nothing to do.
    Known,
    /// A delta of a generation that the node has not.
    Resync,
    /// Its sender leads no more.
    Stale,
    /// Its sender leads another cluster.
    Foreign,
}

/// A placement the node has, in any state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'a> {
    /// As it was last told.
    pub(crate) assigned: &'a Arc<Assigned>,
    /// Whether its last run ended and will not be started again here.
    pub(crate) ended: bool,
    /// Whether it was already told to end because no leader wants it.
    pub(crate) unwanted: bool,
}

/// What a node does to have what it shall have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// A new placement.
    Start(Arc<Assigned>),
    /// A placement it has, told otherwise.
    Change(Arc<Assigned>),
    /// A live placement that nobody wants: end it.
    StopUnknown(RunId),
    /// A placement that ended and that nobody asks for any more.
    Forget(RunId),
}

impl Assignment {
    /// Judges an assignment by cluster, epoch and generation; changes nothing.
    pub(crate) fn judge(&self, assign: &Assign) -> Verdict {
        if self
            .cluster
            .as_ref()
            .is_some_and(|cluster| *cluster != assign.cluster)
        {
            return Verdict::Foreign;
        }
        if assign.epoch < self.epoch {
            return Verdict::Stale;
        }
        let same_leader = assign.epoch == self.taken_in;
        let Some(base) = assign.base else {
            // A whole set at the very pair held is taken again: it repairs and costs nothing.
            let older = same_leader && assign.generation < self.generation;
            return if older { Verdict::Known } else { Verdict::Take };
        };
        // A later part of what is larger than a message; taken twice it changes nothing.
        let is_part = base == assign.generation;
        if same_leader && is_part && base == self.generation {
            return Verdict::Take;
        }
        if same_leader && assign.generation <= self.generation {
            return Verdict::Known;
        }
        // Generations are counted in the log, so they carry over from leader to leader, but not
        // into a log that was restored or rebuilt.
        let same_log = assign.epoch.incarnation == self.taken_in.incarnation;
        if same_log && base == self.generation && assign.generation > base {
            Verdict::Take
        } else {
            Verdict::Resync
        }
    }

    /// Notes the sender's epoch and, if the verdict is [`Verdict::Take`], its set. Returns the
    /// placements that may have changed.
    pub(crate) fn apply(&mut self, assign: &Assign) -> BTreeSet<RunId> {
        let verdict = self.judge(assign);
        if matches!(verdict, Verdict::Foreign | Verdict::Stale) {
            return BTreeSet::new();
        }
        self.cluster.get_or_insert_with(|| assign.cluster.clone());
        self.epoch = assign.epoch;
        if verdict != Verdict::Take {
            return BTreeSet::new();
        }
        self.taken_in = assign.epoch;
        self.generation = assign.generation;
        self.labels.clone_from(&assign.labels);
        let mut touched: BTreeSet<RunId> = assign.put.iter().map(|put| put.placement).collect();
        if assign.base.is_none() {
            let mut wanted = touched.clone();
            wanted.extend(&assign.keep);
            touched.extend(self.placements.keys().copied());
            self.placements
                .retain(|placement, _| wanted.contains(placement));
        }
        for placement in &assign.remove {
            self.placements.remove(placement);
            touched.insert(*placement);
        }
        for put in &assign.put {
            if self
                .placements
                .get(&put.placement)
                .is_none_or(|known| **known != *put)
            {
                self.placements.insert(put.placement, Arc::new(put.clone()));
            }
        }
        touched
    }

    /// The answer that goes with a verdict, given after [`apply`](Self::apply).
    pub(crate) fn reply(&self, verdict: Verdict) -> AssignReply {
        match verdict {
            Verdict::Take | Verdict::Known => AssignReply::Taken {
                generation: self.generation,
            },
            Verdict::Resync => AssignReply::Resync {
                generation: self.generation,
            },
            Verdict::Stale => AssignReply::Stale { epoch: self.epoch },
            Verdict::Foreign => AssignReply::Foreign {
                cluster: self.cluster.clone().unwrap_or_default(),
            },
        }
    }
}

/// What to do about one placement; nothing if it is as it shall be.
pub(crate) fn decide(
    placement: RunId,
    wanted: Option<&Arc<Assigned>>,
    held: Option<Held<'_>>,
) -> Option<Action> {
    match (wanted, held) {
        (Some(wanted), None) => Some(Action::Start(Arc::clone(wanted))),
        (Some(wanted), Some(held)) => {
            (held.unwanted || held.assigned != wanted).then(|| Action::Change(Arc::clone(wanted)))
        }
        (None, Some(held)) if held.ended => Some(Action::Forget(placement)),
        (None, Some(held)) => (!held.unwanted).then_some(Action::StopUnknown(placement)),
        (None, None) => None,
    }
}

/// What to do about the placements named, in their order.
pub(crate) fn diff<'a>(
    wanted: &BTreeMap<RunId, Arc<Assigned>>,
    held: impl Fn(RunId) -> Option<Held<'a>>,
    placements: impl IntoIterator<Item = RunId>,
) -> Vec<Action> {
    placements
        .into_iter()
        .filter_map(|placement| decide(placement, wanted.get(&placement), held(placement)))
        .collect()
}

#[cfg(test)]
#[path = "assignment_tests.rs"]
mod tests;
