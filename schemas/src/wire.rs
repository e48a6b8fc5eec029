//! Messages between managers, nodes and clients.
//!
//! Between managers and nodes they are MessagePack maps with field names; clients may use JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, WireError};
use crate::event::EventBody;
use crate::ids::{Epoch, Name, Revision, RunId, Slot};
use crate::record::{
    Exit, Health, JobRecord, Marks, NodeInfo, NodeRecord, Order, RunRecord, SlotRecord,
};
use crate::spec::{JobSpec, TaskSpec};
use crate::words::{JobStatus, Kind, RunState};

/// The newest format of log entries and messages that this build reads and writes.
pub const FORMAT: u32 = 1;

/// Who sent a request, as the bus server knows them; never what a payload says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user, or the account where the server names no user.
    pub user: String,
    /// The server's own words where it gave more (host, client name), for logs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

// --- manager and node ------------------------------------------------------------------------

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
}

/// The leader's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The cluster's id; a node that belongs to another refuses to go on.
    pub cluster: String,
    /// The whole assignment.
    pub assignment: Assign,
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
    /// Whether its run answers on the slot's address.
    pub holds_address: bool,
    /// How many slots the task has, for replies to many.
    pub replicas: u32,
    /// What is wanted.
    pub order: Order,
    /// Raised by `loomctl restart`: a higher number than carried out before restarts it in place.
    #[serde(default)]
    pub restart: u32,
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
    /// What the node could not hold it to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unenforced: Vec<String>,
    /// When it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
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

// --- runtime commands ------------------------------------------------------------------------

/// What the address of a task is asked, beside the verb in the subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCommand {
    /// `signal`: which, by name with or without `SIG`, or by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// `signal`: every process of the tree, not only the main one.
    #[serde(default)]
    pub all: bool,
    /// `logs`: how many of the last lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// `find`, and commands to many: labels that must match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `find`: the last characters of a run's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_suffix: Option<String>,
}

/// What the tasks addressed did; a command to many gets one such reply from each node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandReply {
    /// A row a task.
    pub rows: Vec<CommandRow>,
}

/// What one task did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandRow {
    /// The slot.
    pub slot: Slot,
    /// The run that answered.
    pub run: RunId,
    /// The version of the job it runs.
    pub version: u32,
    /// Where.
    pub node: Name,
    /// How many slots the task has, so that a client knows when it has all rows.
    pub replicas: u32,
    /// What went wrong; none if it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<WireError>,
    /// What it answered, where the verb has an answer: [`Inspect`], [`Stats`], or [`LogLines`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
    /// How long the task took to do it, in microseconds.
    pub took_us: u64,
}

/// The answer to `stats`: what a run uses now, and has used since it started. What the kernel does
/// not tell is none; rates are the difference of two answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// When it was looked.
    pub at: Timestamp,
    /// Processor time so far, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Memory in use, in bytes, without files that the kernel would give up at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// What memory is limited to, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Read from block devices so far, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<u64>,
    /// Written to block devices so far, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<u64>,
}

/// The answer to `inspect`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspect {
    /// How far the run is.
    pub state: RunState,
    /// Marks on it.
    pub marks: Marks,
    /// What its health checks have come to, where it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// The main process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The image it runs, by digest or by the engine's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The container it is, by the engine's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// When it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// How often its placement was restarted.
    pub restarts: u32,
    /// Where its files are on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// What the node could not hold it to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unenforced: Vec<String>,
}

/// The answer to `logs`, of a task or of the history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogLines {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// How far the history was read: what [`LogQuery::after`] takes to go on from there.
    #[serde(default)]
    pub last: u64,
    /// Whether there is more than fits into an answer: later lines behind `last` if the query had
    /// `after`, else earlier ones than those that were asked for.
    #[serde(default)]
    pub more: bool,
    /// Streams of runs that have ended, all of whose lines came before the mark that says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<LogEnd>,
}

/// The end of a stream of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// The run.
    pub run: RunId,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Where a further line would begin, in bytes of text: no line begins there or behind.
    pub offset: u64,
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written, by the node's clock.
    pub at: Timestamp,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The slot.
    pub slot: Slot,
    /// The run.
    pub run: RunId,
    /// Where the line begins in the run's stream, in bytes: tells doubled lines.
    pub offset: u64,
    /// The text, without the line break; bytes that are not UTF-8 are replaced.
    pub text: String,
}

// --- jobs ------------------------------------------------------------------------------------

/// The leader's answer to a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub job: Name,
    /// Its version.
    pub version: u32,
    /// What the submission did.
    pub outcome: SubmitOutcome,
    /// The commit it is in, for reading one's own writes.
    pub revision: Revision,
}

/// What a submission did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubmitOutcome {
    /// A new job.
    Created,
    /// A new version of a live job.
    Updated,
    /// The same spec on a live job: nothing to do.
    Unchanged,
    /// A new round of a job that had ended.
    Restarted,
}

/// Which part of a job a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAddress {
    /// The job.
    pub job: Name,
    /// One task of it; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Name>,
    /// One index; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
}

