//! Whether a move may begin, whether it may go on, and what has become of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::record::{
    Claim, JobRecord, NodeRecord, NodeStatus, Order, Relocation, RunRecord, SlotRecord,
};
use loom_schemas::spec::{JobSpec, TaskSpec};
use loom_schemas::words::RunState;

use super::super::evict;
use super::stay::movable;
use crate::reconcile::{Stand, stand, unwanted_reason, version_of};
use crate::scheduler::{Request, Room, fits};
use crate::state::{State, is_live};

/// What has become of a move that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is on its way; whether what takes over was placed.
    Moves { tried: bool },
    /// The slot is filled from where it was to go.
    Moved,
    /// It is not, and will not be.
    Stays,
    /// The same, as it took too long; what was to take over may still be there.
    Late,
}

/// The room to keep where a run is to go, and how long it may take until it serves there; none if the
/// run may not be moved, or there is no room.
pub(super) fn claim(state: &State, it: &Relocation) -> Option<(Claim, Duration)> {
    let (record, job) = state.slot(&it.slot).zip(state.job(&it.slot.job))?;
    let found = movable(state, job, record, state.node(&it.from)?).ok()?;
    let is_it = found.run.placement == it.placement && record.waiting.is_none();
    if !(is_it && record.claim.is_none() && takes(state, &it.to, record, found.spec, found.task)) {
        return None;
    }
    let ports = found.task.ports.values().filter_map(|port| port.host);
    let claim = Claim {
        node: it.to.clone(),
        reserved: found.task.resources_of(&it.slot.index),
        ports: ports.collect(),
        awaits: std::collections::BTreeMap::new(),
        evicted: Vec::new(),
        at: None,
        moves: Some(it.placement),
    };
    Some((claim, found.spec.update.deadline.into()))
}

/// Whether there is, or is kept, what a move needs to go on from where its run was.
pub(super) fn is_open(state: &State, it: &Relocation, record: &SlotRecord) -> bool {
    let goes_on = |run: &&RunRecord| is_live(run) && run.order == Order::Run;
    let Some(run) = record.current.as_ref().filter(goes_on) else {
        return true;
    };
    if record.incoming.is_some() {
        return record.incoming.as_ref().is_some_and(is_live);
    }
    // Somebody of a higher priority may have taken it.
    let is_kept = record.claim.as_ref();
    let is_kept = is_kept.is_some_and(|claim| claim.moves == Some(it.placement));
    let spec = state.version(&it.slot.job, run.version);
    let spec = spec.map(|version| &version.spec);
    let task = spec.and_then(|spec| Some((spec, spec.tasks.get(&it.slot.task)?)));
    !it.tried
        && is_kept
        && task.is_some_and(|(spec, task)| takes(state, &it.to, record, spec, task))
}

/// Whether a node takes a run of a slot, beside what is kept there for the slot itself.
fn takes(state: &State, node: &Name, record: &SlotRecord, spec: &JobSpec, task: &TaskSpec) -> bool {
    let open = |node: &&Arc<NodeRecord>| node.status == NodeStatus::Up && node.drain.is_none();
    let Some(node) = state.node(node).filter(open) else {
        return false;
    };
    let request = Request::of_slot(spec, task, &record.slot.index);
    let room = Room::keeping(node, state.load(&node.name), |other| *other != record.slot);
    fits(&room, &request).is_ok()
        && (request.apart.is_empty() || request.is_apart(node, &evict::others(state, &record.slot)))
}

/// How a move stands that was begun.
pub(super) fn standing(state: &State, it: &Relocation, now: Timestamp) -> Standing {
    let Some((record, job)) = state.slot(&it.slot).zip(state.job(&it.slot.job)) else {
        return Standing::Stays;
    };
    let spec = state.spec(job);
    if spec.is_none_or(|spec| unwanted_reason(job, spec, record).is_some()) {
        return Standing::Stays;
    }
    let last = record.current.as_ref().or(record.ended.last());
    let standing = match last {
        None => Standing::Stays,
        Some(run) if run.placement != it.placement => arrived(it, run),
        Some(run) if record.current.is_some() && is_live(run) => {
            leaves(state, it, record, job, run)
        }
        Some(run) => follows(state, it, record, job, run),
    };
    // Who was told to end will have ended, however long its grace is.
    let ends = last.is_some_and(|run| is_live(run) && run.order != Order::Run);
    let is_late = it.deadline.is_some_and(|at| at <= now) && !ends;
    match standing {
        Standing::Moves { .. } if is_late => Standing::Late,
        standing => standing,
    }
}

/// The run is still there.
fn leaves(
    state: &State,
    it: &Relocation,
    record: &SlotRecord,
    job: &JobRecord,
    run: &RunRecord,
) -> Standing {
    let incoming = record.incoming.as_ref();
    let failed = it.tried && !incoming.is_some_and(is_live);
    // An update takes it along, or has already.
    let other = version_of(record, job) != run.version || run.round != job.round;
    let has_no_node = record.waiting.is_some() && incoming.is_none();
    let goes_on = run.order == Order::Run;
    if goes_on && (failed || other || has_no_node || !is_open(state, it, record)) {
        Standing::Stays
    } else {
        let tried = incoming.is_some();
        Standing::Moves { tried }
    }
}

/// The run has ended, and nothing is there yet that follows it.
fn follows(
    state: &State,
    it: &Relocation,
    record: &SlotRecord,
    job: &JobRecord,
    run: &RunRecord,
) -> Standing {
    let spec = state.version(&job.name, run.version);
    let spec = spec.map(|version| &version.spec);
    let task = spec.and_then(|spec| Some((spec.kind, spec.tasks.get(&it.slot.task)?)));
    let none_follows = task.is_none_or(|(kind, task)| {
        let stand = stand(job, kind, task, record);
        matches!(stand, Stand::Done | Stand::Failed) && record.incoming.is_none()
    });
    if record.waiting.is_some() || none_follows {
        Standing::Stays
    } else {
        Standing::Moves { tried: it.tried }
    }
}

/// Another run fills the slot.
fn arrived(it: &Relocation, run: &RunRecord) -> Standing {
    let served = run.state == RunState::Running || run.started_at.is_some();
    if run.node.as_ref() != Some(&it.to) {
        Standing::Stays
    } else if served {
        Standing::Moved
    } else if is_live(run) {
        Standing::Moves { tried: true }
    } else {
        Standing::Stays
    }
}
