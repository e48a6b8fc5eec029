//! What the log keeps: jobs, their versions, slots with their runs, nodes and managers.
//!
//! Records carry effects, not commands: the leader decides, a follower only puts them in place.

mod child;
mod claim;
mod decision;
mod node;
mod rebalance;
mod resize;
mod seldom;
mod slot;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Index, Name, RunId, Slot};
use crate::spec::{JobSpec, Resources, Sets};
use crate::wire::SubmitOutcome;
use crate::words::{HealthStatus, JobStatus, RunState, Strategy};

pub use child::{MadeBy, Parent, ScheduleRecord};
pub use claim::{Claim, HeldGang};
pub use decision::{Bias, Decision, RunnerUp, Score};
pub use node::{Capacity, Drain, Gpu, NodeInfo, NodeRecord, NodeStatus, Taint, UseRecord};
pub use rebalance::{MovesRecord, Rebalance, Relocation};
pub use resize::{Limits, PendingResize, Resize};
pub use seldom::Seldom;
pub use update::{UpdatePhase, UpdateState};

/// How many versions of a job are kept.
pub const VERSIONS_KEPT: usize = 20;

/// How many ended runs a slot keeps.
pub const ENDED_RUNS_KEPT: usize = 5;

/// A job: what is wanted of it and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its name.
    pub name: Name,
    /// Whom it belongs to.
    pub owner: String,
    /// The version that is wanted, from 1.
    pub version: u32,
    /// How often it was started after it had ended, from 1.
    pub round: u32,
    /// Whether it is wanted.
    pub wanted: Wanted,
    /// Replicas by task where they were scaled since the version was submitted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scaled: BTreeMap<Name, u32>,
    /// Slots somebody stopped one by one; they stay down until restarted, scaled or resubmitted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub stopped_slots: BTreeSet<(Name, Index)>,
    /// How it stood at the last commit.
    pub status: JobStatus,
    /// Why, in words: a job that failed or was stopped has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The first non-zero exit code by end time, or 0, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// When it was first accepted.
    pub created_at: Timestamp,
    /// When this round was accepted.
    pub submitted_at: Timestamp,
    /// When the first run of this round started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Its versions that have proved healthy, of those that are kept; of a batch, those that completed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub healthy: BTreeSet<u32>,
    /// How far its last update is; none before the first, and for a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateState>,
    /// The job that has made it, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// How far its schedule is, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleRecord>,
    /// Tasks whose runs are placed and held: gangs that are larger than one commit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<Name, HeldGang>,
}

/// Whether a job is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// It shall run.
    Run,
    /// It shall not.
    Stop {
        /// Who said so, as the server knows them.
        by: String,
        /// In words.
        reason: String,
    },
}

/// One version of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The job.
    pub job: Name,
    /// From 1.
    pub version: u32,
    /// What it says.
    pub spec: JobSpec,
    /// The text as submitted, byte for byte.
    #[serde(with = "serde_bytes")]
    pub text: Vec<u8>,
    /// What its vars were set to beside the text.
    #[serde(default, skip_serializing_if = "Sets::is_empty")]
    pub sets: Sets,
    /// When.
    pub at: Timestamp,
    /// By whom, as the server knows them.
    pub by: String,
    /// Why it was made, where it was not submitted: `rolled back to version 3: ...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One slot of a task, with the runs in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// Which slot.
    pub slot: Slot,
    /// The version its next placement runs; 0 where a log of an earlier build did not say.
    #[serde(default)]
    pub version: u32,
    /// The run that fills it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<RunRecord>,
    /// The run that takes over from it once it has proved healthy.
    #[serde(default, skip_serializing_if = "Seldom::is_none")]
    pub incoming: Seldom<RunRecord>,
    /// The last ones that ended, newest last, at most [`ENDED_RUNS_KEPT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<RunRecord>,
    /// How many placements in a row failed; the pause before the next grows with it. Of a batch the
    /// attempts that its placements have spent.
    #[serde(default)]
    pub failed_placements: u32,
    /// No new placement before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Why it waits, counted: `no node fits: 2 not enough memory, 1 down`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// The room that is made for it while it waits.
    #[serde(default, skip_serializing_if = "Seldom::is_none")]
    pub claim: Seldom<Claim>,
    /// The room that is kept for the gang of which it is the first that waits, a claim a node.
    #[serde(default, skip_serializing_if = "Seldom::is_none")]
    pub reservation: Seldom<Vec<Claim>>,
}

