//! Writing records: every index follows the record it is of.

use std::sync::Arc;

use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{
    Claim, CommandRecord, JobRecord, Order, RunRecord, SlotRecord, VersionRecord,
};
use loom_schemas::words::RunState;

use super::State;
use super::load::{all_runs, live_runs};

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
        let is_there = record.is_some();
        let old = self
            .jobs
            .change(name, |of| std::mem::replace(&mut of.record, record));
        if is_there {
            self.dirty.insert(name.clone());
        } else {
            self.dirty.remove(name);
            // Who waited for it will wait in vain.
            let waiting: Vec<Name> = self.ties.dependants(name).cloned().collect();
            self.dirty.extend(waiting);
            self.set_due(name, None);
        }
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
        self.jobs.set_version(job, version, record);
        self.tie(job);
    }

    pub(super) fn set_slot(&mut self, slot: &Slot, record: Option<Arc<SlotRecord>>) {
        let old = self.jobs.slot(slot).cloned();
        let (before, after) = (old.as_deref(), record.as_deref());
        self.unindex(slot, before, after);
        if !only_on_its_way(before, after) {
            self.mark_dirty(&slot.job);
        }
        self.index(slot, before, after);
        self.jobs.set_slot(slot, record);
    }

    /// Takes out of the indexes what was so and is not any more. What stays is not touched: each
    /// touch copies a path of its index.
    fn unindex(&mut self, slot: &Slot, before: Option<&SlotRecord>, after: Option<&SlotRecord>) {
        let Some(record) = before else { return };
        let stays = |run: &RunRecord| {
            after
                .iter()
                .flat_map(|it| all_runs(it))
                .any(|r| r.run == run.run)
        };
        for run in all_runs(record).filter(|run| !stays(run)) {
            self.runs.remove(run.run);
        }
        for run in live_runs(record).filter(|run| !is_held(run, after)) {
            self.release(&slot.job, run);
            let Some(node) = &run.node else { continue };
            self.freed.insert(node.clone());
            let Some(load) = self.loads.get_mut(node) else {
                continue;
            };
            let load = Arc::make_mut(load);
            load.release(run);
            if load.is_empty() {
                self.loads.remove(node);
            }
        }
        for run in live_runs(record).filter(|run| ends_otherwise(run, after)) {
            self.ending.extend(run.node.clone());
        }
        for claim in claims(record).filter(|claim| !is_claimed(claim, after)) {
            self.freed.insert(claim.node.clone());
            if let Some(load) = self.loads.get_mut(&claim.node) {
                let load = Arc::make_mut(load);
                load.claims.remove(slot);
                if load.is_empty() {
                    self.loads.remove(&claim.node);
                }
            }
        }
        if is_reserved(record) && !after.is_some_and(is_reserved) {
            self.reserved.remove(slot);
        }
        if let Some(at) = record.not_before
            && after.and_then(|after| after.not_before) != Some(at)
        {
            self.delayed.remove(&(at, slot.clone()));
        }
        if record.waiting.is_some() && after.is_none_or(|after| after.waiting.is_none()) {
            self.waiting.remove(slot);
        }
    }

    /// Puts into the indexes what is so and was not before.
    fn index(&mut self, slot: &Slot, before: Option<&SlotRecord>, after: Option<&SlotRecord>) {
        let Some(record) = after else { return };
        // Shared: a slot of its own in every index costs each copy of the index three counters.
        let shared = Arc::new(slot.clone());
        let was = |run: &RunRecord| {
            before
                .iter()
                .flat_map(|it| all_runs(it))
                .any(|r| r.run == run.run)
        };
        for run in all_runs(record).filter(|run| !was(run)) {
            self.runs.insert(run.run, &shared);
        }
        for run in live_runs(record).filter(|run| !is_held(run, before)) {
            self.hold(&slot.job, run);
            if let Some(node) = &run.node {
                let load = self.loads.entry(node.clone()).or_default();
                Arc::make_mut(load).hold(&shared, run);
            }
        }
        for claim in claims(record).filter(|claim| !is_claimed(claim, before)) {
            let load = self.loads.entry(claim.node.clone()).or_default();
            let claims = &mut Arc::make_mut(load).claims;
            claims.insert(slot.clone(), Arc::new(claim.clone()));
        }
        if is_reserved(record) && !before.is_some_and(is_reserved) {
            self.reserved.insert(slot.clone());
        }
        if let Some(at) = record.not_before
            && before.and_then(|before| before.not_before) != Some(at)
        {
            self.delayed.insert((at, slot.clone()));
        }
        if record.waiting.is_some() && before.is_none_or(|before| before.waiting.is_none()) {
            self.waiting.insert(slot.clone());
        }
    }
}

/// Whether a live run holds the same on the same node in this record.
fn is_held(run: &RunRecord, record: Option<&SlotRecord>) -> bool {
    let same = |other: &RunRecord| {
        other.placement == run.placement
            && other.node == run.node
            && other.reserved == run.reserved
            && other.ports == run.ports
            && other.gpus == run.gpus
    };
    record.iter().flat_map(|it| live_runs(it)).any(same)
}

/// Whether it may be known of a run in this record when it ends, and was not before.
fn ends_otherwise(run: &RunRecord, record: Option<&SlotRecord>) -> bool {
    let terms = |run: &RunRecord| (run.order != Order::Run, run.version, run.marks);
    let after = record.iter().flat_map(|it| live_runs(it));
    let mut same = after.filter(|other| other.placement == run.placement);
    same.any(|other| terms(other) != terms(run))
}

/// The room that is kept for a slot or its gang, a claim a node: none once it waits no more, but where
/// its run is to move.
fn claims(record: &SlotRecord) -> impl Iterator<Item = &Claim> {
    let waits = record.waiting.is_some();
    let reserved = record.reservation.iter().flatten();
    let all = record.claim.iter().chain(reserved);
    all.filter(move |claim| waits || claim.moves.is_some())
}

/// Whether the same room is kept for this record.
fn is_claimed(claim: &Claim, record: Option<&SlotRecord>) -> bool {
    let mut claims = record.into_iter().flat_map(claims);
    claims.any(|other| other == claim)
}

fn is_reserved(record: &SlotRecord) -> bool {
    record.reservation.is_some() && record.waiting.is_some()
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
