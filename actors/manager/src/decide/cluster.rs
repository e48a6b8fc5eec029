//! What happens to managers and the cluster itself.

use jiff::Timestamp;
use loom_schemas::event::{About, Event};
use loom_schemas::ids::Name;
use loom_schemas::record::{ClusterRecord, ManagerRecord};
use loom_schemas::words::Strategy;

use crate::state::Draft;

/// A manager began to lead: its own first commit. Every job is planned again.
pub fn elected(
    draft: &mut Draft,
    manager: &Name,
    agent: &str,
    cluster: &str,
    strategy: Strategy,
    now: Timestamp,
) {
    draft.put_manager(ManagerRecord {
        name: manager.clone(),
        agent: agent.to_owned(),
        elected_at: Some(now),
    });
    let before = draft.state().cluster().cloned().unwrap_or_default();
    draft.put_cluster(ClusterRecord {
        id: cluster.to_owned(),
        strategy,
        ..before
    });
    let about = About::Manager {
        manager: manager.clone(),
    };
    draft.event(Event::new(now, about, "elected"));
    draft.state_mut().mark_all_dirty();
}
