//! The nodes as they are kept from one placement to the next.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{NodeRecord, RunnerUp, Score};
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::Strategy;

use super::constraint::Attributes;
use super::fits::{Request, Room, choose_ports, fits};
use super::floor::Floor;
use super::queue::Queue;
use super::ranking::{OUT, Ranking};
use super::shape::{Shape, Shapes};
use super::spacing::Spacing;
use super::why::{Cause, WhyNot};
use super::{Placement, Preferences, score};
use crate::state::{Held, Load, State};

/// How many runners-up are told of.
const RUNNERS_UP: usize = 2;

/// What the nodes have left, kept from one placement to the next and from one pass to the next.
#[derive(Clone, Debug)]
pub struct Cluster {
    strategy: Strategy,
    floor: Floor,
    shapes: Shapes,
    /// Where `round-robin` goes on: the node it chose last.
    last: Option<Name>,
    /// The state that was followed last.
    nodes: OrdMap<Name, Arc<NodeRecord>>,
    loads: OrdMap<Name, Arc<Load>>,
    /// Nodes from which something was taken since: it may not come to be.
    taken: BTreeSet<usize>,
    /// What waits for a node.
    queue: Queue,
}

impl Cluster {
    /// No nodes yet; see [`follow`](Self::follow).
    pub fn empty(strategy: Strategy) -> Self {
        Self {
            strategy,
            floor: Floor::default(),
            shapes: Shapes::default(),
            last: None,
            nodes: OrdMap::new(),
            loads: OrdMap::new(),
            taken: BTreeSet::new(),
            queue: Queue::default(),
        }
    }

    /// The nodes of a state as they are.
    pub fn of(state: &State, strategy: Strategy) -> Self {
        let mut cluster = Self::empty(strategy);
        cluster.follow(state);
        cluster
    }

    /// Nodes with what they have left, in any order.
    pub fn new(
        nodes: impl IntoIterator<Item = (Name, Room)>,
        strategy: Strategy,
        last: Option<Name>,
    ) -> Self {
        let mut cluster = Self::empty(strategy);
        cluster.floor.seat(nodes);
        cluster.last = last;
        cluster
    }

    /// Has the nodes be as a state says, whichever state was followed before: only nodes in which
    /// the two differ are looked at, and those from which something was taken meanwhile.
    pub fn follow(&mut self, state: &State) {
        let (nodes, loads) = (state.node_records(), state.node_loads());
        let mut members = false;
        let mut changed: BTreeSet<usize> = std::mem::take(&mut self.taken);
        for item in self.nodes.diff(nodes) {
            match item {
                DiffItem::Add(..) | DiffItem::Remove(..) => members = true,
                DiffItem::Update { old, new } => {
                    let same = old.1.status == new.1.status
                        && Attributes::of(old.1) == Attributes::of(new.1);
                    changed.extend(self.floor.find(new.0).filter(|_| !same));
                }
            }
        }
        if members {
            let rooms = nodes.iter().map(|(name, node)| {
                let load = loads.get(name).map(AsRef::as_ref);
                (name.clone(), Room::of(node, load))
            });
            self.floor.seat(rooms);
        } else {
            for item in self.loads.diff(loads) {
                let (DiffItem::Add(name, _)
                | DiffItem::Remove(name, _)
                | DiffItem::Update { new: (name, _), .. }) = item;
                changed.extend(self.floor.find(name));
            }
            for seat in changed {
                let name = self.floor.name(seat);
                if let Some(node) = nodes.get(name) {
                    let room = Room::of(node, loads.get(name).map(AsRef::as_ref));
                    self.floor.put(seat, room);
                }
            }
        }
        self.nodes = nodes.clone();
        self.loads = loads.clone();
        let record = state.cluster();
        self.last = record.and_then(|record| record.last_placed.clone());
    }

    /// The node that `round-robin` chose last.
    pub fn last_placed(&self) -> Option<&Name> {
        self.last.as_ref()
    }

    /// What waits for a node, kept as long as the nodes are.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// What a node has left.
    pub fn room(&self, node: &Name) -> Option<&Room> {
        Some(self.floor.room(self.floor.find(node)?))
    }

