//! Which runs a rebalance may move, and why the others stay where they are.

use loom_schemas::ids::Index;
use loom_schemas::record::{
    JobRecord, NodeRecord, NodeStatus, Order, RunRecord, SlotRecord, UpdatePhase,
};
use loom_schemas::spec::{JobSpec, Operator, TaskSpec};
use loom_schemas::words::{HealthStatus, Kind, RunState};

use crate::reconcile::{leave_of, unwanted_reason, version_of};
use crate::state::{State, is_live};

/// Why a run stays where it is, in the words of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    Batch,
    System,
    SubJob,
    Gang,
    Updating,
    Unwanted,
    Leaving,
    Replaced,
    NotServing,
    Turns,
    Moved,
}

impl Stay {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "run to completion",
            Self::System => "are of system jobs",
            Self::SubJob => "are jobs of their own",
            Self::Gang => "are of gangs",
            Self::Updating => "are of jobs that are being updated",
            Self::Unwanted => "are not wanted any more",
            Self::Leaving => "leave their nodes anyway",
            Self::Replaced => "are being replaced",
            Self::Moved => "were moved within ten minutes",
            Self::Turns => "are placed by turns",
            Self::NotServing => "do not run, are paused or not healthy",
        }
    }
}

/// A run that may be moved, with what it is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Movable<'a> {
    pub(crate) run: &'a RunRecord,
    pub(crate) task: &'a TaskSpec,
    pub(crate) spec: &'a JobSpec,
}

/// The run of a slot, if it may be moved.
pub(crate) fn movable<'a>(
    state: &'a State,
    job: &JobRecord,
    record: &'a SlotRecord,
    node: &NodeRecord,
) -> Result<Movable<'a>, Stay> {
    let run = record.current.as_ref().filter(|run| is_live(run));
    let run = run.ok_or(Stay::NotServing)?;
    let version = state.version(&job.name, run.version);
    let spec = &version.ok_or(Stay::Unwanted)?.spec;
    let task = spec.tasks.get(&record.slot.task).ok_or(Stay::Unwanted)?;
    match spec.kind {
        Kind::Batch => return Err(Stay::Batch),
        Kind::System => return Err(Stay::System),
        Kind::Service => {}
    }
    if !matches!(record.slot.index, Index::Number(_)) {
        return Err(Stay::System);
    }
    if matches!(task.operator, Operator::Job(_)) {
        return Err(Stay::SubJob);
    }
    if task.gang {
        return Err(Stay::Gang);
    }
    let updating = |phase| phase != UpdatePhase::Done;
    if job
        .update
        .as_ref()
        .is_some_and(|update| updating(update.phase))
    {
        return Err(Stay::Updating);
    }
    if unwanted_reason(job, spec, record).is_some() || run.round != job.round {
        return Err(Stay::Unwanted);
    }
    if record.incoming.is_some() || version_of(record, job) != run.version {
        return Err(Stay::Replaced);
    }
    if leave_of(node, task).is_some() || run.order != Order::Run {
        return Err(Stay::Leaving);
    }
    let sick = |status| status != HealthStatus::Healthy;
    let serves = run.state == RunState::Running
        && !run.marks.paused
        && !run.marks.unknown
        && node.status == NodeStatus::Up
        && !run
            .health
            .as_ref()
            .is_some_and(|health| sick(health.status));
    if serves {
        Ok(Movable { run, task, spec })
    } else {
        Err(Stay::NotServing)
    }
}
