//! A container that was started or adopted: its signals, what it uses; its end is in `end`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, KillContainerOptions};
use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::units::Bytes;
use nix::sys::signal::Signal;
use rustix::process::{Pid, PidfdFlags, Signal as RawSignal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OnceCell, watch};

use super::engine::Engine;
use super::events::Fate;
use super::logs::Copying;
use super::record::ContainerRecord;
use super::trouble;
use crate::driver::disk;
use crate::driver::usage::{Groups, Usage};
use crate::driver::{DriverError, Ended, Started};
use crate::shim::tree::send;

/// A container.
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) directory: PathBuf,
    pub(super) container: ContainerRecord,
    pub(super) started: Started,
    /// Its main process; none where that is not to be seen from here, or has ended.
    pub(super) main: Option<Main>,
    /// What the engine tells of it.
    pub(super) fate: watch::Receiver<Fate>,
    /// Whether this driver had the engine signal it.
    pub(super) asked_engine: AtomicBool,
    /// Whether this driver sent its main process a `SIGKILL`.
    pub(super) killed: AtomicBool,
    pub(super) copying: Option<Copying>,
    pub(super) ended: OnceCell<Ended>,
    /// Whether its end is written down, behind all of its output.
    pub(super) written: watch::Sender<bool>,
}

/// The main process of a container, as the kernel of this host has it.
pub(super) struct Main {
    pub(super) fd: AsyncFd<OwnedFd>,
    pub(super) groups: Groups,
}

impl Run {
    pub(super) fn new(
        id: RunId,
        directory: PathBuf,
        container: ContainerRecord,
        started: Started,
        fate: watch::Receiver<Fate>,
        copying: Option<Copying>,
    ) -> Arc<Self> {
        let main = started.pid.and_then(|pid| Main::open(pid, &container.id));
        Arc::new(Self {
            id,
            directory,
            container,
            started,
            main,
            fate,
            asked_engine: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            copying,
            ended: OnceCell::new(),
            written: watch::Sender::new(false),
        })
    }

    pub(super) fn describe(&self) -> Started {
        self.started.clone()
    }

    pub(super) fn ended_error(&self) -> DriverError {
        DriverError::Ended(self.id)
    }