    /// Finds a node for a run of a task, of all those it fits the best, and takes its room.
    pub fn place(
        &mut self,
        task: &TaskSpec,
        request: &Request,
        run: RunId,
        preferences: &mut Preferences<'_>,
    ) -> Result<Placement, WhyNot> {
        let shape = Shape {
            request: request.clone(),
            strategy: preferences.strategy.unwrap_or(self.strategy),
        };
        let best = self.best(&shape, preferences);
        let Some((&(seat, cost), others)) = best.split_first() else {
            let spacing = self.spacing(request, preferences);
            let floor = &self.floor;
            return Err(floor.why_not(request, |seat| spacing.refuses(floor, seat)));
        };
        let Some(ports) = choose_ports(self.floor.room(seat), task, run) else {
            // fits() has counted the ports; a node that still has none is one that does not fit.
            let mut why = WhyNot::default();
            why.count(Cause::Ports);
            return Err(why);
        };
        let runners_up = others.iter().map(|(seat, cost)| RunnerUp {
            node: self.floor.name(*seat).clone(),
            score: Score(*cost),
        });
        let runners_up = runners_up.collect();
        let node = self.take(seat, request, &ports);
        if let Some(siblings) = &mut preferences.siblings {
            siblings.placed(&node, seat);
        }
        if shape.strategy == Strategy::RoundRobin {
            self.last = Some(node.clone());
        }
        Ok(Placement {
            node,
            ports,
            strategy: shape.strategy,
            score: Score(cost),
            runners_up,
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
        let seat = self.floor.find(node).ok_or(Cause::Down)?;
        let room = self.floor.room(seat);
        fits(room, request)?;
        let ports = choose_ports(room, task, run).ok_or(Cause::Ports)?;
        let shape = Shape {
            request: request.clone(),
            strategy: self.strategy,
        };
        let cost = self.floor.cost_on(&shape, seat);
        Ok(Placement {
            node: self.take(seat, request, &ports),
            ports,
            strategy: self.strategy,
            score: Score(cost),
            runners_up: Vec::new(),
        })
    }

    /// Has what is kept free on a node for a slot that waits be there for it.
    pub fn open_claim(&mut self, node: &Name, kept: &Held, ports: &BTreeSet<u16>) {
        if let Some(seat) = self.floor.find(node) {
            self.floor.open_claim(seat, kept, ports);
            self.taken.insert(seat);
        }
    }

    /// Gives back what a run took of a node, as far as it is there; for what would be if it ended.
    pub fn give_back(&mut self, node: &Name, request: &Request, ports: &BTreeMap<Name, u16>) {
        if let Some(seat) = self.floor.find(node) {
            self.floor.give_back(seat, request, ports.values().copied());
            self.taken.insert(seat);
        }
    }

    fn take(&mut self, seat: usize, request: &Request, ports: &BTreeMap<Name, u16>) -> Name {
        self.floor.take(seat, request, ports.values().copied());
        self.taken.insert(seat);
        self.floor.name(seat).clone()
    }

    /// What the replicas that live already take from one more.
    fn spacing(&self, request: &Request, preferences: &Preferences<'_>) -> Spacing {
        let siblings = preferences.siblings.as_deref();
        Spacing::of(request, siblings, preferences.own, &self.floor)
    }

    /// The best seats for a run with their costs, the best first; none if it fits nowhere.
    fn best(&mut self, shape: &Shape, preferences: &mut Preferences<'_>) -> Vec<(usize, f64)> {
        if let Some(siblings) = &mut preferences.siblings {
            siblings.look_up(&self.floor);
        }
        let spacing = self.spacing(&shape.request, preferences);
        let floor = &mut self.floor;
        let failed = preferences.failed.iter();
        let failed: Vec<usize> = failed.filter_map(|node| floor.find(node)).collect();
        let siblings = preferences.siblings.as_deref_mut();
        // Whose turn it is has nothing to do with who lives where.
        let siblings = siblings.filter(|_| shape.strategy != Strategy::RoundRobin);
        // Whom the others leave a place changes with each of them: nothing is kept in order.
        let kept = if spacing.is_free() {
            self.shapes.get(shape, floor)
        } else {
            None
        };
        let Some(ranked) = kept else {
            let view = floor.view(shape);
            let mut keys = floor.keys(shape, &view);
            if let Some(siblings) = siblings {
                let dearer: Vec<_> = siblings.costs(shape, &keys).collect();
                for (seat, cost) in dearer {
                    keys[seat] = cost;
                }
            }
            for seat in failed {
                keys[seat] = score::failed_here(keys[seat]);
            }
            if !spacing.is_free() {
                for (seat, key) in keys.iter_mut().enumerate() {
                    if *key < OUT && spacing.refuses(floor, seat).is_some() {
                        *key = OUT;
                    }
                }
            }
            return match shape.strategy {
                Strategy::RoundRobin => turn(&Ranking::of(keys), &[], self.last.as_ref(), floor),
                _ => least(&keys),
            };
        };
        let base = ranked.ranking.keys();
        let mut apart: Vec<(usize, f64)> = Vec::new();
        let ranking = match siblings {
            Some(siblings) if siblings.are_few() => {
                apart.extend(siblings.costs(shape, base));
                &ranked.ranking
            }
            Some(siblings) => siblings.order(shape, ranked, floor),
            None => &ranked.ranking,
        };
        for seat in failed {
            match apart.iter_mut().find(|(other, _)| *other == seat) {
                Some((_, cost)) => *cost = score::failed_here(*cost),
                None => apart.push((seat, score::failed_here(ranking.keys()[seat]))),
            }
        }
        match shape.strategy {
            Strategy::RoundRobin => turn(ranking, &apart, self.last.as_ref(), floor),
            _ => merged(ranking, apart),
        }
    }
}

/// The seats with the least keys, without those that are out.
fn least(keys: &[f64]) -> Vec<(usize, f64)> {
    let mut best: Vec<(usize, f64)> = Vec::with_capacity(RUNNERS_UP + 2);
    let mut worst = OUT;
    for (seat, key) in keys.iter().enumerate() {
        // Of equals the lower seat, which came before, stays.
        if *key < worst {
            let place = best.partition_point(|(_, other)| other <= key);
            best.insert(place, (seat, *key));
            best.truncate(RUNNERS_UP + 1);
            if best.len() > RUNNERS_UP {
                worst = best[RUNNERS_UP].1;
            }
        }
    }
    best
}

/// The best of a ranking, where some seats have other costs than it says.
fn merged(ranking: &Ranking, mut apart: Vec<(usize, f64)>) -> Vec<(usize, f64)> {
    let others = ranking.in_order();
    let is_apart = |seat: usize| apart.iter().any(|(other, _)| *other == seat);
    let mut best: Vec<(usize, f64)> = others
        .filter(|(seat, _)| !is_apart(*seat))
        .take(RUNNERS_UP + 1)
        .collect();
    if !apart.is_empty() {
        apart.retain(|(_, cost)| *cost < OUT);
        best.append(&mut apart);
        best.sort_by(compare);
        best.truncate(RUNNERS_UP + 1);
    }
    best
}

/// Those whose turn is next after the last one, among the seats with the least key.
fn turn(
    ranking: &Ranking,
    apart: &[(usize, f64)],
    last: Option<&Name>,
    floor: &Floor,
) -> Vec<(usize, f64)> {
    let cost_of = |seat: usize| apart.iter().find(|(other, _)| *other == seat);
    let is_apart = |seat: usize| cost_of(seat).is_some();
    let free = ranking.in_order().find(|(seat, _)| !is_apart(*seat));
    let Some((_, key)) = free else {
        return merged(ranking, apart.to_vec());
    };
    let start = last.map_or(0, |last| floor.behind(last));
    let mut found: Vec<(usize, f64)> = Vec::new();
    let (mut at, mut wrapped) = (start, false);
    while found.len() <= RUNNERS_UP {
        match ranking.next_from(at, key) {
            Some(seat) if wrapped && seat >= start => break,
            Some(seat) => {
                if !is_apart(seat) {
                    found.push((seat, ranking.keys()[seat]));
                }
                at = seat + 1;
            }
            None if wrapped => break,
            None => (at, wrapped) = (0, true),
        }
    }
    found
}

fn compare(a: &(usize, f64), b: &(usize, f64)) -> Ordering {
    a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0))
}
