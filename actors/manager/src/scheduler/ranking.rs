//! Nodes in the order of their keys: a tournament tree over the seats.
//!
//! The best is at the root, a changed key is one walk from its leaf to the root, and the next best
//! are found among the siblings of that walk. Of equal keys the lower seat wins, and seats are in
//! the order of names.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The key of what cannot be chosen.
pub(super) const OUT: f64 = f64::INFINITY;

/// Keys by seat.
#[derive(Clone, Debug)]
pub(super) struct Ranking {
    /// A power of two; keys past the seats are [`OUT`].
    keys: Vec<f64>,
    /// The winner below each inner place, the root at 1.
    winners: Vec<u32>,
}

impl Ranking {
    /// Ranks seats by their keys.
    pub(super) fn of(mut keys: Vec<f64>) -> Self {
        let leaves = keys.len().next_power_of_two();
        keys.resize(leaves, OUT);
        let mut ranking = Self {
            keys,
            winners: vec![0; leaves],
        };
        for place in (1..leaves).rev() {
            ranking.winners[place] = ranking.winner_of(place);
        }
        ranking
    }

    /// The keys in the order of seats, with those past the last seat.
    pub(super) fn keys(&self) -> &[f64] {
        &self.keys
    }

    /// Changes a key.
    pub(super) fn set(&mut self, seat: usize, key: f64) {
        if self.keys[seat].to_bits() == key.to_bits() {
            return;
        }
        self.keys[seat] = key;
        let mut place = self.parent_of(seat);
        while place > 0 {
            let winner = self.winner_of(place);
            // Where another than the changed seat won and wins, nothing above can differ.
            if self.winners[place] == winner && winner as usize != seat {
                return;
            }
            self.winners[place] = winner;
            place /= 2;
        }
    }

    /// Seats with their keys, the best first, without those that are out.
    pub(super) fn in_order(&self) -> InOrder<'_> {
        let mut open = BinaryHeap::with_capacity(64);
        open.push(self.contender(1.min(self.keys.len())));
        InOrder {
            ranking: self,
            open,
        }
    }

    /// The first seat from `seat` on whose key is no greater than `key`.
    pub(super) fn next_from(&self, seat: usize, key: f64) -> Option<usize> {
        let leaves = self.keys.len();
        if seat >= leaves {
            return None;
        }
        let mut place = leaves + seat;
        // Up until a subtree to the right, or this leaf itself, has one; then down to its first.
        loop {
            if self.key_of(place) <= key {
                break;
            }
            while place % 2 == 1 {
                if place == 1 {
                    return None;
                }
                place /= 2;
            }
            place += 1;
        }
        while place < leaves {
            place *= 2;
            if self.key_of(place) > key {
                place += 1;
            }
        }
        Some(place - leaves)
    }

    /// The place above the leaf of a seat.
    fn parent_of(&self, seat: usize) -> usize {
        (self.keys.len() + seat) >> 1
    }

    fn key_of(&self, place: usize) -> f64 {
        self.keys[self.seat_of(place) as usize]
    }

    fn seat_of(&self, place: usize) -> u32 {
        let leaves = self.keys.len();
        if place >= leaves {
            u32::try_from(place - leaves).unwrap_or(u32::MAX)
        } else {
            self.winners[place]
        }
    }

    fn winner_of(&self, place: usize) -> u32 {
        let (left, right) = (self.seat_of(2 * place), self.seat_of(2 * place + 1));
        if self.keys[right as usize] < self.keys[left as usize] {
            right
        } else {
            left
        }
    }

    fn contender(&self, place: usize) -> Contender {
        let seat = self.seat_of(place);
        Contender {
            key: self.keys[seat as usize],
            seat,
            place,
        }
    }
}

/// Seats with their keys, the best first.
pub(super) struct InOrder<'a> {
    ranking: &'a Ranking,
    /// The best of each subtree from which nothing was taken yet.
    open: BinaryHeap<Contender>,
}

impl Iterator for InOrder<'_> {
    type Item = (usize, f64);

    fn next(&mut self) -> Option<Self::Item> {
        let best = self.open.pop().filter(|best| best.key < OUT)?;
        let leaves = self.ranking.keys.len();
        let mut place = best.place;
        while place < leaves {
            let left = 2 * place;
            let (on, beside) = if self.ranking.seat_of(left) == best.seat {
                (left, left + 1)
            } else {
                (left + 1, left)
            };
            self.open.push(self.ranking.contender(beside));
            place = on;
        }
        Some((best.seat as usize, best.key))
    }
}

/// The best seat of a subtree.
#[derive(Clone, Copy, Debug)]
struct Contender {
    key: f64,
    seat: u32,
    place: usize,
}

/// The better is the greater, as the heap wants it.
impl Ord for Contender {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = other.key.total_cmp(&self.key);
        by_key.then_with(|| other.seat.cmp(&self.seat))
    }
}

impl PartialOrd for Contender {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Contender {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Contender {}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::*;

    /// What a sort says.
    fn sorted(keys: &[f64]) -> Vec<usize> {
        let mut seats: Vec<usize> = (0..keys.len()).filter(|at| keys[*at] < OUT).collect();
        seats.sort_by(|a, b| keys[*a].total_cmp(&keys[*b]).then(a.cmp(b)));
        seats
    }

    proptest! {
        #![proptest_config(crate::state::fixture::cases(256))]

        #[test]
        fn the_order_is_that_of_a_sort_whatever_changes(
            keys in prop::collection::vec(0..9u32, 0..40),
            changes in prop::collection::vec((0..40usize, 0..9u32), 0..40),
        ) {
            let key = |n: u32| if n == 8 { OUT } else { f64::from(n) };
            let mut keys: Vec<f64> = keys.into_iter().map(key).collect();
            let mut ranking = Ranking::of(keys.clone());
            for (seat, n) in changes {
                if seat < keys.len() {
                    keys[seat] = key(n);
                    ranking.set(seat, key(n));
                }
                let order: Vec<usize> = ranking.in_order().map(|(seat, _)| seat).collect();
                prop_assert_eq!(&order, &sorted(&keys));
                let least = order.first().map_or(0.0, |best| keys[*best]);
                for from in 0..keys.len() {
                    let next = (from..keys.len()).find(|at| keys[*at] <= least);
                    prop_assert_eq!(ranking.next_from(from, least), next);
                }
            }
        }
    }
}
