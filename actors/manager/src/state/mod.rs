//! The state: every record of the log behind an `Arc` in persistent maps, with the indexes that
//! planning needs, kept as records change.
//!
//! A clone is O(1), a change O(log n). The state holds no decision: it is what the log says.
//! Records that this build would not write back byte for byte (a newer format, an unknown key)
//! keep their bytes, so that an older manager passes on what it does not understand.

mod draft;
#[cfg(test)]
pub(crate) mod fixture;
mod holdings;
mod jobs;
mod key;
mod load;
mod nodes;
mod records;
#[cfg(test)]
mod tests;
mod ties;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{
    ClusterRecord, CommandRecord, JobRecord, ManagerRecord, MovesRecord, NodeRecord, Recovery,
    Relocation, SlotRecord, UseRecord, VersionRecord,
};
use loom_schemas::spec::JobSpec;

pub use draft::{Decided, Draft, NodeDelta};
pub use holdings::Held;
pub use key::Key;
pub use load::{Load, is_live, live_runs};
pub use records::CodecError;

pub(crate) use draft::{job_event, run_event};

use holdings::Holdings;
use jobs::Jobs;
use load::RunIndex;
use ties::Ties;

/// Everything the log says, and indexes over it.
#[derive(Clone, Debug, Default)]
pub struct State {
    cluster: Option<Arc<ClusterRecord>>,
    commands: OrdMap<String, Arc<CommandRecord>>,
    managers: OrdMap<Name, Arc<ManagerRecord>>,
    moves: Option<Arc<MovesRecord>>,
    nodes: OrdMap<Name, Arc<NodeRecord>>,
    /// Jobs with their versions and slots.
    jobs: Jobs,
    uses: OrdMap<Name, Arc<UseRecord>>,
    /// Bytes of records that this build does not know or would write otherwise.
    raw: OrdMap<String, Bytes>,

    /// Commands by their age.
    by_age: OrdSet<(Timestamp, String)>,
    loads: OrdMap<Name, Arc<Load>>,
    runs: RunIndex,
    /// Slots that wait for their `not_before`.
    delayed: OrdSet<(Timestamp, Slot)>,
    /// Slots that found no node.
    waiting: OrdSet<Slot>,
    /// Those of them for whose gangs room is kept.
    reserved: OrdSet<Slot>,
    /// Nodes that are down.
    down: OrdSet<Name>,
    /// Nodes that runs have to leave: those that are drained, and those with a taint that evicts.
    left: OrdSet<Name>,
    /// Jobs by what they hang on beside themselves.
    ties: Ties,
    /// Jobs of which something changed since they were last planned.
    dirty: OrdSet<Name>,
    /// Jobs by when the clock alone gives them something to do.
    by_due: OrdSet<(Timestamp, Name)>,
    /// Nodes with more room, or otherwise changed, since the waiting slots were last tried.
    freed: OrdSet<Name>,
    /// Nodes of which since then it may have become known when a run ends at the latest.
    ending: OrdSet<Name>,
    /// What owners hold.
    holdings: Holdings,
}

impl State {
    /// What holds for the whole cluster.
    pub fn cluster(&self) -> Option<&ClusterRecord> {
        self.cluster.as_deref()
    }

    /// The moves of the rebalance that is under way.
    pub fn moves(&self) -> &[Relocation] {
        let moves = self.moves.as_deref();
        moves.map_or(&[], |record| &record.moves)
    }

    /// The last time the log was given its state back, and who is awaited since.
    pub fn recovery(&self) -> Option<&Recovery> {
        self.cluster()?.recovery.as_ref()
    }

    /// Whether nothing may be stopped or placed yet, because the log was rewound.
    pub fn is_recovering(&self) -> bool {
        self.recovery().is_some_and(|recovery| !recovery.is_over())
    }

    /// Whether a node has to say hello before the cluster has recovered.
    pub fn awaits(&self, node: &Name) -> bool {
        self.recovery()
            .is_some_and(|recovery| recovery.awaited.contains(node))
    }

    /// Whether there is no job and no node: a log that begins, or one that was lost whole.
    pub fn is_blank(&self) -> bool {
        self.jobs().next().is_none() && self.nodes.is_empty()
    }

