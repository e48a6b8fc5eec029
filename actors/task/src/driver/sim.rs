//! The `sim` driver: it runs nothing and plays each task's script.
//!
//! A run costs an entry in a map and no task of its own, so thousands of nodes fit in a process.
//! Its state is in memory: clones of a driver share it, so the runs survive an agent that is
//! restarted in the same process; they end with the process (`Gone` to the next one).
//!
//! Signals: `SIGKILL` ends a run, paused or not, as do `SIGTERM`, `SIGINT` and `SIGQUIT` unless the
//! script says `ignore_stop`; while it is paused they wait. All others are taken and do nothing.
//! A paused run's time stands still. Every program executed beside a run succeeds at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::Exit;
use loom_schemas::spec::{Resources, SimScript};
use loom_schemas::words::DriverKind;
use nix::sys::signal::Signal;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::usage::Usage;
use super::{Adopted, Driver, DriverError, Ended, ExecOutcome, Started};
use crate::launch::Launch;

/// Plays scripts; clones share their runs.
#[derive(Clone, Debug, Default)]
pub struct SimDriver {
    runs: Arc<Mutex<HashMap<RunId, Run>>>,
}

#[derive(Debug)]
struct Run {
    script: SimScript,
    started: Option<Started>,
    /// Since when it runs.
    began: Option<Instant>,
    /// When it ends by itself.
    ends: Option<Instant>,
    /// Since when it is paused, and the signal that waits for its end meanwhile.
    paused: Option<(Instant, Option<Signal>)>,
    ended: Option<Ended>,
    changed: Arc<Notify>,
}

impl SimDriver {
    /// A driver without runs.
    pub fn new() -> Self {
        Self::default()
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acts on a run, brought up to date first.
    fn with<T>(
        &self,
        run: RunId,
        act: impl FnOnce(&mut Run) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let mut runs = self.runs();
        let found = runs.get_mut(&run).ok_or(DriverError::NotFound(run))?;
        found.catch_up();
        act(found)
    }

    async fn play_start(&self, launch: Launch) -> Result<Started, DriverError> {
        let script = launch.sim.unwrap_or_default();
        let run = launch.run;
        let changed = {
            let mut runs = self.runs();
            if let Some(known) = runs.get_mut(&run) {
                known.catch_up();
                if known.ended.is_some() {
                    return Err(DriverError::Ended(run));
                }
                if let Some(started) = &known.started {
                    return Ok(started.clone());
                }
            }
            let known = runs.entry(run).or_insert_with(|| Run::new(script.clone()));
            Arc::clone(&known.changed)
        };
        let killed = changed.notified();
        if script.start.0 > 0 {
            let pause = tokio::time::sleep(script.start.into());
            tokio::select! {
                () = pause => {}
                () = killed => {}
            }
        }
        if let Some(error) = script.start_error {
            self.runs().remove(&run);
            return Err(DriverError::Rejected(error));
        }
        self.with(run, |known| {
            if known.ended.is_some() {
                return Err(DriverError::Ended(run));
            }
            Ok(known.begin())
        })
    }

    async fn wait_for(&self, run: RunId) -> Result<Ended, DriverError> {
        loop {
            let (changed, ends) = {
                let mut runs = self.runs();
                let known = runs.get_mut(&run).ok_or(DriverError::NotFound(run))?;
                known.catch_up();
                if let Some(ended) = &known.ended {
                    return Ok(ended.clone());
                }
                let ends = known.ends.filter(|_| known.paused.is_none());
                (Arc::clone(&known.changed), ends)
            };
            let mut notified = std::pin::pin!(changed.notified());
            // Registered before looking once more, so that no change falls between.
            notified.as_mut().enable();
            if self
                .runs()
                .get(&run)
                .is_none_or(|known| known.ended.is_some())
            {
                continue;
            }
            match ends {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, notified).await;
                }
                None => notified.await,
            }
        }
    }
}

impl Run {
    fn new(script: SimScript) -> Self {
        Self {
            script,
            started: None,
            began: None,
            ends: None,
            paused: None,
            ended: None,
            changed: Arc::new(Notify::new()),
        }
    }

    fn begin(&mut self) -> Started {
        let length = self.script.run.map(Duration::from);
        // A time beyond the clock's reach is no end.
        self.ends = length.and_then(|length| Instant::now().checked_add(length));
        let started = Started {
            pid: None,
            at: Timestamp::now(),
            directory: None,
            unenforced: Vec::new(),
            container: None,
        };
        self.started = Some(started.clone());
        self.began = Some(Instant::now());
        started
    }

    fn health(&self) -> Result<(), String> {
        let age = self.began.map(|began| began.elapsed()).unwrap_or_default();
        let script = &self.script;
        if age < Duration::from(script.healthy_after) {
            return Err(format!("not before {}", script.healthy_after));
        }
        match script.unhealthy_after {
            Some(after) if age >= Duration::from(after) => Err(format!("no longer after {after}")),
            _ => Ok(()),
        }
    }

