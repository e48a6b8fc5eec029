//! The scheduler: which node takes a run. Select candidates, score, pick.
//!
//! [`Cluster`] is what the nodes have left, kept up to date with each placement of a pass, so that
//! many placements cost no more than looking at the nodes. Scores are kept by shape of request and
//! counted anew only for nodes that changed. Everything is deterministic; ties go to the name.

mod fits;
mod score;
#[cfg(test)]
mod tests;
mod why;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use loom_schemas::ids::{Name, RunId};
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::Strategy;

use crate::state::State;

pub use fits::{Request, Room, choose_ports, fits};
pub use why::{Cause, WhyNot};

/// Where a run goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The node.
    pub node: Name,
    /// Its ports there.
    pub ports: BTreeMap<Name, u16>,
    /// What it costs there by the strategy; the lower, the better.
    pub cost: f64,
}

/// What speaks for and against nodes beside their room; none of it excludes a node.
#[derive(Clone, Debug, Default)]
pub struct Preferences<'a> {
    /// How many replicas of the task live on each node: fewer are better.
    pub replicas: Option<&'a HashMap<Name, u32>>,
    /// Where the slot failed last: any other is better.
    pub avoid: Option<&'a Name>,
}

/// What the nodes have left, as placements go on.
#[derive(Clone, Debug)]
pub struct Cluster {
    strategy: Strategy,
    machines: usize,
    nodes: Vec<Seat>,
    places: HashMap<Name, usize>,
    scores: HashMap<Request, Vec<Score>>,
    /// Where `round-robin` goes on: the node it chose last.
    last: Option<Name>,
}

#[derive(Clone, Debug)]
struct Seat {
    name: Name,
    room: Room,
    /// Raised with each change of the room: a score of another stamp is old.
    stamp: u32,
}

#[derive(Clone, Copy, Debug)]
struct Score {
    stamp: u32,
    result: Result<f64, Cause>,
}

impl Cluster {
    /// The nodes of a state as they are.
    pub fn of(state: &State, strategy: Strategy) -> Self {
        let nodes = state
            .nodes()
            .map(|node| (node.name.clone(), Room::of(node, state.load(&node.name))));
        let last = state
            .cluster()
            .and_then(|cluster| cluster.last_placed.clone());
        Self::new(nodes, strategy, last)
    }

    /// Nodes with what they have left, in any order.
    pub fn new(
        nodes: impl IntoIterator<Item = (Name, Room)>,
        strategy: Strategy,
        last: Option<Name>,
    ) -> Self {
        let mut nodes: Vec<Seat> = nodes
            .into_iter()
            .map(|(name, room)| Seat {
                name,
                room,
                stamp: 1,
            })
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            strategy,
            machines: nodes.iter().filter(|seat| seat.room.up).count(),
            places: nodes
                .iter()
                .enumerate()
                .map(|(at, seat)| (seat.name.clone(), at))
                .collect(),
            nodes,
            scores: HashMap::new(),
            last,
        }
    }

    /// The node that `round-robin` chose last.
    pub fn last_placed(&self) -> Option<&Name> {
        self.last.as_ref()
    }

    /// Finds a node for a run of a task and takes its room.
    pub fn place(
        &mut self,
        task: &TaskSpec,
        request: &Request,
        run: RunId,
        preferences: &Preferences<'_>,
    ) -> Result<Placement, WhyNot> {
        self.refresh(request);
        let scores = self.scores.get(request).map_or(&[][..], Vec::as_slice);
        let best = scores
            .iter()
            .zip(&self.nodes)
            .enumerate()
            .filter_map(|(at, (score, seat))| {
                let cost = score.result.ok()?;
                Some((at, self.rank(seat, cost, preferences)))
            })
            .min_by(|(_, a), (_, b)| compare(a, b));
        let Some((at, rank)) = best else {
            let mut why = WhyNot::default();
            scores
                .iter()
                .filter_map(|score| score.result.err())
                .for_each(|c| why.count(c));
            return Err(why);
        };
        let seat = &mut self.nodes[at];
        let Some(ports) = choose_ports(&seat.room, task, run) else {
            // fits() has counted the ports; a node that still has none is one that does not fit.
            let mut why = WhyNot::default();
            why.count(Cause::Ports);
            return Err(why);
        };
        seat.room.take(request, ports.values().copied());
        seat.stamp += 1;
        let node = seat.name.clone();
        self.last = Some(node.clone());
        Ok(Placement {
            node,
            ports,
            cost: rank.cost,
        })
    }

    /// Takes the room for a run of a task on one node; why it does not fit there, if it does not.
    pub fn place_on(
        &mut self,
        node: &Name,
        task: &TaskSpec,
        request: &Request,
        run: RunId,
    ) -> Result<Placement, Cause> {
        let at = *self.places.get(node).ok_or(Cause::Down)?;
        let machines = self.machines;
        let seat = &mut self.nodes[at];
        fits(&seat.room, request)?;
        let cost = score::cost(self.strategy, machines, &seat.room, request);
        let ports = choose_ports(&seat.room, task, run).ok_or(Cause::Ports)?;
        seat.room.take(request, ports.values().copied());
        seat.stamp += 1;
        Ok(Placement {
            node: node.clone(),
            ports,
            cost,
        })
    }

    /// What a node has left.
    pub fn room(&self, node: &Name) -> Option<&Room> {
        self.places.get(node).map(|at| &self.nodes[*at].room)
    }

    fn refresh(&mut self, request: &Request) {
        let (strategy, machines) = (self.strategy, self.machines);
        let unknown = Score {
            stamp: 0,
            result: Err(Cause::Down),
        };
        let count = self.nodes.len();
        let scores = self
            .scores
            .entry(request.clone())
            .or_insert_with(|| vec![unknown; count]);
        for (score, seat) in scores.iter_mut().zip(&self.nodes) {
            if score.stamp != seat.stamp {
                let result = fits(&seat.room, request)
                    .map(|()| score::cost(strategy, machines, &seat.room, request));
                *score = Score {
                    stamp: seat.stamp,
                    result,
                };
            }
        }
    }

    fn rank(&self, seat: &Seat, cost: f64, preferences: &Preferences<'_>) -> Rank {
        let replicas = preferences
            .replicas
            .and_then(|by| by.get(&seat.name))
            .copied();
        let replicas = f64::from(replicas.unwrap_or(0));
        let failed_here = preferences.avoid == Some(&seat.name);
        let (first, second) = match self.strategy {
            // A node with k replicas of the task counts as k + 1 times as dear.
            Strategy::Epvm => (cost * (1.0 + replicas), replicas),
            // Packing is what was asked for: replicas decide only between equals.
            Strategy::Binpack => (cost, replicas),
            Strategy::Spread => (replicas, cost),
            Strategy::RoundRobin => {
                let passed = self.last.as_ref().is_some_and(|last| seat.name <= *last);
                (f64::from(u8::from(passed)), 0.0)
            }
        };
        Rank {
            failed_here,
            first,
            second,
            cost,
        }
    }
}

struct Rank {
    failed_here: bool,
    first: f64,
    second: f64,
    cost: f64,
}

/// Nodes are looked at by name, and the first of equals stays.
fn compare(a: &Rank, b: &Rank) -> Ordering {
    (a.failed_here.cmp(&b.failed_here))
        .then(a.first.total_cmp(&b.first))
        .then(a.second.total_cmp(&b.second))
}
