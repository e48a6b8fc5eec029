//! What the manager actor is told, and how it ends.

use loom_bus::log::{AppendError, SnapshotMark};
use loom_bus::serve::Request;
use loom_schemas::ids::{Name, Revision};
use ractor::RpcReplyPort;

use super::log_writer::Landed;
use super::outbox::Outcome;
use super::queue_reader::Queued;
use super::scheduler::Pass;
use super::wish::{Wish, Word};

/// What the manager is told.
pub(crate) enum ManagerMessage {
    /// A client wants something done to a job.
    Asked(Box<Request>, Wish),
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
            Self::Failed => "failed",
            Self::HandedOver => "handed over",
        }
    }

    /// What an actor's exit said.
    pub(crate) fn of(reason: Option<&str>) -> Self {
        match reason {
            Some("deposed") => Self::Deposed,
            Some("handed over") => Self::HandedOver,
            _ => Self::Failed,
        }
    }
}

/// What wants a decision and waits for the pass under way.
pub(crate) enum Held {
    Asked(Box<Request>, Wish),
    Said(Box<Request>, Name, Word),
    Queued(Box<Queued>),
    /// Nobody serves this node's subject.
    NotThere(Name),
    Tick,
}
