//! Nodes as the managers know them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::units::{Bytes, MilliCores};
use crate::words::DriverKind;

/// A node as the managers know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name.
    pub name: Name,
    /// What it said of itself.
    pub info: NodeInfo,
    /// How it stands.
    pub status: NodeStatus,
    /// Since when.
    pub since: Timestamp,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The number of the assignment it was last given; each change raises it.
    pub generation: u64,
    /// When an agent that said `bye` will be back at the latest; its runs are not lost before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_by: Option<Timestamp>,
    /// Somebody said that it is not coming back as it was: its runs are lost at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// It answers.
    Up,
    /// It is silent or said `bye`; its runs are `unknown` until their time is up.
    Down,
    /// A status this build does not know, from a newer one.
    #[serde(other)]
    Unknown,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The host's name.
    pub hostname: String,
    /// How others reach it.
    pub address: String,
    /// Processor architecture: `amd64`, `arm64`.
    pub arch: String,
    /// Operating system and version: `Debian GNU/Linux 12`.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Version of the agent.
    pub agent: String,
    /// The datacenter, if it said one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datacenter: Option<String>,
    /// Labels, for selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it can give to tasks.
    pub capacity: Capacity,
    /// What runs launches on it.
    pub drivers: Vec<DriverKind>,
    /// What else there is to know of it: `docker.version`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Newest format of log and messages it reads.
    pub format: u32,
}

/// What a node can give to tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Cores.
    pub cpu: MilliCores,
    /// Memory.
    pub memory: Bytes,
    /// Disk.
    pub disk: Bytes,
    /// The first host port it gives out.
    pub ports_from: u16,
    /// The last.
    pub ports_to: u16,
}
