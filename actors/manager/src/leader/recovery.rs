//! After the log was rewound: noticing it by what nodes say, waiting for them, asking what the
//! state has lost.

use std::time::Duration;

use jiff::Timestamp;
use loom_bus::call::CallError;
use loom_bus::connection::Bus;
use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::{Assign, Assigned, Hello, Inventory, InventoryQuery};

use super::{Leading, ManagerMessage};
use crate::decide;
use crate::state::Draft;
use crate::term::Loss;
use crate::work::carry_out;

/// A node whose last heartbeat is younger than this lives.
const STRANGER: Duration = Duration::from_secs(10);

/// The most placements a node is taken to describe: one of each task and version.
const DESCRIBED_MAX: usize = 10_000;

impl Leading {
    /// What a node's `hello` says that this log cannot: a leader after the last one in it, or,
    /// where the log is blank, a cluster with runs in it.
    pub(super) fn loss_told_by(&self, hello: &Hello) -> Option<Loss> {
        let position = &self.durable.position;
        let loss = |cluster| Loss {
            epoch: hello.epoch,
            cluster,
        };
        let foreign = hello.cluster.as_ref().filter(|id| **id != position.cluster);
        match foreign {
            None => (hello.epoch > position.epoch()).then(|| loss(None)),
            Some(cluster) => {
                let lives = hello.runs.iter().any(|run| !run.state.is_terminal());
                (lives && self.head.is_blank()).then(|| loss(Some(cluster.clone())))
            }
        }
    }

    /// A node said hello to a leader that waits for it. If it has runs that the state knows nothing
    /// of, it is asked what they are and awaited until it has said hello once more.
    pub(super) fn hello_in_recovery(&mut self, draft: &mut Draft, node: &Name, hello: &Hello) {
        let asks = decide::tells_more(draft.state(), &hello.runs);
        if !asks || self.uninformed.contains(node) {
            return decide::heard(draft, node);
        }
        decide::await_node(draft, node);
        if self.inventories.contains_key(node) {
            return;
        }
        let (bus, wait) = (
            self.context.control.clone(),
            self.context.options.timings.node_call,
        );
        let (asked, name) = (node.clone(), node.clone());
        let work = async move { inventory_of(&bus, &asked, wait).await };
        let tell = move |found| ManagerMessage::Inventoried(name, found);
        let worker = carry_out(&self.myself, work, tell);
        self.inventories.insert(node.clone(), worker);
    }

    /// A node said what its placements are, or did not.
    pub(super) fn inventoried(&mut self, node: &Name, found: Option<&[Assigned]>) {
        self.inventories.remove(node);
        match found {
            Some(placements) => {
                tracing::warn!(%node, tasks = placements.len(), "taking up what the log has lost");
                let now = Timestamp::now();
                self.decide(Vec::new(), |draft| decide::take_up(draft, placements, now));
                // Whatever is missing still is missing for good.
                self.uninformed.insert(node.clone());
            }
            None => {
                tracing::error!(%node, "a node did not say what its placements are");
            }
        }
    }

    /// What the time brings while the cluster recovers.
    pub(super) fn look_at_recovery(&mut self) {
        if !self.is_recovering() {
            return;
        }
        self.await_strangers();
        let now = Timestamp::now();
        if decide::is_wait_over(&self.head, now) {
            self.decide(Vec::new(), decide::end_wait);
        }
        self.greet_awaited();
    }

    /// Nodes that are heard and that the state knows nothing of joined in the part that was lost.
    fn await_strangers(&mut self) {
        let mut strangers = Vec::new();
        let is_stranger = |node: &Name| self.head.node(node).is_none() && !self.head.awaits(node);
        self.context.hearts.for_each(|node, at, _| {
            if at.elapsed() < STRANGER && is_stranger(node) {
                strangers.push(node.clone());
            }
        });
        if strangers.is_empty() {
            return;
        }
        tracing::warn!(
            ?strangers,
            "nodes are heard that the state knows nothing of"
        );
        self.decide(Vec::new(), |draft| {
            for node in &strangers {
                decide::await_node(draft, node);
            }
        });
    }

    /// Has every node that is awaited hear of this leader, so that it says hello. What it is sent
    /// is a change of a set that no node has, so it changes nothing.
    fn greet_awaited(&mut self) {
        let position = &self.durable.position;
        let nothing = Assign {
            cluster: position.cluster.clone(),
            epoch: position.epoch(),
            generation: u64::MAX,
            base: Some(u64::MAX - 1),
            put: Vec::new(),
            keep: Vec::new(),
            remove: Vec::new(),
        };
        let recovery = self.head.recovery();
        let awaited: Vec<Name> = recovery
            .into_iter()
            .flat_map(|recovery| recovery.awaited.iter().cloned())
            .collect();
        for node in awaited {
            if !self.calls.contains_key(&node) {
                self.call(node, nothing.clone());
            }
        }
    }
}

/// All that a node has to tell of its placements; none if it does not answer.
async fn inventory_of(bus: &Bus, node: &Name, wait: Duration) -> Option<Vec<Assigned>> {
    let subject = subject::inventory(node);
    let mut placements: Vec<Assigned> = Vec::new();
    loop {
        let after = placements.last().map(|last| last.placement);
        let query = InventoryQuery { after };
        let page: Result<Inventory, CallError> = bus.call(&subject, &query, wait).await;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(%node, %error, "no inventory");
                return None;
            }
        };
        let more = page.more && !page.placements.is_empty();
        placements.extend(page.placements);
        if !more || placements.len() > DESCRIBED_MAX {
            return Some(placements);
        }
    }
}
