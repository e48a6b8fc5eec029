//! The replicas of one task by node, and the order of nodes that follows from them.

use std::collections::HashMap;

use loom_schemas::ids::Name;

use super::floor::Floor;
use super::ranking::{OUT, Ranking};
use super::score;
use super::shape::{Ranked, Shape};

/// Up to so many nodes are looked at one by one; where more have replicas, an order is kept.
const FEW: usize = 16;

/// Where the replicas of one task live, while more of them are placed.
#[derive(Clone, Debug, Default)]
pub struct Siblings {
    by_node: HashMap<Name, u32>,
    /// The same by seat, in that epoch of the seats.
    by_seat: HashMap<usize, u32>,
    epoch: u64,
    /// The order of nodes for the next replica, where there are many.
    order: Option<Order>,
}

/// Nodes in the order they are in for the next replica.
#[derive(Clone, Debug)]
struct Order {
    shape: Shape,
    ranking: Ranking,
    seen: u64,
}

impl Siblings {
    /// One more replica lives on a node.
    pub fn add(&mut self, node: &Name) {
        *self.by_node.entry(node.clone()).or_default() += 1;
        // The seats are looked up anew.
        self.epoch = 0;
    }

    /// One replica less lives on a node.
    pub fn remove(&mut self, node: &Name) {
        if let Some(count) = self.by_node.get_mut(node) {
            *count = count.saturating_sub(1);
        }
        self.by_node.retain(|_, count| *count > 0);
        self.epoch = 0;
    }

    /// How many replicas live on a node.
    pub fn on(&self, node: &Name) -> u32 {
        self.by_node.get(node).copied().unwrap_or(0)
    }

    /// Looks up the seats of the nodes, where they are not known.
    pub(super) fn look_up(&mut self, floor: &Floor) {
        if self.epoch == floor.epoch() {
            return;
        }
        self.epoch = floor.epoch();
        let known = self.by_node.iter();
        let seated = known.filter_map(|(node, count)| Some((floor.find(node)?, *count)));
        self.by_seat = seated.collect();
        self.order = None;
    }

    /// One more replica was placed, and its node has changed by that.
    pub(super) fn placed(&mut self, node: &Name, seat: usize) {
        *self.by_node.entry(node.clone()).or_default() += 1;
        *self.by_seat.entry(seat).or_default() += 1;
    }

    /// How many replicas are in each seat, but for one on a node that does not count.
    pub(super) fn others(&self, own: Option<usize>) -> HashMap<usize, u32> {
        let mut seats = self.by_seat.clone();
        if let Some(count) = own.and_then(|own| seats.get_mut(&own)) {
            *count = count.saturating_sub(1);
        }
        seats.retain(|_, count| *count > 0);
        seats
    }

    /// Whether so few nodes have replicas that each can be looked at.
    pub(super) fn are_few(&self) -> bool {
        self.by_seat.len() <= FEW
    }

    /// The seats with replicas, each with its cost for one more.
    pub(super) fn costs<'a>(
        &'a self,
        shape: &'a Shape,
        keys: &'a [f64],
    ) -> impl Iterator<Item = (usize, f64)> + 'a {
        let seats = self.by_seat.iter();
        seats.map(|(seat, count)| (*seat, dearer(shape, keys[*seat], *count)))
    }

    /// Makes the seats with replicas as dear as they are for one more.
    pub(super) fn raise(&self, shape: &Shape, keys: &mut [f64]) {
        for (seat, count) in &self.by_seat {
            keys[*seat] = dearer(shape, keys[*seat], *count);
        }
    }

    /// The order of nodes for one more replica, kept from one to the next.
    pub(super) fn order(&mut self, shape: &Shape, ranked: &Ranked, floor: &Floor) -> &Ranking {
        let by_seat = &self.by_seat;
        let base = ranked.ranking.keys();
        let count = |seat: usize| by_seat.get(&seat).copied().unwrap_or(0);
        let kept = self.order.take().filter(|order| order.shape == *shape);
        let behind = kept.and_then(|order| Some((floor.since(order.seen)?, order)));
        let order = if let Some((changed, mut order)) = behind {
            for seat in changed {
                let seat = *seat as usize;
                let key = dearer(shape, base[seat], count(seat));
                order.ranking.set(seat, key);
            }
            order.seen = floor.now();
            order
        } else {
            let mut keys = base[..floor.len()].to_vec();
            for (seat, count) in by_seat {
                keys[*seat] = dearer(shape, keys[*seat], *count);
            }
            Order {
                shape: shape.clone(),
                ranking: Ranking::of(keys),
                seen: floor.now(),
            }
        };
        &self.order.insert(order).ranking
    }
}

/// From an iterator of the nodes of replicas, one item a replica.
impl<'a> FromIterator<&'a Name> for Siblings {
    fn from_iter<I: IntoIterator<Item = &'a Name>>(nodes: I) -> Self {
        let mut siblings = Self::default();
        for node in nodes {
            siblings.add(node);
        }
        siblings
    }
}

/// The cost of one more replica where there are so many.
fn dearer(shape: &Shape, cost: f64, replicas: u32) -> f64 {
    if cost < OUT {
        score::with_replicas(shape.strategy, cost, replicas)
    } else {
        OUT
    }
}
