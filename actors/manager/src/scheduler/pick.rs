//! The best of those that fit: the fewest failures first, then the least key, of equals the first
//! name.

use std::cmp::Ordering;

use loom_schemas::ids::Name;
use loom_schemas::record::Bias;

use super::floor::Floor;
use super::ranking::{OUT, Ranking};
use super::score;
use super::shape::{Ranked, Shape, View};
use super::siblings::Siblings;

/// How many runners-up are told of.
const RUNNERS_UP: usize = 2;

/// A seat that may be picked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contender {
    pub(super) seat: usize,
    /// How often the task failed there lately.
    failures: u8,
    key: f64,
}

/// A seat as it is told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    pub(super) seat: usize,
    pub(super) cost: f64,
    pub(super) bias: Bias,
}

/// Where a task failed lately, and how often.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<(usize, u8)>);

impl Failures {
    /// From the nodes, each with how often; what is said of one several times is summed up.
    pub(super) fn of(nodes: &[(Name, u8)], floor: &Floor) -> Self {
        let mut seats: Vec<(usize, u8)> = Vec::new();
        for (node, count) in nodes {
            let Some(seat) = floor.find(node) else {
                continue;
            };
            match seats.iter_mut().find(|(other, _)| *other == seat) {
                Some((_, times)) => *times = times.saturating_add(*count),
                None => seats.push((seat, *count)),
            }
        }
        Self(seats)
    }

    /// The seats where it failed, without those that are out.
    pub(super) fn apart(&self, keys: &[f64]) -> Vec<Contender> {
        let seats = self.0.iter().map(|(seat, failures)| Contender {
            seat: *seat,
            failures: *failures,
            key: keys[*seat],
        });
        seats.filter(|contender| contender.key < OUT).collect()
    }
}

impl Contender {
    fn new(seat: usize, key: f64) -> Self {
        Self {
            seat,
            failures: 0,
            key,
        }
    }

    /// With its cost and what counted beside it, so many points among them that are of no affinity.
    pub(super) fn told(self, shape: &Shape, view: &View, points: i32) -> Chosen {
        let shunned = view.shuns(self.seat);
        let cost = if shunned {
            score::lowered(shape.strategy, self.key)
        } else {
            self.key
        };
        let points = score::counted(view.points(self.seat) + points);
        let bias = Bias {
            failures: self.failures,
            shunned,
            points: i16::try_from(points).unwrap_or_default(),
        };
        Chosen {
            seat: self.seat,
            cost,
            bias,
        }
    }
}

/// The best of a shape whose nodes are kept in order.
pub(super) fn of_ranked(
    shape: &Shape,
    ranked: &Ranked,
    siblings: Option<&mut Siblings>,
    failed: &Failures,
    (floor, last): (&Floor, Option<&Name>),
) -> Vec<Contender> {
    let mut apart: Vec<Contender> = Vec::new();
    // Whose turn it is has nothing to do with who lives where.
    let siblings = siblings.filter(|_| !shape.is_by_turns());
    let ranking = match siblings {
        Some(siblings) if siblings.are_few() => {
            let costs = siblings.costs(shape, ranked.ranking.keys());
            apart.extend(costs.map(|(seat, key)| Contender::new(seat, key)));
            &ranked.ranking
        }
        Some(siblings) => siblings.order(shape, ranked, floor),
        None => &ranked.ranking,
    };
    for contender in failed.apart(ranking.keys()) {
        match apart.iter_mut().find(|other| other.seat == contender.seat) {
            Some(other) => other.failures = contender.failures,
            None => apart.push(contender),
        }
    }
    if shape.is_by_turns() {
        turn(ranking, apart, last, floor)
    } else {
        merged(ranking, apart)
    }
}

/// The best by keys that are in no order.
pub(super) fn of_keys(
    shape: &Shape,
    mut keys: Vec<f64>,
    failed: &Failures,
    (floor, last): (&Floor, Option<&Name>),
) -> Vec<Contender> {
    let apart = failed.apart(&keys);
    for contender in &apart {
        keys[contender.seat] = OUT;
    }
    if shape.is_by_turns() {
        turn(&Ranking::of(keys), apart, last, floor)
    } else {
        joined(least(&keys), apart)
    }
}

/// The seats with the least keys, without those that are out.
fn least(keys: &[f64]) -> Vec<Contender> {
    let mut best: Vec<Contender> = Vec::with_capacity(RUNNERS_UP + 2);
    let mut worst = OUT;
    for (seat, key) in keys.iter().enumerate() {
        // Of equals the lower seat, which came before, stays.
        if *key < worst {
            let place = best.partition_point(|other| other.key <= *key);
            best.insert(place, Contender::new(seat, *key));
            best.truncate(RUNNERS_UP + 1);
            if best.len() > RUNNERS_UP {
                worst = best[RUNNERS_UP].key;
            }
        }
    }
    best
}

/// The best of a ranking, where some seats are otherwise than it says.
fn merged(ranking: &Ranking, apart: Vec<Contender>) -> Vec<Contender> {
    let is_apart = |seat: usize| apart.iter().any(|other| other.seat == seat);
    let others = ranking.in_order().filter(|(seat, _)| !is_apart(*seat));
    let best = others.map(|(seat, key)| Contender::new(seat, key));
    let best = best.take(RUNNERS_UP + 1).collect();
    joined(best, apart)
}

/// The best of two lists.
fn joined(mut best: Vec<Contender>, apart: Vec<Contender>) -> Vec<Contender> {
    if !apart.is_empty() {
        best.extend(apart.into_iter().filter(|other| other.key < OUT));
        best.sort_by(Contender::compare);
        best.truncate(RUNNERS_UP + 1);
    }
    best
}

/// Those whose turn is next after the last one, among the seats with the least key.
fn turn(
    ranking: &Ranking,
    apart: Vec<Contender>,
    last: Option<&Name>,
    floor: &Floor,
) -> Vec<Contender> {
    let is_apart = |seat: usize| apart.iter().any(|other| other.seat == seat);
    let free = ranking.in_order().find(|(seat, _)| !is_apart(*seat));
    let Some((_, key)) = free else {
        return merged(ranking, apart);
    };
    let start = last.map_or(0, |last| floor.behind(last));
    let mut found: Vec<Contender> = Vec::new();
    let (mut at, mut wrapped) = (start, false);
    while found.len() <= RUNNERS_UP {
        match ranking.next_from(at, key) {
            Some(seat) if wrapped && seat >= start => break,
            Some(seat) => {
                if !is_apart(seat) {
                    found.push(Contender::new(seat, ranking.keys()[seat]));
                }
                at = seat + 1;
            }
            None if wrapped => break,
            None => (at, wrapped) = (0, true),
        }
    }
    found
}

impl Contender {
    fn compare(&self, other: &Self) -> Ordering {
        let by_key = || self.key.total_cmp(&other.key);
        let by_failures = self.failures.cmp(&other.failures);
        by_failures
            .then_with(by_key)
            .then(self.seat.cmp(&other.seat))
    }
}