    /// Follows its output no longer; its files are closed after this.
    pub(super) async fn let_go(&self) {
        if let Some(copying) = &self.copying {
            copying.stop().await;
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.initialized()
    }

    pub(super) async fn signal(
        &self,
        engine: &Engine,
        signal: Signal,
        tree: bool,
    ) -> Result<(), DriverError> {
        if self.has_ended() {
            return Err(DriverError::Ended(self.id));
        }
        let raw = RawSignal::from_named_raw(signal as i32)
            .ok_or_else(|| DriverError::Unsupported(format!("{signal} cannot be sent")))?;
        let Some(main) = &self.main else {
            // With the first process of its namespace every other one is killed.
            return if tree && raw != RawSignal::KILL {
                Err(DriverError::Unsupported(format!(
                    "{signal} to every process: the container's processes are not to be seen from \
                     the node's agent"
                )))
            } else {
                self.kill(engine, signal).await
            };
        };
        if raw == RawSignal::KILL && main.groups.is_frozen() {
            // Version 1 kills what is frozen only when it is thawed, which the engine must know of.
            return self.kill(engine, signal).await;
        }
        if tree && raw != RawSignal::KILL {
            send(&main.groups.pids(), raw);
            return Ok(());
        }
        // Before it is sent: the end may be seen before this goes on.
        let kills = raw == RawSignal::KILL;
        self.killed.fetch_or(kills, Ordering::Relaxed);
        match pidfd_send_signal(main.fd.get_ref(), raw) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::SRCH) => Err(DriverError::Ended(self.id)),
            // An agent that is not root may use the engine all the same.
            Err(rustix::io::Errno::PERM) => self.kill(engine, signal).await,
            Err(error) => Err(DriverError::Failed {
                context: format!("signal run {}", self.id),
                source: error.into(),
            }),
        }
    }

    async fn kill(&self, engine: &Engine, signal: Signal) -> Result<(), DriverError> {
        let docker = engine.docker().await?;
        let options = KillContainerOptions {
            signal: signal.as_str().to_owned(),
        };
        self.asked_engine.store(true, Ordering::Relaxed);
        let killed = docker
            .kill_container(&self.container.id, Some(options))
            .await;
        self.of_change(engine, killed, "signal")
    }

    pub(super) async fn pause(&self, engine: &Engine) -> Result<(), DriverError> {
        let docker = engine.docker().await?;
        let paused = docker.pause_container(&self.container.id).await;
        self.of_change(engine, paused, "pause")
    }

    pub(super) async fn resume(&self, engine: &Engine) -> Result<(), DriverError> {
        let docker = engine.docker().await?;
        let resumed = docker.unpause_container(&self.container.id).await;
        self.of_change(engine, resumed, "resume")
    }

    /// Being already as wanted is success, and not running is having ended.
    fn of_change(
        &self,
        engine: &Engine,
        outcome: Result<(), bollard::errors::Error>,
        what: &str,
    ) -> Result<(), DriverError> {
        let error = match outcome {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let said = trouble::text(&error);
        if said.contains("is already paused") || said.contains("is not paused") {
            return Ok(());
        }
        if trouble::is_missing(&error) || said.contains("is not running") {
            return Err(DriverError::Ended(self.id));
        }
        Err(engine.failed(&format!("{what} run {}", self.id), &error))
    }

    /// Whether it stands still, so that nothing can be run in it.
    pub(super) fn is_paused(&self) -> bool {
        self.main
            .as_ref()
            .is_some_and(|main| main.groups.is_frozen())
    }

    /// What its files take: what it wrote into its container, and its output.
    pub(super) async fn disk(&self, engine: &Engine) -> Result<u64, DriverError> {
        let docker = engine.docker().await?;
        let options = InspectContainerOptions { size: true };
        let found = docker.inspect_container(&self.container.id, Some(options));
        let found = found
            .await
            .map_err(|error| engine.failed("measure a container", &error))?;
        let written = found.size_rw.and_then(|size| u64::try_from(size).ok());
        let directory = self.directory.clone();
        let output = tokio::task::spawn_blocking(move || disk::taken(&directory)).await;
        Ok(written.unwrap_or(0) + output.unwrap_or(0))
    }

    /// Holds it to a rate on disks, or to none any more; what it is not held to, a phrase each.
    pub(super) fn limit_disk(
        pid: Option<u32>,
        container: &str,
        rate: Option<Bytes>,
    ) -> Vec<String> {
        let groups = pid.map(|pid| Groups::of(pid, container));
        let groups = groups.unwrap_or_default();
        match groups.path("blkio") {
            Some(group) => {
                let version1 = group.join("blkio.throttle.read_bps_device").exists();
                disk::limit(group, !version1, rate)
            }
            None if rate.is_none() => Vec::new(),
            None => vec![
                "disk rate: the container's control groups are not to be seen from the node's agent"
                    .to_owned(),
            ],
        }
    }

    pub(super) fn usage(&self) -> Result<Usage, DriverError> {
        if self.has_ended() {
            return Err(DriverError::Ended(self.id));
        }
        match &self.main {
            Some(main) if !main.groups.is_empty() => Ok(main.groups.usage()),
            _ => Err(DriverError::Unsupported(
                "the container's control groups are not to be seen from the node's agent"
                    .to_owned(),
            )),
        }
    }
}

impl Main {
    /// The process if it is one of this host and of this container.
    fn open(pid: u32, container: &str) -> Option<Self> {
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let fd = pidfd_open(raw, PidfdFlags::empty()).ok()?;
        // Looked at after the opening: from here on the number cannot change hands unseen.
        let groups = Groups::of(pid, container);
        if groups.is_empty() {
            return None;
        }
        #[expect(
            deprecated,
            reason = "unsound only for what changes its descriptor: OwnedFd does not"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE).ok()?;
        Some(Self { fd, groups })
    }
}

/// The container as the engine has it; none if it has none.
pub(super) async fn inspect(
    engine: &Engine,
    name: &str,
) -> Result<Option<ContainerInspectResponse>, DriverError> {
    let docker = engine.docker().await?;
    match docker.inspect_container(name, None).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if trouble::is_missing(&error) => Ok(None),
        Err(error) => Err(engine.failed("look at a container", &error)),
    }
}

/// A time of the engine's; none for the one that stands for never.
pub(super) fn time(text: Option<&str>) -> Option<Timestamp> {
    let at: Timestamp = text?.parse().ok()?;
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}

/// Where the files of a run are.
pub(super) fn directory_of(containers: &Path, run: RunId) -> PathBuf {
    containers.join(run.to_string())
}
