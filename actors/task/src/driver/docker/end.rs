//! The end of a container: seen by the kernel, told by the engine, written down.
//!
//! ```text
//! the main process dies -> the engine says with which code -> told
//!                          `-> the engine is through with it, its output is copied -> written down
//! ```
//!
//! The engine's `die` event comes in half the time that its answers take, and of what was killed
//! nobody need say with which code; where both are missed, or the kernel does not say whether memory
//! ran out, the engine is asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::models::ContainerState;
use bollard::query_parameters::WaitContainerOptions;
use futures::StreamExt as _;
use jiff::Timestamp;
use loom_schemas::record::Exit;
use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use super::engine::Engine;
use super::record;
use super::result;
use super::run::{Run, inspect, time};
use super::trouble;
use crate::driver::{DriverError, Ended, Left};

/// How long the engine may take to see what the kernel has seen: that a container ended.
const SEEN: Duration = Duration::from_secs(20);

/// How long the output of an ended container may take to be copied.
const OUTPUT: Duration = Duration::from_secs(10);

/// The pause before the engine is asked again to wait.
const AGAIN: Duration = Duration::from_millis(500);

/// Signals have numbers up to this.
const SIGNALS: i32 = 64;

/// The signal that nothing outlives.
const KILL: i32 = Signal::SIGKILL as i32;

/// A program that cannot be executed has said so by then.
const AT_ONCE: Duration = Duration::from_secs(5);

impl Run {
    /// Resolves with its end; an error if the engine is away, so that nobody knows.
    pub(super) async fn wait(self: &Arc<Self>, engine: &Arc<Engine>) -> Result<Ended, DriverError> {
        let ended = self.ended.get_or_try_init(|| self.end(engine));
        ended.await.cloned()
    }

    async fn end(self: &Arc<Self>, engine: &Arc<Engine>) -> Result<Ended, DriverError> {
        tokio::select! {
            // What the kernel says holds, whether the engine is there or not.
            biased;
            () = self.main_ended(engine) => {}
            () = engine.lost() => {
                return Err(DriverError::Unavailable(format!(
                    "the Docker Engine at {} is away: whether run {} still runs is not known",
                    engine.socket().display(),
                    self.id
                )));
            }
        }
        // Before the engine removes the group, which it does within a few milliseconds.
        let oom = self.main.as_ref().and_then(|main| main.groups.oom_kills());
        let closing = engine.closing();
        let (mut ended, through) = tokio::select! {
            biased;
            ended = self.died(oom) => (ended, false),
            found = self.seen_by_engine(engine) => (self.of_engine(found?.as_ref()), true),
        };
        // The engine may say that it ended a moment before it was started.
        ended.at = ended.at.max(self.started.at);
        if self.needs_output(&ended) {
            self.copied().await;
            self.explain(&mut ended).await;
        }
        if self.container.result && ended.exit.code == Some(0) {
            ended.left = result::fetch(engine, &self.container.id).await?;
        }
        let (run, engine, told) = (Arc::clone(self), Arc::clone(engine), ended.clone());
        tokio::spawn(async move {
            if !through {
                let _ = timeout(SEEN, run.waited(&engine)).await;
            }
            drop(closing);
            run.write_down(told).await;
        });
        Ok(ended)
    }

    /// Resolves with its end as the engine's events tell it; never where the kernel does not say
    /// whether memory ran out.
    async fn died(&self, oom: Option<u64>) -> Ended {
        let Some(oom) = oom else {
            return std::future::pending().await;
        };
        let mut fate = self.fate.clone();
        let sure = fate.wait_for(|fate| {
            // Nothing outlives this signal, and it is dead.
            fate.died.is_some() || fate.killed == Some(KILL) || self.was_killed_by_us()
        });
        let Ok(died) = sure.await.map(|fate| fate.died) else {
            return std::future::pending().await;
        };
        let (code, at) = died.unwrap_or_else(|| (128 + KILL, Timestamp::now()));
        let exit = exit(Some(code), oom > 0);
        Ended {
            reason: self.killed_by_somebody(exit.signal),
            exit,
            at,
            left: Left::Nothing,
        }
    }

