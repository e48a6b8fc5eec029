//! What the manager actor is told, and how it ends.

use loom_bus::log::{AppendError, SnapshotMark};
use loom_bus::serve::Request;
use loom_schemas::ids::{Name, Revision};
use loom_schemas::wire::Assigned;
use ractor::RpcReplyPort;

use super::log_writer::Landed;
use super::outbox::Outcome;
use super::queue_reader::Queued;
use super::scheduler::Pass;
use super::wish::{Asked, Word};

/// What the manager is told.
pub(crate) enum ManagerMessage {
    /// A client wants something done.
    Asked(Box<Asked>),
    /// A node says something.
    Said(Box<Request>, Name, Word),
    /// The queue reader took a message.
    Queued(Box<Queued>),
    /// An append came back.
    Landed(Box<Result<Landed, AppendError>>),
    /// A planning pass came back.
    Planned(Box<Pass>),
    /// A call to a node came back.
    Told(Name, Outcome),
    /// A node said what its placements are, or did not.
    Inventoried(Name, Option<Vec<Assigned>>),
    /// A snapshot was taken and verified; the answer is whether it was committed.
    SnapshotTaken(SnapshotMark, RpcReplyPort<bool>),
    /// Up to where are events safely in the history?
    AskSettled(RpcReplyPort<Revision>),
    /// The time goes on.
    Tick,
    /// Something is due by the clock.
    Wake,
    /// Finish what is under way, say bye, end.
    HandOver,
    /// All that came before this was refused: end.
    End(Ending),
}

/// Why a manager's leadership ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Another manager leads.
    Deposed,
    /// Nodes know more than the log: it was rewound, and its state has to be restored.
    Rewound,
    /// Something failed that only a new start from the log puts right.
    Failed,
    /// It was asked to.
    HandedOver,
}

impl Ending {
    /// How the actor's exit says it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Deposed => "deposed",
            Self::Rewound => "rewound",
            Self::Failed => "failed",
            Self::HandedOver => "handed over",
        }
    }

    /// What an actor's exit said.
    pub(crate) fn of(reason: Option<&str>) -> Self {
        match reason {
            Some("deposed") => Self::Deposed,
            Some("rewound") => Self::Rewound,
            Some("handed over") => Self::HandedOver,
            _ => Self::Failed,
        }
    }
}

/// What wants a decision and waits for the pass under way.
pub(crate) enum Held {
    Asked(Box<Asked>),
    Said(Box<Request>, Name, Word),
    Queued(Box<Queued>),
    /// Nobody serves this node's subject.
    NotThere(Name),
    /// What a node's placements are, as far as it said.
    Inventoried(Name, Option<Vec<Assigned>>),
    Tick,
}
