//! Runs that nobody has a claim to.

use std::collections::BTreeSet;
use std::sync::Arc;

use loom_schemas::ids::RunId;
use nix::sys::signal::Signal;

use super::{NodeMessage, State};

impl State {
    /// Ends runs that belong to no placement, once a leader has said what there shall be: what an
    /// agent left behind that died before it had written down what it was told, or a data directory
    /// that lost its state.
    pub(super) fn sweep(&mut self) {
        if std::mem::replace(&mut self.swept, true) {
            return;
        }
        self.end_unclaimed(&self.context.found);
        // The engine was asked for this node's containers when it was not yet known whose they are.
        self.sweep_containers();
    }

    /// The same of containers alone, for an engine that answers later or again.
    pub(super) fn sweep_containers(&self) {
        let (context, me) = (Arc::clone(&self.context), self.me.clone());
        tokio::spawn(async move {
            let found = context.drivers.containers().await;
            // A node that is gone ends nothing.
            let _ = me.cast(NodeMessage::ContainersFound(found));
        });
    }

    /// Ends those of these runs that no placement has a claim to.
    pub(super) fn end_unclaimed(&self, found: &[RunId]) {
        let places = &self.ledger.places;
        let kept: BTreeSet<RunId> = places
            .values()
            .filter_map(|place| place.progress.as_ref())
            .flat_map(|progress| progress.kept.iter().copied().chain([progress.run]))
            .chain(places.keys().copied())
            .collect();
        let found = found.iter().copied();
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
