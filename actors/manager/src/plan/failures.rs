//! Where a task failed lately: any other node is better.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::record::{RunRecord, SlotRecord};
use loom_schemas::words::RunState;

use crate::state::is_live;

/// For so long a node is the last choice for a task that failed there.
const LATELY: Duration = Duration::from_mins(10);

/// So many nodes are told apart at most, those where it failed most: a task that fails everywhere fails
/// for no fault of theirs.
const NODES_MAX: usize = 64;

/// The nodes on which slots of a task failed lately, each with how often, at most 255.
pub(super) fn of_task<'a>(
    slots: impl Iterator<Item = &'a SlotRecord>,
    now: Timestamp,
) -> Vec<(Name, u8)> {
    let mut counts: BTreeMap<&Name, u8> = BTreeMap::new();
    for record in slots {
        // What has ended may not be put away yet.
        let there = record.current.iter().chain(&record.incoming);
        let over = there.filter(|run| !is_live(run)).chain(&record.ended);
        for node in over.filter_map(failed_on) {
            if is_late(node.1, now) {
                let count = counts.entry(node.0).or_default();
                *count = count.saturating_add(1);
            }
        }
    }
    let counts = counts
        .into_iter()
        .map(|(node, count)| (node.clone(), count));
    let mut counts: Vec<(Name, u8)> = counts.collect();
    if counts.len() > NODES_MAX {
        counts.sort_by_key(|(_, count)| Reverse(*count));
        counts.truncate(NODES_MAX);
    }
    counts
}

/// The node on which a slot failed last, if that was longer ago.
pub(super) fn last_of_slot(record: &SlotRecord, now: Timestamp) -> Option<&Name> {
    let (node, at) = failed_on(record.ended.last()?)?;
    (!is_late(at, now)).then_some(node)
}

/// Where a run failed, and when.
fn failed_on(run: &RunRecord) -> Option<(&Name, Option<Timestamp>)> {
    let failed = matches!(
        run.state,
        RunState::Failed | RunState::Rejected | RunState::Lost
    );
    failed.then_some((run.node.as_ref()?, run.ended_at))
}

fn is_late(ended: Option<Timestamp>, now: Timestamp) -> bool {
    ended.is_some_and(|ended| now.duration_since(ended).unsigned_abs() <= LATELY)
}
