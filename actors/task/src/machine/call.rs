//! What the machine asks for, and what it is told.

use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::spec::Resources;
use nix::sys::signal::Signal;

use crate::driver::{Adopted, Ended, Started};
use crate::health::Finding;

/// What to do next for a placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Nothing until this time of the monotonic clock, or until something happens.
    Wait {
        /// When to look again; never if none.
        until: Option<Duration>,
    },
    /// Get what the run needs: its image.
    Prepare {
        /// The run.
        run: RunId,
    },
    /// Ask the node whether the run may start.
    Enter {
        /// The run.
        run: RunId,
    },
    /// Make the launch and start it.
    Start {
        /// The run.
        run: RunId,
    },
    /// Ask the driver what became of a run.
    Adopt {
        /// The run.
        run: RunId,
    },
    /// Send a signal.
    Signal {
        /// The run.
        run: RunId,
        /// Which.
        signal: Signal,
        /// To every process of it, not only the main one.
        tree: bool,
    },
    /// Hold the run to other limits.
    Resize {
        /// The run.
        run: RunId,
        /// Which.
        wanted: Resources,
    },
    /// Thaw a paused run, so that it can act on the signal to end.
    Resume {
        /// The run.
        run: RunId,
    },
    /// Let the driver forget an ended run, its files apart.
    Release {
        /// The run.
        run: RunId,
        /// Whether something of it may be alive, because its start failed half-way.
        kill: bool,
    },
    /// Remove the files of an ended run.
    Remove {
        /// The run.
        run: RunId,
    },
}

/// What happened to a placement.
#[derive(Clone, Debug)]
pub enum Happened {
    /// What is wanted has changed.
    Ordered,
    /// Time has passed.
    Passed,
    /// A call was begun.
    Called(Call),
    /// The driver said what it is doing to get what a run needs.
    Preparing(RunId, String),
    /// What a run needs is there, or cannot be got.
    Prepared(RunId, Result<(), StartError>),
    /// The node lets the run start.
    Entered(RunId),
    /// A start has returned.
    Started(RunId, Result<Started, StartError>),
    /// The driver has said what became of a run, or why it cannot say.
    Adopted(RunId, Result<Adopted, String>),
    /// A run has ended, or waiting for its end has failed.
    Ended(RunId, Result<Ended, String>),
    /// The health checks of a run have come to this.
    Checked(RunId, Finding),
    /// The files of a run take so many bytes.
    Measured(RunId, u64),
    /// The driver has held a run to these limits, but for what it says, or says why not; without a
    /// word where the run has ended.
    Resized(RunId, Resources, Result<Vec<String>, Option<String>>),
    /// A run was paused or resumed.
    Paused(RunId, bool),
}

/// Why a run did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// It cannot work on this node, now or later.
    #[error("{0}")]
    Rejected(String),
    /// Trying again may help.
    #[error("{0}")]
    Failed(String),
    /// The driver knows the run from before, or cannot say whether it runs: ask what became of it.
    #[error("the driver may have the run already")]
    Known,
}

/// What a decision takes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The monotonic clock, since any fixed point.
    pub clock: Duration,
    /// The time of day, for reports and for attempts that outlive the agent.
    pub at: Timestamp,
    /// From 0 to 1, drawn afresh each time.
    pub jitter: f64,
    /// A run id nobody has used.
    pub fresh: RunId,
}