    /// Ends it if its time has come.
    fn catch_up(&mut self) {
        let due = self.ends.is_some_and(|ends| Instant::now() >= ends);
        if due && self.paused.is_none() && self.ended.is_none() {
            let code = self.script.exit;
            self.end(Exit {
                code: Some(code),
                ..Exit::default()
            });
        }
    }

    fn end(&mut self, exit: Exit) {
        self.ended = Some(Ended {
            left: crate::driver::Left::Nothing,
            exit,
            at: Timestamp::now(),
            reason: None,
        });
        self.paused = None;
        self.changed.notify_waiters();
    }

    fn end_by(&mut self, signal: Signal) {
        let number = signal as i32;
        self.end(Exit {
            code: Some(128 + number),
            signal: Some(number),
            ..Exit::default()
        });
    }

    fn take(&mut self, signal: Signal) {
        let asks = matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT);
        if signal == Signal::SIGKILL {
            self.end_by(signal);
        } else if asks && !self.script.ignore_stop {
            match &mut self.paused {
                Some((_, waiting)) => *waiting = Some(signal),
                None => self.end_by(signal),
            }
        }
    }

    fn resume(&mut self) {
        let Some((since, waiting)) = self.paused.take() else {
            return;
        };
        self.ends = self.ends.map(|ends| ends + since.elapsed());
        match waiting {
            Some(signal) => self.end_by(signal),
            None => self.changed.notify_waiters(),
        }
    }

    /// An error if it has ended.
    fn alive(&mut self, run: RunId) -> Result<&mut Self, DriverError> {
        if self.ended.is_some() {
            return Err(DriverError::Ended(run));
        }
        Ok(self)
    }
}

impl Driver for SimDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Sim
    }

    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Started, DriverError>> {
        self.play_start(launch).boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Vec<RunId>, DriverError>> {
        let mut runs: Vec<_> = self.runs().keys().copied().collect();
        runs.sort();
        std::future::ready(Ok(runs)).boxed()
    }

    fn adopt(&self, run: RunId) -> BoxFuture<'_, Result<Adopted, DriverError>> {
        let adopted = self.with(run, |known| {
            Ok(match (&known.started, &known.ended) {
                (started, Some(ended)) => Adopted::Ended {
                    started: started.clone(),
                    ended: ended.clone(),
                },
                (Some(started), None) => Adopted::Running {
                    started: started.clone(),
                    paused: known.paused.is_some(),
                },
                (None, None) => Adopted::Gone,
            })
        });
        let adopted = match adopted {
            Err(DriverError::NotFound(_)) => Ok(Adopted::Gone),
            adopted => adopted,
        };
        std::future::ready(adopted).boxed()
    }

    fn wait(&self, run: RunId) -> BoxFuture<'_, Result<Ended, DriverError>> {
        self.wait_for(run).boxed()
    }

    fn signal(
        &self,
        run: RunId,
        signal: Signal,
        _tree: bool,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        let sent = self.with(run, |known| {
            known.alive(run)?.take(signal);
            Ok(())
        });
        std::future::ready(sent).boxed()
    }

    fn pause(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        let paused = self.with(run, |known| {
            let known = known.alive(run)?;
            known.paused.get_or_insert((Instant::now(), None));
            known.changed.notify_waiters();
            Ok(())
        });
        std::future::ready(paused).boxed()
    }

    fn resume(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        let resumed = self.with(run, |known| {
            known.alive(run)?.resume();
            Ok(())
        });
        std::future::ready(resumed).boxed()
    }

    fn resize(
        &self,
        run: RunId,
        _wanted: Resources,
    ) -> BoxFuture<'_, Result<Vec<String>, DriverError>> {
        let resized = self.with(run, |known| known.alive(run).map(|_| Vec::new()));
        std::future::ready(resized).boxed()
    }

    fn exec(
        &self,
        run: RunId,
        _argv: Vec<String>,
        _timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecOutcome, DriverError>> {
        let outcome = self.with(run, |known| {
            known.alive(run)?;
            Ok(ExecOutcome {
                code: Some(0),
                ..ExecOutcome::default()
            })
        });
        std::future::ready(outcome).boxed()
    }

    fn played_health(&self, run: RunId) -> Option<Result<(), String>> {
        let played = self.with(run, |known| Ok(known.health()));
        Some(played.unwrap_or_else(|error| Err(error.to_string())))
    }

    fn usage(&self, run: RunId) -> BoxFuture<'_, Result<Usage, DriverError>> {
        let usage = self.with(run, |known| known.alive(run).map(|_| Usage::default()));
        std::future::ready(usage).boxed()
    }

    fn remove(&self, run: RunId, files: bool) -> BoxFuture<'_, Result<(), DriverError>> {
        // Without files there is nothing to give back, and the end may be asked for once more.
        let mut runs = self.runs();
        if files && runs.get(&run).is_some_and(|known| known.ended.is_some()) {
            runs.remove(&run);
        }
        std::future::ready(Ok(())).boxed()
    }
}

#[cfg(test)]
mod tests;
