//! Nodes as the managers know them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::spec::Gpus;
use crate::units::{Bytes, MilliCores, Millis};
use crate::words::{DriverKind, TaintEffect};

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
    /// Labels that people gave it; they stand in place of those of its agent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What keeps runs away from it, by key and effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Its runs are to leave, and no new ones come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
}

/// What was measured on a node, as decisions have it from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseRecord {
    /// Cores in use, smoothed, by whatever runs there.
    pub cpu: MilliCores,
}

/// What keeps runs away from a node that do not tolerate it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// What it is called.
    pub key: String,
    /// What tolerations may ask for beside the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it does.
    pub effect: TaintEffect,
    /// Of an `evict`: runs are given so long to move; those left are stopped.
    #[serde(default, skip_serializing_if = "Millis::is_zero")]
    pub after: Millis,
    /// Who put it there.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// An order to empty a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Who gave it.
    pub by: String,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
    /// Runs that are left then are stopped; they may take as long as they need if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// How many runs there were.
    pub runs: u32,
    /// When the last run had left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<Timestamp>,
}

impl NodeRecord {
    /// Its labels as constraints and references see them: those that people gave it, and those of
    /// its agent of other keys.
    pub fn merged_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.info.labels.clone();
        labels.extend(self.labels.clone());
        labels
    }

    /// One of them.
    pub fn label(&self, key: &str) -> Option<&str> {
        let label = self.labels.get(key).or_else(|| self.info.labels.get(key));
        label.map(String::as_str)
    }
}

/// `key=value:effect`.
impl std::fmt::Display for Taint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, "={value}")?;
        }
        write!(f, ":{}", self.effect)
    }
}

impl Drain {
    /// Who gave the order and why: `anna: new kernel`.
    pub fn by_whom(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{}: {reason}", self.by),
            None => self.by.clone(),
        }
    }
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
    /// Operating system and version as people say it: `Debian GNU/Linux 12`.
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
    /// What else there is to know of it, by the names it has in constraints: `os.version`,
    /// `docker.version`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The directories beneath which the output of tasks may go, for `logs.to`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_dirs: Vec<String>,
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
    /// What its disks read, and write, in a second; not counted if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_rate: Option<Bytes>,
    /// Processes and threads; not counted if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// The first host port it gives out.
    pub ports_from: u16,
    /// The last.
    pub ports_to: u16,
    /// Its gpus, each for one run at a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
}

/// One gpu of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gpu {
    /// What tasks ask for it by, after its model.
    pub name: Name,
    /// What drivers know it by on its node: a UUID, or a number.
    pub id: String,
}

impl Gpu {
    /// How many there are of each name: `2 a100, 1 t4`.
    pub fn counts<'a>(gpus: impl IntoIterator<Item = &'a Self>) -> Gpus {
        let mut named = BTreeMap::new();
        for gpu in gpus {
            *named.entry(gpu.name.clone()).or_insert(0) += 1;
        }
        Gpus { any: 0, named }
    }
}

/// `a100:0`.
impl std::fmt::Display for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.id)
    }
}
