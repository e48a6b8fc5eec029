//! What stands in for a driver that the node does not offer: every start is refused, with the
//! reason why.

use futures::future::{BoxFuture, FutureExt, ready};
use loom_schemas::ids::RunId;
use loom_schemas::words::DriverKind;
use loom_task::driver::{Adopted, Driver, DriverError, Ended, Started};
use loom_task::launch::Launch;
use nix::sys::signal::Signal;

/// Refuses every start.
pub(crate) struct Refusal {
    /// What it stands in for.
    pub(crate) kind: DriverKind,
    /// Why, and what to do about it.
    pub(crate) reason: &'static str,
}

impl Driver for Refusal {
    fn kind(&self) -> DriverKind {
        self.kind
    }

    fn start(&self, _: Launch) -> BoxFuture<'_, Result<Started, DriverError>> {
        ready(Err(DriverError::Rejected(self.reason.to_owned()))).boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Vec<RunId>, DriverError>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn adopt(&self, _: RunId) -> BoxFuture<'_, Result<Adopted, DriverError>> {
        ready(Ok(Adopted::Gone)).boxed()
    }

    fn wait(&self, run: RunId) -> BoxFuture<'_, Result<Ended, DriverError>> {
        ready(Err(DriverError::NotFound(run))).boxed()
    }

    fn signal(&self, run: RunId, _: Signal, _: bool) -> BoxFuture<'_, Result<(), DriverError>> {
        ready(Err(DriverError::NotFound(run))).boxed()
    }

    fn pause(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        ready(Err(DriverError::NotFound(run))).boxed()
    }

    fn resume(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        ready(Err(DriverError::NotFound(run))).boxed()
    }

    fn remove(&self, _: RunId, _: bool) -> BoxFuture<'_, Result<(), DriverError>> {
        ready(Ok(())).boxed()
    }
}
