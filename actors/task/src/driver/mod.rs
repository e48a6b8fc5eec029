//! Drivers run launches on a node.
//!
//! Every call may be repeated: starting what runs, stopping what ended and removing what is gone
//! all succeed.

mod disk;
pub mod docker;
pub mod process;
mod result;
pub mod sim;
pub mod usage;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::Exit;
use loom_schemas::spec::Resources;
use loom_schemas::words::DriverKind;
use nix::sys::signal::Signal;

use crate::launch::Launch;
use usage::Usage;

pub use disk::taken;
pub use result::{Left, RESULT};

/// What runs launches.
pub trait Driver: Send + Sync + 'static {
    /// Which one it is.
    fn kind(&self) -> DriverKind;

    /// Gets what a launch needs that may take long, such as an image, and says through `tell` what it
    /// is doing. Given up when the future is dropped.
    fn prepare(&self, _launch: Launch, _tell: Tell) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(std::future::ready(Ok(())))
    }

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

    /// Holds a run that runs to other limits, all but `disk`; returns what of them the kernel cannot
    /// hold it to here, a phrase each. An error says what was refused; some of the limits may be
    /// others by then, and the same may be asked again.
    fn resize(
        &self,
        run: RunId,
        wanted: Resources,
    ) -> BoxFuture<'_, Result<Vec<String>, DriverError>>;

    /// Runs one more program in a run that runs, as its user and with its directory, environment
    /// and limits, and kills it when `timeout` has passed. A program that cannot be executed is no
    /// error: its code is 126 or 127, and the output says why.
    fn exec(
        &self,
        run: RunId,
        argv: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecOutcome, DriverError>>;

    /// What the script of a run says of its health now, where the driver plays one and nothing
    /// could be asked; none if a check has to be made.
    fn played_health(&self, _run: RunId) -> Option<Result<(), String>> {
        None
    }

    /// What a run that runs uses now, and has used so far.
    fn usage(&self, run: RunId) -> BoxFuture<'_, Result<Usage, DriverError>>;

    /// The bytes that the files of a run that runs take on the node's disk; none where it has none.
    fn disk(&self, _run: RunId) -> BoxFuture<'_, Result<Option<u64>, DriverError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Forgets a run that has ended: its cgroup, its sockets, and with `files` its directory.
    fn remove(&self, run: RunId, files: bool) -> BoxFuture<'_, Result<(), DriverError>>;
}

/// Takes what a driver says of its preparations, a phrase each: `pulling image nginx: 12 of 60 MiB`.
pub type Tell = Box<dyn Fn(String) + Send + Sync>;

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
    /// What it runs as a container; none for processes.
    pub container: Option<StartedContainer>,
}

/// A container that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedContainer {
    /// The engine's id of it.
    pub id: String,
    /// Its image by digest, `nginx@sha256:...`, or by the engine's id where it came from no registry.
    pub image: String,
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
    /// What it left for `$LOOM_RESULT`, where it exited with code 0.
    pub left: Left,
}

/// The most that is kept of the output of an [`exec`](Driver::exec), in bytes: its beginning.
pub const EXEC_OUTPUT_MAX: usize = 16 * 1024;

/// How a program ended that was run beside a run's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal it died of, if it did.
    pub signal: Option<i32>,
    /// It was killed because it took too long; then there is neither code nor signal.
    pub timed_out: bool,
    /// What it wrote to its standard output and error, up to [`EXEC_OUTPUT_MAX`].
    pub output: Vec<u8>,
}

impl ExecOutcome {
    /// Whether it exited with code 0, in time.
    pub fn succeeded(&self) -> bool {
        self.code == Some(0) && !self.timed_out
    }
}

/// Exit code and signal of a process.
fn exit_of(status: ExitStatus) -> (Option<i32>, Option<i32>) {
    (status.code(), status.signal())
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
    /// An engine or a registry is away or says no; trying again later may help. The text says which,
    /// why, and what to do.
    #[error("{0}")]
    Unavailable(String),
    /// The engine went away, or stopped answering, in the middle of a start: whether the run runs is
    /// to be asked. The text says what was being done.
    #[error("{0}")]
    Uncertain(String),
    /// The kernel here cannot do this.
    #[error("{0}")]
    Unsupported(String),
}
