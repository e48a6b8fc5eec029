//! The cores that nodes use, as they say with each heartbeat: smoothed, and written down where they
//! make a difference to what is reserved, so that the log says what each choice was made from.

use std::cmp::Reverse;
use std::time::Duration;

use imbl::OrdMap;
use loom_schemas::ids::Name;
use loom_schemas::record::UseRecord;
use loom_schemas::units::MilliCores;

use crate::state::State;

/// What was measured so long ago counts for 1/e of what it did.
const MEMORY: Duration = Duration::from_secs(30);

/// A difference of less than one in so many parts of a node's cores is none.
const PARTS: u64 = 50;

/// At most so many nodes are written down in one pass, those with the greatest differences first.
const MOST: usize = 512;

/// The cores in use on a node, in thousandths: a mean that forgets by and by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Smoothed(f64);

impl Smoothed {
    /// By the first measurement.
    pub fn first(millicores: u32) -> Self {
        Self(f64::from(millicores))
    }

    /// With one more measurement, so long after the last.
    #[must_use]
    pub fn with(self, millicores: u32, after: Duration) -> Self {
        let new = -(-after.as_secs_f64() / MEMORY.as_secs_f64()).exp_m1();
        Self(self.0 + new * (f64::from(millicores) - self.0))
    }

    /// The mean.
    pub fn millicores(self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of numbers of 32 bits"
        )]
        let mean = self.0.round() as u32;
        mean
    }
}

/// What of the measurements makes a difference to a state: what to write down of which nodes, or
/// to take away where no more is in use than is reserved.
pub fn noticed(state: &State, measured: &OrdMap<Name, Smoothed>) -> Vec<(Name, Option<UseRecord>)> {
    let mut noticed = Vec::new();
    for (name, smoothed) in measured {
        let Some(node) = state.node(name) else {
            continue;
        };
        let cores = u64::from(node.info.capacity.cpu.0);
        let reserved = state.load(name).map_or(0, |load| load.held.cpu);
        let noted = state.node_uses().get(name);
        let noted = noted.map_or(0, |noted| u64::from(noted.cpu.0));
        let now = u64::from(smoothed.millicores());
        let counts = |used: u64| used.min(cores).max(reserved);
        let difference = counts(now).abs_diff(counts(noted));
        if difference > 0 && difference * PARTS >= cores {
            let record = UseRecord {
                cpu: MilliCores(smoothed.millicores()),
            };
            let record = Some(record).filter(|_| now > reserved);
            noticed.push((Reverse(difference), name.clone(), record));
        }
    }
    noticed.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    noticed.truncate(MOST);
    let noticed = noticed.into_iter();
    noticed.map(|(_, name, record)| (name, record)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixture::{decide, name, with_nodes};

    #[test]
    fn use_is_smoothed_however_often_it_is_told() {
        let second = Duration::from_secs(1);
        let often = (0..30).fold(Smoothed::first(0), |mean, _| mean.with(1000, second));
        let once = Smoothed::first(0).with(1000, 30 * second);
        assert_eq!((often.millicores(), once.millicores()), (632, 632));
        // A moment is next to nothing, and after an hour only the new one counts.
        let peak = Smoothed::first(100).with(4000, second);
        assert_eq!(peak.millicores(), 228);
        assert_eq!(peak.with(100, 3600 * second).millicores(), 100);
    }

    #[test]
    fn only_what_makes_a_difference_is_noticed() {
        let of = |pairs: &[(&str, u32)]| -> OrdMap<Name, Smoothed> {
            let pairs = pairs.iter();
            pairs
                .map(|(node, used)| (name(node), Smoothed::first(*used)))
                .collect()
        };
        let told = |state: &State, pairs: &[(&str, u32)]| -> Vec<(String, Option<u32>)> {
            let told = noticed(state, &of(pairs)).into_iter();
            told.map(|(node, record)| (node.to_string(), record.map(|it| it.cpu.0)))
                .collect()
        };
        let state = with_nodes(3, 4);
        // A fiftieth of four cores is 80; the greatest difference comes first, and a stranger never.
        let first = told(
            &state,
            &[("node-1", 79), ("node-2", 80), ("node-3", 900), ("x", 900)],
        );
        let expected = [
            ("node-3".to_owned(), Some(900)),
            ("node-2".to_owned(), Some(80)),
        ];
        assert_eq!(first, expected);
        let state = decide(&state, |draft| {
            draft.put_use(
                &name("node-3"),
                UseRecord {
                    cpu: MilliCores(900),
                },
            );
            draft.put_use(
                &name("node-2"),
                UseRecord {
                    cpu: MilliCores(9000),
                },
            );
        })
        .state;
        assert_eq!(
            told(&state, &[("node-3", 950), ("node-2", 4000)]),
            [],
            "all its cores are all"
        );
        assert_eq!(
            told(&state, &[("node-3", 0)]),
            [("node-3".to_owned(), None)]
        );
    }
}