    /// Its end as the engine has it, which has no such container if it was removed.
    fn of_engine(&self, found: Option<&ContainerInspectResponse>) -> Ended {
        let Some(state) = found.map(|found| found.state.clone().unwrap_or_default()) else {
            return removed();
        };
        let mut ended = ended(&state);
        if ended.reason.is_none() {
            ended.reason = self.killed_by_somebody(ended.exit.signal);
        }
        ended
    }

    fn was_killed_by_us(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Why it died of a signal that the engine sent and this driver did not ask for.
    fn killed_by_somebody(&self, signal: Option<i32>) -> Option<String> {
        let signal = signal?;
        let by_engine = self.fate.borrow().killed == Some(signal);
        if !by_engine || self.asked_engine.load(Ordering::Relaxed) {
            return None;
        }
        let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
        Some(format!(
            "ended by {name} that somebody else had the Docker Engine send (`docker kill`, `docker \
             stop` or `docker rm -f`?)"
        ))
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
        let seen = async {
            self.waited(engine).await?;
            inspect(engine, &self.container.id).await
        };
        timeout(SEEN, seen).await.unwrap_or_else(|_| {
            Err(DriverError::Unavailable(format!(
                "the Docker Engine does not see that run {} has ended",
                self.id
            )))
        })
    }

    /// Writes its end down behind the last of its output, where readers look for it.
    async fn write_down(&self, ended: Ended) {
        let end = self.copied().await;
        let shared = self.container.logs.to.is_some();
        let end = end.filter(|_| shared);
        let directory = self.directory.clone();
        let written =
            tokio::task::spawn_blocking(move || record::write_ended(&directory, &ended, end)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::warn!(run = %self.id, "the end of a run was not written down");
        }
        self.written.send_replace(true);
    }

    /// Waits until its end is written down, for which the engine's log is needed; not for ever.
    pub(super) async fn is_written_down(&self) {
        let mut written = self.written.subscribe();
        let _ = timeout(OUTPUT, written.wait_for(|written| *written)).await;
    }

    /// Waits for the last of the output; the offset of its end.
    async fn copied(&self) -> Option<u64> {
        let copying = self.copying.as_ref()?;
        timeout(OUTPUT, copying.done()).await.unwrap_or_else(|_| {
            tracing::warn!(run = %self.id, "not all output was copied: the engine's log does not end");
            None
        })
    }

    /// Whether only the output can say why it ended: a program for another machine, or one that is
    /// not there, starts and dies at once.
    fn needs_output(&self, ended: &Ended) -> bool {
        let lived = ended.at.duration_since(self.started.at);
        let at_once = Duration::try_from(lived).is_ok_and(|lived| lived < AT_ONCE);
        let failed = matches!(ended.exit.code, Some(1 | 126 | 127));
        at_once && failed && ended.exit.signal.is_none() && ended.reason.is_none()
    }

    async fn explain(&self, ended: &mut Ended) {
        let directory: PathBuf = self.directory.clone();
        let tail = tokio::task::spawn_blocking(move || crate::output::tail(&directory, 1)).await;
        let Ok(Ok(lines)) = tail else { return };
        let Some(line) = lines.last() else { return };
        ended.reason = trouble::of_output(&self.container.name, ended.exit.code, &line.text);
    }
}

/// How a container ended, as the engine tells it.
fn ended(state: &ContainerState) -> Ended {
    let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
    let error = state.error.clone().filter(|error| !error.is_empty());
    Ended {
        exit: exit(code, state.oom_killed == Some(true)),
        at: time(state.finished_at.as_deref()).unwrap_or_else(Timestamp::now),
        reason: error,
        left: Left::Nothing,
    }
}

fn exit(code: Option<i32>, out_of_memory: bool) -> Exit {
    // The engine tells a signal as a shell does.
    let signal = code
        .map(|code| code - 128)
        .filter(|signal| (1..=SIGNALS).contains(signal));
    Exit {
        code,
        signal,
        out_of_memory,
        timed_out: false,
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
        left: Left::Nothing,
    }
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
