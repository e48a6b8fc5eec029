//! A run that was started or adopted.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::Exit;
use loom_schemas::spec::Resources;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal as RawSignal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::cgroup::{self, Cgroups};
use crate::driver::usage::{self, Groups, Usage};
use crate::driver::{Adopted, DriverError, Ended, Left, RESULT, Started};
use crate::shim::record::{Process, STATUS, ShimLaunch, StartedRecord, StatusRecord, start_ticks};
use crate::shim::tree::{self, descendants, send, strays};

/// How long the processes of a run without a shim may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How often processes that are stopped one by one are looked over for new ones.
const STOP_ROUNDS: usize = 20;

/// A run, running or ended.
pub(super) struct Run {
    id: RunId,
    directory: PathBuf,
    pub(super) launch: ShimLaunch,
    /// Its control groups, and those it may be moved into.
    pub(super) groups: Vec<PathBuf>,
    /// None if it ended before anybody saw it start.
    started: Option<StartedRecord>,
    /// The main process; none if it has ended.
    main: Option<OwnedFd>,
    ended: watch::Sender<Option<Ended>>,
}

impl Run {
    /// A run whose shim lives; its end is watched from now on. To be called in a runtime.
    pub(super) fn watched(
        id: RunId,
        directory: PathBuf,
        (launch, groups): (ShimLaunch, Vec<PathBuf>),
        started: StartedRecord,
        shim: Shim,
    ) -> Arc<Self> {
        let main = open(started.main);
        let started = Some(started);
        let run = Arc::new(Self {
            id,
            directory,
            launch,
            groups,
            started,
            main,
            ended: watch::Sender::new(None),
        });
        tokio::spawn(watch_shim(Arc::clone(&run), shim));
        run
    }

    /// A run whose shim is gone: what is left of it is cleaned up.
    pub(super) fn over(
        id: RunId,
        directory: PathBuf,
        (launch, groups): (ShimLaunch, Vec<PathBuf>),
        started: Option<StartedRecord>,
    ) -> Arc<Self> {
        let ended = watch::Sender::new(None);
        let run = Self {
            id,
            directory,
            launch,
            groups,
            started,
            main: None,
            ended,
        };
        run.ended.send_replace(Some(run.finish()));
        Arc::new(run)
    }

    pub(super) fn id(&self) -> RunId {
        self.id
    }

