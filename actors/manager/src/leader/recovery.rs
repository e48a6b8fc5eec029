//! After the log was rewound: noticing it by what nodes say, waiting for them, asking what the
//! state has lost.

use std::time::Duration;

use jiff::Timestamp;
use loom_bus::call::CallError;
use loom_bus::connection::Bus;
use loom_bus::log::Commit;
use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::{Assign, Assigned, Hello, Inventory, InventoryQuery};

use super::effect::Effect;
use super::{Leading, ManagerMessage};
use crate::decide;
use crate::state::Draft;
use crate::term::Loss;
use crate::work::{Worker, carry_out};

/// A node whose last heartbeat is younger than this lives.
const STRANGER: Duration = Duration::from_secs(10);

/// How far it is to take up what a node has and the state has lost.
pub(crate) enum TakingUp {
    /// The node is asked.
    Asked { _worker: Worker },
    /// All of it is decided and not yet durable.
    Pending,
    /// All of it is durable.
    Done,
    /// It is not, and why.
    Failed(String),
}

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
    /// of (`asks`), it is asked what they are and awaited until it has said hello once more.
    pub(super) fn hello_in_recovery(&mut self, draft: &mut Draft, node: &Name, asks: bool) {
        let before = self.inventories.get(node);
        // Whatever is missing once all was taken up is missing for good.
        if !asks || matches!(before, Some(TakingUp::Done)) {
            return decide::heard(draft, node);
        }
        decide::await_node(draft, node);
        if matches!(before, Some(TakingUp::Asked { .. } | TakingUp::Pending)) {
            return;
        }
        let (bus, wait) = (
            self.context.control.clone(),
            self.context.options.timings.node_call,
        );
        let (asked, name) = (node.clone(), node.clone());
        let work = async move { inventory_of(&bus, &asked, wait).await };
        let tell = move |found| ManagerMessage::Inventoried(name, found);
        let asked = TakingUp::Asked {
            _worker: carry_out(&self.myself, work, tell),
        };
        self.inventories.insert(node.clone(), asked);
    }

    /// A node said what its placements are, or did not.
    pub(super) fn inventoried(&mut self, node: &Name, found: Option<Vec<Assigned>>) {
        let Some(placements) = found else {
            return self.not_taken_up(node, "it did not say what its tasks are".to_owned());
        };
        tracing::warn!(%node, tasks = placements.len(), "taking up what the log has lost");
        let now = Timestamp::now();
        for lot in decide::lots(placements) {
            let taken = self.decide(Vec::new(), |draft| decide::take_up(draft, &lot, now));
            if let (None, Some(first)) = (taken, lot.first()) {
                let (job, version) = (&first.slot.job, first.version);
                let why = format!("version {version} of job {job} cannot be committed");
                return self.not_taken_up(node, why);
            }
        }
        self.inventories.insert(node.clone(), TakingUp::Pending);
        // Lands after all of it, or not at all.
        let pushed = self
            .gatherer
            .push(Commit::default(), [Effect::TakenUp(node.clone())]);
        debug_assert!(pushed.is_ok(), "an empty commit is never too large");
    }

    /// What a node told is not in the log: it is awaited on, and asked when it says hello again.
    pub(super) fn not_taken_up(&mut self, node: &Name, why: String) {
        tracing::error!(%node, why, "the tasks of a node cannot be taken up: it is asked again");
        self.inventories.insert(node.clone(), TakingUp::Failed(why));
    }

    /// Who is awaited and, where it is known, why it is not over; empty if nobody is by name.
    pub(super) fn awaited(&self) -> String {
        let recovery = self.durable.state.recovery();
        let awaited = recovery.into_iter().flat_map(|recovery| &recovery.awaited);
        let named: Vec<String> = awaited
            .map(|node| match self.inventories.get(node) {
                Some(TakingUp::Failed(why)) => format!("{node} ({why})"),
                _ => node.to_string(),
            })
            .collect();
        named.join(", ")
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
            labels: std::collections::BTreeMap::new(),
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
        let last = page.placements.last().map(|last| last.placement);
        placements.extend(page.placements);
        if !page.more {
            return Some(placements);
        }
        if last <= after {
            tracing::error!(%node, "a node's inventory does not go on");
            return None;
        }
    }
}
