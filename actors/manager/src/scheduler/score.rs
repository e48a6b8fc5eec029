//! How good a node is for a request: the lower, the better.
//!
//! A cost is made of what the node brings ([`Standing`], counted anew only when the node changes)
//! and of what the request is on nodes of that size ([`Terms`], counted once per amount of each
//! resource), so that the cost itself is a handful of multiplications.

use loom_schemas::words::Strategy;

use super::fits::{DIMENSIONS, Room, UNCOUNTED};
use super::request::Request;

/// How much of a node is in use, dimension by dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Standing {
    /// The share in use.
    pub(super) used: [f64; DIMENSIONS],
    /// `n^used`, `n` the number of machines.
    pub(super) weight: [f64; DIMENSIONS],
}

/// What a request is on nodes of one size, dimension by dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Terms {
    /// 1 where something is asked for that such nodes have and count, 0 elsewhere.
    counts: [f64; DIMENSIONS],
    /// The share asked for.
    asked: [f64; DIMENSIONS],
    /// `n^asked - 1`.
    gain: [f64; DIMENSIONS],
    /// One over the number of dimensions that count; 0 if there are none.
    mean: f64,
}

/// The logarithm of the number of machines. With one machine every cost would be 0: any base above
/// 1 ranks.
pub(super) fn ln(machines: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far fewer machines than 2^52")]
    let machines = machines.max(2) as f64;
    machines.ln()
}

impl Standing {
    /// How a node stands in a cluster of `exp(ln_n)` machines. Of cpu the greater of what is
    /// reserved and what was measured is in use.
    pub(super) fn of(ln_n: f64, room: &Room) -> Self {
        let (held, all) = (room.held(), room.all());
        let mut standing = Self::default();
        for d in 0..DIMENSIONS {
            standing.used[d] = ratio(held[d], all[d]);
        }
        // Of several nodes on one host each says what is in use on all of it.
        let measured = ratio(room.measured_cpu, all[0]).min(1.0);
        standing.weight = standing.used.map(|used| (used * ln_n).exp());
        if measured > standing.used[0] {
            standing.weight[0] = (measured * ln_n).exp();
        }
        standing
    }
}

impl Terms {
    /// What a request is on nodes with so much in all.
    pub(super) fn of(ln_n: f64, request: &Request, all: &[u64; DIMENSIONS]) -> Self {
        let asked = request.asked();
        Self::from_each(|d| Term::of(ln_n, asked[d], all[d]))
    }

    fn from_each(term: impl Fn(usize) -> Option<Term>) -> Self {
        let mut terms = Self {
            counts: [0.0; DIMENSIONS],
            asked: [0.0; DIMENSIONS],
            gain: [0.0; DIMENSIONS],
            mean: 0.0,
        };
        let mut count = 0.0;
        for d in 0..DIMENSIONS {
            if let Some(term) = term(d) {
                terms.counts[d] = 1.0;
                terms.asked[d] = term.asked;
                terms.gain[d] = term.gain;
                count += 1.0;
            }
        }
        if count > 0.0 {
            terms.mean = 1.0 / count;
        }
        terms
    }
}

/// What is asked of one resource on nodes that have as much of it.
#[derive(Clone, Copy, Debug)]
struct Term {
    asked: f64,
    gain: f64,
}

impl Term {
    /// None where nothing is asked for, or such nodes do not have it or do not count it.
    fn of(ln_n: f64, asked: u64, all: u64) -> Option<Self> {
        if asked == 0 || all == 0 || all == UNCOUNTED {
            return None;
        }
        let asked = ratio(asked, all);
        let gain = (asked * ln_n).exp_m1();
        Some(Self { asked, gain })
    }
}

/// The terms of a request on all nodes there are: for each resource that is asked for a short list by
/// how much nodes have of it. Nodes that are alike in every resource would be many more.
#[derive(Clone, Debug)]
pub(super) struct Tables(Vec<(usize, Vec<Option<Term>>)>);

impl Tables {
    /// On nodes that have so much of each resource.
    pub(super) fn of(ln_n: f64, request: &Request, amounts: &[Vec<u64>; DIMENSIONS]) -> Self {
        let asked = request.asked();
        let dimensions = (0..DIMENSIONS).filter(|d| asked[*d] > 0);
        let table = |d: usize| {
            let terms = amounts[d].iter().map(|all| Term::of(ln_n, asked[d], *all));
            (d, terms.collect())
        };
        Self(dimensions.map(table).collect())
    }

    /// The marginal cost of E-PVM on a node with these weights, that has the amounts with these numbers.
    #[inline]
    pub(super) fn epvm(&self, weight: &[f64; DIMENSIONS], amounts: &[u32; DIMENSIONS]) -> f64 {
        let mut sum = 0.0;
        for (d, terms) in &self.0 {
            if let Some(term) = terms[amounts[*d] as usize] {
                sum += weight[*d] * term.gain;
            }
        }
        sum
    }

    /// The terms on a node that has the amounts with these numbers.
    pub(super) fn on(&self, amounts: &[u32; DIMENSIONS]) -> Terms {
        let table = |d: usize| self.0.iter().find(|(dimension, _)| *dimension == d);
        Terms::from_each(|d| table(d).and_then(|(_, terms)| terms[amounts[d] as usize]))
    }
}

/// The cost of a request on a node it fits.
#[inline]
pub(super) fn cost(strategy: Strategy, Standing { used, weight }: &Standing, terms: &Terms) -> f64 {
    match strategy {
        Strategy::Epvm => epvm(weight, terms),
        Strategy::Binpack => 1.0 - fullness(used, terms),
        Strategy::Spread => fullness(used, terms),
        Strategy::Balanced => stranded(used, terms),
        Strategy::RoundRobin => 0.0,
    }
}

