//! The nodes as they are kept from one placement to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{Bias, Claim, Gpu, NodeRecord, RunnerUp, Score, UseRecord};
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::Strategy;

use super::constraint::Attributes;
use super::fits::{Room, choose_ports, fits};
use super::floor::Floor;
use super::gpus::choose_gpus;
use super::outlook::Outlooks;
use super::pick::{self, Chosen, Failures};
use super::queue::Queue;
use super::ranking::OUT;
use super::request::Request;
use super::shape::{Shape, Shapes, View};
use super::spacing::Spacing;
use super::together::together;
use super::why::{Cause, WhyNot};
use super::{Affinities, Placement, Preferences, spread};
use crate::state::{Load, State};

/// What the nodes have left, kept from one placement to the next and from one pass to the next.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(super) strategy: Strategy,
    pub(super) floor: Floor,
    shapes: Shapes,
    /// Where `round-robin` goes on: the node it chose last.
    last: Option<Name>,
    /// The state that was followed last.
    nodes: OrdMap<Name, Arc<NodeRecord>>,
    loads: OrdMap<Name, Arc<Load>>,
    uses: OrdMap<Name, Arc<UseRecord>>,
    /// Nodes from which something was taken since: it may not come to be.
    pub(super) taken: BTreeSet<usize>,
    /// What waits for a node.
    queue: Queue,
    /// When there is more room, for gangs that wait.
    outlooks: Outlooks,
    /// When it was last looked at what nodes measure.
    measured_at: Option<Timestamp>,
}

/// Nodes say every two seconds what they use; it is not looked at more often.
const LOOK: Duration = Duration::from_secs(2);

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
            uses: OrdMap::new(),
            taken: BTreeSet::new(),
            queue: Queue::default(),
            outlooks: Outlooks::default(),
            measured_at: None,
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
        let uses = state.node_uses();
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
            let rooms = nodes.iter();
            let rooms = rooms.map(|(name, node)| (name.clone(), Room::in_state(state, node)));
            self.floor.seat(rooms);
        } else {
            for item in self.loads.diff(loads) {
                let (DiffItem::Add(name, _)
                | DiffItem::Remove(name, _)
                | DiffItem::Update { new: (name, _), .. }) = item;
                changed.extend(self.floor.find(name));
            }
            for item in self.uses.diff(uses) {
                let (DiffItem::Add(name, _)
                | DiffItem::Remove(name, _)
                | DiffItem::Update { new: (name, _), .. }) = item;
                changed.extend(self.floor.find(name));
            }
            let room = |seat: usize| {
                let node = nodes.get(self.floor.name(seat))?;
                Some((seat, Room::in_state(state, node)))
            };
            let rooms: Vec<(usize, Room)> = changed.into_iter().filter_map(room).collect();
            self.floor.put(rooms);
        }
        self.nodes = nodes.clone();
        self.loads = loads.clone();
        self.uses = uses.clone();
        let record = state.cluster();
        self.last = record.and_then(|record| record.last_placed.clone());
    }

    /// Has `round-robin` go on after a node.
    pub fn turn_to(&mut self, node: &Name) {
        self.last = Some(node.clone());
    }

    /// What waits for a node, kept as long as the nodes are.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// When there is more room, as far as that is known.
    pub fn outlooks(&mut self) -> &mut Outlooks {
        &mut self.outlooks
    }

    /// Whether it is time to look at what nodes measure; it is not any more for a while then.
    pub fn wants_measures(&mut self, now: Timestamp) -> bool {
        let looked = self.measured_at;
        let waits = looked.is_some_and(|at| now.duration_since(at).unsigned_abs() < LOOK);
        if !waits {
            self.measured_at = Some(now);
        }
        !waits
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
            affinities: preferences.affinities.clone(),
        };
        let best = self.best(&shape, preferences);
        let Some((first, others)) = best.split_first() else {
            let spacing = self.spacing(request, preferences);
            let floor = &self.floor;
            return Err(floor.why_not(request, |seat| spacing.refuses(floor, seat)));
        };
        let seat = first.seat;
        // fits() has counted ports and gpus; a node that still has none is one that does not fit.
        let chosen = choose(self.floor.room(seat), task, request, run);
        let (ports, gpus) = chosen.map_err(WhyNot::one)?;
        let runners_up = others.iter().map(|next| RunnerUp {
            node: self.floor.name(next.seat).clone(),
            score: Score(next.cost),
            bias: next.bias,
        });
        let runners_up = runners_up.collect();
        let node = self.take(seat, request, &ports, &gpus);
        if let Some(siblings) = &mut preferences.siblings {
            siblings.placed(&node, seat);
        }
        if shape.strategy == Strategy::RoundRobin {
            self.last = Some(node.clone());
        }
        Ok(Placement {
            node,
            ports,
            gpus,
            strategy: shape.strategy,
            score: Score(first.cost),
            bias: first.bias,
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
        let (ports, gpus) = choose(room, task, request, run)?;
        let shape = Shape {
            request: request.clone(),
            strategy: self.strategy,
            affinities: Affinities::default(),
        };
        let cost = self.floor.cost_on(&shape, seat);
        Ok(Placement {
            node: self.take(seat, request, &ports, &gpus),
            ports,
            gpus,
            strategy: self.strategy,
            score: Score(cost),
            bias: Bias::default(),
            runners_up: Vec::new(),
        })
    }

    /// Has what is kept free on a node for a slot that waits be there for it.
    pub fn open_claim(&mut self, load: &Load, claim: &Claim) {
        if let Some(seat) = self.floor.find(&claim.node) {
            self.floor.open_claim(seat, load, claim);
            self.taken.insert(seat);
        }
    }

    /// How many runs with a request fit at once, at most so many, and why none fits one more.
    pub fn together(&self, request: &Request, most: usize) -> (usize, WhyNot) {
        together(self.floor.rooms(), request, most)
    }

    /// Gives back what a run took of a node, as far as it is there; for what would be if it ended.
    pub fn give_back(
        &mut self,
        node: &Name,
        request: &Request,
        ports: &BTreeMap<Name, u16>,
        gpus: &[Gpu],
    ) {
        if let Some(seat) = self.floor.find(node) {
            let ports = ports.values().copied();
            self.floor.give_back(seat, request, ports, gpus);
            self.taken.insert(seat);
        }
    }

    fn take(
        &mut self,
        seat: usize,
        request: &Request,
        ports: &BTreeMap<Name, u16>,
        gpus: &[Gpu],
    ) -> Name {
        let ports = ports.values().copied();
        self.floor.take(seat, request, ports, gpus);
        self.taken.insert(seat);
        self.floor.name(seat).clone()
    }

    /// What the replicas that live already take from one more.
    pub(super) fn spacing(&self, request: &Request, preferences: &Preferences<'_>) -> Spacing {
        let siblings = preferences.siblings.as_deref();
        Spacing::of(request, siblings, preferences.own, &self.floor)
    }

    /// The best seats for a run, the best first; none if it fits nowhere.
    fn best(&mut self, shape: &Shape, preferences: &mut Preferences<'_>) -> Vec<Chosen> {
        if let Some(siblings) = &mut preferences.siblings {
            siblings.look_up(&self.floor);
        }
        let spacing = self.spacing(&shape.request, preferences);
        let failed = Failures::of(preferences.failed, &self.floor);
        let (floor, last) = (&mut self.floor, self.last.as_ref());
        // What the others leave changes with each of them: nothing is kept in order.
        if spacing.is_free()
            && preferences.spread.is_empty()
            && let Some(ranked) = self.shapes.get(shape, floor)
        {
            let siblings = preferences.siblings.as_deref_mut();
            let best = pick::of_ranked(shape, ranked, siblings, &failed, (floor, last));
            let told = best.into_iter().map(|it| it.told(shape, &ranked.view, 0));
            return told.collect();
        }
        let (view, keys, points) = keys(floor, shape, &spacing, preferences);
        let best = pick::of_keys(shape, keys, &failed, (floor, last));
        let told = best.into_iter().map(|it| {
            let of_spread = points.get(it.seat).copied().unwrap_or(0);
            it.told(shape, &view, of_spread)
        });
        told.collect()
    }
}

