//! Runs that nobody has a claim to.

use std::collections::BTreeSet;
use std::sync::Arc;

use loom_schemas::ids::RunId;
use nix::sys::signal::Signal;

use super::State;

impl State {
    /// Ends runs that belong to no placement, once a leader has said what there shall be: what an
    /// agent left behind that died before it had written down what it was told, or a data directory
    /// that lost its state.
    pub(super) fn sweep(&mut self) {
        if std::mem::replace(&mut self.swept, true) {
            return;
        }
        let places = &self.ledger.places;
        let kept: BTreeSet<RunId> = places
            .values()
            .filter_map(|place| place.progress.as_ref())
            .flat_map(|progress| progress.kept.iter().copied().chain([progress.run]))
            .chain(places.keys().copied())
            .collect();
        let found = self.context.found.iter().copied();
        for run in found.filter(|run| !kept.contains(run)) {
            tracing::warn!(%run, node = %self.context.name, "ending a run of no placement");
            let context = Arc::clone(&self.context);
            tokio::spawn(async move {
                for driver in context.drivers.all() {
                    // What it does not have, or what has ended, needs no ending.
                    let _ = driver.signal(run, Signal::SIGKILL, true).await;
                    let _ = driver.wait(run).await;
                    if let Err(error) = driver.remove(run, true).await {
                        tracing::debug!(%run, %error, "cannot clean up");
                    }
                }
            });
        }
    }
}
