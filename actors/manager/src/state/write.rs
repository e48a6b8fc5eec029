//! Writing records: every index follows the record it is of.

use std::sync::Arc;

use imbl::OrdSet;
use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{
    CommandRecord, JobRecord, NodeRecord, NodeStatus, SlotRecord, VersionRecord,
};
use loom_schemas::words::RunState;

use super::State;
use super::load::{self, live_runs};

impl State {
    pub(super) fn set_command(&mut self, fingerprint: &str, record: Option<Arc<CommandRecord>>) {
        let at = record.as_ref().map(|record| record.at);
        let old = match record {
            Some(record) => self.commands.insert(fingerprint.to_owned(), record),
            None => self.commands.remove(fingerprint),
        };
        if let Some(old) = old {
            self.by_age.remove(&(old.at, fingerprint.to_owned()));
        }
        if let Some(at) = at {
            self.by_age.insert((at, fingerprint.to_owned()));
        }
    }

    pub(super) fn set_job(&mut self, name: &Name, record: Option<Arc<JobRecord>>) {
        let owner = record.as_ref().map(|job| job.owner.clone());
        let old = if let Some(record) = record {
            self.dirty.insert(name.clone());
            self.jobs.insert(name.clone(), record)
        } else {
            let old = self.jobs.remove(name);
            self.dirty.remove(name);
            // Who waited for it will wait in vain.
            let waiting: Vec<Name> = self.ties.dependants(name).cloned().collect();
            self.dirty.extend(waiting);
            self.set_due(name, None);
            old
        };
        let before = old.as_ref().map(|job| job.owner.as_str());
        self.hand_on(name, before, owner.as_deref());
        self.tie(name);
    }

    pub(super) fn set_version(
        &mut self,
        job: &Name,
        version: u32,
        record: Option<Arc<VersionRecord>>,
    ) {
        match record {
            Some(record) => self.versions.insert((job.clone(), version), record),
            None => self.versions.remove(&(job.clone(), version)),
        };
        self.tie(job);
    }

    pub(super) fn set_node(&mut self, name: &Name, record: Option<Arc<NodeRecord>>) {
        let status = |record: &NodeRecord| {
            let NodeRecord { status, lost, .. } = *record;
            (status, lost, record.back_by, record.since)
        };
        let old = self.nodes.get(name);
        if old.map(|old| (&old.info, status(old))) == record.as_ref().map(|r| (&r.info, status(r)))
        {
            // Only the generation moved: nothing to plan.
            if let Some(record) = record {
                self.nodes.insert(name.clone(), record);
            }
            return;
        }
        let old = old.cloned();
        self.count_capacity(old.as_deref(), record.as_deref());
        // One that does not answer helps nobody.
        if record
            .as_ref()
            .is_some_and(|node| node.status == NodeStatus::Up)
        {
            self.freed.insert(name.clone());
        }
        let jobs: OrdSet<Name> = self
            .loads
            .get(name)
            .into_iter()
            .flat_map(|load| load.placements.values().map(|slot| slot.job.clone()))
            .collect();
        for job in &jobs {
            self.mark_dirty(job);
        }
        self.dirty.extend(self.ties.system().iter().cloned());
        match &record {
            Some(record) if record.status != NodeStatus::Up => self.down.insert(name.clone()),
            _ => self.down.remove(name),
        };
        match record {
            Some(record) => self.nodes.insert(name.clone(), record),
            None => self.nodes.remove(name),
        };
    }

    pub(super) fn set_slot(&mut self, slot: &Slot, record: Option<Arc<SlotRecord>>) {
        let old = self.slots.get(slot).cloned();
        if let Some(old) = &old {
            self.unindex(old);
        }
        let held = old.iter().flat_map(|old| live_runs(old));
        let gave_back = held.filter(|held| {
            let mut still = record.iter().flat_map(|new| live_runs(new));
            !still.any(|run| run.placement == held.placement && run.reserved == held.reserved)
        });
        self.freed
            .extend(gave_back.filter_map(|run| run.node.clone()));
        if !only_on_its_way(old.as_deref(), record.as_deref()) {
            self.mark_dirty(&slot.job);
        }
        match record {
            Some(record) => {
                self.index(&record);
                self.slots.insert(slot, record);
            }
            None => {
                self.slots.remove(slot);
            }
        }
    }

    fn index(&mut self, record: &SlotRecord) {
        // Shared: a slot of its own in every index costs each copy of the index three counters.
        let slot = Arc::new(record.slot.clone());
        for run in load::all_runs(record) {
            self.runs.insert(run.run, &slot);
        }
        for run in live_runs(record) {
            self.hold(&record.slot.job, run);
            if let Some(node) = &run.node {
                let load = self.loads.entry(node.clone()).or_default();
                Arc::make_mut(load).hold(&slot, run);
            }
        }
        if let Some(at) = record.not_before {
            self.delayed.insert((at, record.slot.clone()));
        }
        if record.waiting.is_some() {
            self.waiting.insert(record.slot.clone());
        }
    }

    fn unindex(&mut self, record: &SlotRecord) {
        for run in load::all_runs(record) {
            self.runs.remove(run.run);
        }
        for run in live_runs(record) {
            self.release(&record.slot.job, run);
            let Some(node) = &run.node else { continue };
            let Some(load) = self.loads.get_mut(node) else {
                continue;
            };
            let load = Arc::make_mut(load);
            load.release(run);
            if load.is_empty() {
                self.loads.remove(node);
            }
        }
        if let Some(at) = record.not_before {
            self.delayed.remove(&(at, record.slot.clone()));
        }
        self.waiting.remove(&record.slot);
    }
}

/// Whether all that changed is how far a run is on its way to running: nothing to plan.
fn only_on_its_way(old: Option<&SlotRecord>, new: Option<&SlotRecord>) -> bool {
    let (Some(old), Some(new)) = (old, new) else {
        return false;
    };
    let (Some(from), Some(to)) = (&old.current, &new.current) else {
        return false;
    };
    let before = |state: RunState| state.rank() < RunState::Running.rank();
    from.run == to.run
        && before(from.state)
        && before(to.state)
        && (&from.order, from.version, from.marks) == (&to.order, to.version, to.marks)
        && old.ended == new.ended
        && old.incoming == new.incoming
}
