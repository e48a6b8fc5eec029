//! Requests that are alike: their nodes ranked once, and kept in order as nodes change.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use loom_schemas::words::Strategy;

use super::affinity::Affinities;
use super::floor::Floor;
use super::ranking::Ranking;
use super::request::Request;
use super::score::Tables;
use super::select::Seats;

/// The rankings of all shapes together have at most so many keys.
const KEYS_KEPT: usize = 4 << 20;

/// So many shapes that were seen once are remembered.
const ONCE_KEPT: usize = 8192;

/// What makes the costs of two runs the same on every node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) request: Request,
    pub(super) strategy: Strategy,
    pub(super) affinities: Affinities,
}

/// What the cost of a shape is made of, beside the nodes.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// The nodes that suit it.
    pub(super) seats: Seats,
    /// Those of them that are taken only where no other has room; none if there are none.
    pub(super) shunned: Option<Seats>,
    /// The nodes that each affinity speaks of, and its weight.
    pub(super) affinities: Vec<(Seats, i8)>,
    /// What it is on nodes, by how much they have.
    pub(super) terms: Tables,
}

impl Shape {
    /// Whether nodes are taken in turn.
    pub(super) fn is_by_turns(&self) -> bool {
        self.strategy == Strategy::RoundRobin
    }
}

impl View {
    /// What its affinities say of a node, in hundredths of a node; above 0 in its favour.
    #[inline]
    pub(super) fn points(&self, seat: usize) -> i32 {
        let speaks = self
            .affinities
            .iter()
            .filter(|(seats, _)| seats.contains(seat));
        speaks.map(|(_, weight)| i32::from(*weight)).sum()
    }

    /// Whether a node is taken only where no other has room.
    pub(super) fn shuns(&self, seat: usize) -> bool {
        self.shunned
            .as_ref()
            .is_some_and(|shunned| shunned.contains(seat))
    }
}

/// A shape with the nodes in its order.
#[derive(Clone, Debug)]
pub(super) struct Ranked {
    pub(super) view: View,
    pub(super) ranking: Ranking,
    /// So many changes of nodes are in it.
    seen: u64,
    /// When it was last asked for, counted in requests.
    asked: u64,
}

/// The shapes that are kept in order. One that is seen for the first time is not: its nodes are
/// looked at once, which costs less than ranking them.
#[derive(Clone, Debug, Default)]
pub(super) struct Shapes {
    ranked: HashMap<Shape, Ranked>,
    /// Checksums of those seen once.
    once: HashSet<u64>,
    epoch: u64,
    requests: u64,
}

impl Shapes {
    /// The shape with the nodes in order as they are now; none if it is new.
    pub(super) fn get(&mut self, shape: &Shape, floor: &mut Floor) -> Option<&Ranked> {
        if self.epoch != floor.epoch() {
            self.ranked.clear();
            self.once.clear();
            self.epoch = floor.epoch();
        }
        self.requests += 1;
        if !self.ranked.contains_key(shape) {
            if self.once.len() >= ONCE_KEPT {
                self.once.clear();
            }
            let mut checksum = DefaultHasher::new();
            shape.hash(&mut checksum);
            if self.once.insert(checksum.finish()) {
                return None;
            }
            self.make_room(floor.len());
            let ranked = Ranked::of(shape, floor);
            self.ranked.insert(shape.clone(), ranked);
        }
        let ranked = self.ranked.get_mut(shape)?;
        ranked.asked = self.requests;
        ranked.catch_up(shape, floor);
        Some(ranked)
    }

    /// Forgets the half that was not asked for for longest, where there are too many.
    fn make_room(&mut self, seats: usize) {
        if (self.ranked.len() + 1) * seats.next_power_of_two() <= KEYS_KEPT {
            return;
        }
        let mut asked: Vec<u64> = self.ranked.values().map(|ranked| ranked.asked).collect();
        asked.sort_unstable();
        let middle = asked.get(asked.len() / 2).copied().unwrap_or_default();
        self.ranked.retain(|_, ranked| ranked.asked > middle);
    }
}

impl Ranked {
    fn of(shape: &Shape, floor: &mut Floor) -> Self {
        let view = floor.view(shape);
        let ranking = Ranking::of(floor.keys(shape, &view));
        Self {
            view,
            ranking,
            seen: floor.now(),
            asked: 0,
        }
    }

    /// Counts anew what changed, and nothing else.
    fn catch_up(&mut self, shape: &Shape, floor: &Floor) {
        match floor.since(self.seen) {
            Some(changed) => {
                for seat in changed {
                    let seat = *seat as usize;
                    self.ranking.set(seat, floor.key(shape, &self.view, seat));
                }
            }
            None => self.ranking = Ranking::of(floor.keys(shape, &self.view)),
        }
        self.seen = floor.now();
    }
}