/// The marginal cost of E-PVM: `sum over dimensions of n^u * (n^(d/c) - 1)`, `n` the number of
/// machines, `u` the share in use before, `d/c` the share asked for.
///
/// Y. Amir, B. Awerbuch, A. Barak, R. S. Borgstrom, A. Keren, "An Opportunity Cost Approach for
/// Job Assignment in a Scalable Computing Cluster", IEEE TPDS 11(7), 2000. The power is taken as
/// `exp(u ln n) * expm1((d/c) ln n)`, exact for small shares.
#[inline]
pub(super) fn epvm(weight: &[f64; DIMENSIONS], terms: &Terms) -> f64 {
    let mut sum = 0.0;
    for (weight, gain) in weight.iter().zip(&terms.gain) {
        sum += weight * gain;
    }
    sum
}

/// The mean share in use after the placement, over the dimensions asked for.
fn fullness(used: &[f64; DIMENSIONS], terms: &Terms) -> f64 {
    let mut sum = 0.0;
    for ((used, asked), counts) in used.iter().zip(&terms.asked).zip(&terms.counts) {
        sum += counts * (used + asked);
    }
    sum * terms.mean
}

/// By how much more of the node is stranded after the placement than before: free, but past what
/// its scarcest dimension lets anybody use. Among equals the fuller node is cheaper.
fn stranded(used: &[f64; DIMENSIONS], terms: &Terms) -> f64 {
    const AMONG_EQUALS: f64 = 1e-3;
    let mut before = Spare::default();
    let mut after = Spare::default();
    for ((used, asked), counts) in used.iter().zip(&terms.asked).zip(&terms.counts) {
        if *counts > 0.0 {
            before.add(1.0 - used);
            after.add(1.0 - used - asked);
        }
    }
    after.stranded() - before.stranded() + AMONG_EQUALS * (1.0 - fullness(used, terms))
}

/// What is free, summed up over dimensions.
struct Spare {
    sum: f64,
    count: f64,
    least: f64,
}

impl Default for Spare {
    fn default() -> Self {
        Self {
            sum: 0.0,
            count: 0.0,
            least: f64::INFINITY,
        }
    }
}

impl Spare {
    fn add(&mut self, free: f64) {
        self.sum += free;
        self.count += 1.0;
        self.least = self.least.min(free);
    }

    fn stranded(&self) -> f64 {
        if self.count > 0.0 {
            self.sum - self.count * self.least
        } else {
            0.0
        }
    }
}

/// What one replica of the same task more or less on a node does to a cost.
pub(super) fn with_replicas(strategy: Strategy, cost: f64, replicas: u32) -> f64 {
    // More on one node than anybody has would be taken for a node that is to be avoided.
    let replicas = f64::from(replicas.min(1000));
    match strategy {
        // A node with k replicas of the task counts as k + 1 times as dear.
        Strategy::Epvm => cost * (1.0 + replicas),
        // Packing is what was asked for: replicas decide only between equals.
        Strategy::Binpack => cost + replicas * 1e-9,
        // A full node without a replica is better than an empty one with a replica.
        Strategy::Spread => cost + replicas * 2.0,
        Strategy::Balanced => cost + replicas * 0.1,
        Strategy::RoundRobin => cost,
    }
}

/// The most that preferences count together, in hundredths of a node.
const MOST_POINTS: i32 = 1200;

/// A hundred points count no less than a node of a cluster of so many machines.
const LEAST_MACHINES: usize = 16;

/// What preferences do to a cost, by their points: hundredths of a node, above 0 in its favour.
#[derive(Clone, Debug, Default)]
pub(super) struct Pull {
    /// `n^(-points / 100)` from the least points to the most.
    factors: Vec<f64>,
}

impl Pull {
    /// In a cluster of so many machines.
    pub(super) fn of(machines: usize) -> Self {
        let ln_n = ln(machines.max(LEAST_MACHINES));
        let points = -MOST_POINTS..=MOST_POINTS;
        let factor = |points: i32| (-f64::from(points) / 100.0 * ln_n).exp();
        Self {
            factors: points.map(factor).collect(),
        }
    }

    /// The cost of a node as if that share of it were less in use; where nodes are to be packed,
    /// more.
    #[inline]
    pub(super) fn on(&self, strategy: Strategy, cost: f64, points: i32) -> f64 {
        let points = counted(points);
        match strategy {
            Strategy::Epvm => cost * self.factors[(points + MOST_POINTS).unsigned_abs() as usize],
            _ => cost - f64::from(points) / 100.0,
        }
    }
}

/// Points as far as they count.
pub(super) fn counted(points: i32) -> i32 {
    points.clamp(-MOST_POINTS, MOST_POINTS)
}

/// Lifts a cost above every one that is not lifted: of a node that is taken only where no other has
/// room. The order among those that are lifted stays, as does what replicas do to it.
#[inline]
pub(super) fn shunned(strategy: Strategy, cost: f64) -> f64 {
    match strategy {
        // Powers of two, so that nothing is rounded; a cost is between 2^-250 and 2^250.
        Strategy::Epvm => cost.max(f64::from_bits((1023 - 250) << 52)) * LIFT,
        // A share of a node, some points and replicas.
        _ => cost + ABOVE,
    }
}

/// The cost that was lifted.
pub(super) fn lowered(strategy: Strategy, cost: f64) -> f64 {
    match strategy {
        Strategy::Epvm => cost / LIFT,
        _ => cost - ABOVE,
    }
}

/// 2^501.
const LIFT: f64 = f64::from_bits((1023 + 501) << 52);

const ABOVE: f64 = 4096.0;

/// The share of a whole; nothing of nothing.
#[expect(
    clippy::cast_precision_loss,
    reason = "a share needs no more than 52 bits"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}
