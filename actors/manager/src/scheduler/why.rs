//! Why nothing fits, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use loom_schemas::ids::{Name, Slot};
use loom_schemas::words::DriverKind;

use super::apartness::Apartness;
use super::fits::{Room, has_room, suits};
use super::request::Request;
use crate::state::State;

/// Why one node does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It does not answer.
    Down,
    /// Its runs are to leave it.
    Draining,
    /// It is in another datacenter than the job may run in, or did not say in which.
    Datacenter,
    /// It lacks the driver.
    Driver(DriverKind),
    /// It lets no output go to this path.
    LogDir(Arc<str>),
    /// It is not what a constraint asks for.
    Constraint(Arc<str>),
    /// It has a taint that the task does not tolerate.
    Taint(String),
    /// Too few cores are left.
    Cpu,
    /// Too little memory is left.
    Memory,
    /// Too little disk is left.
    Disk,
    /// Its disks are to read or to write too much already.
    DiskRate,
    /// Too few processes and threads are left.
    Pids,
    /// Too few gpus are left, of a name or in all.
    Gpus(Option<Name>),
    /// A host port that the task fixes is taken.
    PortTaken(u16),
    /// Its range has too few ports left.
    Ports,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("down"),
            Self::Draining => f.write_str("draining"),
            Self::Datacenter => f.write_str("in another datacenter"),
            Self::Driver(driver) => write!(f, "no {driver} driver"),
            Self::LogDir(path) => write!(f, "no --log-dir for {path}"),
            Self::Constraint(text) => write!(f, "constraint {text}"),
            Self::Taint(taint) => write!(f, "taint {taint}"),
            Self::Cpu => f.write_str("not enough cpu"),
            Self::Memory => f.write_str("not enough memory"),
            Self::Disk => f.write_str("not enough disk"),
            Self::DiskRate => f.write_str("not enough disk rate"),
            Self::Pids => f.write_str("not enough pids"),
            Self::Gpus(None) => f.write_str("not enough gpus"),
            Self::Gpus(Some(name)) => write!(f, "not enough {name} gpus"),
            Self::PortTaken(port) => write!(f, "port {port} taken"),
            Self::Ports => f.write_str("no free ports"),
        }
    }
}

/// How many nodes do not fit, by cause; the counts add up to the number of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct WhyNot {
    /// Nodes by cause.
    pub counts: BTreeMap<Cause, usize>,
}

impl WhyNot {
    /// What its words begin with.
    pub const WORDS: &str = "no node fits: ";

    /// Why what a slot asks for fits no node as things stand; none if it fits one. Counted in the order
    /// of placing: what is against a node by itself, the other replicas, its room.
    pub fn of(state: &State, slot: &Slot, request: &Request) -> Option<Self> {
        let mut why = Self::default();
        let mut apart = Apartness::of(state);
        for node in state.nodes() {
            let room = Room::of(node, state.load(&node.name));
            let cause = suits(&room, request).err();
            let cause = cause.or_else(|| apart.refuses(request, slot, node));
            why.count(cause.or_else(|| has_room(&room, request).err())?);
        }
        Some(why)
    }

    /// One node does not fit.
    pub(super) fn one(cause: Cause) -> Self {
        Self {
            counts: BTreeMap::from([(cause, 1)]),
        }
    }

    pub(super) fn count(&mut self, cause: Cause) {
        *self.counts.entry(cause).or_default() += 1;
    }
}

/// `no node fits: 2 not enough memory, 1 down`, the most frequent cause first.
impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.counts.is_empty() {
            return write!(f, "{}there are no nodes", Self::WORDS);
        }
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        f.write_str(Self::WORDS)?;
        for (place, (cause, count)) in counts.into_iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{} {cause}", grouped(*count))?;
        }
        Ok(())
    }
}

/// `3,112`.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_as_people_write_them() {
        let why = WhyNot {
            counts: BTreeMap::from([
                (Cause::Memory, 3112),
                (Cause::Constraint("arch == arm64".into()), 1650),
                (Cause::Draining, 238),
            ]),
        };
        assert_eq!(
            why.to_string(),
            "no node fits: 3,112 not enough memory, 1,650 constraint arch == arm64, 238 draining"
        );
        assert_eq!(grouped(1_000_000), "1,000,000");
    }
}
