//! What a slot's run means for the slot: the table of ends.

use loom_schemas::ids::{Index, Name};
use loom_schemas::record::{Exit, JobRecord, Order, RunRecord, SlotRecord, Wanted};
use loom_schemas::spec::{JobSpec, RestartOn, TaskSpec};
use loom_schemas::units::Millis;
use loom_schemas::words::{Kind, RunState};

use crate::state::is_live;

/// The shortest pause before a placement after a failed one.
const PAUSE_MIN: Millis = Millis::secs(1);

/// How a slot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Nothing is in it: it can be placed.
    Empty,
    /// A placement holds it.
    Live,
    /// Its work is done.
    Done,
    /// It has spent its attempts.
    Failed,
    /// What was in it ended and something takes its place.
    Again(Why),
}

/// Why something takes the place of a run that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The manager wanted the run gone, or it is of an earlier round: no pause, a clean sheet.
    Ordered,
    /// The run was lost with its node: no pause, and its failures still count.
    Lost,
    /// The run failed: a pause that grows with each in a row.
    Failed,
}

/// How a slot of a wanted index stands.
///
/// | end | batch | service `any` | service `failure` | `never` |
/// |---|---|---|---|---|
/// | completed | done | again, paused | done | done |
/// | failed | failed | again, paused | again, paused | failed |
/// | rejected | again, paused, while attempts are left | again, paused | again, paused | failed |
/// | killed by nobody's order here | again, paused | again, paused | again, paused | again, paused |
/// | lost | again, while attempts are left | again | again | failed |
///
/// A run that was ordered to stop, or of an earlier round, is followed by another at once; a
/// failed one of another version than the slot's as well. A batch slot that completed stays done.
pub fn stand(job: &JobRecord, kind: Kind, task: &TaskSpec, slot: &SlotRecord) -> Stand {
    let Some(run) = &slot.current else {
        return Stand::Empty;
    };
    if is_live(run) {
        return Stand::Live;
    }
    if run.round != job.round {
        return Stand::Again(Why::Ordered);
    }
    let batch = kind == Kind::Batch;
    let on = task.restart.on;
    match run.state {
        RunState::Completed if batch => Stand::Done,
        _ if run.order != Order::Run => Stand::Again(Why::Ordered),
        _ if run.version != version_of(slot, job) => Stand::Again(Why::Ordered),
        RunState::Completed if on == RestartOn::Any => Stand::Again(Why::Failed),
        RunState::Completed => Stand::Done,
        // Its node was stopped: it did not end by itself, so `never` does not speak of it.
        RunState::Killed => Stand::Again(Why::Failed),
        _ if on == RestartOn::Never => Stand::Failed,
        RunState::Failed if batch => Stand::Failed,
        RunState::Rejected | RunState::Lost if batch && !has_attempts(task, slot, run) => {
            Stand::Failed
        }
        RunState::Lost => Stand::Again(Why::Lost),
        _ => Stand::Again(Why::Failed),
    }
}

/// Whether the slot of a batch may have another placement, on another node, after this run of it. One
/// that is a job has no node, and its own tasks have made their attempts.
fn has_attempts(task: &TaskSpec, slot: &SlotRecord, run: &RunRecord) -> bool {
    run.child.is_none()
        && run.node.is_some()
        && spent_after(task, slot.failed_placements, run) < task.restart.attempts
}

/// The attempts that a batch has spent once a placement that ended so has: all its starts, as far as
/// they are known to count.
pub(super) fn spent_after(task: &TaskSpec, before: u32, run: &RunRecord) -> u32 {
    let (before, starts) = match task.restart.window {
        // What is older than the window does not count; of this placement at least its last start does.
        Some(window) if lasted(run) > window => (0, 1),
        Some(_) => (before, 1),
        // A restart that somebody asked for began the count anew, on the node.
        None if run.restart_orders > 0 => (before, 1),
        None => (before, run.restarts.saturating_add(1)),
    };
    before.saturating_add(starts)
}

/// The version that the placements of a slot run: the wanted one where it had no run in this round.
pub fn version_of(slot: &SlotRecord, job: &JobRecord) -> u32 {
    if is_fresh(slot, job) {
        return job.version;
    }
    let newest = || slot.current.iter().chain(slot.ended.last()).next();
    match slot.version {
        0 => newest().map_or(job.version, |run| run.version),
        version => version,
    }
}

/// Whether a slot had no run in this round.
pub(super) fn is_fresh(slot: &SlotRecord, job: &JobRecord) -> bool {
    let mut runs = slot
        .current
        .iter()
        .chain(&slot.incoming)
        .chain(slot.ended.last());
    !runs.any(|run| run.round == job.round)
}

/// How many slots of a task are wanted.
pub fn replicas(job: &JobRecord, task: &Name, spec: &TaskSpec) -> u32 {
    job.scaled.get(task).copied().unwrap_or(spec.replicas)
}

