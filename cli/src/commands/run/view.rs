//! What a job that is followed has come to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loom_schemas::ids::{RunId, Slot};
use loom_schemas::record::{Health, RunRecord, SlotRecord, UpdatePhase};
use loom_schemas::wire::JobView;
use loom_schemas::words::{DriverKind, JobStatus, Kind, RunState};

use crate::exit::{Code, Failure};
use crate::output::{self, time};

/// How long a service must keep running before `run` calls it running.
const SETTLED: Duration = Duration::from_secs(1);

/// The runs of a job that say when all their output is shipped: those that wrote any and whose
/// node is there.
pub(super) fn shipped_runs(view: &JobView) -> BTreeSet<RunId> {
    let is_shipped = |slot: &&SlotRecord| {
        let task = view.spec.tasks.get(&slot.slot.task);
        task.is_some_and(|task| task.logs.ship && task.driver() != DriverKind::Sim)
    };
    let slots = view.slots.iter().filter(is_shipped);
    let runs = slots.flat_map(|slot| slot.current.iter().chain(&slot.ended));
    runs.filter(|run| run.started_at.is_some() && run.child.is_none())
        .filter(|run| run.state != RunState::Lost)
        .map(|run| run.run)
        .collect()
}

/// The job without what is left of earlier rounds; slots count once they run its version.
pub(super) fn of_this_round(mut view: JobView) -> JobView {
    let (round, version) = (view.summary.job.round, view.summary.job.version);
    for slot in &mut view.slots {
        slot.current.take_if(|run| run.round != round);
        slot.incoming.take_if(|run| run.round != round);
        slot.ended.retain(|run| run.round == round);
    }
    let count = |state| {
        let holders = view.slots.iter().filter_map(SlotRecord::holder);
        let count = holders.filter(|run| run.state == state && run.version == version);
        u32::try_from(count.count()).unwrap_or(u32::MAX)
    };
    (view.summary.running, view.summary.completed) =
        (count(RunState::Running), count(RunState::Completed));
    view
}

/// How the update to a version stands that is not simply under way: it waits for somebody, or
/// another version is wanted now.
pub(super) fn update_ended(view: &JobView, version: u32) -> Option<Result<String, Failure>> {
    let job = &view.summary.job;
    let name = &job.name;
    let update = job.update.as_ref();
    let reason = update
        .and_then(|update| update.reason.clone())
        .unwrap_or_default();
    let failed = |message: String| Some(Err(Failure::new(Code::Unplaced, message)));
    if job.version > version {
        return match update.and_then(|update| update.undoes) {
            Some(undone) if undone == version => failed(format!(
                "{name}: version {version} was rolled back, as version {}: {reason}",
                job.version
            )),
            _ => failed(format!(
                "{name} was updated to version {} meanwhile",
                job.version
            )),
        };
    }
    match update?.phase {
        UpdatePhase::Paused => failed(format!(
            "{name}: the update to version {version} is paused: {reason} (loomctl update continue \
             {name}, or loomctl rollback {name})"
        )),
        UpdatePhase::Failed => failed(format!(
            "{name}: the update to version {version} failed: {reason} (loomctl update continue \
             {name} tries again, loomctl rollback {name} --to V goes back)"
        )),
        UpdatePhase::Canary => Some(Ok(format!(
            "{name}: the canaries of version {version} are healthy; loomctl promote {name} lets \
             it go on"
        ))),
        _ => None,
    }
}

/// Whether what the deadline is for has not come: a service that runs and is healthy, a batch that
/// has begun.
pub(super) fn is_waiting(view: &JobView) -> bool {
    let summary = &view.summary;
    match summary.kind {
        Kind::Service | Kind::System => {
            summary.running.min(summary.healthy.unwrap_or(u32::MAX)) < summary.wanted
        }
        Kind::Batch => summary.job.started_at.is_none(),
    }
}

/// Whether there is nothing to follow: a batch of which no run is wanted.
pub(super) fn is_idle(view: &JobView) -> bool {
    let mut tasks = view.spec.tasks.iter();
    let scaled = &view.summary.job.scaled;
    view.summary.kind == Kind::Batch
        && tasks.all(|(name, task)| scaled.get(name).copied().unwrap_or(task.replicas) == 0)
}

/// `backup: fires next at ...`, once that is known of a job with a schedule.
pub(super) fn next_firing(view: &JobView) -> Option<String> {
    let schedule = view.spec.schedule.as_ref()?;
    let next = view.summary.job.schedule.as_ref()?.next?;
    let job = &view.summary.job.name;
    Some(format!(
        "{job}: fires next at {}",
        time::in_zone(next, &schedule.timezone)
    ))
}

