//! Runtime commands, from whoever gives them to tasks and back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, WireError};
use crate::ids::{Name, RunId, Slot};
use crate::record::{Health, Marks};
use crate::words::RunState;

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
    /// What it answered, where the verb has an answer: [`Inspect`], [`Stats`], or
    /// [`LogLines`](crate::wire::LogLines).
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
    /// The values of references that were filled in, as far as this agent knows them.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub filled: std::collections::BTreeMap<String, String>,
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
