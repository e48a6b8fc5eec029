//! The Docker Engine beside the node: found at any time, lost, found again.

use std::collections::BTreeMap;
use std::time::Duration;

use loom_task::driver::docker::DockerDriver;
use ractor::ActorRef;

use super::{NodeMessage, State};
use crate::clock;
use crate::drivers::{attributes, offer_containers};

/// Tells of the engine each time it is found.
pub(super) async fn watch(engine: DockerDriver, node: ActorRef<NodeMessage>) {
    let tell = |facts| {
        node.cast(NodeMessage::EngineFound(attributes(facts)))
            .is_ok()
    };
    engine.watch(tell).await;
}

impl State {
    /// Offers containers from now on, with what the engine is now, and looks for those that nobody
    /// has a claim to.
    pub(super) fn engine_found(&mut self, attributes: BTreeMap<String, String>) {
        if offer_containers(&mut self.info, attributes) {
            tracing::info!(node = %self.context.name, "a Docker Engine answers: containers can run");
            self.link.greet(clock::since_boot(), Duration::ZERO);
        }
        if self.swept {
            self.sweep_containers();
        }
    }
}
