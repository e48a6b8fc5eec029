//! Where a run that is somewhere would cost less.
//!
//! A run is compared as if it were on no node yet: its room is given back, it is none of its own
//! replicas, and of what was measured on its node its part is left out.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use loom_schemas::ids::Name;
use loom_schemas::record::Gpu;
use loom_schemas::words::Strategy;

use super::cluster::keys;
use super::pick::Failures;
use super::ranking::OUT;
use super::request::Request;
use super::score;
use super::shape::Shape;
use super::{Cluster, Preferences};

/// What a run holds of the node it is on.
#[derive(Clone, Copy, Debug)]
pub struct Holding<'a> {
    /// What it needs of a node.
    pub request: &'a Request,
    /// The ports that it has.
    pub ports: &'a BTreeMap<Name, u16>,
    /// The gpus that it has.
    pub gpus: &'a [Gpu],
}

/// What a run costs where it is and on the best other node that it fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// How nodes were ranked.
    pub strategy: Strategy,
    /// What it costs where it is.
    pub here: f64,
    /// What it costs there.
    pub there: f64,
    /// The other node.
    pub to: Name,
    /// Whether the node it is on is to be avoided, and the other is not.
    pub avoids: bool,
}

/// How much less a run has to cost elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Margin {
    /// In percent.
    pub percent: u8,
}

impl Margin {
    fn share(self) -> f64 {
        f64::from(self.percent) / 100.0
    }

    /// Whether it costs less there by so many percent: by `epvm` of what it costs where it is, whose
    /// measure grows with the cluster; by the others, which measure in shares of a node, of a node.
    fn is_met(self, strategy: Strategy, here: f64, there: f64) -> bool {
        let gain = here - there;
        let least = match strategy {
            Strategy::Epvm => self.share() * here,
            Strategy::Binpack | Strategy::Spread | Strategy::Balanced => self.share(),
            // Whose turn it is says nothing of what costs less.
            Strategy::RoundRobin => return false,
        };
        gain > 0.0 && gain >= least
    }
}

impl Compared {
    /// By how much the run costs less there; in favour of a node that need not be avoided without end.
    pub fn gain(&self) -> f64 {
        if self.avoids {
            f64::INFINITY
        } else {
            self.here - self.there
        }
    }

    /// The order of gains: what is to be avoided first, then those by `epvm`, in whose measure nodes
    /// are told apart, and of one measure the greater.
    pub fn cmp_gain(&self, other: &Self) -> Ordering {
        let measure = |it: &Self| (it.avoids, it.strategy == Strategy::Epvm);
        let by_measure = measure(self).cmp(&measure(other));
        by_measure.then_with(|| self.gain().total_cmp(&other.gain()))
    }
}

impl Cluster {
    /// Takes a run off its node; the part of what was measured there that is its own, in thousandths
    /// of a core: as much as of what is reserved there.
    pub fn lift(&mut self, node: &Name, run: Holding<'_>) -> u64 {
        let Some(seat) = self.floor.find(node) else {
            return 0;
        };
        let room = self.floor.room(seat);
        let (measured, held) = (room.measured_cpu, room.held.cpu);
        let part = u128::from(measured) * u128::from(run.request.amounts.cpu);
        let part = part.checked_div(u128::from(held)).unwrap_or_default();
        let part = u64::try_from(part).unwrap_or(u64::MAX).min(measured);
        self.give_back(node, run.request, run.ports, run.gpus);
        self.floor.measure(seat, measured - part);
        part
    }

    /// Puts a run that was taken off a node on it again, with what was measured of it.
    pub fn put_back(&mut self, node: &Name, run: Holding<'_>, measured: u64) {
        let Some(seat) = self.floor.find(node) else {
            return;
        };
        let ports = run.ports.values().copied();
        self.floor.take(seat, run.request, ports, run.gpus);
        self.taken.insert(seat);
        self.add_measured(node, measured);
    }

