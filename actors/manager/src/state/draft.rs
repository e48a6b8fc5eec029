//! A draft of the next commit: edits that are in place at once, so that later decisions see them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use loom_bus::log::Change;
use loom_schemas::event::{About, Event};
use loom_schemas::ids::{Epoch, Name, RunId, Slot};
use loom_schemas::record::{
    ClusterRecord, CommandRecord, JobRecord, ManagerRecord, MovesRecord, NodeRecord, Order,
    RunRecord, SlotRecord, UseRecord, VersionRecord,
};
use loom_schemas::wire::{Assign, Assigned};

use super::{CodecError, Key, State, live_runs};
use crate::plan::assigned;

/// Edits to the state, with the events that tell of them.
#[derive(Clone, Debug)]
pub struct Draft {
    base: State,
    state: State,
    touched: BTreeSet<Key>,
    events: Vec<Event>,
    deltas: BTreeMap<Name, NodeDelta>,
}

/// What a draft comes to: the next state, and what to commit and send to get everybody there.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The state once `changes` are applied.
    pub state: State,
    /// What differs from the state the draft began with.
    pub changes: Vec<Change>,
    /// What to tell.
    pub events: Vec<Event>,
    /// What to send to nodes once the changes are durable.
    pub assigns: BTreeMap<Name, NodeDelta>,
}

/// How the assignment of one node changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeDelta {
    /// The generation it starts from.
    pub base: u64,
    /// The generation it leads to.
    pub generation: u64,
    /// Placements to have, new or changed.
    pub put: BTreeMap<RunId, Slot>,
    /// Placements the state knows nothing of, to be stopped.
    pub stop: BTreeMap<RunId, Assigned>,
    /// Placements to forget.
    pub remove: BTreeSet<RunId>,
}

impl Draft {
    /// A draft without edits.
    pub fn new(state: State) -> Self {
        Self {
            base: state.clone(),
            state,
            touched: BTreeSet::new(),
            events: Vec::new(),
            deltas: BTreeMap::new(),
        }
    }

    /// The state with all edits so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// How many records were edited so far.
    pub fn edits(&self) -> usize {
        self.touched.len()
    }

    /// Tells something.
    pub fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// The events so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Writes what holds for the cluster.
    pub fn put_cluster(&mut self, record: ClusterRecord) {
        self.touched.insert(Key::Cluster);
        self.state.cluster = Some(Arc::new(record));
    }

    /// Writes the moves of a rebalance.
    pub fn put_moves(&mut self, record: MovesRecord) {
        self.touched.insert(Key::Moves);
        self.state.moves = Some(Arc::new(record));
    }

    /// Remembers a command.
    pub fn put_command(&mut self, fingerprint: &str, record: CommandRecord) {
        self.touched.insert(Key::Command(fingerprint.to_owned()));
        self.state.set_command(fingerprint, Some(Arc::new(record)));
    }

    /// Writes a job.
    pub fn put_job(&mut self, record: JobRecord) {
        self.touched.insert(Key::Job(record.name.clone()));
        let name = record.name.clone();
        self.state.set_job(&name, Some(Arc::new(record)));
    }

    /// Writes a version of a job.
    pub fn put_version(&mut self, record: VersionRecord) {
        let (job, version) = (record.job.clone(), record.version);
        self.touched.insert(Key::Version(job.clone(), version));
        self.state
            .set_version(&job, version, Some(Arc::new(record)));
    }

    /// Writes a slot.
    pub fn put_slot(&mut self, record: SlotRecord) {
        self.touched.insert(Key::Slot(record.slot.clone()));
        let slot = record.slot.clone();
        self.state.set_slot(&slot, Some(Arc::new(record)));
    }

    /// Writes a node.
    pub fn put_node(&mut self, record: NodeRecord) {
        self.touched.insert(Key::Node(record.name.clone()));
        let name = record.name.clone();
        self.state.set_node(&name, Some(Arc::new(record)));
    }

    /// Writes what was measured on a node.
    pub fn put_use(&mut self, node: &Name, record: UseRecord) {
        self.touched.insert(Key::Use(node.clone()));
        self.state.uses.insert(node.clone(), Arc::new(record));
    }

    /// Writes a manager.
    pub fn put_manager(&mut self, record: ManagerRecord) {
        self.touched.insert(Key::Manager(record.name.clone()));
        self.state
            .managers
            .insert(record.name.clone(), Arc::new(record));
    }

    /// Takes a record away.
    pub fn delete(&mut self, key: Key) {
        self.state.remove(&key);
        self.touched.insert(key);
    }

    /// Has a node stop a placement that the state knows nothing of.
    pub(crate) fn stop_unknown(&mut self, node: &Name, assigned: Assigned) {
        let delta = self.deltas.entry(node.clone()).or_default();
        delta.stop.insert(assigned.placement, assigned);
    }

    /// Has a node forget a placement.
    pub(crate) fn forget(&mut self, node: &Name, placement: RunId) {
        self.deltas
            .entry(node.clone())
            .or_default()
            .remove
            .insert(placement);
    }

    /// Has a node hear of its labels, whatever else it is told.
    pub(crate) fn tell(&mut self, node: &Name) {
        self.deltas.entry(node.clone()).or_default();
    }

    pub(crate) fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Ends the draft: compares with where it began, numbers the assignments that changed.
    pub fn finish(mut self) -> Result<Decided, CodecError> {
        self.collect_deltas();
        self.number_deltas();
        self.encode()
    }

    /// [`finish`](Self::finish) without the bytes: what changed is only named.
    #[cfg(test)]
    pub(crate) fn finish_unwritten(mut self) -> (Decided, Vec<Key>) {
        self.collect_deltas();
        self.number_deltas();
        let changed = |key: &&Key| !self.state.same_record(&self.base, key);
        let keys = self.touched.iter().filter(changed).cloned().collect();
        let decided = Decided {
            state: self.state,
            changes: Vec::new(),
            events: self.events,
            assigns: self.deltas,
        };
        (decided, keys)
    }