/// One execution of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id; the manager mints the first of a placement, the node those of its restarts.
    pub run: RunId,
    /// The first run of the placement it belongs to.
    pub placement: RunId,
    /// The version of the job it runs.
    pub version: u32,
    /// The round of the job it belongs to.
    pub round: u32,
    /// Where, once placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// How that node was chosen; none where nobody did, as of a run that was found on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Box<Decision>>,
    /// How far it is.
    pub state: RunState,
    /// Marks on `running`.
    #[serde(default)]
    pub marks: Marks,
    /// What its health checks have come to; none where it has none, or does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What the manager wants of it.
    pub order: Order,
    /// The slot that it was evicted for.
    #[serde(default, skip_serializing_if = "Seldom::is_none")]
    pub evicted_for: Seldom<Slot>,
    /// What it holds on its node.
    pub reserved: Resources,
    /// Ports of the node by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<Name, u16>,
    /// The gpus of its node that are its own.
    #[serde(default, skip_serializing_if = "Seldom::is_none")]
    pub gpus: Seldom<Vec<Gpu>>,
    /// How often its placement was restarted on the node before this run.
    #[serde(default)]
    pub restarts: u32,
    /// Whether the node starts the placement again by itself after this run ended.
    #[serde(default)]
    pub will_restart: bool,
    /// How often somebody ordered a restart in place of its placement (`Assigned::restart`).
    #[serde(default)]
    pub restart_orders: u32,
    /// How its limits were changed while it runs; none if they never were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Box<Resize>>,
    /// The main process, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The image it runs, by digest: `nginx@sha256:...`; by the engine's id for one that came from no
    /// registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Why it is as it is, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the node could not hold it to: `memory limit: no cgroup`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unenforced: Vec<String>,
    /// The job that it is, where its task is a job; it has no node then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<Name>,
    /// The values of references that were filled in for it, by what stands between the braces; long
    /// ones are cut.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub filled: BTreeMap<String, String>,
    /// What it left in `$LOOM_RESULT`, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// When it was wanted.
    pub created_at: Timestamp,
    /// When its placement was: a restart on the node does not change it.
    pub placed_at: Timestamp,
    /// When its process or container ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// `RunReport.change` of what is known of it.
    #[serde(default)]
    pub change: u64,
}

impl RunRecord {
    /// The gpus of its node that are its own.
    pub fn own_gpus(&self) -> &[Gpu] {
        self.gpus.as_ref().map_or(&[], Vec::as_slice)
    }
}

/// Marks on a running run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Somebody paused it.
    #[serde(default)]
    pub paused: bool,
    /// Its node is silent or its driver away: nobody knows.
    #[serde(default)]
    pub unknown: bool,
}

/// What the health checks of a running run have come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// In a word.
    pub status: HealthStatus,
    /// Why it is not healthy, the last failure in words: `http GET / on port 20001: 503`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when the status is this, by the node's clock.
    pub since: Timestamp,
}

impl Health {
    /// Whether the checks find that it does its work.
    pub fn is_healthy(&self) -> bool {
        self.status == HealthStatus::Healthy
    }
}

/// What the manager wants of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Run, and keep running as the task's restart field says.
    Run,
    /// End.
    Stop {
        /// In words: who or what wants it gone.
        reason: String,
    },
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; death by signal `n` is 128 + n. None where it never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal it died of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The kernel killed its main process for memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// Its time limit passed.
    #[serde(default)]
    pub timed_out: bool,
}

/// What holds for the cluster as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The id that nodes hold on to.
    pub id: String,
    /// How nodes are ranked.
    #[serde(default)]
    pub strategy: Strategy,
    /// The node that `round-robin` chose last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_placed: Option<Name>,
    /// The last time the log was given its state back, and who is still awaited since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// Runs that are being moved to where they cost less, or were last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Rebalance>,
}

/// How far the cluster has recovered from a log that was rewound. Until nobody is awaited nothing
/// is stopped and nothing placed, whoever leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The incarnation of the log that began with it.
    pub incarnation: u64,
    /// Nodes that have not said hello since.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub awaited: BTreeSet<Name>,
    /// Where the state knew of no node, so that nobody can be awaited by name: not over before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

impl Recovery {
    /// Whether nothing is waited for any more.
    pub fn is_over(&self) -> bool {
        self.awaited.is_empty() && self.not_before.is_none()
    }
}

/// A manager as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerRecord {
    /// Its name.
    pub name: Name,
    /// Version of the program.
    pub agent: String,
    /// When it last became leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elected_at: Option<Timestamp>,
}

/// How many commands are remembered at most.
pub const COMMANDS_KEPT: usize = 4096;

/// A write that a client sent with an id and that was carried out: a repeat of it is answered the
/// same and not done again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRecord {
    /// Who sent it, as the server knows them; ids of others are others.
    pub by: String,
    /// A checksum of what was asked: the same id cannot stand for something else.
    pub request: String,
    /// When it was carried out.
    pub at: Timestamp,
    /// What it came to.
    pub outcome: CommandOutcome,
}

/// What a write came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandOutcome {
    /// A submission was taken in.
    Submitted {
        /// The job.
        job: Name,
        /// Its version.
        version: u32,
        /// What the submission did.
        outcome: SubmitOutcome,
        /// The version whose content it has, where the job was rolled back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rolled_back_to: Option<u32>,
    },
    /// A job was stopped, restarted or scaled.
    Committed {
        /// The job.
        job: Name,
        /// Whether anything changed.
        changed: bool,
    },
    /// Something was said of a node.
    Node {
        /// The node.
        node: Name,
        /// Whether anything changed.
        changed: bool,
    },
    /// Runs are moved to where they cost less, or no further ones.
    Rebalanced {
        /// How many moves were begun.
        moves: u32,
    },
}
