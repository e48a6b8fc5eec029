//! What a report says of a run, taken into its record.

use jiff::Timestamp;
use loom_schemas::record::{Health, Marks, RunRecord};
use loom_schemas::wire::RunReport;
use loom_schemas::words::RunState;

use super::limits::limit;

/// A time of a node's clock as far as a manager can believe it: not before the placement, nor later than
/// now.
pub(super) fn believed(run: &RunRecord, at: Timestamp, now: Timestamp) -> Timestamp {
    at.max(run.placed_at).min(now)
}

/// What is said of a run's health, and since when: while it stays the same, what was believed first.
fn health_of(run: &RunRecord, report: &RunReport, now: Timestamp) -> Option<Health> {
    let mut health = report.health.clone()?;
    let said = health.since;
    health.since = believed(run, said, now);
    let held = run
        .health
        .as_ref()
        .filter(|held| held.status == health.status);
    // A clock that is ahead says what is yet to come, each time it is asked.
    if let Some(held) = held.filter(|_| said > now) {
        health.since = held.since;
    }
    Some(health)
}

/// Brings a run forward by a report; the order in which reports come makes no difference.
pub(super) fn merge(run: &mut RunRecord, report: &RunReport, node_is_up: bool, now: Timestamp) {
    let was_over = run.state.is_terminal();
    if was_over && report.state.is_terminal() && run.state != report.state {
        // The first terminal state stays, with all that belongs to it.
        run.will_restart &= report.will_restart;
        return;
    }
    let started_at = report.started_at.map(|at| believed(run, at, now));
    let ahead = report.state.rank() > run.state.rank();
    let later = report.state.rank() == run.state.rank() && report.change >= run.change;
    if later || ahead {
        run.change = report.change;
        run.pid = report.pid.or(run.pid);
        run.image = report.image.clone().or(run.image.take());
        run.started_at = run.started_at.or(started_at);
        if !report.unenforced.is_empty() {
            run.unenforced.clone_from(&report.unenforced);
        }
        if !report.filled.is_empty() {
            run.filled.clone_from(&report.filled);
        }
    } else {
        run.pid = run.pid.or(report.pid);
        run.image = run.image.take().or_else(|| report.image.clone());
        run.started_at = run.started_at.or(started_at);
        if run.unenforced.is_empty() {
            run.unenforced.clone_from(&report.unenforced);
        }
        if run.filled.is_empty() {
            run.filled.clone_from(&report.filled);
        }
        return;
    }
    if ahead {
        run.state = report.state;
        run.reason.clone_from(&report.reason);
        run.exit.clone_from(&report.exit);
        run.result.clone_from(&report.result);
        run.will_restart = report.state.is_terminal() && report.will_restart;
        run.ended_at = report
            .state
            .is_terminal()
            .then(|| report.ended_at.map_or(now, |at| believed(run, at, now)));
    } else if was_over {
        run.will_restart &= report.will_restart;
    } else if run.state == RunState::Preparing && report.reason.is_some() {
        // How far a pull is.
        run.reason.clone_from(&report.reason);
    } else if report.marks.unknown || run.marks.unknown {
        // Why its node cannot say whether it runs, until it can.
        run.reason.clone_from(&report.reason);
    }
    run.health = health_of(run, report, now).filter(|_| !run.state.is_terminal());
    if run.state == RunState::Running {
        limit(run, report, now);
    }
    run.marks = if run.state.is_terminal() {
        Marks::default()
    } else {
        Marks {
            paused: report.marks.paused,
            // That its node is silent is not for the report to say.
            unknown: report.marks.unknown || (run.marks.unknown && !node_is_up),
        }
    };
}