/// Reads `web`, `web/0`, `web/api` and `web/api/0`; an index without a task is of the only one.
impl std::str::FromStr for JobAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(200).collect();
        let wrong = |why: &str| {
            format!("address `{shown}`: {why}; expected JOB, JOB/INDEX, JOB/TASK or JOB/TASK/INDEX")
        };
        let name = |part: &str| Name::new(part).map_err(|error| wrong(&error.to_string()));
        let number = |part: &str| part.parse::<u32>().ok();
        let mut parts = text.split('/');
        let job = name(parts.next().unwrap_or_default())?;
        let (second, third) = (parts.next(), parts.next());
        let (task, index) = match (second, third) {
            (None, _) => (None, None),
            (Some(part), None) => match number(part) {
                Some(index) => (None, Some(index)),
                None => (Some(name(part)?), None),
            },
            (Some(task), Some(index)) => {
                let index = number(index).ok_or_else(|| wrong("the last part is no index"))?;
                (Some(name(task)?), Some(index))
            }
        };
        if parts.next().is_some() {
            return Err(wrong("too many parts"));
        }
        Ok(Self { job, task, index })
    }
}

/// `orch.job.stop` and `orch.job.restart`; bare text is the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    /// What to stop or restart.
    pub address: JobAddress,
    /// In words, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `orch.job.scale`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleRequest {
    /// The job.
    pub job: Name,
    /// The task; the only one if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Name>,
    /// How many slots.
    pub replicas: u32,
}

/// The leader's answer to a write that was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The job.
    pub job: Name,
    /// Whether anything changed.
    pub changed: bool,
    /// The commit it is in.
    pub revision: Revision,
}

/// `orch.admin.node.lost`: this node is not coming back as it was. Bare text names it as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRequest {
    /// The node.
    pub node: Name,
    /// In words, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The leader's answer to [`NodeRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChanged {
    /// The node.
    pub node: Name,
    /// Whether anything changed.
    pub changed: bool,
    /// The commit it is in.
    pub revision: Revision,
}

// --- reads, `orch.api.<noun>.<verb>` ---------------------------------------------------------

/// `orch.api.job.list`: what is larger than a message comes in pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobListQuery {
    /// Only jobs whose names come later: [`JobList::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Name>,
}

/// The answer to [`JobListQuery`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobList {
    /// By name.
    pub jobs: Vec<JobSummary>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Name>,
}

/// A job in a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSummary {
    /// The job's own record.
    pub job: JobRecord,
    /// How long it is meant to live.
    pub kind: Kind,
    /// Labels of the job.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How it stands now.
    pub status: JobStatus,
    /// Slots wanted.
    pub wanted: u32,
    /// Slots running, and meant to go on.
    pub running: u32,
    /// Slots whose runs are being stopped and have not ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stopping: u32,
    /// Slots running of which the health checks, if there are any, say healthy; none where no task
    /// has a health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<u32>,
    /// Slots completed.
    pub completed: u32,
    /// Slots waiting for a node.
    pub waiting: u32,
}

/// `orch.api.job.get`: asks by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobGet {
    /// The job.
    pub job: Name,
    /// Only slots that come later: [`JobView::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<SlotCursor>,
}

/// A place among the slots of a job, which come by task and index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotCursor {
    /// The task.
    pub task: Name,
    /// The index.
    pub index: u32,
}

/// One job whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// The line of it.
    pub summary: JobSummary,
    /// The wanted version.
    pub spec: JobSpec,
    /// Its slots, by task and index; of a large job as many as fit into a message.
    pub slots: Vec<SlotRecord>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<SlotCursor>,
}

/// The answer to `orch.api.job.versions`, asked like [`JobGet`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionList {
    /// The versions kept, oldest first.
    pub versions: Vec<VersionSummary>,
}

/// A version of a job in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSummary {
    /// From 1.
    pub version: u32,
    /// When it was submitted.
    pub at: Timestamp,
    /// By whom, as the server knows them.
    pub by: String,
    /// Bytes of the text as submitted.
    pub size: u64,
}

/// `orch.api.job.export`: asks for the text of a version; the answer is that text, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionGet {
    /// The job.
    pub job: Name,
    /// The version; the wanted one if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// `orch.api.run.get`: asks for a run by its id or its last characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunGet {
    /// A UUID, or at least its last 8 characters.
    pub run: String,
}

/// A run and its slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// The slot.
    pub slot: Slot,
    /// The run.
    pub run: RunRecord,
}

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
    /// What is reserved on it.
    pub reserved_cpu_millis: u32,
    /// Bytes reserved.
    pub reserved_memory: u64,
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

/// `orch.api.event.list`: the history of events, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventQuery {
    /// A subject filter, relative to `orch.events.`; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Only those with a higher number; if there are more than the limit, the oldest of them, so
    /// that one can go on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Only those decided at or after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// At most so many: the newest ones, without `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The answer to [`EventQuery`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventList {
    /// Oldest first.
    pub events: Vec<EventRow>,
    /// Whether more lie beyond the limit.
    #[serde(default)]
    pub more: bool,
    /// How far the history was read: what [`EventQuery::after`] takes to go on from there. Events
    /// the query left out have a number as well, so it may lie behind the last row.
    #[serde(default)]
    pub last: u64,
}

/// One event of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRow {
    /// Its number in the history, from 1, without a gap.
    pub number: u64,
    /// The subject it was published on.
    pub subject: String,
    /// Its body.
    pub event: EventBody,
}

/// `orch.api.log.get`: output kept on the bus, also of runs long gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// A subject filter, relative to `orch.logs.`: `web.main.0.*.*`.
    pub filter: String,
    /// Only this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Only lines written at or after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// At most so many lines, the newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// A page: the oldest lines behind this place, which is the [`LogLines::last`] of an earlier
    /// answer, or 0 for the beginning. `tail` has no meaning then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
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

impl CommandRow {
    /// Whether the task did what it was told.
    pub fn is_done(&self) -> bool {
        self.error.is_none()
    }

    /// The kind of error, if there was one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.error.as_ref().map(|error| error.code)
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}
