//! Runs that cannot be held to other limits where they are, for want of room.

use std::collections::BTreeMap;

use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{JobRecord, Order};
use loom_schemas::spec::TaskSpec;

use crate::reconcile::{Change, change_at, grown, grows};
use crate::scheduler::{Cause, Room};
use crate::state::{State, live_runs};

/// The slots of a task whose runs have to move to be held to the limits that it has now, each with
/// its node and why; by their indexes, as their turns come.
pub(super) fn crowded(
    state: &State,
    job: &JobRecord,
    name: &Name,
    task: &TaskSpec,
) -> BTreeMap<Slot, (Name, Cause)> {
    let mut rooms: BTreeMap<&Name, Room> = BTreeMap::new();
    let mut crowded = BTreeMap::new();
    for record in state.slots_of_task(&job.name, name) {
        let index = &record.slot.index;
        for run in live_runs(record).filter(|run| run.order == Order::Run) {
            let node = run.node.as_ref().and_then(|node| state.node(node));
            let old = state.version(&job.name, run.version);
            let old = old.and_then(|version| version.spec.tasks.get(name));
            let (Some(node), Some(old)) = (node, old) else {
                continue;
            };
            if change_at(old, task, index) != Change::Resize {
                continue;
            }
            let room = rooms
                .entry(&node.name)
                .or_insert_with(|| Room::of(node, state.load(&node.name)));
            let wanted = task.resources_of(index);
            match grows(room, &run.reserved, &wanted) {
                Ok(()) => *room = grown(room, &run.reserved, &wanted),
                Err(cause) => {
                    crowded.insert(record.slot.clone(), (node.name.clone(), cause));
                }
            }
        }
    }
    crowded
}
