//! How slots and runs stand in an update.

use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::record::{Health, Order, RunRecord, SlotRecord};
use loom_schemas::spec::{OnUpdateFailure, RestartOn, TaskSpec};
use loom_schemas::words::{HealthStatus, Kind, RunState};

use crate::reconcile::Facts;
use crate::reconcile::verdict::{Stand, Why, how_it_ended, is_fresh, stand, version_of};
use crate::state::{is_live, live_runs};

/// How a slot stands in an update.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// Whether what is placed in it runs the wanted version.
    pub(super) turned: bool,
    /// How far it is.
    pub(super) way: Way,
}

/// How far a slot is on the way to the wanted version.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is not on its way, or it is not known yet: it had no run in this round.
    Rests,
    /// Its run does not count yet, or what it leaves has not ended.
    Moves,
    /// It failed, and nothing is to be waited for.
    GivenUp,
    /// Its work is done.
    Done,
    /// Its run counts.
    Counts,
}

impl Way {
    /// Whether nothing is to be waited for.
    pub(super) fn is_settled(self) -> bool {
        matches!(self, Self::GivenUp | Self::Done | Self::Counts)
    }

    /// Whether it speaks for its version.
    pub(super) fn proves(self) -> bool {
        matches!(self, Self::Done | Self::Counts)
    }
}

/// How a wanted slot stands in an update.
pub(super) fn look(facts: &Facts<'_>, task: &TaskSpec, record: &SlotRecord) -> Look {
    let job = facts.job;
    if is_fresh(record, job) {
        // A slot that never found a node does not hold up the others: they may make room for it.
        let (turned, way) = (false, Way::Rests);
        return Look { turned, way };
    }
    let (kind, name) = (facts.spec.kind, &record.slot.task);
    let turned = version_of(record, job) == job.version;
    if !turned {
        let old = facts.task_at(name, version_of(record, job)).unwrap_or(task);
        let done = matches!(stand(job, kind, old, record), Stand::Done);
        let leaves = live_runs(record).any(|run| run.order != Order::Run);
        let way = match done {
            true => Way::Done,
            false if record.incoming.is_some() || leaves => Way::Moves,
            false => Way::Rests,
        };
        return Look { turned, way };
    }
    let current = record.current.as_ref().filter(|run| is_live(run));
    // One that only moves to another node goes on counting meanwhile.
    let incoming = record.incoming.as_ref();
    let counts = incoming.is_none_or(|incoming| incoming.version == job.version)
        && current.is_some_and(|run| run.told_version() == job.version && counts(facts, task, run));
    // One that failed does not hold up an update that goes on after failures.
    // A batch proves nothing, and counts what was lost with its node among its attempts.
    let continues = facts.spec.update.on_failure == OnUpdateFailure::Continue;
    let continues = continues && kind != Kind::Batch;
    let failed = record.failed_placements > 0 && record.incoming.is_none();
    let given_up = continues && (failed || failure(facts, task, record).is_some());
    let way = match stand(job, kind, task, record) {
        _ if counts => Way::Counts,
        Stand::Done => Way::Done,
        Stand::Failed => Way::GivenUp,
        _ if given_up => Way::GivenUp,
        _ => Way::Moves,
    };
    Look { turned, way }
}

/// Whether a run proves its version: it has served for `healthy_for`.
pub(in crate::reconcile) fn counts(facts: &Facts<'_>, task: &TaskSpec, run: &RunRecord) -> bool {
    counts_at(facts, task, run).is_some_and(|at| at <= facts.now)
}

/// When a run will have served for `healthy_for`; none if it does not serve now.
pub(in crate::reconcile) fn counts_at(
    facts: &Facts<'_>,
    task: &TaskSpec,
    run: &RunRecord,
) -> Option<Timestamp> {
    let update = &facts.spec.update;
    if run.order != Order::Run || is_unreachable(run) || run.marks.paused || !is_live(run) {
        return None;
    }
    // An update that goes on after failures takes what is late as it is.
    let late = (update.on_failure == OnUpdateFailure::Continue)
        .then(|| later(begun(run).max(run.placed_at), update.deadline.into()));
    if run.resizing().is_some() {
        return late;
    }
    if facts.spec.kind == Kind::Batch {
        return (run.state == RunState::Running).then_some(run.created_at);
    }
    let since = match (&task.health, &run.health) {
        _ if run.state != RunState::Running => None,
        (None, _) => Some(run.started_at.unwrap_or(run.created_at)),
        (Some(_), Some(health)) if health.is_healthy() => Some(health.since),
        (Some(_), _) => None,
    };
    // The node's clock may be behind: no run served before it was wanted.
    let proved = since.map(|since| {
        later(
            since.max(run.created_at).max(begun(run)),
            update.healthy_for.into(),
        )
    });
    proved.into_iter().chain(late).min()
}