/// What each node costs a run, with all that speaks for it and against it but failures; beside the
/// points of spreads.
pub(super) fn keys(
    floor: &mut Floor,
    shape: &Shape,
    spacing: &Spacing,
    preferences: &Preferences<'_>,
) -> (View, Vec<f64>, Vec<i32>) {
    let view = floor.view(shape);
    let mut keys = floor.keys(shape, &view);
    if !spacing.is_free() {
        for (seat, key) in keys.iter_mut().enumerate() {
            if *key < OUT && spacing.refuses(floor, seat).is_some() {
                *key = OUT;
            }
        }
    }
    let points = spread::points(preferences, floor, &keys);
    for (seat, points) in points.iter().enumerate() {
        if *points != 0 && keys[seat] < OUT {
            let points = view.points(seat) + points;
            keys[seat] = floor.cost(shape, &view, seat, points);
        }
    }
    if let Some(siblings) = preferences.siblings.as_deref() {
        siblings.raise(shape, &mut keys);
    }
    (view, keys, points)
}

/// What a run of a task is given of a node beside its room: ports and gpus.
fn choose(
    room: &Room,
    task: &TaskSpec,
    request: &Request,
    run: RunId,
) -> Result<(BTreeMap<Name, u16>, Vec<Gpu>), Cause> {
    let ports = choose_ports(room, task, run).ok_or(Cause::Ports)?;
    let gpus = choose_gpus(room, &request.gpus).ok_or(Cause::Gpus(None))?;
    Ok((ports, gpus))
}
