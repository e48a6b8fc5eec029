//! Where a placement goes on after its agent was restarted.

use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::Health;
use loom_schemas::words::RunState;
use serde::{Deserialize, Serialize};

use super::Held;

/// What of a placement must survive its agent; the node keeps it on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The placement: the id of its first run.
    pub placement: RunId,
    /// The current run; the last one where the placement is over.
    pub run: RunId,
    /// How far that run is.
    pub state: RunState,
    /// How often the placement was restarted before this run.
    pub restarts: u32,
    /// What the health checks of the run had come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Starts that count as attempts, oldest first.
    #[serde(default)]
    pub attempts: Vec<Timestamp>,
    /// The highest `Assigned.restart` that was carried out.
    #[serde(default)]
    pub restart: u32,
    /// What the run is held to; none where it does not run, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// Ended runs whose files are still there, oldest first.
    #[serde(default)]
    pub kept: Vec<RunId>,
}

impl Progress {
    /// A placement of which nothing is known but its id.
    pub fn first(placement: RunId) -> Self {
        Self {
            placement,
            run: placement,
            state: RunState::Scheduled,
            restarts: 0,
            health: None,
            attempts: Vec::new(),
            restart: 0,
            held: None,
            kept: Vec::new(),
        }
    }
}
