//! Reads of nodes, managers and the bus: `orch.api.{node,manager,bus}.<verb>`.

use serde::{Deserialize, Serialize};

use super::{Heartbeat, RunView};
use crate::ids::{Name, Revision, RunId};
use crate::record::NodeRecord;

/// `orch.api.node.list`: every node, page by page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeListQuery {
    /// Only nodes of later names: [`NodeList::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Name>,
}

/// The answer to [`NodeListQuery`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeList {
    /// By name.
    pub nodes: Vec<NodeSummary>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Name>,
}

/// A node in a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeSummary {
    /// The log's record.
    pub node: NodeRecord,
    /// The last heartbeat this manager saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// By how many milliseconds this manager's clock is ahead of the node's, and what heartbeats need
    /// on their way at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_ms: Option<i64>,
    /// What is reserved on it.
    pub reserved_cpu_millis: u32,
    /// Bytes reserved.
    pub reserved_memory: u64,
    /// Bytes of disk reserved.
    #[serde(default)]
    pub reserved_disk: u64,
    /// Bytes reserved of what is read, and of what is written, in a second.
    #[serde(default)]
    pub reserved_disk_rate: u64,
    /// Processes and threads reserved.
    #[serde(default)]
    pub reserved_pids: u64,
    /// Gpus reserved.
    #[serde(default)]
    pub reserved_gpus: u32,
    /// How many runs on it have not ended.
    pub runs: u32,
}

/// `orch.api.node.get`: asks by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeGet {
    /// The node.
    pub node: Name,
    /// Only runs of later placements: [`NodeView::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RunId>,
}

/// One node whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// The line of it.
    pub summary: NodeSummary,
    /// The runs on it that have not ended, by placement; of many as many as fit into a message.
    pub runs: Vec<RunView>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<RunId>,
}

/// `orch.api.manager.list`: every manager answers with itself, so a client asks all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerView {
    /// Its name.
    pub name: Name,
    /// What it is now.
    pub role: ManagerRole,
    /// Version of the program.
    pub agent: String,
    /// What it has applied.
    pub revision: Revision,
    /// Hash of its state at that revision, in hexadecimal.
    pub state_hash: String,
    /// Who leads, as it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<Name>,
}

/// The answer to `orch.manager.<name>.ping`: it lives, whatever else it is busy with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Its name.
    pub manager: Name,
    /// Whether it leads, as far as it knows.
    pub leads: bool,
}

/// What a manager is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManagerRole {
    /// It decides.
    Leader,
    /// It follows the log and stands by.
    Standby,
    /// It leads, but the log was rewound: it stops nothing until every node has said hello.
    Recovering,
    /// A role this build does not know, from a newer one.
    #[serde(other)]
    Unknown,
}

/// `orch.api.bus.get`: what the bus keeps its promises with, as far as a manager can know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusView {
    /// Version of the server this manager is connected to.
    pub version: String,
    /// Whether every write is on the disk before it is acknowledged; none where the manager has no
    /// login of the system account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_always: Option<bool>,
    /// How long a write may wait for the disk otherwise, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_interval_ms: Option<u64>,
}
