//! What the live runs of a node hold.

use std::sync::Arc;

use imbl::OrdMap;
use loom_schemas::ids::{RunId, Slot};
use loom_schemas::record::{Claim, RunRecord, SlotRecord};
use loom_schemas::spec::Gpus;

use super::Held;
use crate::scheduler::gpus::{self, TakenGpus};

/// What is reserved on a node, and by which placements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How much of each resource.
    pub held: Held,
    /// Host ports, with the number of placements that hold each (more than one only where two
    /// records of a rewound log overlap).
    pub ports: OrdMap<u16, u32>,
    /// Gpus.
    pub gpus: TakenGpus,
    /// The placements that hold all this.
    pub placements: OrdMap<RunId, Arc<Slot>>,
    /// Room that is kept free for slots that wait.
    pub claims: OrdMap<Slot, Arc<Claim>>,
}

impl Load {
    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.placements.is_empty() && self.claims.is_empty()
    }

    /// What of a claim has become free so far: what it is to hold, less what those still hold that
    /// make room for it.
    pub fn kept_free(&self, claim: &Claim) -> Held {
        let mut rest = Held::of(&claim.reserved);
        for (placement, held) in &claim.awaits {
            if self.placements.contains_key(placement) {
                rest.sub(&Held::of(held));
            }
        }
        rest
    }

    /// The same of its gpus.
    pub fn kept_gpus(&self, claim: &Claim) -> Gpus {
        let mut held = Gpus::default();
        for (placement, of) in &claim.awaits {
            if self.placements.contains_key(placement) {
                held.add(of.gpus());
            }
        }
        gpus::less(claim.reserved.gpus(), &held)
    }

    pub(super) fn hold(&mut self, slot: &Arc<Slot>, run: &RunRecord) {
        self.held.add(&Held::of(&run.reserved));
        for port in run.ports.values() {
            *self.ports.entry(*port).or_insert(0) += 1;
        }
        gpus::take(&mut self.gpus, run.own_gpus());
        self.placements.insert(run.placement, slot.clone());
    }

    pub(super) fn release(&mut self, run: &RunRecord) {
        self.held.sub(&Held::of(&run.reserved));
        for port in run.ports.values() {
            match self.ports.get(port) {
                Some(&count) if count > 1 => self.ports.insert(*port, count - 1),
                _ => self.ports.remove(port),
            };
        }
        gpus::give_back(&mut self.gpus, run.own_gpus());
        self.placements.remove(&run.placement);
    }
}

/// Whether the placement of a run still holds its reservation: it has not ended, or the node
/// starts it again.
pub fn is_live(run: &RunRecord) -> bool {
    !run.state.is_terminal() || run.will_restart
}

/// The runs of a slot whose placements are live.
pub fn live_runs(slot: &SlotRecord) -> impl Iterator<Item = &RunRecord> {
    slot.current
        .iter()
        .chain(&slot.incoming)
        .filter(|run| is_live(run))
}

/// Runs by the end of their id, for names of 8 characters and more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RunIndex(OrdMap<u128, (RunId, Arc<Slot>)>);

impl RunIndex {
    pub(super) fn insert(&mut self, run: RunId, slot: &Arc<Slot>) {
        self.0
            .insert(reversed(run.0.as_u128()), (run, slot.clone()));
    }

    pub(super) fn remove(&mut self, run: RunId) {
        self.0.remove(&reversed(run.0.as_u128()));
    }

    pub(super) fn get(&self, run: RunId) -> Option<&Slot> {
        self.0
            .get(&reversed(run.0.as_u128()))
            .map(|(_, slot)| slot.as_ref())
    }

    /// Runs whose id ends in `digits`, the last of `count` hexadecimal digits first.
    pub(super) fn ending(
        &self,
        digits: u128,
        count: u32,
    ) -> impl Iterator<Item = &(RunId, Arc<Slot>)> {
        let free = 128 - 4 * count.min(32);
        let low = reversed(digits);
        let high = if free == 128 {
            u128::MAX
        } else {
            low | ((1u128 << free) - 1)
        };
        self.0.range(low..=high).map(|(_, found)| found)
    }
}

/// All runs of a slot.
pub(super) fn all_runs(slot: &SlotRecord) -> impl Iterator<Item = &RunRecord> {
    slot.current.iter().chain(&slot.incoming).chain(&slot.ended)
}

/// The hexadecimal digits in reverse, so that a common ending becomes a common beginning.
fn reversed(id: u128) -> u128 {
    let bytes = id.swap_bytes();
    let low = 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f;
    ((bytes & low) << 4) | ((bytes >> 4) & low)
}