/// What a job waits for that has not begun; none where it has.
pub(super) fn waits_for_others(view: &JobView) -> Option<String> {
    let pending = view.summary.status == JobStatus::Pending;
    let reason = view.summary.job.reason.as_ref().filter(|_| pending)?;
    Some(format!("{}: {reason}", view.summary.job.name))
}

/// `waiting for 1 of 3 to become healthy: web/0 http GET / on port 20001: connection refused`, once
/// all of it runs.
pub(super) fn waits_for_health(view: &JobView) -> Option<String> {
    let summary = &view.summary;
    let healthy = summary.healthy?;
    if summary.running < summary.wanted {
        return None;
    }
    let first = view.slots.iter().find_map(|slot| {
        let reason = slot.current.as_ref().and_then(unhealthy)?;
        Some(format!(": {} {reason}", slot.slot))
    });
    Some(format!(
        "waiting for {} of {} to become healthy{}",
        summary.wanted.saturating_sub(healthy),
        summary.wanted,
        first.unwrap_or_default()
    ))
}

/// How long a service must go on before it is called running: a check that succeeded needs no proof.
pub(super) fn settles_in(view: &JobView) -> Duration {
    let version = view.summary.job.version;
    let checked = view.spec.tasks.values().all(|task| task.health.is_some());
    let mut current = view.slots.iter().filter_map(|slot| slot.current.as_ref());
    if checked && current.all(|run| run.version == version) {
        Duration::ZERO
    } else {
        SETTLED
    }
}

/// Why a running run is not healthy, as far as its checks have said.
fn unhealthy(run: &RunRecord) -> Option<&str> {
    run.health.as_ref()?.reason.as_deref()
}

pub(super) fn reason(view: &JobView) -> String {
    let job = &view.summary.job;
    let reason = job
        .reason
        .as_deref()
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    format!("{} {}{reason}", job.name, view.summary.status)
}

pub(super) fn ended(view: &JobView) -> Result<(), Failure> {
    if view.summary.status == JobStatus::Completed {
        output::note(&reason(view));
        return Ok(());
    }
    Err(Failure::new(Code::Error, reason(view)))
}

/// Why a slot is not up, as what follows its name; none if it is.
fn not_up(slot: &SlotRecord) -> Option<String> {
    let run = slot.current.as_ref().or(slot.ended.last());
    if let Some(run) = run.filter(|run| run.state == RunState::Running) {
        if let Some(pending) = run.resizing() {
            return Some(format!(" {}", pending.standing()));
        }
        let healthy = run.health.as_ref().is_none_or(Health::is_healthy);
        let reason = unhealthy(run).unwrap_or("not healthy yet");
        return (!healthy).then(|| format!(" {reason}"));
    }
    let reason = slot.waiting.clone();
    let reason = reason.or_else(|| run.and_then(|run| run.reason.clone()));
    Some(match reason {
        Some(reason) => format!(": {reason}"),
        None => " is not running".to_owned(),
    })
}

pub(super) fn unplaced(view: &JobView) -> Failure {
    // Many slots may wait for the same.
    let mut reasons: BTreeMap<String, Vec<&Slot>> = BTreeMap::new();
    for slot in &view.slots {
        if let Some(reason) = not_up(slot) {
            reasons.entry(reason).or_default().push(&slot.slot);
        }
    }
    let mut of_slots: Vec<(&Slot, String)> = reasons
        .into_iter()
        .filter_map(|(reason, slots)| match slots.as_slice() {
            [] => None,
            [only] => Some((*only, format!("{only}{reason}"))),
            [first, others @ ..] => {
                let more = others.len();
                Some((*first, format!("{first} and {more} more{reason}")))
            }
        })
        .collect();
    of_slots.sort();
    let mut why: Vec<String> = of_slots.into_iter().map(|(_, why)| why).collect();
    let summary = &view.summary;
    why.extend(waits_for_others(view).and(summary.job.reason.clone()));
    let version = summary.job.version;
    let holders = view.slots.iter().filter_map(SlotRecord::holder);
    let old = holders.filter(|run| run.version != version).count();
    if old > 0 {
        why.push(format!("{old} slots do not run version {version} yet"));
    }
    Failure::new(
        Code::Unplaced,
        format!(
            "{} is accepted, but {}/{} {} by the deadline: {}",
            summary.job.name,
            summary.healthy.unwrap_or(summary.running),
            summary.wanted,
            summary.healthy.map_or("run", |_| "are healthy"),
            why.join("; ")
        ),
    )
}
