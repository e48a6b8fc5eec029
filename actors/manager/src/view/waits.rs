//! Why slots wait, as things stand now: what was written down is of when they were last tried, and
//! nobody tries them again for a word.

use std::collections::BTreeMap;

use loom_schemas::ids::Name;
use loom_schemas::record::{JobRecord, SlotRecord};
use loom_schemas::spec::JobSpec;

use crate::plan::kept;
use crate::reconcile::version_of;
use crate::scheduler::{Request, Room, WhyNot, fits};
use crate::state::State;

/// The slots of a job; those that wait for the same as the one before them say so in full.
pub(super) fn explained<'a>(
    state: &'a State,
    job: &'a JobRecord,
    spec: &'a JobSpec,
) -> impl Iterator<Item = SlotRecord> + 'a {
    let mut reasons: BTreeMap<Name, String> = BTreeMap::new();
    let slots = state.slots_of(&job.name);
    slots.map(move |slot| {
        let mut slot = SlotRecord::clone(slot);
        let now = slot.waiting.as_ref().filter(|why| !why.is_empty());
        if let Some(why) = now {
            let why = why_now(state, job, spec, &slot).unwrap_or_else(|| why.clone());
            if slot.claim.is_some() {
                return slot;
            }
            reasons.insert(slot.slot.task.clone(), why);
        }
        if let Some(why) = &mut slot.waiting {
            why.clone_from(reasons.entry(slot.slot.task.clone()).or_default());
            let last = slot.ended.last().or(slot.current.as_ref());
            if let Some(other) = last.and_then(|run| run.evicted_for.as_ref()) {
                *why = format!("evicted for {other}; {why}");
            }
        }
        slot
    })
}

/// Why a slot that found no node finds none now; none if it waits for something else, or is about
/// to be placed.
fn why_now(state: &State, job: &JobRecord, spec: &JobSpec, slot: &SlotRecord) -> Option<String> {
    let at = &slot.slot;
    let version = state.version(&job.name, version_of(slot, job));
    let of_version = version.map_or(spec, |version| &version.spec);
    let task = of_version
        .tasks
        .get(&at.task)
        .or(spec.tasks.get(&at.task))?;
    let request = Request::of_slot(spec, task, &at.index);
    let written = slot.waiting.as_deref()?;
    if let Some(name) = at.index.node() {
        let node = state.node(name)?;
        let room = Room::of(node, state.load(name));
        let cause = fits(&room, &request).err()?;
        return Some(format!("node {name}: {cause}"));
    }
    let why = WhyNot::of(state, at, &request)?;
    let why = || kept(state, &request, why.to_string());
    written.starts_with(WhyNot::WORDS).then(why)
}