    fn encode(mut self) -> Result<Decided, CodecError> {
        let mut changes = Vec::with_capacity(self.touched.len());
        for key in &self.touched {
            if !self.state.same_record(&self.base, key) {
                let value = self.state.encoded(key)?;
                let key = key.to_string();
                self.state.raw.remove(&key);
                changes.push(Change { key, value });
            }
        }
        Ok(Decided {
            state: self.state,
            changes,
            events: self.events,
            assigns: self.deltas,
        })
    }

    fn collect_deltas(&mut self) {
        let mut slots: BTreeSet<Slot> = BTreeSet::new();
        for key in &self.touched {
            match key {
                Key::Slot(slot) => {
                    slots.insert(slot.clone());
                }
                Key::Job(job) if self.job_reaches_nodes(job) => {
                    slots.extend(self.state.slots_of(job).map(|record| record.slot.clone()));
                }
                _ => {}
            }
        }
        for slot in slots {
            let resend = self.job_reaches_nodes(&slot.job);
            let before = orders(&self.base, &slot);
            let after = orders(&self.state, &slot);
            for (placement, (node, terms)) in &after {
                if resend || before.get(placement).is_none_or(|(_, old)| old != terms) {
                    let delta = self.deltas.entry(node.clone()).or_default();
                    delta.put.insert(*placement, slot.clone());
                    delta.remove.remove(placement);
                }
            }
            for (placement, (node, _)) in before {
                if !after.contains_key(&placement) {
                    self.deltas
                        .entry(node)
                        .or_default()
                        .remove
                        .insert(placement);
                }
            }
        }
        // A placement that ended and was put in the same draft is gone by now.
        for delta in self.deltas.values_mut() {
            delta
                .stop
                .retain(|placement, _| !delta.put.contains_key(placement));
        }
    }

    /// Whether a job's own record changed in what its runs' nodes are told: replicas.
    fn job_reaches_nodes(&self, job: &Name) -> bool {
        match (self.base.job(job), self.state.job(job)) {
            (Some(old), Some(new)) if !Arc::ptr_eq(old, new) => {
                old.scaled != new.scaled || old.version != new.version || old.held != new.held
            }
            _ => false,
        }
    }

    fn number_deltas(&mut self) {
        let mut numbered = BTreeMap::new();
        for (name, mut delta) in std::mem::take(&mut self.deltas) {
            let Some(node) = self.state.node(&name) else {
                continue;
            };
            let mut record = NodeRecord::clone(node);
            delta.base = record.generation;
            record.generation += 1;
            delta.generation = record.generation;
            self.put_node(record);
            numbered.insert(name, delta);
        }
        self.deltas = numbered;
    }
}

impl NodeDelta {
    /// Adds a later delta; none is left out if both were never sent.
    pub fn merge(&mut self, later: Self) {
        for placement in &later.remove {
            self.put.remove(placement);
            self.stop.remove(placement);
        }
        for placement in later.put.keys() {
            self.remove.remove(placement);
        }
        self.generation = later.generation;
        self.put.extend(later.put);
        self.stop.extend(later.stop);
        self.remove.extend(later.remove);
    }

    /// The message to the node.
    pub fn message(&self, state: &State, node: &Name, cluster: &str, epoch: Epoch) -> Assign {
        let labels = state.node(node).map(|node| node.labels.clone());
        let put = self.put.iter().filter_map(|(placement, slot)| {
            let record = state.slot(slot)?;
            let run = live_runs(record).find(|run| run.placement == *placement)?;
            assigned(state, record, run)
        });
        Assign {
            cluster: cluster.to_owned(),
            epoch,
            generation: self.generation,
            base: Some(self.base),
            put: put.chain(self.stop.values().cloned()).collect(),
            keep: Vec::new(),
            remove: self.remove.iter().copied().collect(),
            labels: labels.unwrap_or_default(),
        }
    }
}

/// What a node is told of a placement, without the spec, which only the version decides: the
/// version, what is wanted, how often it was restarted and resized, and whether it holds the slot's
/// address.
type Terms = (u32, Order, u32, u32, bool);

fn orders(state: &State, slot: &Slot) -> BTreeMap<RunId, (Name, Terms)> {
    let record = state.slot(slot).filter(|_| !state.is_held(slot));
    let holder = record.and_then(|record| Some(record.holder()?.placement));
    let runs = record.into_iter().flat_map(|record| live_runs(record));
    runs.filter_map(|run: &RunRecord| {
        let holds = holder == Some(run.placement);
        let terms = (
            run.told_version(),
            run.order.clone(),
            run.restart_orders,
            run.resize_orders(),
            holds,
        );
        Some((run.placement, (run.node.clone()?, terms)))
    })
    .collect()
}

/// An event about a slot's run, with what is known of the run.
pub(crate) fn run_event(at: Timestamp, slot: &Slot, run: &RunRecord, what: &str) -> Event {
    let Slot { job, task, index } = slot.clone();
    let mut event = Event::new(at, About::Task { job, task, index }, what);
    event.run = Some(run.run);
    event.node.clone_from(&run.node);
    event.version = Some(run.version);
    event.reason.clone_from(&run.reason);
    event.exit_code = run.exit.as_ref().and_then(|exit| exit.code);
    event
}

/// An event about a job.
pub(crate) fn job_event(at: Timestamp, job: &JobRecord, what: &str) -> Event {
    let mut event = Event::new(
        at,
        About::Job {
            job: job.name.clone(),
        },
        what,
    );
    event.version = Some(job.version);
    event
}