/// Since when an update waits for the new run of a slot on its way; none while what it takes over
/// from has not ended.
pub(super) fn waits_since(
    facts: &Facts<'_>,
    task: &TaskSpec,
    record: &SlotRecord,
) -> Option<Timestamp> {
    let new = |run: &&RunRecord| run.told_version() == facts.job.version && run.order == Order::Run;
    let leaves = live_runs(record).any(|run| run.order != Order::Run);
    match live_runs(record).find(new) {
        Some(run) if leaves && counts(facts, task, run) => None,
        Some(run) => Some(begun(run).max(run.placed_at)),
        None if leaves => None,
        None => {
            let ended = record.current.as_ref().or(record.ended.last());
            let ended = ended.and_then(|run| run.ended_at);
            Some(ended.unwrap_or(Timestamp::MIN))
        }
    }
}

/// Whether a run of a service has done its work for good: it completed, and nothing starts it again.
pub(in crate::reconcile) fn is_done(task: &TaskSpec, run: &RunRecord) -> bool {
    let again = run.will_restart || task.restart.on == RestartOn::Any;
    run.state == RunState::Completed && run.order == Order::Run && !again
}

/// Since when a run is held to its limits as its version says, where that was not from its start;
/// until it is so since when that is wanted.
fn begun(run: &RunRecord) -> Timestamp {
    let resize = run.resize.as_ref();
    let since = resize.and_then(|resize| match &resize.pending {
        Some(pending) => Some(pending.since),
        None => resize.held_at,
    });
    since.unwrap_or(Timestamp::MIN)
}

/// Whether a run does its work as far as anybody knows: where its version has it checked, it is
/// healthy, and no checks of a version that it is being resized to say otherwise.
pub fn serves(facts: &Facts<'_>, name: &Name, run: &RunRecord) -> bool {
    let checked = facts
        .task_at(name, run.version)
        .is_some_and(|task| task.health.is_some());
    let up = run.state == RunState::Running && !is_unreachable(run) && run.order == Order::Run;
    // What somebody paused does nothing, and its health is from before.
    up && !run.marks.paused
        && !is_unhealthy(run)
        && (!checked || run.health.as_ref().is_some_and(Health::is_healthy))
}

fn is_unreachable(run: &RunRecord) -> bool {
    run.marks.unknown
}

/// Whether its checks say that a run does not do its work.
pub(in crate::reconcile) fn is_unhealthy(run: &RunRecord) -> bool {
    let status = run.health.as_ref().map(|health| health.status);
    status == Some(HealthStatus::Unhealthy)
}

/// The end of a slot's run of the wanted version that nobody ordered and nothing follows on its
/// node: when, and in words.
pub(super) fn failure(
    facts: &Facts<'_>,
    task: &TaskSpec,
    record: &SlotRecord,
) -> Option<(Option<Timestamp>, String)> {
    let job = facts.job;
    let of_version =
        |run: &&RunRecord| run.version == job.version && run.round == job.round && !is_live(run);
    let current = record.current.as_ref().filter(of_version);
    let current = current.filter(|run| {
        let stand = stand(job, facts.spec.kind, task, record);
        let failed = matches!(stand, Stand::Failed | Stand::Again(Why::Failed));
        // One that its stopped node took with it is not the version's fault.
        failed && run.state != RunState::Killed
    });
    let incoming = record.incoming.as_ref().filter(of_version);
    let incoming = incoming.filter(|run| {
        let failed = matches!(
            run.state,
            RunState::Failed | RunState::Rejected | RunState::Completed
        );
        failed && run.order == Order::Run && !is_done(task, run)
    });
    let run = current.or(incoming)?;
    Some((
        run.ended_at,
        format!("{} {}", record.slot, how_it_ended(run)),
    ))
}

/// Why a slot's run does not count yet, in words.
pub(super) fn how_it_stands(record: &SlotRecord, facts: &Facts<'_>) -> String {
    let runs = record.incoming.iter().chain(&record.current);
    let run = runs
        .into_iter()
        .find(|run| run.told_version() == facts.job.version);
    if let Some(waiting) = record.waiting.as_ref().filter(|why| !why.is_empty()) {
        return format!("waits: {waiting}");
    }
    let Some(run) = run else {
        return "waits for its run".to_owned();
    };
    if let Some(pending) = run.resizing() {
        return pending.standing();
    }
    match &run.health {
        Some(health) if !health.is_healthy() => match &health.reason {
            Some(reason) => format!("is {}: {reason}", health.status),
            None => format!("is {}", health.status),
        },
        _ => match &run.reason {
            Some(reason) => format!("is {}: {reason}", run.state),
            None => format!("is {}", run.state),
        },
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
