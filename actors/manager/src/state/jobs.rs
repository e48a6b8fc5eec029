//! All that is known of each job, in one entry: its record, its versions, its slots, and what is
//! kept up to date with them.
//!
//! One map for all of it: a commit copies one path to a job, whichever of its records it changes.
//! The slots are a map of their own within it, so that a job of many is not copied whole.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use jiff::Timestamp;
use loom_schemas::ids::{Index, Name, Slot};
use loom_schemas::record::{JobRecord, SlotRecord, VersionRecord};

use super::Held;
use super::ties::Tie;

/// All jobs by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Jobs(OrdMap<Name, Arc<OfJob>>);

/// What is known of one job, or of one that is yet to be read from the log and has slots or versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfJob {
    pub(super) record: Option<Arc<JobRecord>>,
    versions: OrdMap<u32, Arc<VersionRecord>>,
    /// By task and index.
    slots: OrdMap<(Name, Index), Arc<SlotRecord>>,
    /// What its live runs have reserved.
    pub(super) held: Held,
    /// What it hangs on beside itself.
    pub(super) tie: Tie,
    /// When the clock alone gives it something to do, as it was last planned.
    pub(super) due: Option<Timestamp>,
}

impl OfJob {
    /// One of the versions that are kept.
    pub(super) fn version(&self, version: u32) -> Option<&Arc<VersionRecord>> {
        self.versions.get(&version)
    }
}

impl Jobs {
    pub(super) fn get(&self, name: &Name) -> Option<&OfJob> {
        self.0.get(name).map(AsRef::as_ref)
    }

    pub(super) fn record(&self, name: &Name) -> Option<&Arc<JobRecord>> {
        self.get(name)?.record.as_ref()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<JobRecord>> {
        self.0.values().filter_map(|of| of.record.as_ref())
    }

    /// The names of those that have a record.
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        let known = self.0.iter().filter(|(_, of)| of.record.is_some());
        known.map(|(name, _)| name)
    }

    /// Changes what is known of a job; nothing is kept of one of which nothing is known any more.
    pub(super) fn change<R>(&mut self, name: &Name, change: impl FnOnce(&mut OfJob) -> R) -> R {
        if let Some(known) = self.0.get_mut(name) {
            let of = Arc::make_mut(known);
            let result = change(of);
            if *of == OfJob::default() {
                self.0.remove(name);
            }
            return result;
        }
        let mut of = OfJob::default();
        let result = change(&mut of);
        if of != OfJob::default() {
            self.0.insert(name.clone(), Arc::new(of));
        }
        result
    }

    /// The names and numbers of all versions.
    pub(super) fn versions(&self) -> impl Iterator<Item = (&Name, u32)> {
        let versions = |(name, of): (_, &'_ Arc<OfJob>)| -> Vec<_> {
            of.versions.keys().map(|version| (name, *version)).collect()
        };
        self.0.iter().flat_map(versions)
    }

    /// The versions of a job, the oldest first.
    pub(super) fn versions_of(&self, name: &Name) -> impl Iterator<Item = &Arc<VersionRecord>> {
        let of = self.get(name).into_iter();
        of.flat_map(|of| of.versions.values())
    }

    pub(super) fn set_version(
        &mut self,
        job: &Name,
        version: u32,
        record: Option<Arc<VersionRecord>>,
    ) {
        self.change(job, |of| match record {
            Some(record) => of.versions.insert(version, record),
            None => of.versions.remove(&version),
        });
    }

    pub(super) fn slot(&self, slot: &Slot) -> Option<&Arc<SlotRecord>> {
        self.get(&slot.job)?.slots.get(&within(slot))
    }

    /// In order of job, task and index.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Arc<SlotRecord>> {
        self.0.values().flat_map(|of| of.slots.values())
    }

    pub(super) fn slots_of(&self, job: &Name) -> impl Iterator<Item = &Arc<SlotRecord>> + use<'_> {
        let of = self.get(job).into_iter();
        of.flat_map(|of| of.slots.values())
    }

    pub(super) fn slots_of_task<'a>(
        &'a self,
        job: &Name,
        task: &'a Name,
    ) -> impl Iterator<Item = &'a Arc<SlotRecord>> + use<'a> {
        // No index sorts before the number 0.
        let first = (task.clone(), Index::Number(0));
        let of = self.get(job).into_iter();
        let later = of.flat_map(move |of| of.slots.range(first.clone()..));
        let of_task = later.take_while(move |((name, _), _)| name == task);
        of_task.map(|(_, record)| record)
    }

    /// Shows each slot that is not the same elsewhere, as it is here and as it is there.
    pub(super) fn changed_slots<'a>(
        &'a self,
        there: &'a Self,
        show: &mut dyn FnMut(&'a Arc<SlotRecord>),
    ) {
        for item in self.0.diff(&there.0) {
            match item {
                DiffItem::Add(_, of) | DiffItem::Remove(_, of) => {
                    of.slots.values().for_each(&mut *show);
                }
                DiffItem::Update { old, new } => {
                    for item in old.1.slots.diff(&new.1.slots) {
                        match item {
                            DiffItem::Add(_, slot) | DiffItem::Remove(_, slot) => show(slot),
                            DiffItem::Update { old, new } => {
                                show(old.1);
                                show(new.1);
                            }
                        }
                    }
                }
            }
        }
    }

    pub(super) fn set_slot(&mut self, slot: &Slot, record: Option<Arc<SlotRecord>>) {
        self.change(&slot.job, |of| match record {
            Some(record) => of.slots.insert(within(slot), record),
            None => of.slots.remove(&within(slot)),
        });
    }
}

fn within(slot: &Slot) -> (Name, Index) {
    (slot.task.clone(), slot.index.clone())
}
