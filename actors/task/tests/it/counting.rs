//! A driver that counts, or panics.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use loom_schemas::ids::RunId;
use loom_schemas::spec::Resources;
use loom_schemas::words::DriverKind;
use loom_task::driver::sim::SimDriver;
use loom_task::driver::usage::Usage;
use loom_task::driver::{Adopted, Driver, DriverError, Ended, ExecOutcome, Started};
use loom_task::launch::Launch;
use nix::sys::signal::Signal;

/// The `sim` driver, with its signals and health checks counted, or panicking.
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) sim: SimDriver,
    pub(crate) signals: AtomicU32,
    pub(crate) checks: AtomicU32,
    pub(crate) panics: bool,
    /// Whether a pause that is never confirmed takes effect; none if it is confirmed.
    pub(crate) pause_hangs: Option<bool>,
}

impl Driver for Counting {
    fn kind(&self) -> DriverKind {
        DriverKind::Sim
    }

    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Started, DriverError>> {
        self.sim.start(launch)
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Vec<RunId>, DriverError>> {
        self.sim.inventory()
    }

    fn adopt(&self, run: RunId) -> BoxFuture<'_, Result<Adopted, DriverError>> {
        self.sim.adopt(run)
    }

    fn wait(&self, run: RunId) -> BoxFuture<'_, Result<Ended, DriverError>> {
        self.sim.wait(run)
    }

    fn signal(
        &self,
        run: RunId,
        signal: Signal,
        tree: bool,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        self.signals.fetch_add(1, Ordering::Relaxed);
        if self.panics {
            return async { panic!("out of luck") }.boxed();
        }
        self.sim.signal(run, signal, tree)
    }

    fn pause(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        match self.pause_hangs {
            None => self.sim.pause(run),
            Some(takes_effect) => async move {
                if takes_effect {
                    self.sim.pause(run).await?;
                }
                std::future::pending().await
            }
            .boxed(),
        }
    }

    fn resume(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        self.sim.resume(run)
    }

    fn resize(
        &self,
        run: RunId,
        wanted: Resources,
    ) -> BoxFuture<'_, Result<Vec<String>, DriverError>> {
        self.sim.resize(run, wanted)
    }

    fn exec(
        &self,
        run: RunId,
        argv: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecOutcome, DriverError>> {
        self.sim.exec(run, argv, timeout)
    }

    fn played_health(&self, run: RunId) -> Option<Result<(), String>> {
        self.checks.fetch_add(1, Ordering::Relaxed);
        self.sim.played_health(run)
    }

    fn usage(&self, run: RunId) -> BoxFuture<'_, Result<Usage, DriverError>> {
        self.sim.usage(run)
    }

    fn remove(&self, run: RunId, files: bool) -> BoxFuture<'_, Result<(), DriverError>> {
        self.sim.remove(run, files)
    }
}
