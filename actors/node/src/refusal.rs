//! What stands in for a driver that the node does not offer: every start is refused, with the
//! reason why. What an earlier agent started with the driver is still cared for.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use loom_schemas::ids::RunId;
use loom_schemas::spec::Resources;
use loom_schemas::words::DriverKind;
use loom_task::driver::usage::Usage;
use loom_task::driver::{Adopted, Driver, DriverError, Ended, ExecOutcome, Started};
use loom_task::launch::Launch;
use nix::sys::signal::Signal;

/// Refuses every start.
pub(crate) struct Refusal {
    /// What it stands in for.
    pub(crate) kind: DriverKind,
    /// Why, and what to do about it.
    pub(crate) reason: &'static str,
    /// The driver itself, where there may be runs of it.
    pub(crate) inner: Option<Arc<dyn Driver>>,
}

impl Refusal {
    fn to_run<T: Send + 'static>(
        &self,
        run: RunId,
        call: impl FnOnce(&dyn Driver) -> BoxFuture<'_, Result<T, DriverError>>,
    ) -> BoxFuture<'_, Result<T, DriverError>> {
        match &self.inner {
            Some(inner) => call(inner.as_ref()),
            None => ready(Err(DriverError::NotFound(run))).boxed(),
        }
    }
}

impl Driver for Refusal {
    fn kind(&self) -> DriverKind {
        self.kind
    }

    fn start(&self, _: Launch) -> BoxFuture<'_, Result<Started, DriverError>> {
        ready(Err(DriverError::Rejected(self.reason.to_owned()))).boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Vec<RunId>, DriverError>> {
        match &self.inner {
            Some(inner) => inner.inventory(),
            None => ready(Ok(Vec::new())).boxed(),
        }
    }

    fn adopt(&self, run: RunId) -> BoxFuture<'_, Result<Adopted, DriverError>> {
        match &self.inner {
            Some(inner) => inner.adopt(run),
            None => ready(Ok(Adopted::Gone)).boxed(),
        }
    }

    fn wait(&self, run: RunId) -> BoxFuture<'_, Result<Ended, DriverError>> {
        self.to_run(run, |inner| inner.wait(run))
    }

    fn signal(
        &self,
        run: RunId,
        signal: Signal,
        tree: bool,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        self.to_run(run, |inner| inner.signal(run, signal, tree))
    }

    fn pause(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        self.to_run(run, |inner| inner.pause(run))
    }

    fn resume(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        self.to_run(run, |inner| inner.resume(run))
    }

    fn resize(
        &self,
        run: RunId,
        wanted: Resources,
    ) -> BoxFuture<'_, Result<Vec<String>, DriverError>> {
        self.to_run(run, |inner| inner.resize(run, wanted))
    }

    fn exec(
        &self,
        run: RunId,
        argv: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecOutcome, DriverError>> {
        self.to_run(run, |inner| inner.exec(run, argv, timeout))
    }

    fn played_health(&self, run: RunId) -> Option<Result<(), String>> {
        self.inner.as_ref()?.played_health(run)
    }

    fn usage(&self, run: RunId) -> BoxFuture<'_, Result<Usage, DriverError>> {
        self.to_run(run, |inner| inner.usage(run))
    }

    fn remove(&self, run: RunId, files: bool) -> BoxFuture<'_, Result<(), DriverError>> {
        match &self.inner {
            Some(inner) => inner.remove(run, files),
            None => ready(Ok(())).boxed(),
        }
    }
}
