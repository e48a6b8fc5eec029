//! Replicas spread over the values of an attribute: racks, datacenters.

use loom_schemas::spec::SpreadOver;

use super::Preferences;
use super::floor::Floor;
use super::ranking::OUT;
use super::select::Values;

/// What spreads say of each node that is not out, in hundredths of a node: below 0 where more
/// replicas live than its value is due. Empty where there is nothing to say.
pub(super) fn points(preferences: &Preferences<'_>, floor: &mut Floor, keys: &[f64]) -> Vec<i32> {
    let Some(siblings) = preferences.siblings.as_deref() else {
        return Vec::new();
    };
    if preferences.spread.is_empty() {
        return Vec::new();
    }
    let own = preferences.own.and_then(|own| floor.find(own));
    let others = siblings.others(own);
    let mut points = vec![0; floor.len()];
    for spread in preferences.spread {
        let values = floor.values(&spread.over);
        let mut counts = vec![0; values.all().len()];
        for (seat, count) in &others {
            counts[values.of_seat(*seat)] += count;
        }
        let mut fitting = vec![false; counts.len()];
        for (seat, _) in keys.iter().enumerate().filter(|(_, key)| **key < OUT) {
            fitting[values.of_seat(seat)] = true;
        }
        let due = due(&counts, &shares(spread, values, &fitting), &fitting);
        let of_value: Vec<i32> = due.iter().map(|above| weighed(spread, *above)).collect();
        for (seat, points) in points.iter_mut().enumerate() {
            *points += of_value[values.of_seat(seat)];
        }
    }
    points
}

/// The share of the replicas that each value is to have; only how they compare counts.
fn shares(spread: &SpreadOver, values: &Values, fitting: &[bool]) -> Vec<f64> {
    if spread.targets.is_empty() {
        return vec![1.0; fitting.len()];
    }
    let target = |value: Option<&str>| value.and_then(|value| spread.targets.get(value));
    let sum: f64 = spread.targets.values().copied().map(f64::from).sum();
    let untold = values.all().zip(fitting);
    let untold = untold.filter(|(value, fits)| **fits && target(*value).is_none());
    // The values that are not named have equal parts of what is left.
    let count = u32::try_from(untold.count().max(1)).unwrap_or(u32::MAX);
    let rest = (100.0 - sum).max(0.0) / f64::from(count);
    let share = |value| target(value).copied().map_or(rest, f64::from);
    values.all().map(share).collect()
}

/// By how many replicas each value would be above its share if it had one more, measured by the one
/// that is due next: the least of (replicas + 1) / share, as seats are given to parties by
/// T. Jefferson and V. D'Hondt ("Système pratique et raisonné de représentation proportionnelle",
/// 1882).
fn due(counts: &[u32], shares: &[f64], fitting: &[bool]) -> Vec<f64> {
    let with_one_more = |count: &u32| f64::from(*count) + 1.0;
    let levels = counts.iter().zip(shares).zip(fitting);
    let levels = levels.filter(|((_, share), fits)| **fits && **share > 0.0);
    let levels = levels.map(|((count, share), _)| with_one_more(count) / share);
    let next = levels.reduce(f64::min).unwrap_or(0.0);
    let above = counts.iter().zip(shares);
    above
        .map(|(count, share)| (with_one_more(count) - share * next).max(0.0))
        .collect()
}

/// More replicas than this above make no difference any more.
const MOST_ABOVE: f64 = 10_000.0;

