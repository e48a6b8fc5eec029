//! When runs have ended at the latest: known of those whose time is limited, and who are not started
//! again without end.

use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::record::{Order, RunRecord, SlotRecord};
use loom_schemas::spec::{JobSpec, RestartOn, TaskSpec};
use loom_schemas::words::Kind;

use crate::scheduler::End;
use crate::state::State;

/// A node starts a task no oftener than so, whatever its `restart` says.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// One that should have ended is given so long.
pub(super) const OVERDUE: Duration = Duration::from_secs(10);

/// How long a placement of a task lasts at most from its start, if so many starts of it count as
/// spent; none if nobody knows. How long a start takes is not in it.
pub(super) fn longest(spec: &JobSpec, task: &TaskSpec, spent: u32) -> Option<Duration> {
    let timeout = task.timeout.as_ref()?;
    let once = Duration::from(timeout.after) + Duration::from(task.stop.grace);
    let restart = &task.restart;
    let starts = match restart.on {
        RestartOn::Never => 1,
        // Starts of a service, and those that are forgotten after a while, never run out.
        _ if spec.kind != Kind::Batch || restart.window.is_some() => return None,
        _ => restart.attempts.saturating_sub(spent).max(1),
    };
    let pause = Duration::from(restart.max_delay.max(restart.delay)).max(PAUSE_MAX);
    let restarts = pause.checked_mul(starts - 1)?;
    once.checked_mul(starts)?.checked_add(restarts)
}

/// When a placement on a node has ended at the latest; none if nobody knows.
pub(super) fn end_of(
    state: &State,
    record: &SlotRecord,
    run: &RunRecord,
    now: Timestamp,
) -> Option<Timestamp> {
    let spec = &state.version(&record.slot.job, run.version)?.spec;
    let task = spec.tasks.get(&record.slot.task)?;
    if run.marks.unknown || run.marks.paused {
        return None;
    }
    if run.order != Order::Run {
        return now.checked_add(Duration::from(task.stop.grace)).ok();
    }
    // Of one that somebody restarted the starts count anew.
    let spent = match run.restart_orders {
        0 => record.failed_placements.saturating_add(run.restarts),
        _ => 0,
    };
    let started = run.started_at.unwrap_or(run.created_at);
    let from = if run.state.is_terminal() {
        now
    } else {
        started
    };
    let end = from.checked_add(longest(spec, task, spent)?).ok()?;
    if end > now {
        Some(end)
    } else {
        now.checked_add(OVERDUE).ok()
    }
}

/// The same, with whether it is counted from now.
pub(super) fn known_end(
    state: &State,
    record: &SlotRecord,
    run: &RunRecord,
    now: Timestamp,
) -> Option<End> {
    let at = end_of(state, record, run, now)?;
    let moves = run.order != Order::Run || run.state.is_terminal();
    let moves = moves || now.checked_add(OVERDUE).ok() == Some(at);
    Some(End { at, moves })
}
