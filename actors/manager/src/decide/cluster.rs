//! What happens to managers and the cluster itself.

use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::event::{About, Event};
use loom_schemas::ids::Name;
use loom_schemas::record::{ClusterRecord, ManagerRecord};
use loom_schemas::words::Strategy;

use super::recover;
use crate::state::Draft;

/// What a manager begins to lead with.
#[derive(Clone, Copy, Debug)]
pub struct Office<'a> {
    /// Its name.
    pub manager: &'a Name,
    /// Version of the program.
    pub agent: &'a str,
    /// The cluster's id.
    pub cluster: &'a str,
    /// How nodes are ranked.
    pub strategy: Strategy,
    /// Whom it took the lead from by force, and why.
    pub deposed: Option<(&'a Name, &'a str)>,
    /// The incarnation of the log, if it was ever given its state back.
    pub restored: Option<u64>,
    /// How long to wait for nodes after that, where the state knows of none.
    pub patience: Duration,
}

/// A manager began to lead: its own first commit. Every job is planned again.
pub fn elected(draft: &mut Draft, office: &Office<'_>, now: Timestamp) {
    draft.put_manager(ManagerRecord {
        name: office.manager.clone(),
        agent: office.agent.to_owned(),
        elected_at: Some(now),
    });
    let before = draft.state().cluster().cloned().unwrap_or_default();
    let (is_new, former_strategy) = (before.id.is_empty(), before.strategy);
    let mut record = ClusterRecord {
        id: office.cluster.to_owned(),
        strategy: office.strategy,
        ..before
    };
    if let Some(incarnation) = office.restored {
        recover::begin(draft, &mut record, incarnation, office.patience, now);
    }
    draft.put_cluster(record);
    let about = |manager: &Name| About::Manager {
        manager: manager.clone(),
    };
    if let Some((former, why)) = office.deposed {
        let mut event = Event::new(now, about(former), "deposed");
        event.reason = Some(format!("{} leads: {why}", office.manager));
        draft.event(event);
    }
    let mut event = Event::new(now, about(office.manager), "elected");
    event.reason = (!is_new && former_strategy != office.strategy).then(|| {
        format!(
            "nodes are ranked by `{}` from now on, by `{former_strategy}` before: each manager is to be \
             started with the same --strategy",
            office.strategy
        )
    });
    draft.event(event);
    draft.state_mut().mark_all_dirty();
}