    /// A command that was carried out, by its fingerprint.
    pub fn command(&self, fingerprint: &str) -> Option<&Arc<CommandRecord>> {
        self.commands.get(fingerprint)
    }

    /// Remembered commands, oldest first.
    pub fn commands_by_age(&self) -> impl Iterator<Item = &(Timestamp, String)> {
        self.by_age.iter()
    }

    /// How many commands are remembered.
    pub fn command_count(&self) -> usize {
        self.commands.len()
    }

    /// A job.
    pub fn job(&self, name: &Name) -> Option<&Arc<JobRecord>> {
        self.jobs.record(name)
    }

    /// All jobs by name.
    pub fn jobs(&self) -> impl Iterator<Item = &Arc<JobRecord>> {
        self.jobs.records()
    }

    /// One version of a job.
    pub fn version(&self, job: &Name, version: u32) -> Option<&Arc<VersionRecord>> {
        self.jobs.get(job)?.version(version)
    }

    /// The kept versions of a job, oldest first.
    pub fn versions(&self, job: &Name) -> impl Iterator<Item = &Arc<VersionRecord>> {
        self.jobs.versions_of(job)
    }

    /// The spec of the wanted version of a job.
    pub fn spec(&self, job: &JobRecord) -> Option<&JobSpec> {
        self.version(&job.name, job.version)
            .map(|record| &record.spec)
    }

    /// A slot.
    pub fn slot(&self, slot: &Slot) -> Option<&Arc<SlotRecord>> {
        self.jobs.slot(slot)
    }