    /// So much more is measured on a node, in thousandths of a core; what was measured before.
    pub fn add_measured(&mut self, node: &Name, more: u64) -> u64 {
        let Some(seat) = self.floor.find(node) else {
            return 0;
        };
        let before = self.floor.room(seat).measured_cpu;
        self.floor.measure(seat, before + more);
        before
    }

    /// So much is measured on a node.
    pub fn measure(&mut self, node: &Name, cpu: u64) {
        if let Some(seat) = self.floor.find(node) {
            self.floor.measure(seat, cpu);
        }
    }

    /// Where a run would cost the least that was taken off its node, and is none of the siblings; none
    /// if it is not worth it to go there.
    ///
    /// It is where the run costs less by the margin, with all that speaks for a node and against it. By
    /// `epvm` all nodes together have to cost less by as much: what the replicas beside it make of a
    /// cost is nothing that anybody gains. Nothing goes to a node that is to be avoided from one that
    /// is not, and off such a node it goes to the best that is not, whatever that costs.
    pub fn compare(
        &mut self,
        here: &Name,
        request: &Request,
        preferences: &mut Preferences<'_>,
        margin: Margin,
    ) -> Option<Compared> {
        let own = self.floor.find(here)?;
        let shape = Shape {
            request: request.clone(),
            strategy: preferences.strategy.unwrap_or(self.strategy),
            affinities: preferences.affinities.clone(),
        };
        let strategy = shape.strategy;
        if let Some(siblings) = &mut preferences.siblings {
            siblings.look_up(&self.floor);
        }
        let spacing = self.spacing(request, preferences);
        let failed = Failures::of(preferences.failed, &self.floor);
        let (view, mut keys, _) = keys(&mut self.floor, &shape, &spacing, preferences);
        let mine = std::mem::replace(&mut keys[own], OUT);
        if mine >= OUT || strategy == Strategy::RoundRobin {
            return None;
        }
        for failed in failed.apart(&keys) {
            keys[failed.seat] = OUT;
        }
        let told = |seat: usize, key: f64| {
            if view.shuns(seat) {
                score::lowered(strategy, key)
            } else {
                key
            }
        };
        let avoids = |seat: usize| view.shuns(own) && !view.shuns(seat);
        let adds = |seat: usize| self.floor.adds(&view, seat);
        let (here, alone) = (told(own, mine), adds(own));
        let is_worth = |seat: usize, key: f64| {
            let gains = || margin.is_met(strategy, here, told(seat, key));
            let saves = || strategy != Strategy::Epvm || margin.is_met(strategy, alone, adds(seat));
            view.shuns(own) >= view.shuns(seat) && (avoids(seat) || (gains() && saves()))
        };
        let others = keys.iter().enumerate().filter(|(_, key)| **key < OUT);
        let worth = others.filter(|(seat, key)| is_worth(*seat, **key));
        let (best, least) = worth.min_by(|a, b| a.1.total_cmp(b.1).then(a.0.cmp(&b.0)))?;
        Some(Compared {
            strategy,
            here,
            there: told(best, *least),
            to: self.floor.name(best).clone(),
            avoids: avoids(best),
        })
    }

    /// What each node that is up costs as it is by `epvm`: the sum of `n^u` over what it has, `n` the
    /// number of machines, `u` the share in use.
    pub fn costs(&self) -> impl Iterator<Item = (&Name, f64)> {
        let costs = self.floor.costs();
        costs.map(|(seat, cost)| (self.floor.name(seat), cost))
    }

    /// The same of one node; none if it is not up.
    pub fn cost_of(&self, node: &Name) -> Option<f64> {
        self.floor.cost_as_it_is(self.floor.find(node)?)
    }

    /// What all nodes that are up cost together.
    pub fn total(&self) -> f64 {
        self.floor.costs().map(|(_, cost)| cost).sum()
    }
}