#[expect(
    clippy::cast_possible_truncation,
    reason = "at most a hundred times ten thousand"
)]
fn weighed(spread: &SpreadOver, above: f64) -> i32 {
    (-f64::from(spread.weight) * above.min(MOST_ABOVE)).round() as i32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use loom_schemas::spec::{Affinity, Constraint};
    use loom_schemas::words::Strategy;

    use super::*;
    use crate::decide;
    use crate::scheduler::{Affinities, Cluster, Request, Siblings};
    use crate::state::State;
    use crate::state::fixture::{at, decide as decided, hello_of, info, name, run_id, task};

    /// Two nodes in each of three racks; the second of each has an ssd, the last is in no rack.
    fn racks() -> State {
        decided(&State::default(), |draft| {
            for (number, rack) in ["a", "a", "b", "b", "c", ""].into_iter().enumerate() {
                let mut info = info(8, 16);
                let disk = if number % 2 == 1 { "ssd" } else { "hdd" };
                info.labels.insert("disk".to_owned(), disk.to_owned());
                if !rack.is_empty() {
                    info.labels.insert("rack".to_owned(), rack.to_owned());
                }
                let node = name(&format!("node-{number}"));
                decide::hello(draft, &node, &hello_of(info, Vec::new()), false, at(0));
            }
        })
        .state
    }

    fn picks(strategy: Strategy, affinities: &[Affinity], spread: &[SpreadOver]) -> Vec<String> {
        let mut cluster = Cluster::of(&racks(), strategy);
        let mut siblings = Siblings::default();
        let mut task = task(4);
        task.affinities = affinities.to_vec();
        let request = Request::of(&task);
        let mut place = |number| {
            let mut preferences = Preferences {
                siblings: Some(&mut siblings),
                affinities: Affinities::of(&task),
                spread,
                ..Preferences::default()
            };
            let placed = cluster.place(&task, &request, run_id(number), &mut preferences);
            placed.unwrap().node.to_string()
        };
        (0..4).map(&mut place).collect()
    }

    fn over(attribute: &str, weight: i8) -> SpreadOver {
        SpreadOver {
            over: attribute.parse().unwrap(),
            weight,
            targets: BTreeMap::new(),
        }
    }

    fn towards(line: &str, weight: i8) -> Affinity {
        let Ok(Constraint::Node(predicate)) = line.parse() else {
            panic!("{line}");
        };
        Affinity { predicate, weight }
    }

    #[test]
    fn replicas_are_spread_over_the_values_of_an_attribute() {
        // Packing alone fills the first node.
        assert_eq!(picks(Strategy::Binpack, &[], &[]), ["node-0"; 4]);
        let spread = [over("node.label.rack", 100)];
        for strategy in [
            Strategy::Binpack,
            Strategy::Epvm,
            Strategy::Spread,
            Strategy::Balanced,
        ] {
            let mut picked = picks(strategy, &[], &spread);
            picked.sort();
            // One in each rack, and one where there is none.
            assert_eq!(
                picked,
                ["node-0", "node-2", "node-4", "node-5"],
                "{strategy}"
            );
        }
    }

    #[test]
    fn a_spread_of_negative_weight_keeps_replicas_together() {
        let spread = [over("node.label.rack", -100)];
        let picked = picks(Strategy::Epvm, &[], &spread);
        assert!(
            picked
                .iter()
                .all(|node| node == "node-0" || node == "node-1"),
            "{picked:?}"
        );
    }

    #[test]
    fn nodes_that_an_affinity_speaks_for_come_first_and_those_it_speaks_against_last() {
        let ssd = ["node-1", "node-3", "node-5"];
        for strategy in [
            Strategy::Binpack,
            Strategy::Epvm,
            Strategy::Balanced,
            Strategy::RoundRobin,
        ] {
            for affinity in [
                towards("node.label.disk == ssd", 80),
                towards("node.label.disk == hdd", -80),
            ] {
                let picked = picks(strategy, &[affinity], &[]);
                assert!(
                    picked[..3].iter().all(|node| ssd.contains(&node.as_str())),
                    "{picked:?}"
                );
            }
        }
    }

    #[test]
    fn of_two_affinities_the_heavier_decides() {
        let affinities = [
            towards("node.label.rack == a", 20),
            towards("node.label.rack == b", 60),
        ];
        assert_eq!(picks(Strategy::Epvm, &affinities, &[])[0], "node-2");
        // No node is both, and none is excluded: the third is where there is no affinity at all.
        let all = [towards("node.name == node-9", 100)];
        assert_eq!(picks(Strategy::Binpack, &all, &[]), ["node-0"; 4]);
    }
}
