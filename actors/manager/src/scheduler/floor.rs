//! The nodes by seat: flat rows to look at one after the other, and a list of what changed.

use std::collections::HashMap;

use loom_schemas::ids::Name;
use loom_schemas::record::{Claim, Gpu};
use loom_schemas::spec::Attribute;
use loom_schemas::words::Strategy;

use super::fits::{DIMENSIONS, Room, UNCOUNTED, has_room, suits};
use super::gpus;
use super::ranking::OUT;
use super::request::Request;
use super::score::{self, Pull, Standing, Tables, Terms};
use super::select::{Selection, Values, bits};
use super::shape::{Shape, View};
use super::why::Cause;
use crate::state::Load;

/// The nodes, each with a seat of its own; seats are in the order of names.
#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    names: Vec<Name>,
    rooms: Vec<Room>,
    rows: Vec<Row>,
    /// The shares in use, for the strategies that look at them.
    used: Vec<[f64; DIMENSIONS]>,
    seats: HashMap<Name, usize>,
    /// How much nodes have in all of each resource: there are far fewer amounts than nodes.
    amounts: [Vec<u64>; DIMENSIONS],
    selection: Selection,
    /// Nodes that are up.
    machines: usize,
    ln_n: f64,
    pull: Pull,
    changes: Changes,
    /// Raised when costs or selections are others for more than the nodes in `changes`.
    epoch: u64,
}

/// What placing looks at of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    free: [u64; DIMENSIONS],
    /// See [`Standing`].
    weight: [f64; DIMENSIONS],
    free_ports: u32,
    /// Which of the amounts it has of each resource.
    amounts: [u32; DIMENSIONS],
}

/// Seats whose rows changed, in the order in which they did.
#[derive(Clone, Debug, Default)]
struct Changes {
    /// How many came before those that are kept.
    forgotten: u64,
    seats: Vec<u32>,
}

impl Floor {
    /// Seats nodes, in any order, in place of those that are there.
    pub(super) fn seat(&mut self, nodes: impl IntoIterator<Item = (Name, Room)>) {
        let mut nodes: Vec<(Name, Room)> = nodes.into_iter().collect();
        nodes.sort_by(|a, b| a.0.cmp(&b.0));
        (self.names, self.rooms) = nodes.into_iter().unzip();
        let seats = self.names.iter().cloned().enumerate();
        self.seats = seats.map(|(seat, name)| (name, seat)).collect();
        self.selection = Selection::default();
        self.weigh();
    }

    /// Weighs every node anew: the number of machines or what they are has changed.
    fn weigh(&mut self) {
        self.machines = self.rooms.iter().filter(|room| room.up).count();
        self.ln_n = score::ln(self.machines);
        self.pull = Pull::of(self.machines);
        self.amounts = Default::default();
        let mut known: [HashMap<u64, u32>; DIMENSIONS] = Default::default();
        self.rows.clear();
        self.used.clear();
        for room in &self.rooms {
            let all = room.all();
            let amounts = std::array::from_fn(|d| {
                *known[d].entry(all[d]).or_insert_with(|| {
                    self.amounts[d].push(all[d]);
                    u32::try_from(self.amounts[d].len() - 1).unwrap_or(u32::MAX)
                })
            });
            let standing = Standing::of(self.ln_n, room);
            self.rows.push(Row::of(&standing, room, amounts));
            self.used.push(standing.used);
        }
        self.epoch += 1;
    }

    /// Has nodes be as they are now. If any of them is otherwise than by how much of it is in use, all
    /// are weighed anew, once.
    pub(super) fn put(&mut self, rooms: impl IntoIterator<Item = (usize, Room)>) {
        let mut turned = false;
        for (seat, room) in rooms {
            let before = std::mem::replace(&mut self.rooms[seat], room);
            let room = &self.rooms[seat];
            if room.is_as(&before) {
                // What is asked for by its name or number is not in the row.
                let other = room.ports != before.ports || room.gpus != before.gpus;
                self.changed(seat, other || room.kept_gpus != before.kept_gpus);
            } else {
                self.selection.turned(seat, room);
                turned = true;
            }
        }
        if turned {
            self.weigh();
        }
    }

    /// Takes what a request needs from a node.
    pub(super) fn take(
        &mut self,
        seat: usize,
        request: &Request,
        ports: impl Iterator<Item = u16>,
        gpus: &[Gpu],
    ) {
        self.rooms[seat].take(request, ports, gpus);
        // Also where nothing is taken: another replica is here now.
        self.count(seat);
        self.changes.push(seat, self.names.len());
    }

