//! Drivers run launches on a node.
//!
//! Every call may be repeated: starting what runs, stopping what ended and removing what is gone
//! all succeed.

pub mod process;
pub mod sim;

use std::path::PathBuf;

use futures::future::BoxFuture;
use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::Exit;
use loom_schemas::words::DriverKind;
use nix::sys::signal::Signal;

use crate::launch::Launch;

/// What runs launches.
pub trait Driver: Send + Sync + 'static {
    /// Which one it is.
    fn kind(&self) -> DriverKind;

    /// Starts a launch; returns once the program itself was executed (not only the shim).
    /// A run that is already started is left alone and described again.
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Started, DriverError>>;

    /// Every run of which the driver still has something, for adoption after an agent's restart.
    fn inventory(&self) -> BoxFuture<'_, Result<Vec<RunId>, DriverError>>;

    /// What became of a run that an earlier agent started.
    fn adopt(&self, run: RunId) -> BoxFuture<'_, Result<Adopted, DriverError>>;

    /// Resolves when the run has ended, at once if it already has.
    fn wait(&self, run: RunId) -> BoxFuture<'_, Result<Ended, DriverError>>;

    /// Sends a signal to the main process, or with `tree` to every process of the run.
    /// `Signal::SIGKILL` with `tree` ends the whole tree, paused or not.
    fn signal(
        &self,
        run: RunId,
        signal: Signal,
        tree: bool,
    ) -> BoxFuture<'_, Result<(), DriverError>>;

    /// Stops every process of the run from being scheduled.
    fn pause(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>>;

    /// Undoes [`pause`](Self::pause).
    fn resume(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>>;

    /// Forgets a run that has ended: its cgroup, its sockets, and with `files` its directory.
    fn remove(&self, run: RunId, files: bool) -> BoxFuture<'_, Result<(), DriverError>>;
}

/// A run that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The main process, where it is one.
    pub pid: Option<u32>,
    /// When.
    pub at: Timestamp,
    /// The run's directory, where it has one; its output is in it unless `logs.to` says otherwise.
    pub directory: Option<PathBuf>,
    /// What the kernel could not hold it to, a phrase each: `memory limit: no cgroup`.
    pub unenforced: Vec<String>,
}

/// What became of a run while no agent watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It runs.
    Running {
        /// As it was started.
        started: Started,
        /// Whether it is paused.
        paused: bool,
    },
    /// It ended.
    Ended {
        /// As it was started, if it was.
        started: Option<Started>,
        /// How.
        ended: Ended,
    },
    /// Nothing is known of it: it never started here, or the host was restarted.
    Gone,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code, signal, out of memory.
    pub exit: Exit,
    /// When.
    pub at: Timestamp,
    /// A cause beside the exit, in words: `could not start: ...`.
    pub reason: Option<String>,
}

/// Why a driver could not.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The launch cannot work on this node, now or later: program not found, not executable,
    /// unknown user. The text names the value and what to do.
    #[error("{0}")]
    Rejected(String),
    /// The run is not known to the driver.
    #[error("run {0} is not known")]
    NotFound(RunId),
    /// The run has ended.
    #[error("run {0} has ended")]
    Ended(RunId),
    /// The kernel, the file system or the engine said no; trying again may help.
    #[error("{context}")]
    Failed {
        /// What was being done, to what.
        context: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The kernel here cannot do this.
    #[error("{0}")]
    Unsupported(String),
}
