//! Which nodes a request may go to, whatever they have left: sets of seats by line of the request.
//!
//! What holds of a node by itself changes rarely and is asked again and again, so each line that
//! was ever asked is kept as a set of seats: a request selects by intersecting a few of them. When
//! a node changes, its bit in each kept line is asked anew.

use std::collections::HashMap;

use loom_schemas::spec::{Attribute, Toleration};
use loom_schemas::words::DriverKind;

use super::constraint::Rule;
use super::fits::Room;
use super::request::Request;

/// So many lines are kept; past that all are forgotten and asked anew.
const LINES_KEPT: usize = 4096;

/// The values of so many attributes are kept; past that all are forgotten and looked up anew.
const ATTRIBUTES_KEPT: usize = 256;

/// One thing a request asks of a node by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Line {
    /// It takes new runs.
    Up,
    /// It has the driver.
    Driver(DriverKind),
    /// It is in one of them.
    Datacenters(Vec<String>),
    /// It is what a constraint asks for.
    Rule(Rule),
    /// Its taints are tolerated.
    Admits(Vec<Toleration>),
    /// It has a taint that is not tolerated, and yet does not keep away.
    Shunned(Vec<Toleration>),
}

/// A set of seats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seats(Vec<u64>);

/// The lines asked so far, each with the seats it holds of.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    lines: HashMap<Line, Seats>,
    /// Nodes by what they have of the attributes that were asked for.
    values: HashMap<Attribute, Values>,
}

/// The seats by the value that their nodes have of one attribute.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    /// The number of each seat's value.
    of: Vec<u32>,
    /// Each value, none where nodes have none, and the first seat with it.
    firsts: Vec<(Option<String>, usize)>,
}

impl Line {
    fn holds(&self, room: &Room) -> bool {
        match self {
            Self::Up => room.up && !room.attributes.is_draining(),
            Self::Driver(driver) => room.drivers.contains(driver),
            Self::Datacenters(names) => {
                let here = room.datacenter.as_ref();
                here.is_some_and(|here| names.contains(here))
            }
            Self::Rule(rule) => rule.holds(&room.attributes),
            Self::Admits(tolerations) => room.attributes.refuses(tolerations).is_none(),
            Self::Shunned(tolerations) => room.attributes.is_shunned(tolerations),
        }
    }
}

impl Seats {
    /// All of so many seats.
    fn all(count: usize) -> Self {
        let mut words = vec![u64::MAX; count.div_ceil(64)];
        if let (Some(last), over @ 1..) = (words.last_mut(), count % 64) {
            *last = (1 << over) - 1;
        }
        Self(words)
    }

    fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn set(&mut self, seat: usize, holds: bool) {
        let bit = 1 << (seat % 64);
        if holds {
            self.0[seat / 64] |= bit;
        } else {
            self.0[seat / 64] &= !bit;
        }
    }

    fn intersect(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= other;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn contains(&self, seat: usize) -> bool {
        self.0[seat / 64] & (1 << (seat % 64)) != 0
    }

    /// The seats 64 by 64, a bit for each.
    pub(super) fn words(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }

    /// The 64 seats of that number.
    pub(super) fn word(&self, at: usize) -> u64 {
        self.0[at]
    }
}

/// The bits of a word that are set, in order.
pub(super) fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros() as usize;
            word &= word - 1;
            bit
        })
    })
}

impl Selection {
    /// The seats whose nodes suit a request: the same as asking `suits` of each.
    pub(super) fn of(&mut self, request: &Request, rooms: &[Room]) -> Seats {
        let mut seats = Seats::all(rooms.len());
        for line in lines(request) {
            seats.intersect(self.line(line, rooms));
        }
        seats
    }

    /// The seats whose nodes are taken only where no other has room.
    pub(super) fn shunned(&mut self, request: &Request, rooms: &[Room]) -> Seats {
        let line = Line::Shunned(request.tolerations.clone());
        self.line(line, rooms).clone()
    }

    /// The seats of which a rule holds.
    pub(super) fn holding(&mut self, rule: Rule, rooms: &[Room]) -> &Seats {
        self.line(Line::Rule(rule), rooms)
    }

    /// The values that nodes have of an attribute.
    pub(super) fn values(&mut self, attribute: &Attribute, rooms: &[Room]) -> &Values {
        if !self.values.contains_key(attribute) {
            if self.values.len() >= ATTRIBUTES_KEPT {
                self.values.clear();
            }
            let values = Values::of(attribute, rooms);
            self.values.insert(attribute.clone(), values);
        }
        &self.values[attribute]
    }

    /// A node has changed in what it is.
    pub(super) fn turned(&mut self, seat: usize, room: &Room) {
        self.values.clear();
        for (line, seats) in &mut self.lines {
            seats.set(seat, line.holds(room));
        }
    }

    fn line(&mut self, line: Line, rooms: &[Room]) -> &Seats {
        if self.lines.len() >= LINES_KEPT && !self.lines.contains_key(&line) {
            self.lines.clear();
        }
        if let Line::Rule(rule) = &line
            && !self.lines.contains_key(&line)
        {
            // Each value is asked once, however many nodes have it.
            let seats = self.values(rule.attribute(), rooms).holding(rule, rooms);
            return self.lines.entry(line).or_insert(seats);
        }
        self.lines.entry(line).or_insert_with_key(|line| {
            let mut seats = Seats::none(rooms.len());
            for (seat, room) in rooms.iter().enumerate() {
                seats.set(seat, line.holds(room));
            }
            seats
        })
    }
}

impl Values {
    fn of(attribute: &Attribute, rooms: &[Room]) -> Self {
        let mut numbers: HashMap<Option<String>, u32> = HashMap::new();
        let mut values = Self::default();
        for (seat, room) in rooms.iter().enumerate() {
            let value = room.attributes.text(attribute);
            let number = *numbers.entry(value).or_insert_with_key(|value| {
                values.firsts.push((value.clone(), seat));
                u32::try_from(values.firsts.len() - 1).unwrap_or(u32::MAX)
            });
            values.of.push(number);
        }
        values
    }

    /// The values by their numbers; that a node has none counts as one.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = Option<&str>> {
        self.firsts.iter().map(|(value, _)| value.as_deref())
    }

    /// The number of a seat's value.
    pub(super) fn of_seat(&self, seat: usize) -> usize {
        self.of[seat] as usize
    }

    /// The seats of which a rule about the attribute holds.
    fn holding(&self, rule: &Rule, rooms: &[Room]) -> Seats {
        let firsts = self.firsts.iter();
        let holds = firsts.map(|(_, first)| rule.holds(&rooms[*first].attributes));
        let holds: Vec<bool> = holds.collect();
        let mut seats = Seats::none(rooms.len());
        for (seat, value) in self.of.iter().enumerate() {
            if holds[*value as usize] {
                seats.set(seat, true);
            }
        }
        seats
    }
}

/// What a request asks of nodes by themselves.
fn lines(request: &Request) -> impl Iterator<Item = Line> + '_ {
    let datacenters = &request.datacenters;
    let datacenters = (!datacenters.is_empty()).then(|| Line::Datacenters(datacenters.clone()));
    let admits = Line::Admits(request.tolerations.clone());
    let rules = request.rules.iter().cloned().map(Line::Rule);
    [Line::Up, Line::Driver(request.driver), admits]
        .into_iter()
        .chain(datacenters)
        .chain(rules)
}