    /// Gives back to a node what a request took.
    pub(super) fn give_back(
        &mut self,
        seat: usize,
        request: &Request,
        ports: impl Iterator<Item = u16>,
        gpus: &[Gpu],
    ) {
        self.rooms[seat].give_back(request, ports, gpus);
        self.changed(seat, true);
    }

    /// Has what is kept free for somebody be free.
    pub(super) fn open_claim(&mut self, seat: usize, load: &Load, claim: &Claim) {
        let kept = load.kept_free(claim);
        let room = &mut self.rooms[seat];
        room.held.sub(&kept);
        room.kept_gpus = gpus::less(&room.kept_gpus, &load.kept_gpus(claim));
        // Who holds a port still has to end first.
        let held = |port: &&u16| load.ports.contains_key(*port);
        for port in claim.ports.iter().filter(|port| !held(port)) {
            room.ports.remove(port);
        }
        self.changed(seat, true);
    }

    /// What was measured on a node, in thousandths of a core.
    pub(super) fn measure(&mut self, seat: usize, cpu: u64) {
        self.rooms[seat].measured_cpu = cpu;
        self.changed(seat, false);
    }

    /// What each node that is up costs as it is: the sum of its weights, without those of what it does
    /// not have or count.
    pub(super) fn costs(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        (0..self.len()).filter_map(|seat| Some((seat, self.cost_as_it_is(seat)?)))
    }

    /// The same of one node; none if it is not up.
    pub(super) fn cost_as_it_is(&self, seat: usize) -> Option<f64> {
        let room = Some(&self.rooms[seat]).filter(|room| room.up)?;
        let counts = room.all().map(|all| all > 0 && all != UNCOUNTED);
        let weights = self.rows[seat].weight.iter().zip(counts);
        let weights = weights.filter(|(_, counts)| *counts);
        Some(weights.map(|(weight, _)| *weight).sum())
    }

    /// A seat is looked at again by those that rank, if its row or anything else they look at changed.
    fn changed(&mut self, seat: usize, other: bool) {
        if self.count(seat) || other {
            self.changes.push(seat, self.names.len());
        }
    }

