//! Between managers and nodes: hello, assignments, reports, heartbeats.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Name, RunId, Slot};
use crate::record::{Exit, Gpu, Health, Limits, Marks, NodeInfo, Order};
use crate::spec::TaskSpec;
use crate::words::{Kind, RunState};

/// Node to leader, `orch.ctl.<node>.hello`: who I am and everything I have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster it belongs to; none on its first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// What it says of itself.
    pub info: NodeInfo,
    /// The highest epoch it has obeyed.
    pub epoch: Epoch,
    /// The generation of its assignment.
    pub generation: u64,
    /// One report for every run it has or has not yet been able to report the end of.
    pub runs: Vec<RunReport>,
    /// What live placements of these hold, for a leader whose log has lost it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holdings: Vec<Holding>,
}

/// Node to leader, `orch.ctl.<node>.hello-part`: a [`Hello`] of more runs than go into a message or
/// a commit, one part after the other. The last is answered with a [`Welcome`], the others with
/// [`StatusTaken`] once they are committed; what does not follow the part before is refused, and
/// then the node begins anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HelloPart {
    /// The same in all parts of one hello, another in every other.
    pub greeting: u64,
    /// Counted from 0.
    pub part: u32,
    /// Whether no other follows.
    pub last: bool,
    /// The hello with the runs of this part, live ones first.
    pub hello: Hello,
}

/// What a placement holds on its node, as a leader once gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The placement.
    pub placement: RunId,
    /// Ports of the node by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<Name, u16>,
    /// Gpus of the node that are its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// As [`Assigned::restart`].
    #[serde(default)]
    pub restart: u32,
}

/// The leader's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The cluster's id; a node that belongs to another refuses to go on.
    pub cluster: String,
    /// The whole assignment.
    pub assignment: Assign,
    /// After how long without contact the managers give the node's tasks up, in milliseconds: the
    /// node starts nothing past it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_after_ms: Option<u64>,
    /// As [`StatusTaken::ahead_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_ms: Option<i64>,
}

/// Leader to node, `orch.assign.<node>`: what the node shall have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assign {
    /// The cluster.
    pub cluster: String,
    /// Who leads; a lower one than seen before is refused.
    pub epoch: Epoch,
    /// Raised with each change of the assignment.
    pub generation: u64,
    /// The generation this is a delta of; none if it is the whole set. Equal to `generation` in a
    /// later part of a set or delta that is larger than a message: it describes more placements
    /// of the generation that the node has already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
    /// Placements to have, new or changed.
    pub put: Vec<Assigned>,
    /// In the first part of a whole set: placements that belong to it as well and that later parts
    /// describe. What the node has of them stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<RunId>,
    /// Placements the node shall forget (only those it reported ended).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<RunId>,
    /// The labels that people gave the node: all of them, in place of those sent before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// One placement in an assignment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assigned {
    /// The placement: the id of its first run.
    pub placement: RunId,
    /// The slot.
    pub slot: Slot,
    /// The version of the job.
    pub version: u32,
    /// How long the job is meant to live.
    pub kind: Kind,
    /// What to run.
    pub task: TaskSpec,
    /// Labels of the job, for selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Ports of the node by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<Name, u16>,
    /// Gpus of the node that are its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// The values of the results of other tasks that it refers to, by what stands between the
    /// braces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<String, String>,
    /// Whether its run answers on the slot's address.
    pub holds_address: bool,
    /// How many slots the task has, for replies to many.
    pub replicas: u32,
    /// What is wanted.
    pub order: Order,
    /// Raised by `loomctl restart`: a higher number than carried out before restarts it in place.
    #[serde(default)]
    pub restart: u32,
    /// Attempts of the task that placements of its slot before this one have spent.
    #[serde(default)]
    pub spent: u32,
    /// Raised when its limits change in place: whether they hold is then reported anew.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resize: u32,
}

/// The node's answer to [`Assign`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AssignReply {
    /// It is written down and will be carried out.
    Taken {
        /// The generation the node now has.
        generation: u64,
    },
    /// The delta is of another generation: send the whole set.
    Resync {
        /// The generation the node has.
        generation: u64,
    },
    /// The epoch is lower than one seen before: the sender leads no more.
    Stale {
        /// The highest epoch seen.
        epoch: Epoch,
    },
    /// The node belongs to another cluster.
    Foreign {
        /// The cluster it belongs to.
        cluster: String,
    },
}

/// Node to leader, `orch.ctl.<node>.status`: what became of runs; acknowledged once committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The cluster.
    pub cluster: String,
    /// The reports.
    pub runs: Vec<RunReport>,
}

/// The leader's answer to [`StatusReport`]: all of it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusTaken {
    /// By how much the leader's clock is ahead of the node's, as the node's heartbeats showed, in
    /// milliseconds; negative if it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_ms: Option<i64>,
}

/// Leader to node, `orch.inventory.<node>`: what are your placements? Asked after the log was
/// rewound, when a node has runs of jobs that the state has lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryQuery {
    /// Only later ones, in the order of their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RunId>,
}

/// The answer to [`InventoryQuery`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// The cluster it belongs to; none until a leader first spoke to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The highest epoch it has obeyed.
    pub epoch: Epoch,
    /// One placement of each task of each version of a job, as a leader last described it.
    pub placements: Vec<Assigned>,
    /// Whether there are more, after the last of these.
    #[serde(default)]
    pub more: bool,
}

/// How one run stands on its node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The run.
    pub run: RunId,
    /// The placement it belongs to.
    pub placement: RunId,
    /// The slot.
    pub slot: Slot,
    /// The version of the job.
    pub version: u32,
    /// How far it is.
    pub state: RunState,
    /// States gone through since the last report, oldest first, `state` not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<RunState>,
    /// Marks on `running`.
    #[serde(default)]
    pub marks: Marks,
    /// What its health checks have come to, where it runs and has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How often the placement was restarted before this run.
    #[serde(default)]
    pub restarts: u32,
    /// Whether the node starts the placement again by itself (a later run will be reported).
    #[serde(default)]
    pub will_restart: bool,
    /// The main process, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The image it runs, by digest or by the engine's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the limits of `version` hold, of a run that runs.
    #[serde(default, skip_serializing_if = "Limits::hold")]
    pub limits: Limits,
    /// What the node could not hold it to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unenforced: Vec<String>,
    /// The values of references that were filled in for it, by what stands between the braces; long
    /// ones are cut.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub filled: BTreeMap<String, String>,
    /// What it left in `$LOOM_RESULT`, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// When it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How many changes of its runs the node had seen: of two reports of a run in the same state
    /// that with fewer is the older.
    #[serde(default)]
    pub change: u64,
}

/// Node to leader, `orch.ctl.<node>.bye`: this agent ends; its tasks go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Seconds within which it will be back; none if it is not coming back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_within: Option<u64>,
}

/// Node to managers, every 2 s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// When it was sent, by the node's clock.
    pub at: Timestamp,
    /// The highest epoch it has obeyed.
    pub epoch: Epoch,
    /// The generation of its assignment.
    pub generation: u64,
    /// What is in use.
    pub usage: NodeUsage,
}

/// What is in use on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeUsage {
    /// Cores in use over the last interval, in thousandths.
    pub cpu_millis: u32,
    /// Memory in use, in bytes.
    pub memory: u64,
    /// Disk in use, in bytes.
    pub disk: u64,
    /// Live runs.
    pub runs: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}
