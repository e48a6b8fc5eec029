//! What a task actor is told, what it tells its node, and what it is started with.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use loom_bus::Bus;
use loom_schemas::ids::{Name, RunId};
use loom_schemas::wire::{Assigned, Caller, CommandRow, RunReport, TaskCommand};
use ractor::{ActorRef, RpcReplyPort};

use super::Internal;
use super::verb::Verb;
use crate::driver::Driver;
use crate::machine::Progress;
use crate::output::LogDirs;

/// What a task actor is told.
pub enum TaskMessage {
    /// What is wanted of the placement from now on.
    Assign(Box<Assigned>),
    /// A runtime command that reached the node for many tasks; the task answers with its row.
    Command(Box<CommandRequest>),
    /// The placement has ended and the leader knows: clean up, ship what is left, and stop.
    Forget,
    /// Something the actor started has come back to it.
    Internal(Internal),
}

/// One runtime command, read and checked.
pub struct CommandRequest {
    /// What to do.
    pub verb: Verb,
    /// With which arguments.
    pub command: TaskCommand,
    /// Who asks, as the server knows them.
    pub caller: Caller,
    /// After this the command is answered `expired`.
    pub deadline: Option<Timestamp>,
    /// A command with the same id as one carried out before gets the same row again.
    pub command_id: Option<String>,
    /// Where the row goes.
    pub reply: RpcReplyPort<CommandRow>,
}

/// What a task tells its node.
#[derive(Clone, Debug)]
pub enum TaskNotice {
    /// A run went on: write both down, and send the report to the leader.
    Report {
        /// For the leader.
        report: Box<RunReport>,
        /// For the node's disk: where the placement goes on after an agent's restart.
        progress: Box<Progress>,
    },
    /// Everything of the placement is cleaned up; its actor ends.
    Forgotten {
        /// Which.
        placement: RunId,
    },
}

/// Where a task's notices go; never blocks, never fails.
#[derive(Clone)]
pub struct NoticeSender(Arc<dyn Fn(TaskNotice) + Send + Sync>);

impl NoticeSender {
    /// Wraps what takes the notices, for example a cast to the node's actor.
    pub fn new(take: impl Fn(TaskNotice) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    pub(crate) fn send(&self, notice: TaskNotice) {
        (self.0)(notice);
    }
}

/// What lets runs start: the node holds them back while it is cut off from the managers, and
/// limits how many start at once.
pub trait StartGate: Send + Sync + 'static {
    /// Resolves when the run may start. With `progress.restarts > 0` (a run id the manager does not
    /// know) or `progress.restart > 0` (what was ordered once and is not to be done twice) the node
    /// has `progress` on disk by then. The task drops the permit once the start is
    /// over, and the future if the run is no longer wanted.
    fn enter(&self, progress: Progress) -> BoxFuture<'static, StartPermit>;
}

/// The right to start one run, held until the start is over.
pub struct StartPermit {
    _held: Option<Box<dyn Any + Send>>,
}

impl StartPermit {
    /// A permit that keeps `held` (a semaphore's, for example) until it is dropped.
    pub fn holding(held: impl Any + Send) -> Self {
        Self {
            _held: Some(Box::new(held)),
        }
    }

    /// A permit of nothing.
    pub fn free() -> Self {
        Self { _held: None }
    }
}

/// A gate that is always open.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenGate;

impl StartGate for OpenGate {
    fn enter(&self, _progress: Progress) -> BoxFuture<'static, StartPermit> {
        Box::pin(std::future::ready(StartPermit::free()))
    }
}

/// The labels of a node as they are now, shared by all of its tasks.
#[derive(Clone, Debug, Default)]
pub struct NodeLabels(Arc<Mutex<Arc<BTreeMap<String, String>>>>);

impl NodeLabels {
    /// The labels.
    pub fn get(&self) -> Arc<BTreeMap<String, String>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// They are others from now on; a run that goes on keeps what was filled in for it.
    pub fn set(&self, labels: BTreeMap<String, String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(labels);
    }
}

/// The node a task runs on.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its name.
    pub name: Name,
    /// How others reach it.
    pub address: String,
    /// Its labels, for `${node.label.x}`.
    pub labels: NodeLabels,
    /// Where the output of tasks may go, for `logs.to`.
    pub log_dirs: LogDirs,
}

/// What a task actor is started with.
#[derive(Clone)]
pub struct TaskArguments {
    /// What is wanted.
    pub assigned: Assigned,
    /// Where an earlier actor of the placement was; `Some` for every placement that may have been
    /// started before ([`Progress::first`] if nothing more is known), `None` for a new one.
    pub adopt: Option<Progress>,
    /// The node.
    pub node: NodeFacts,
    /// What runs it.
    pub driver: Arc<dyn Driver>,
    /// The control connection: commands, their answers and events.
    pub bus: Bus,
    /// The bulk connection: output.
    pub bulk: Bus,
    /// Where notices go.
    pub notices: NoticeSender,
    /// What lets it start.
    pub may_start: Arc<dyn StartGate>,
}

/// A handle of a task actor.
#[derive(Clone, Debug)]
pub struct TaskRef(pub(crate) ActorRef<TaskMessage>);

impl TaskRef {
    /// The actor, for its id and for supervision.
    pub fn actor(&self) -> &ActorRef<TaskMessage> {
        &self.0
    }

    /// Says what is wanted of the placement from now on.
    pub fn assign(&self, assigned: Assigned) {
        self.tell(TaskMessage::Assign(Box::new(assigned)));
    }

    /// Passes a runtime command on; a task that is gone drops the reply port.
    pub fn command(&self, request: CommandRequest) {
        self.tell(TaskMessage::Command(Box::new(request)));
    }

    /// Asks the actor of an ended placement to clean up and stop.
    pub fn forget(&self) {
        self.tell(TaskMessage::Forget);
    }

    fn tell(&self, message: TaskMessage) {
        // A task that is gone is seen by its supervisor; nothing is lost here.
        let _ = self.0.cast(message);
    }
}

impl fmt::Debug for TaskMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Assign(_) => "Assign",
            Self::Command(_) => "Command",
            Self::Forget => "Forget",
            Self::Internal(_) => "Internal",
        })
    }
}

/// The largest payload of a command that is read, in bytes.
pub(crate) const COMMAND_MAX: usize = 64 * 1024;

/// A payload of nothing.
pub(crate) fn is_blank(payload: &Bytes) -> bool {
    payload.iter().all(u8::is_ascii_whitespace)
}
