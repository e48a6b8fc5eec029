//! Nodes that runs have to leave: when the clock brings something, and when the last one has left.

use jiff::Timestamp;
use loom_schemas::event::{About, Event};
use loom_schemas::ids::Name;
use loom_schemas::record::{Drain, NodeRecord};
use loom_schemas::spec::JobSpec;
use loom_schemas::words::Kind;

use crate::reconcile::leave_of;
use crate::state::{Draft, State};
use crate::system;

/// When the clock next brings something to the runs of a system job that have to leave their nodes.
pub(super) fn due(state: &State, job: &Name, spec: &JobSpec, now: Timestamp) -> Option<Timestamp> {
    if spec.kind != Kind::System {
        return None;
    }
    let on = |node: &&std::sync::Arc<NodeRecord>| {
        let load = state.load(&node.name);
        load.is_some_and(|load| load.placements.values().any(|slot| slot.job == *job))
    };
    let left = state.left_nodes().filter(on);
    let leaves = left.flat_map(|node| spec.tasks.values().filter_map(|task| leave_of(node, task)));
    leaves.filter_map(|leave| leave.due(now)).min()
}

/// The system jobs that are all there is left on a node that is drained: they are the last to leave.
pub(super) fn left_alone(state: &State) -> Vec<Name> {
    let drained = state.left_nodes().filter(|node| node.drain.is_some());
    let alone = drained.filter(|node| system::is_alone(state, &node.name));
    let jobs = alone
        .filter_map(|node| state.load(&node.name))
        .flat_map(|load| {
            let jobs = load.placements.values().map(|slot| slot.job.clone());
            jobs.collect::<Vec<_>>()
        });
    jobs.collect()
}

/// Says of each node that is drained that its last run has left.
pub(super) fn finish(draft: &mut Draft, now: Timestamp) {
    let state = draft.state();
    let is_done = |node: &&std::sync::Arc<NodeRecord>| {
        let under_way = node
            .drain
            .as_ref()
            .is_some_and(|drain| drain.done_at.is_none());
        under_way && state.load(&node.name).is_none()
    };
    let done: Vec<NodeRecord> = state
        .left_nodes()
        .filter(is_done)
        .map(|node| NodeRecord::clone(node))
        .collect();
    for node in done {
        let Some(drain) = node.drain.clone() else {
            continue;
        };
        let mut event = Event::new(
            now,
            About::Node {
                node: node.name.clone(),
            },
            "drained",
        );
        event.reason = Some(match drain.runs {
            1 => "its run has left".to_owned(),
            runs => format!("its {runs} runs have left"),
        });
        event.by = Some(drain.by.clone());
        draft.event(event);
        let drain = Some(Drain {
            done_at: Some(now),
            ..drain
        });
        draft.put_node(NodeRecord { drain, ..node });
    }
}
