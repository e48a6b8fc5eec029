//! A container that was started or adopted: its end, its signals, what it uses.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerState};
use bollard::query_parameters::{KillContainerOptions, WaitContainerOptions};
use futures::StreamExt as _;
use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::Exit;
use nix::sys::signal::Signal;
use rustix::process::{Pid, PidfdFlags, Signal as RawSignal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use super::engine::Engine;
use super::logs::Copying;
use super::record::{self, ContainerRecord};
use super::trouble;
use crate::driver::usage::{Groups, Usage};
use crate::driver::{DriverError, Ended, Started};
use crate::shim::tree::send;

/// How long the engine may take to see what the kernel has seen: that a container ended.
const SEEN: Duration = Duration::from_secs(20);

/// How long the output of an ended container may take to be copied.
const OUTPUT: Duration = Duration::from_secs(10);

/// The pause before the engine is asked again to wait.
const AGAIN: Duration = Duration::from_millis(500);

/// Signals have numbers up to this.
const SIGNALS: i32 = 64;

/// A program that cannot be executed has said so by then.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A container.
pub(super) struct Run {
    id: RunId,
    directory: PathBuf,
    pub(super) container: ContainerRecord,
    started: Started,
    /// Its main process; none where that is not to be seen from here, or has ended.
    main: Option<Main>,
    copying: Option<Copying>,
    ended: OnceCell<Ended>,
}

/// The main process of a container, as the kernel of this host has it.
struct Main {
    fd: AsyncFd<OwnedFd>,
    groups: Groups,
}

impl Run {
    pub(super) fn new(
        id: RunId,
        directory: PathBuf,
        container: ContainerRecord,
        started: Started,
        copying: Option<Copying>,
    ) -> Arc<Self> {
        let main = started.pid.and_then(|pid| Main::open(pid, &container.id));
        Arc::new(Self {
            id,
            directory,
            container,
            started,
            main,
            copying,
            ended: OnceCell::new(),
        })
    }

    pub(super) fn describe(&self) -> Started {
        self.started.clone()
    }

    pub(super) fn ended_error(&self) -> DriverError {
        DriverError::Ended(self.id)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.initialized()
    }

    /// Resolves with its end; an error if the engine is away, so that nobody knows.
    pub(super) async fn wait(&self, engine: &Arc<Engine>) -> Result<Ended, DriverError> {
        let ended = self.ended.get_or_try_init(|| self.end(engine));
        ended.await.cloned()
    }

    async fn end(&self, engine: &Arc<Engine>) -> Result<Ended, DriverError> {
        tokio::select! {
            () = self.main_ended(engine) => {}
            () = engine.lost() => {
                return Err(DriverError::Unavailable(format!(
                    "the Docker Engine at {} is away: whether run {} still runs is not known",
                    engine.socket().display(),
                    self.id
                )));
            }
        }
        let seen = timeout(SEEN, self.seen_by_engine(engine)).await;
        let found = seen.unwrap_or_else(|_| {
            Err(DriverError::Unavailable(format!(
                "the Docker Engine does not see that run {} has ended",
                self.id
            )))
        })?;
        let mut ended = match found {
            Some(found) => ended(&found.state.unwrap_or_default()),
            None => removed(),
        };
        // The engine may say that it ended a moment before it was started.
        ended.at = ended.at.max(self.started.at);
        let end = self.copied().await;
        self.explain(&mut ended).await;
        let (directory, told) = (self.directory.clone(), ended.clone());
        let shared = self.container.logs.to.is_some();
        let end = end.filter(|_| shared);
        let written =
            tokio::task::spawn_blocking(move || record::write_ended(&directory, &told, end)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::warn!(run = %self.id, "the end of a run was not written down");
        }
        Ok(ended)
    }

    /// Resolves when the main process is gone, as the kernel says; as the engine says where it is
    /// none of this host's.
    async fn main_ended(&self, engine: &Engine) {
        if let Some(main) = &self.main {
            // It can only fail when the runtime ends.
            let _ = main.fd.readable().await;
            return;
        }
        while self.waited(engine).await.is_err() {
            sleep(AGAIN).await;
        }
    }

    /// Waits with the engine until the container does not run.
    async fn waited(&self, engine: &Engine) -> Result<(), DriverError> {
        let docker = engine.docker().await?;
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        let mut answers = Box::pin(docker.wait_container(&self.container.id, Some(options)));
        match answers.next().await {
            Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) if trouble::is_missing(&error) => Ok(()),
            Some(Err(error)) => Err(engine.failed("wait for a container", &error)),
            None => Err(DriverError::Unavailable(
                "the engine's answer broke off".to_owned(),
            )),
        }
    }

    /// The container as the engine has it once that knows of its end; none if it is removed.
    async fn seen_by_engine(
        &self,
        engine: &Engine,
    ) -> Result<Option<ContainerInspectResponse>, DriverError> {
        self.waited(engine).await?;
        inspect(engine, &self.container.id).await
    }

    /// Waits for the last of the output; the offset of its end.
    async fn copied(&self) -> Option<u64> {
        let copying = self.copying.as_ref()?;
        timeout(OUTPUT, copying.done()).await.unwrap_or_else(|_| {
            tracing::warn!(run = %self.id, "not all output was copied: the engine's log does not end");
            None
        })
    }

    /// Says why where only the output does: a program for another machine starts and dies at once.
    async fn explain(&self, ended: &mut Ended) {
        let lived = ended.at.duration_since(self.started.at);
        let at_once = Duration::try_from(lived).is_ok_and(|lived| lived < AT_ONCE);
        let failed = ended.exit.code.is_some_and(|code| code != 0) && ended.exit.signal.is_none();
        if !(at_once && failed && ended.reason.is_none()) {
            return;
        }
        let directory = self.directory.clone();
        let tail = tokio::task::spawn_blocking(move || crate::output::tail(&directory, 1)).await;
        let Ok(Ok(lines)) = tail else { return };
        if lines
            .iter()
            .any(|line| line.text.ends_with("exec format error"))
        {
            ended.reason = Some(trouble::exec_format(&self.container.name));
        }
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

/// How a container ended, as the engine tells it.
pub(super) fn ended(state: &ContainerState) -> Ended {
    let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
    // The engine tells a signal as a shell does.
    let signal = code
        .map(|code| code - 128)
        .filter(|signal| (1..=SIGNALS).contains(signal));
    let error = state.error.clone().filter(|error| !error.is_empty());
    Ended {
        exit: Exit {
            code,
            signal,
            out_of_memory: state.oom_killed == Some(true),
            timed_out: false,
        },
        at: time(state.finished_at.as_deref()).unwrap_or_else(Timestamp::now),
        reason: error,
    }
}

/// The end of a container that somebody removed.
pub(super) fn removed() -> Ended {
    Ended {
        exit: Exit::default(),
        at: Timestamp::now(),
        reason: Some(
            "its container was removed by somebody else (`docker rm`?), so the exit code is not known"
                .to_owned(),
        ),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn state(code: i64, oom: bool) -> ContainerState {
        ContainerState {
            exit_code: Some(code),
            oom_killed: Some(oom),
            finished_at: Some("2026-01-02T03:04:05.123456789Z".into()),
            ..ContainerState::default()
        }
    }

    #[test]
    fn the_end_is_told_as_of_any_run() {
        let told = ended(&state(137, true)).exit;
        assert_eq!(
            (told.code, told.signal, told.out_of_memory),
            (Some(137), Some(9), true)
        );
        let told = ended(&state(0, true)).exit;
        assert_eq!(
            (told.code, told.signal, told.out_of_memory),
            (Some(0), None, true)
        );
        let told = ended(&state(127, false));
        assert_eq!((told.exit.code, told.exit.signal), (Some(127), None));
        assert_eq!(told.at.as_second(), 1_767_323_045);
        assert_eq!(time(Some("0001-01-01T00:00:00Z")), None);
    }
}
