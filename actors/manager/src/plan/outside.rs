//! Runs that other datacenters move, though nothing else of their task changes.

use std::sync::Arc;

use loom_schemas::ids::Name;
use loom_schemas::record::SlotRecord;
use loom_schemas::spec::JobSpec;
use loom_schemas::wire::PlanAction;
use loom_schemas::words::Kind;

use crate::state::{State, live_runs};
use crate::system::{self, may_run_on};

/// What becomes of the runs of a task that goes on where the job's datacenters are others, and why;
/// none if that is nothing.
pub(super) fn outside(
    state: &State,
    new: &JobSpec,
    task: &Name,
    wanted: u32,
) -> Option<(PlanAction, String)> {
    let is_wanted = |slot: &&Arc<SlotRecord>| {
        let index = &slot.slot.index;
        index.node().is_some() || index.number().is_some_and(|index| index < wanted)
    };
    let slots = state.slots_of_task(&new.name, task).filter(is_wanted);
    let nodes: Vec<&Name> = slots
        .filter_map(|slot| live_runs(slot).next()?.node.as_ref())
        .collect();
    let gone = nodes.iter().filter(|node| !may_run_on(state, new, node));
    let (outside, all) = (gone.count(), nodes.len());
    if new.kind == Kind::System {
        let begins = system::missing(state, new, task);
        let ends = (outside > 0).then(|| format!("{outside} of {all} runs end"));
        let begin = (begins > 0).then(|| format!("{begins} begin"));
        let action = match (outside > 0, begins > 0) {
            (false, false) => return None,
            (true, false) => PlanAction::Stop,
            (false, true) => PlanAction::Create,
            (true, true) => PlanAction::Replace,
        };
        let said: Vec<String> = ends.into_iter().chain(begin).collect();
        return Some((action, format!("datacenters: {}", said.join(", "))));
    }
    let reason = format!("datacenters: {outside} of {all} runs are outside");
    (outside > 0).then_some((PlanAction::Replace, reason))
}
