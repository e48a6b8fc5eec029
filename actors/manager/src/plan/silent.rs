//! When the runs of silent nodes are given up.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use loom_schemas::ids::Name;
use loom_schemas::record::NodeRecord;

use crate::state::State;

/// So many nodes may fall silent together before it is taken for the bus.
const TOGETHER: usize = 3;

/// Or so many of a hundred.
const TOGETHER_PERCENT: usize = 20;

/// Nodes that went down within so long of each other fell silent together.
const WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// How long nothing is given up once it is taken for the bus.
const FREEZE: Duration = Duration::from_mins(5);

/// The time between two nodes given up after that.
const ONE_BY_ONE: Duration = Duration::from_mins(1);

/// When the runs of each node that is down are lost: at once if somebody said that it is lost, else
/// `lost_after` after it went down, not before
/// an agent that said `bye` is due back. When more than max(3, 20 %) went down within 30 s of
/// each other, it is taken for the bus: 5 minutes later, then one node a minute.
pub fn deadlines(state: &State, lost_after: Duration) -> BTreeMap<Name, Timestamp> {
    let mut down: Vec<&NodeRecord> = state.down_nodes().map(AsRef::as_ref).collect();
    down.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.name.cmp(&b.name)));
    let (lost, down): (Vec<_>, Vec<_>) = down.into_iter().partition(|node| node.lost);
    let silent: Vec<&NodeRecord> = down
        .iter()
        .copied()
        .filter(|n| n.back_by.is_none())
        .collect();
    let most = TOGETHER.max(state.node_count() * TOGETHER_PERCENT / 100);
    let mut deadlines = BTreeMap::new();
    for node in lost {
        deadlines.insert(node.name.clone(), node.since);
    }
    for node in down.iter().filter(|node| node.back_by.is_some()) {
        let usual = later(node.since, lost_after);
        deadlines.insert(node.name.clone(), node.back_by.unwrap_or(usual).max(usual));
    }
    let within = |a: &NodeRecord, b: &NodeRecord| b.since.duration_since(a.since) <= WITHIN;
    let (mut first, mut behind) = (0, 0);
    for (at, node) in silent.iter().enumerate() {
        while !within(silent[first], node) {
            first += 1;
        }
        while behind < silent.len() && within(node, silent[behind]) {
            behind += 1;
        }
        let (before, after) = (at - first, behind - at - 1);
        let deadline = if before + 1 + after > most {
            let turn = u32::try_from(before).unwrap_or(u32::MAX);
            later(
                node.since,
                FREEZE.saturating_add(ONE_BY_ONE.saturating_mul(turn)),
            )
        } else {
            later(node.since, lost_after)
        };
        deadlines.insert(node.name.clone(), deadline);
    }
    deadlines
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
