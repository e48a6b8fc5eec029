//! The slots of all jobs, by job.
//!
//! In two levels: an edit copies the path to what it changes, and with one map of all slots that is
//! neighbours of other jobs by the hundred.

use std::sync::Arc;

use imbl::OrdMap;
use loom_schemas::ids::{Index, Name, Slot};
use loom_schemas::record::SlotRecord;

/// The slots of all jobs; in order of job, task and index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slots(OrdMap<Name, OfJob>);

type OfJob = OrdMap<(Name, Index), Arc<SlotRecord>>;

impl Slots {
    pub(super) fn get(&self, slot: &Slot) -> Option<&Arc<SlotRecord>> {
        self.0.get(&slot.job)?.get(&within(slot))
    }

    pub(super) fn insert(&mut self, slot: &Slot, record: Arc<SlotRecord>) {
        let of_job = self.0.entry(slot.job.clone()).or_default();
        of_job.insert(within(slot), record);
    }

    pub(super) fn remove(&mut self, slot: &Slot) {
        let Some(of_job) = self.0.get_mut(&slot.job) else {
            return;
        };
        of_job.remove(&within(slot));
        if of_job.is_empty() {
            self.0.remove(&slot.job);
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<SlotRecord>> {
        self.0.values().flat_map(OrdMap::values)
    }

    pub(super) fn of_job(&self, job: &Name) -> impl Iterator<Item = &Arc<SlotRecord>> + use<'_> {
        self.0.get(job).into_iter().flat_map(OrdMap::values)
    }

    pub(super) fn of_task<'a>(
        &'a self,
        job: &Name,
        task: &'a Name,
    ) -> impl Iterator<Item = &'a Arc<SlotRecord>> + use<'a> {
        // No index sorts before the number 0.
        let first = (task.clone(), Index::Number(0));
        let of_job = self.0.get(job).into_iter();
        let later = of_job.flat_map(move |of_job| of_job.range(first.clone()..));
        let of_task = later.take_while(move |((of, _), _)| of == task);
        of_task.map(|(_, record)| record)
    }
}

fn within(slot: &Slot) -> (Name, Index) {
    (slot.task.clone(), slot.index.clone())
}