    /// All slots.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<SlotRecord>> {
        self.jobs.slots()
    }

    /// Shows each slot that is not the same in another state, as it is here and as it is there.
    pub(crate) fn changed_slots<'a>(
        &'a self,
        there: &'a Self,
        show: &mut dyn FnMut(&'a Arc<SlotRecord>),
    ) {
        self.jobs.changed_slots(&there.jobs, show);
    }

    /// The slots of a job, by task and index.
    pub fn slots_of<'a>(&'a self, job: &'a Name) -> impl Iterator<Item = &'a Arc<SlotRecord>> {
        self.jobs.slots_of(job)
    }

    /// The slots of one task of a job, by index.
    pub fn slots_of_task<'a>(
        &'a self,
        job: &'a Name,
        task: &'a Name,
    ) -> impl Iterator<Item = &'a Arc<SlotRecord>> {
        self.jobs.slots_of_task(job, task)
    }

    /// What the live runs of a node hold; none if nothing.
    pub fn load(&self, node: &Name) -> Option<&Load> {
        self.loads.get(node).map(AsRef::as_ref)
    }

    /// What each node with live runs holds.
    pub fn loads(&self) -> impl Iterator<Item = (&Name, &Load)> {
        self.loads.iter().map(|(node, load)| (node, load.as_ref()))
    }

    /// All nodes, for whoever keeps something up to date with them.
    pub(crate) fn node_records(&self) -> &OrdMap<Name, Arc<NodeRecord>> {
        &self.nodes
    }

    /// What each node with live runs holds, for whoever keeps something up to date with it.
    pub(crate) fn node_loads(&self) -> &OrdMap<Name, Arc<Load>> {
        &self.loads
    }

    /// What was measured on nodes, where that is more than what is reserved there.
    pub(crate) fn node_uses(&self) -> &OrdMap<Name, Arc<UseRecord>> {
        &self.uses
    }

    /// A manager.
    pub fn manager(&self, name: &Name) -> Option<&Arc<ManagerRecord>> {
        self.managers.get(name)
    }

    /// All managers by name.
    pub fn managers(&self) -> impl Iterator<Item = &Arc<ManagerRecord>> {
        self.managers.values()
    }

    /// The slot a run is or was in.
    pub fn slot_of_run(&self, run: RunId) -> Option<&Slot> {
        self.runs.get(run)
    }

    /// The runs whose id ends in so many hexadecimal digits.
    pub fn runs_ending(
        &self,
        digits: u128,
        count: u32,
    ) -> impl Iterator<Item = &(RunId, Arc<Slot>)> {
        self.runs.ending(digits, count)
    }

    /// Jobs of which something changed since they were last planned.
    pub fn dirty(&self) -> impl Iterator<Item = &Name> {
        self.dirty.iter()
    }

    /// Whether something of a job changed since it was last planned.
    pub fn is_dirty(&self, job: &Name) -> bool {
        self.dirty.contains(job)
    }

    /// Slots that found no node.
    pub fn waiting(&self) -> impl Iterator<Item = &Slot> {
        self.waiting.iter()
    }

    /// Slots that found no node, for whoever keeps something up to date with them.
    pub(crate) fn waiting_slots(&self) -> &OrdSet<Slot> {
        &self.waiting
    }

    /// The slot with the room that is kept for its gang: of several the first by name.
    pub fn reserved(&self) -> Option<&Arc<SlotRecord>> {
        self.slot(self.reserved.get_min()?)
    }

    /// Whether the runs of a slot are held: their nodes are not told of them before the last one of
    /// their gang is placed.
    pub fn is_held(&self, slot: &Slot) -> bool {
        let job = self.job(&slot.job);
        job.is_some_and(|job| job.held.contains_key(&slot.task))
    }

    /// Whether nodes have more room, or have changed, while slots wait.
    pub fn waiting_may_fit(&self) -> bool {
        !self.freed.is_empty() && !self.waiting.is_empty()
    }

    /// The nodes that have more room, or have changed, since the waiting slots were last tried.
    pub fn freed(&self) -> impl Iterator<Item = &Name> {
        self.freed.iter()
    }

    /// Slots whose pause is over at `now`.
    pub fn delay_over(&self, now: Timestamp) -> impl Iterator<Item = &Slot> {
        self.delayed
            .iter()
            .take_while(move |(at, _)| *at <= now)
            .map(|(_, slot)| slot)
    }

    /// When the next pause after `now` is over.
    pub fn next_delay(&self, now: Timestamp) -> Option<Timestamp> {
        self.delayed.iter().map(|(at, _)| *at).find(|at| *at > now)
    }

    /// Jobs to which the clock has given something to do at `now`.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = &Name> {
        let due = self.by_due.iter().take_while(move |(at, _)| *at <= now);
        due.map(|(_, job)| job)
    }

    /// When the clock next gives a job something to do after `now`.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.by_due.iter().map(|(at, _)| *at).find(|at| *at > now)
    }

    /// Has every job planned again: what a new leader does first.
    pub fn mark_all_dirty(&mut self) {
        self.dirty = self.jobs.names().cloned().collect();
    }

    pub(crate) fn mark_dirty(&mut self, job: &Name) {
        if self.job(job).is_some() && !self.dirty.contains(job) {
            self.dirty.insert(job.clone());
        }
    }

    /// Has a job planned again at that time; the next plan of it says anew when.
    pub(crate) fn set_due(&mut self, job: &Name, at: Option<Timestamp>) {
        let before = self.jobs.get(job).and_then(|of| of.due);
        if before == at {
            return;
        }
        self.jobs.change(job, |of| of.due = at);
        if let Some(before) = before {
            self.by_due.remove(&(before, job.clone()));
        }
        if let Some(at) = at {
            self.by_due.insert((at, job.clone()));
        }
    }

    /// Has a job planned again at that time, if it is not before.
    pub(crate) fn bring_due(&mut self, job: &Name, at: Timestamp) {
        let due = self.jobs.get(job).and_then(|of| of.due);
        if due.is_none_or(|due| at < due) {
            self.set_due(job, Some(at));
        }
    }

    pub(crate) fn mark_clean(&mut self, job: &Name) {
        if self.dirty.contains(job) {
            self.dirty.remove(job);
        }
    }

    /// Has those that wait tried anew on nodes of which it may be known now when a run ends; whether
    /// there are any.
    pub(crate) fn free_ending(&mut self) -> bool {
        let ending = std::mem::take(&mut self.ending);
        let any = !ending.is_empty();
        if any {
            self.freed = std::mem::take(&mut self.freed).union(ending);
        }
        any
    }

    pub(crate) fn mark_waiting_tried(&mut self) {
        self.freed = OrdSet::new();
        self.ending = OrdSet::new();
    }
}
