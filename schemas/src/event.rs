//! What people and triggers are told: one event, its body and its subject.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Index, Name, RunId};
use crate::words::RunState;

/// One event, decided together with the commit it tells of, and published from it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was decided.
    pub at: Timestamp,
    /// Whom it is about.
    pub about: About,
    /// What happened, the last token of the subject: `accepted`, `running`, `up`.
    pub what: String,
    /// The run, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The node, if one is part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// The version of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The exit code of what ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The states gone through since the last event of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<RunState>,
    /// Who asked for it, as the server knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The id of the queue message or command it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Whom an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum About {
    /// A job.
    Job {
        /// Its name.
        job: Name,
    },
    /// A slot of a task.
    Task {
        /// The job.
        job: Name,
        /// The task.
        task: Name,
        /// Which slot of it.
        index: Index,
    },
    /// A node.
    Node {
        /// Its name.
        node: Name,
    },
    /// A manager.
    Manager {
        /// Its name.
        manager: Name,
    },
    /// All of it.
    Cluster,
    /// A queue message without a usable name.
    Queue {
        /// Its sequence in the queue's stream.
        sequence: u64,
    },
}

impl Event {
    /// An event with nothing but whom, what and when.
    pub fn new(at: Timestamp, about: About, what: impl Into<String>) -> Self {
        Self {
            at,
            about,
            what: what.into(),
            run: None,
            node: None,
            version: None,
            reason: None,
            exit_code: None,
            passed: Vec::new(),
            by: None,
            request: None,
        }
    }

    /// The subject it is published on.
    pub fn subject(&self) -> String {
        let what = &self.what;
        match &self.about {
            About::Job { job } => format!("orch.events.job.{job}.{what}"),
            About::Task { job, task, index } => {
                format!("orch.events.task.{job}.{task}.{index}.{what}")
            }
            About::Node { node } => format!("orch.events.node.{node}.{what}"),
            About::Manager { manager } => format!("orch.events.manager.{manager}.{what}"),
            About::Cluster => format!("orch.events.cluster.{what}"),
            About::Queue { sequence } => format!("orch.events.queue.{sequence}.{what}"),
        }
    }

    /// The body people read: flat, with the fields of `about` beside the others.
    pub fn body(&self) -> EventBody {
        let mut body = EventBody {
            at: self.at,
            what: self.what.clone(),
            verb: None,
            result: None,
            job: None,
            task: None,
            index: None,
            run: self.run,
            node: self.node.clone(),
            manager: None,
            version: self.version,
            reason: self.reason.clone(),
            exit_code: self.exit_code,
            passed: self.passed.clone(),
            by: self.by.clone(),
            request: self.request.clone(),
        };
        match &self.about {
            About::Job { job } => body.job = Some(job.clone()),
            About::Task { job, task, index } => {
                body.job = Some(job.clone());
                body.task = Some(task.clone());
                body.index = Some(index.clone());
            }
            About::Node { node } => body.node = Some(node.clone()),
            About::Manager { manager } => body.manager = Some(manager.clone()),
            About::Cluster | About::Queue { .. } => {}
        }
        body
    }
}

/// An event as it is published: JSON, flat, absent fields left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBody {
    /// When it was decided, RFC 3339 in UTC.
    pub at: Timestamp,
    /// What happened, the last token of the subject; empty for a command.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// Of a command: what was told, `signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// Of a command: `done`, or the code of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Name>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Name>,
    /// The index of the task: a number, or for a system job the node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Index>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// The manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<Name>,
    /// The version of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The exit code of what ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The states gone through since the last event of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<RunState>,
    /// Who asked for it, as the server knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The id of the queue message or command it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// A runtime command that was carried out: who told a task what, with which result.
///
/// Published as JSON by the task's node, on `orch.events.command.<job>.<task>.<index>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandEvent {
    /// When it was answered, RFC 3339 in UTC.
    pub at: Timestamp,
    /// The job.
    pub job: Name,
    /// The task.
    pub task: Name,
    /// The index of the task: a number, or for a system job the node's name.
    pub index: Index,
    /// The run that was told.
    pub run: RunId,
    /// Its node.
    pub node: Name,
    /// The version of the job it runs.
    pub version: u32,
    /// What it was told: `signal`, `pause`, `resume`.
    pub verb: String,
    /// With which arguments, as in the request; nothing if there are none.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub args: serde_json::Value,
    /// Who asked for it, as the server knows them.
    pub by: String,
    /// `done`, or the code of the error.
    pub result: String,
    /// The error in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The id of the command, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// How long it took, in microseconds.
    pub took_us: u64,
}