    /// Where its files are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether another program could run beside its own now.
    pub(super) fn can_exec(&self) -> Result<(), DriverError> {
        self.check_running()?;
        if self.is_paused() {
            let paused = std::io::Error::other("the run is paused");
            return Err(self.failed("execute a program in", paused));
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> Started {
        let mut unenforced = self.launch.unenforced.clone();
        let started = self.started.as_ref();
        unenforced.extend(
            started
                .into_iter()
                .flat_map(|started| started.notes.clone()),
        );
        Started {
            pid: started.map(|started| started.main.pid),
            at: started.map_or(Timestamp::UNIX_EPOCH, |started| started.at),
            directory: Some(self.directory.clone()),
            unenforced,
            container: None,
        }
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    pub(super) fn adopted(&self) -> Adopted {
        match self.ended() {
            None => Adopted::Running {
                started: self.describe(),
                paused: self.is_paused(),
            },
            Some(ended) => {
                let started = self.started.as_ref().map(|_| self.describe());
                Adopted::Ended { started, ended }
            }
        }
    }

    pub(super) async fn wait(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        loop {
            if let Some(ended) = ended.borrow_and_update().clone() {
                return ended;
            }
            // The sender lives as long as `self`.
            let _ = ended.changed().await;
        }
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), DriverError> {
        let raw = self.raw(signal)?;
        let main = self.main.as_ref().ok_or(DriverError::Ended(self.id))?;
        match pidfd_send_signal(main, raw) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Err(DriverError::Ended(self.id)),
            Err(error) => return Err(self.failed("signal", error.into())),
        }
        if raw == RawSignal::KILL
            && let Some(tree) = &self.launch.tree
            && tree.kind == tree::TreeKind::Freezer
        {
            // Version 1 kills what is frozen only when it is thawed.
            let _ = tree.thaw();
        }
        Ok(())
    }

    pub(super) fn signal_tree(&self, signal: Signal) -> Result<(), DriverError> {
        let raw = self.raw(signal)?;
        match &self.launch.tree {
            Some(tree) if raw == RawSignal::KILL => tree.kill(),
            Some(tree) => tree.signal(raw),
            None => send(&self.members(), raw),
        }
        Ok(())
    }

    pub(super) fn pause(&self) -> Result<(), DriverError> {
        self.check_running()?;
        if let Some(tree) = &self.launch.tree {
            return tree.freeze().map_err(|error| self.failed("pause", error));
        }
        // One that is stopped forks no more, so the list stands still after some rounds.
        let mut stopped = Vec::new();
        for _ in 0..STOP_ROUNDS {
            let members = self.members();
            if members == stopped {
                return Ok(());
            }
            send(&members, RawSignal::STOP);
            stopped = members;
        }
        Err(self.failed("pause", std::io::ErrorKind::TimedOut.into()))
    }

    pub(super) fn resume(&self) -> Result<(), DriverError> {
        self.check_running()?;
        if let Some(tree) = &self.launch.tree {
            return tree.thaw().map_err(|error| self.failed("resume", error));
        }
        send(&self.members(), RawSignal::CONT);
        Ok(())
    }

    /// Holds it to other limits; what of them it is not held to, a phrase each.
    pub(super) fn resize(
        &self,
        cgroups: &Cgroups,
        wanted: &Resources,
    ) -> Result<Vec<String>, DriverError> {
        self.check_running()?;
        let shim = self.started.as_ref().map(|started| started.shim.pid);
        let tree = self.launch.tree.as_ref();
        let resized = cgroups.resize(&self.launch.run, wanted, tree, shim);
        resized.map_err(DriverError::Rejected)
    }

    /// What its processes use; without groups of its own, as far as they still are there.
    pub(super) fn usage(&self) -> Result<Usage, DriverError> {
        self.check_running()?;
        let main = self.started.as_ref().map_or(0, |started| started.main.pid);
        let groups = Groups::of(main, &self.launch.run);
        if groups.is_empty() {
            return Ok(usage::of_processes(&self.members()));
        }
        Ok(groups.usage())
    }

    fn is_paused(&self) -> bool {
        if let Some(tree) = &self.launch.tree {
            return tree.is_frozen();
        }
        let main = self.started.as_ref().map_or(0, |started| started.main.pid);
        let stat = fs::read_to_string(format!("/proc/{main}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    fn raw(&self, signal: Signal) -> Result<RawSignal, DriverError> {
        self.check_running()?;
        RawSignal::from_named_raw(signal as i32)
            .ok_or_else(|| DriverError::Unsupported(format!("{signal} cannot be sent")))
    }

    fn check_running(&self) -> Result<(), DriverError> {
        if self.ended.borrow().is_some() {
            Err(DriverError::Ended(self.id))
        } else {
            Ok(())
        }
    }

    fn failed(&self, what: &str, source: std::io::Error) -> DriverError {
        DriverError::Failed {
            context: format!("{what} run {}", self.id),
            source,
        }
    }

    /// Every process of the run but its shim, where no control group lists them.
    fn members(&self) -> Vec<u32> {
        self.started
            .as_ref()
            .map(|started| descendants(started.shim.pid))
            .unwrap_or_default()
    }

    /// How it ended, once the shim is gone; what the shim left is killed and removed.
    fn finish(&self) -> Ended {
        let status = fs::read(self.directory.join(STATUS)).ok();
        let known = status.as_deref().and_then(StatusRecord::decode);
        let left = self.kill_rest();
        cgroup::remove(&self.groups);
        let mut ended = match known {
            Some(status) => Ended {
                exit: Exit {
                    code: status.code.or(status.signal.map(|signal| 128 + signal)),
                    signal: status.signal,
                    out_of_memory: status.oom,
                    timed_out: false,
                },
                at: status.at,
                reason: (!status.notes.is_empty()).then(|| status.notes.join("; ")),
                left: match status.code {
                    Some(0) => Left::read(&super::work(&self.directory).join(RESULT)),
                    _ => Left::Nothing,
                },
            },
            None => Ended {
                exit: Exit::default(),
                at: Timestamp::now(),
                reason: Some(if status.is_some() {
                    "its shim's record of the exit cannot be read".into()
                } else {
                    "its shim was killed, so its processes were, and the exit code is not known"
                        .into()
                }),
                left: Left::Nothing,
            },
        };
        if left > 0 {
            let reason = ended
                .reason
                .take()
                .map_or(String::new(), |reason| reason + "; ");
            ended.reason = Some(format!("{reason}{left} processes could not be killed"));
        }
        ended
    }

    /// Kills what a shim left that did not come to it; returns how many would not go.
    fn kill_rest(&self) -> usize {
        let clean = self.directory.join(STATUS).exists();
        let begun = Instant::now();
        loop {
            let left = match &self.launch.tree {
                Some(tree) => tree.pids(),
                // A look at every process of the host is for the shim that was killed.
                None if clean => Vec::new(),
                None => {
                    let shim = self.started.as_ref().map_or(0, |started| started.shim.pid);
                    strays(shim, &self.launch.run)
                }
            };
            if left.is_empty() || begun.elapsed() > KILL_PATIENCE {
                return left.len();
            }
            match &self.launch.tree {
                Some(tree) => tree.kill(),
                None => send(&left, RawSignal::KILL),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A living shim.
pub(super) struct Shim {
    /// Readable once it has ended.
    pub fd: OwnedFd,
    /// Where it is a child of this process, to be reaped.
    pub child: Option<Child>,
}

/// The process if it is the one that was started, and not another with its number.
pub(super) fn open(process: Process) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
    let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Looked at after the opening: from here on the number cannot change hands unseen.
    (start_ticks(process.pid) == Some(process.ticks)).then_some(fd)
}

/// Whether the process of a pidfd has ended, reaped or not.
pub(super) fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Waits for the end of the shim, and records how the run ended.
async fn watch_shim(run: Arc<Run>, shim: Shim) {
    let Shim { fd, child } = shim;
    #[expect(
        deprecated,
        reason = "unsound only for what changes its descriptor: OwnedFd does not"
    )]
    let fd = AsyncFd::with_interest(fd, Interest::READABLE);
    match fd {
        Ok(fd) => {
            // It can only fail when the runtime ends.
            let _ = fd.readable().await;
        }
        Err(error) => {
            tracing::warn!(run = %run.id, %error, "the end of the shim is waited for in a thread");
        }
    }
    let done = tokio::task::spawn_blocking(move || {
        match child {
            Some(mut child) => {
                let _ = child.wait();
            }
            None => wait_gone(&run),
        }
        run.ended.send_replace(Some(run.finish()));
    });
    if let Err(error) = done.await {
        tracing::error!(%error, "the end of a run was not recorded");
    }
}

/// Until the shim of an earlier agent has ended; at once where its pidfd has told so.
fn wait_gone(run: &Run) {
    let Some(shim) = run.started.as_ref().and_then(|started| open(started.shim)) else {
        return;
    };
    let mut fds = [PollFd::new(&shim, PollFlags::IN)];
    while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
}

/// Reads a file of a run; none if it is not there or torn.
pub(super) fn read<T>(
    directory: &Path,
    name: &str,
    decode: impl FnOnce(&[u8]) -> Option<T>,
) -> Option<T> {
    fs::read(directory.join(name))
        .ok()
        .and_then(|bytes| decode(&bytes))
}
