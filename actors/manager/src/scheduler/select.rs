//! Which nodes a request may go to, whatever they have left: sets of seats by line of the request.
//!
//! What holds of a node by itself changes rarely and is asked again and again, so each line that
//! was ever asked is kept as a set of seats: a request selects by intersecting a few of them. When
//! a node changes, its bit in each kept line is asked anew.

use std::collections::HashMap;

use loom_schemas::words::DriverKind;

use super::fits::{Request, Room};

/// So many lines are kept; past that all are forgotten and asked anew.
const LINES_KEPT: usize = 4096;

/// One thing a request asks of a node by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Line {
    /// It takes new runs.
    Up,
    /// It has the driver.
    Driver(DriverKind),
    /// It is in one of them.
    Datacenters(Vec<String>),
}

/// A set of seats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seats(Vec<u64>);

/// The lines asked so far, each with the seats it holds of.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    lines: HashMap<Line, Seats>,
}

impl Line {
    fn holds(&self, room: &Room) -> bool {
        match self {
            Self::Up => room.up,
            Self::Driver(driver) => room.drivers.contains(driver),
            Self::Datacenters(names) => {
                let here = room.datacenter.as_ref();
                here.is_some_and(|here| names.contains(here))
            }
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

    pub(super) fn contains(&self, seat: usize) -> bool {
        self.0[seat / 64] & (1 << (seat % 64)) != 0
    }

    /// The seats in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                (word != 0).then(|| {
                    let bit = word.trailing_zeros() as usize;
                    word &= word - 1;
                    at * 64 + bit
                })
            })
        })
    }
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

    /// A node has changed in what it is.
    pub(super) fn turned(&mut self, seat: usize, room: &Room) {
        for (line, seats) in &mut self.lines {
            seats.set(seat, line.holds(room));
        }
    }

    fn line(&mut self, line: Line, rooms: &[Room]) -> &Seats {
        if self.lines.len() >= LINES_KEPT && !self.lines.contains_key(&line) {
            self.lines.clear();
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

/// What a request asks of nodes by themselves.
fn lines(request: &Request) -> impl Iterator<Item = Line> {
    let datacenters = &request.datacenters;
    let datacenters = (!datacenters.is_empty()).then(|| Line::Datacenters(datacenters.clone()));
    [Line::Up, Line::Driver(request.driver)]
        .into_iter()
        .chain(datacenters)
}