/// How many slots of a task are wanted, less those that somebody stopped one by one.
pub fn unstopped(job: &JobRecord, task: &Name, spec: &TaskSpec) -> u32 {
    let all = replicas(job, task, spec);
    let is_one = |index: &Index| index.number().is_some_and(|number| number < all);
    let stopped = job.stopped_slots.iter();
    let stopped = stopped.filter(|(of, index)| of == task && is_one(index));
    all.saturating_sub(u32::try_from(stopped.count()).unwrap_or(all))
}

/// The pause before the next placement after so many failed ones in a row: the task's own delay
/// (at least 1 s), doubling up to its longest.
pub fn pause(task: &TaskSpec, failures: u32) -> Millis {
    let first = task.restart.delay.max(PAUSE_MIN);
    let most = task.restart.max_delay.max(first);
    let doubled = 1u64
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u64::MAX);
    Millis(first.0.saturating_mul(doubled)).min(most)
}

/// How many placements in a row have failed once `run` has: a run that lasted longer than the
/// longest pause begins a new row.
pub fn failures_after(task: &TaskSpec, before: u32, run: &RunRecord) -> u32 {
    if lasted(run) > task.restart.max_delay.max(PAUSE_MIN) {
        1
    } else {
        before.saturating_add(1)
    }
}

/// How long a run ran; no time where it never did.
fn lasted(run: &RunRecord) -> Millis {
    let ran = run.started_at.zip(run.ended_at);
    let ran = ran.map_or(0, |(from, to)| to.as_millisecond() - from.as_millisecond());
    Millis(u64::try_from(ran).unwrap_or(0))
}

/// How a run ended, in words: its reason, or what its exit says.
pub fn how_it_ended(run: &RunRecord) -> String {
    if let Some(reason) = &run.reason {
        return format!("{}: {reason}", run.state);
    }
    match &run.exit {
        Some(Exit {
            timed_out: true, ..
        }) => format!("{}: timed out", run.state),
        Some(Exit {
            out_of_memory: true,
            ..
        }) => format!("{}: out of memory", run.state),
        Some(Exit {
            signal: Some(signal),
            ..
        }) => format!("{}: signal {signal}", run.state),
        Some(Exit {
            code: Some(code), ..
        }) => format!("{}: exit code {code}", run.state),
        _ => run.state.to_string(),
    }
}

/// Why a slot is not wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unwanted {
    /// The whole job is to stop.
    JobStopped(String),
    /// The job is over.
    JobEnded,
    /// Somebody stopped this slot alone.
    SlotStopped,
    /// The index or the whole task is no longer part of the job.
    Removed(String),
}

impl Unwanted {
    pub(super) fn reason(&self) -> String {
        match self {
            Self::JobStopped(reason) | Self::Removed(reason) => reason.clone(),
            Self::JobEnded => "the job has ended".to_owned(),
            Self::SlotStopped => "stopped".to_owned(),
        }
    }
}

/// Whether a slot is wanted, apart from how the other slots stand.
pub(super) fn unwanted(job: &JobRecord, spec: &JobSpec, slot: &SlotRecord) -> Option<Unwanted> {
    let at = &slot.slot;
    let Some(task) = spec.tasks.get(&at.task) else {
        let reason = format!("version {} has no task {}", job.version, at.task);
        return Some(Unwanted::Removed(reason));
    };
    if spec.schedule.is_some() {
        return Some(Unwanted::Removed(
            "the job runs by its schedule now".to_owned(),
        ));
    }
    let replicas = replicas(job, &at.task, task);
    let removed = match (&at.index, spec.kind) {
        (Index::Number(_), Kind::System) => Some("the job runs on every node now".to_owned()),
        (Index::Number(number), _) => {
            (*number >= replicas).then(|| format!("scaled to {replicas}"))
        }
        (Index::Node(_), Kind::System) => None,
        (Index::Node(_), kind) => Some(format!("the job is a {kind} now")),
    };
    if let Some(removed) = removed {
        return Some(Unwanted::Removed(removed));
    }
    if let Wanted::Stop { by, reason } = &job.wanted {
        return Some(Unwanted::JobStopped(stopped_by(by, reason)));
    }
    if job.status.is_terminal() {
        return Some(Unwanted::JobEnded);
    }
    is_stopped(job, &at.task, &at.index).then_some(Unwanted::SlotStopped)
}

/// Whether somebody stopped this slot alone.
pub fn is_stopped(job: &JobRecord, task: &Name, index: &Index) -> bool {
    !job.stopped_slots.is_empty() && job.stopped_slots.contains(&(task.clone(), index.clone()))
}

/// `stopped by anna: maintenance`.
pub fn stopped_by(by: &str, reason: &str) -> String {
    if reason.is_empty() {
        format!("stopped by {by}")
    } else {
        format!("stopped by {by}: {reason}")
    }
}