    /// Counts the row of a seat anew; whether it became another.
    fn count(&mut self, seat: usize) -> bool {
        let room = &self.rooms[seat];
        let standing = Standing::of(self.ln_n, room);
        let row = Row::of(&standing, room, self.rows[seat].amounts);
        let bits = |used: [f64; DIMENSIONS]| used.map(f64::to_bits);
        let other = row != self.rows[seat] || bits(standing.used) != bits(self.used[seat]);
        self.rows[seat] = row;
        self.used[seat] = standing.used;
        other
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn name(&self, seat: usize) -> &Name {
        &self.names[seat]
    }

    pub(super) fn room(&self, seat: usize) -> &Room {
        &self.rooms[seat]
    }

    pub(super) fn rooms(&self) -> &[Room] {
        &self.rooms
    }

    pub(super) fn find(&self, name: &Name) -> Option<usize> {
        self.seats.get(name).copied()
    }

    /// The first seat behind a name, whether a node has that name or not.
    pub(super) fn behind(&self, name: &Name) -> usize {
        self.names.partition_point(|other| other <= name)
    }

    /// How many changes there were so far.
    pub(super) fn now(&self) -> u64 {
        self.changes.now()
    }

    /// The seats that changed since; none if that is too long ago to know.
    pub(super) fn since(&self, seen: u64) -> Option<&[u32]> {
        self.changes.since(seen)
    }

    /// A shape on the nodes there are.
    pub(super) fn view(&mut self, shape: &Shape) -> View {
        let seats = self.selection.of(&shape.request, &self.rooms);
        let shunned = self.selection.shunned(&shape.request, &self.rooms);
        let affinities = shape.affinities.iter().map(|(rule, weight)| {
            let seats = self.selection.holding(rule.clone(), &self.rooms).clone();
            (seats, *weight)
        });
        View {
            affinities: affinities.collect(),
            seats,
            shunned: (!shunned.is_empty()).then_some(shunned),
            terms: Tables::of(self.ln_n, &shape.request, &self.amounts),
        }
    }

    /// The values that nodes have of an attribute.
    pub(super) fn values(&mut self, attribute: &Attribute) -> &Values {
        self.selection.values(attribute, &self.rooms)
    }

    /// What each node costs; those that a shape does not fit are out.
    pub(super) fn keys(&self, shape: &Shape, view: &View) -> Vec<f64> {
        let mut keys = vec![OUT; self.len()];
        // What affinities say is looked up for 64 seats at once.
        let mut speaks: Vec<(u64, i32)> = Vec::with_capacity(view.affinities.len());
        for (at, word) in view
            .seats
            .words()
            .enumerate()
            .filter(|(_, word)| *word != 0)
        {
            let affinities = view.affinities.iter();
            let here = affinities.map(|(seats, weight)| (seats.word(at), i32::from(*weight)));
            speaks.clear();
            speaks.extend(here);
            for bit in bits(word) {
                let points = speaks.iter().filter(|(seats, _)| (seats >> bit) & 1 == 1);
                let points = points.map(|(_, weight)| weight).sum();
                let seat = at * 64 + bit;
                keys[seat] = self.cost(shape, view, seat, points);
            }
        }
        keys
    }

    /// What a node costs; it is out if the shape does not fit it.
    pub(super) fn key(&self, shape: &Shape, view: &View, seat: usize) -> f64 {
        if view.seats.contains(seat) {
            self.cost(shape, view, seat, view.points(seat))
        } else {
            OUT
        }
    }

    /// What a node that suits the shape costs with so many points; it is out if it has no room.
    #[inline]
    pub(super) fn cost(&self, shape: &Shape, view: &View, seat: usize, points: i32) -> f64 {
        let row = &self.rows[seat];
        let request = &shape.request;
        let asked = request.asked();
        let enough = (0..DIMENSIONS).all(|d| asked[d] <= row.free[d]);
        if !(enough && (request.free_ports <= row.free_ports as usize)) {
            return OUT;
        }
        // Only fixed ports and the names of gpus are not in the row.
        let in_row = request.fixed_ports.is_empty() && request.gpus.named.is_empty();
        if !in_row && has_room(&self.rooms[seat], request).is_err() {
            return OUT;
        }
        let mut cost = if shape.strategy == Strategy::Epvm {
            view.terms.epvm(&row.weight, &row.amounts)
        } else {
            let terms = view.terms.on(&row.amounts);
            score::cost(shape.strategy, &self.standing(seat), &terms)
        };
        if points != 0 {
            cost = self.pull.on(shape.strategy, cost, points);
        }
        if view.shuns(seat) {
            cost = score::shunned(shape.strategy, cost);
        }
        cost
    }

    /// What a shape adds to what all nodes cost together by `epvm`, on a node that suits it.
    pub(super) fn adds(&self, view: &View, seat: usize) -> f64 {
        let row = &self.rows[seat];
        view.terms.epvm(&row.weight, &row.amounts)
    }

    fn standing(&self, seat: usize) -> Standing {
        Standing {
            used: self.used[seat],
            weight: self.rows[seat].weight,
        }
    }

    /// What one node costs, whether or not it was looked at in view of the shape before.
    pub(super) fn cost_on(&self, shape: &Shape, seat: usize) -> f64 {
        let all = self.rooms[seat].all();
        let terms = Terms::of(self.ln_n, &shape.request, &all);
        score::cost(shape.strategy, &self.standing(seat), &terms)
    }

    /// Why a request does not fit, node by node; `apart` says why a seat is out that it would fit.
    pub(super) fn why_not(
        &self,
        request: &Request,
        apart: impl Fn(usize) -> Option<Cause>,
    ) -> super::WhyNot {
        let mut why = super::WhyNot::default();
        for (seat, room) in self.rooms.iter().enumerate() {
            // What is against a node by itself comes first, then the replicas, then its room, which
            // changes with everything that is placed.
            let cause = suits(room, request).err().or_else(|| apart(seat));
            let cause = cause.or_else(|| has_room(room, request).err());
            if let Some(cause) = cause {
                why.count(cause);
            }
        }
        why
    }
}

impl Row {
    fn of(standing: &Standing, room: &Room, amounts: [u32; DIMENSIONS]) -> Self {
        let (held, all) = (room.held(), room.all());
        Self {
            free: std::array::from_fn(|d| all[d].saturating_sub(held[d])),
            weight: standing.weight,
            free_ports: u32::try_from(room.free_ports()).unwrap_or(u32::MAX),
            amounts,
        }
    }
}

impl Changes {
    fn push(&mut self, seat: usize, seats: usize) {
        // Whoever is further behind than there are seats does better to look at all of them.
        if self.seats.len() > 2 * seats + 64 {
            let gone = self.seats.len() / 2;
            self.seats.drain(..gone);
            self.forgotten += gone as u64;
        }
        self.seats.push(u32::try_from(seat).unwrap_or(u32::MAX));
    }

    fn now(&self) -> u64 {
        self.forgotten + self.seats.len() as u64
    }

    fn since(&self, seen: u64) -> Option<&[u32]> {
        let from = usize::try_from(seen.checked_sub(self.forgotten)?).ok()?;
        self.seats.get(from..)
    }
}
