//! What the node's actor is told, how it stands, and what it works with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loom_bus::connection::Bus;
use loom_bus::serve::Request;
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::NodeInfo;
use loom_schemas::wire::AssignReply;
use loom_task::{Progress, TaskNotice, TaskRef};
use ractor::RpcReplyPort;
use tokio::sync::watch;

use super::leader::Answer;
use crate::drivers::Drivers;
use crate::options::{Limits, TasksOnStop, Timings};
use crate::store::Store;
use crate::usage::Meter;

/// What the node's actor is told.
#[derive(Debug)]
pub(crate) enum NodeMessage {
    /// A leader sent an assignment.
    AssignmentCame(Request),
    /// An assignment is on disk.
    AssignmentKept {
        /// The placements that it may have changed.
        touched: BTreeSet<RunId>,
        /// Who waits for the answer, and the answer.
        answer: Option<(Request, AssignReply)>,
    },
    /// A task said something.
    TaskSaid(TaskNotice),
    /// An actor for a placement was started, or was not.
    TaskSpawned {
        /// The placement.
        placement: RunId,
        /// Which start of it.
        spawn: u64,
        /// The actor, or why not.
        outcome: Result<TaskRef, String>,
    },
    /// A placement's actor ended some time ago: start another.
    RespawnDue(RunId),
    /// A run that no leader knows is about to begin: write it down and say when it is.
    RunBegins {
        /// Where its placement is then.
        progress: Box<Progress>,
        /// Told once it is on disk.
        kept: RpcReplyPort<()>,
    },
    /// The Docker Engine answers, for the first time or again, and this is what it says of itself.
    EngineFound(BTreeMap<String, String>),
    /// The engine has containers of these runs.
    ContainersFound(Vec<RunId>),
    /// The call to the leader in flight came back.
    CallReturned(Box<Answer>),
    /// The bus is there, or is not.
    BusChanged {
        /// Whether it is.
        connected: bool,
    },
    /// A command to the slots of a job came.
    CommandCame(Request),
    /// A command to whatever a selector matches came.
    FindCame(Request),
    /// A leader asks what the placements are.
    InventoryCame(Request),
    /// Another manager leads.
    LeaderElected,
    /// It is time to say that the node lives.
    HeartbeatDue,
    /// Something that waits for its time may be due.
    Wake,
    /// End, once that is said and tasks are ended or left as asked.
    Leave(TasksOnStop),
    /// Bye was said, as far as anybody heard it.
    ByeSaid,
}

/// How a node stands, for whoever started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No leader has welcomed it yet.
    Starting,
    /// A leader has.
    Ready,
    /// The leader leads another cluster: the node has ended.
    Foreign {
        /// Which is whose, in words.
        reason: String,
    },
    /// The leader's log is older than what the node obeyed: the node has ended.
    Rewound {
        /// Which epoch is whose.
        reason: String,
    },
    /// It has ended, for this reason if nobody asked it to.
    Ended(Option<String>),
}

impl Phase {
    /// Whether the node has ended for good.
    pub(crate) fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Foreign { .. } | Self::Rewound { .. } | Self::Ended(_)
        )
    }
}

/// What an agent's actors have in common; stays when the node's actor is restarted.
pub(crate) struct Context {
    pub(crate) name: Name,
    /// What the node said of itself when it was started.
    pub(crate) info: NodeInfo,
    /// Its own labels and those that people gave it, which stand in their place.
    pub(crate) labels: loom_task::NodeLabels,
    pub(crate) bus: Bus,
    pub(crate) bulk: Bus,
    pub(crate) drivers: Drivers,
    pub(crate) timings: Timings,
    pub(crate) limits: Limits,
    pub(crate) store: Store,
    pub(crate) boot_id: String,
    /// None for a node that only plays: its tasks use nothing.
    pub(crate) meter: Option<Arc<Mutex<Meter>>>,
    pub(crate) data_dir: std::path::PathBuf,
    /// Where the output of tasks may go beside that.
    pub(crate) log_dirs: loom_task::LogDirs,
    /// What the drivers had something of before the agent began anything.
    pub(crate) found: Vec<RunId>,
    pub(crate) phase: watch::Sender<Phase>,
    /// How long a task of a node that is stopped may take to end; zero until it is.
    pub(crate) longest_grace: watch::Sender<Duration>,
}
