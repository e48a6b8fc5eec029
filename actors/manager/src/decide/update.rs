//! How versions follow each other: updates begun, promoted, paused, continued and undone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::Name;
use loom_schemas::record::{JobRecord, UpdatePhase, UpdateState, VersionRecord, Wanted};
use loom_schemas::spec::JobSpec;
use loom_schemas::wire::{RollbackRequest, UpdateRequest, UpdateVerb};
use loom_schemas::words::Kind;

use super::submit::{check_others, check_version, drop_old_versions, next_version};
use super::{Asker, check_reason, find, new_round};
use crate::depend;
use crate::reconcile::{Facts, NodeStanding, same_in_place, serves};
use crate::schedule;
use crate::state::{Draft, State, job_event};

/// How a changed spec takes over from the wanted one of a live job: what it changes in place is no
/// update, and goes on with one that is under way.
pub(super) fn begin(
    state: &State,
    job: &JobRecord,
    spec: &JobSpec,
    now: Timestamp,
) -> Option<UpdateState> {
    if spec.kind == Kind::Batch {
        return None;
    }
    let old = state.spec(job)?;
    let same = spec.tasks.iter().all(|(name, task)| {
        let before = old.tasks.get(name);
        before.is_some_and(|before| same_in_place(before, task))
    });
    if same && old.kind == spec.kind && old.datacenters == spec.datacenters {
        return job.update.clone().map(|update| resumed(update, now));
    }
    let scaled = match &job.update {
        Some(update) if update.phase != UpdatePhase::Done => update.scaled.clone(),
        _ => job.scaled.clone(),
    };
    Some(UpdateState {
        scaled,
        ..rolling(last_healthy(state, job), now)
    })
}

/// An update goes on with a newer version, also one that was halted: who submits it has decided, and
/// goes forward.
fn resumed(update: UpdateState, now: Timestamp) -> UpdateState {
    let update = UpdateState {
        undoes: None,
        ..update
    };
    let update = match update.phase {
        UpdatePhase::Paused | UpdatePhase::Failed => UpdateState {
            phase: UpdatePhase::Rolling,
            reason: None,
            ..update
        },
        _ => update,
    };
    anew(update, now)
}

/// Somebody undoes how a job was scaled: no version that comes back is scaled so either.
pub(super) fn unscale(job: &mut JobRecord, now: Timestamp) {
    let Some(mut update) = job.update.clone().filter(|_| !job.scaled.is_empty()) else {
        return;
    };
    update
        .scaled
        .retain(|task, _| !job.scaled.contains_key(task));
    job.update = Some(anew(update, now));
}

/// An update whose slots or canaries are others from now on: what counts is counted anew.
pub(super) fn anew(update: UpdateState, now: Timestamp) -> UpdateState {
    if update.phase == UpdatePhase::Done {
        return update;
    }
    let phase = match update.phase {
        // Others may be its canaries now.
        UpdatePhase::Canary => UpdatePhase::Rolling,
        phase => phase,
    };
    UpdateState {
        phase,
        settled: 0,
        settled_at: now,
        ..update
    }
}

fn rolling(from: Option<u32>, now: Timestamp) -> UpdateState {
    UpdateState {
        scaled: BTreeMap::new(),
        phase: UpdatePhase::Rolling,
        from,
        undoes: None,
        promoted: false,
        reason: None,
        started_at: now,
        settled: 0,
        settled_at: now,
    }
}

/// The version that an update of a job goes back to if it fails: the last that has proved healthy
/// or, before any has, the wanted one if any of its runs serves.
fn last_healthy(state: &State, job: &JobRecord) -> Option<u32> {
    let proved = healthy(state, job).next();
    let serves = || any_serves(state, job).then_some(job.version);
    proved
        .map(|record| record.version)
        .or_else(|| match &job.update {
            Some(update) => update.from,
            None => serves(),
        })
}

/// The versions of a job that have proved healthy and are kept, the last first.
fn healthy<'a>(state: &'a State, job: &'a JobRecord) -> impl Iterator<Item = &'a VersionRecord> {
    let kept = |version: &u32| state.version(&job.name, *version);
    job.healthy.iter().rev().filter_map(kept).map(AsRef::as_ref)
}

fn any_serves(state: &State, job: &JobRecord) -> bool {
    let Some(spec) = state.spec(job) else {
        return false;
    };
    let facts = Facts {
        job,
        spec,
        version: &|_| None,
        node: &|_| NodeStanding::Up,
        belongs: &|_| true,
        room: &|_| None,
        leave: &|_, _| None,
        moves: &|_, _| None,
        waits: &|_| false,
        now: job.submitted_at,
    };
    let mut slots = state.slots_of(&job.name);
    slots.any(|record| {
        let run = record.current.as_ref();
        run.is_some_and(|run| run.version == job.version && serves(&facts, &record.slot.task, run))
    })
}

/// The version that a person goes back to who names none: what the update under way would go back
/// to, else the last that has proved healthy, or what the last update took over from; always one that
/// says something else than the wanted one.
fn way_back(state: &State, job: &JobRecord, spec: &JobSpec) -> Option<u32> {
    let under_way = |update: &&UpdateState| update.phase != UpdatePhase::Done;
    let from = |update: &UpdateState| state.version(&job.name, update.from?);
    let going = job.update.as_ref().filter(under_way).and_then(from);
    let last = job.update.as_ref().and_then(from);
    let going = going.map(AsRef::as_ref).into_iter();
    let mut ways = going
        .chain(healthy(state, job))
        .chain(last.map(AsRef::as_ref));
    ways.find(|record| record.spec != *spec)
        .map(|record| record.version)
}

/// An update failed: the content of an earlier version, which [`check_way_back`] allows, becomes the
/// wanted one again, as a version of its own.
pub fn roll_back(draft: &mut Draft, job: &JobRecord, to: u32, reason: &str, now: Timestamp) {
    let because = format!("version {} failed: {reason}", job.version);
    let by = format!("the update of version {}", job.version);
    bring_back(draft, job, to, scaled_at(job, to), (&by, &because), now);
}

/// Whether a job may go back to a version by itself: not to one that is not kept, or would have jobs
/// wait for each other for ever. That something else it waits for has changed holds it not up, as its
/// runs are past that gate. Why not, in words.
pub fn check_way_back(state: &State, job: &JobRecord, to: u32) -> Result<(), String> {
    let Some(old) = state.version(&job.name, to) else {
        return Err(format!("version {to} is not kept"));
    };
    depend::check_circle(state, &old.spec).map_err(|error| error.message)
}

/// How a job was scaled when a version was the last healthy one.
fn scaled_at(job: &JobRecord, version: u32) -> BTreeMap<Name, u32> {
    let update = job
        .update
        .as_ref()
        .filter(|update| update.from == Some(version));
    update
        .map(|update| update.scaled.clone())
        .unwrap_or_default()
}

/// Writes the content of an earlier version as a new one, and has it rolled out.
fn bring_back(
    draft: &mut Draft,
    job: &JobRecord,
    to: u32,
    mut scaled: BTreeMap<Name, u32>,
    (by, because): (&str, &str),
    now: Timestamp,
) -> Option<JobRecord> {
    let name = job.name.clone();
    let old = draft.state().version(&name, to)?;
    let reason = format!("rolled back to version {to}: {because}");
    let version = next_version(draft, &name, job.version);
    let record = VersionRecord {
        version,
        at: now,
        by: by.to_owned(),
        reason: Some(reason.clone()),
        ..VersionRecord::clone(old)
    };
    scaled.retain(|task, _| record.spec.tasks.contains_key(task));
    let update = (record.spec.kind != Kind::Batch).then(|| UpdateState {
        undoes: Some(job.version),
        promoted: true,
        reason: Some(because.to_owned()),
        scaled: scaled.clone(),
        ..rolling(Some(to), now)
    });
    let before = draft.state().spec(job);
    let schedules = (
        before.and_then(|spec| spec.schedule.as_ref()),
        record.spec.schedule.as_ref(),
    );
    let schedule = schedule::carried(job, schedules, version);
    draft.put_version(record);
    let next = JobRecord {
        version,
        schedule,
        scaled,
        update,
        ..job.clone()
    };
    draft.put_job(next.clone());
    drop_old_versions(draft, &name, version);
    let mut event = job_event(now, &next, "rolled-back");
    event.reason = Some(reason);
    draft.event(event);
    Some(next)
}

/// `conflict` where a job goes back already, or has: once more would be further back than anybody
/// meant, who saw it fail but not that it was undone since.
fn check_not_gone_back(state: &State, job: &JobRecord, spec: &JobSpec) -> Result<(), WireError> {
    let back = |update: &&UpdateState| update.undoes.is_some();
    let Some(update) = job.update.as_ref().filter(back) else {
        return Ok(());
    };
    let to = update.from.and_then(|to| state.version(&job.name, to));
    // A version since then that says something else is one of its own.
    let Some(to) = to.filter(|record| record.spec == *spec) else {
        return Ok(());
    };
    let how = match update.phase {
        UpdatePhase::Failed => return Ok(()),
        UpdatePhase::Done => "went back",
        _ => "is going back",
    };
    let (name, version, to) = (&job.name, job.version, to.version);
    let message = format!(
        "job {name} {how} to version {to} already, as version {version}: to go to another, say which \
         (`--to`; `loomctl history {name}` lists them)"
    );
    Err(WireError::new(ErrorCode::Conflict, message))
}

/// Brings an earlier version of a job back, as a version of its own; the last other one that has
/// proved healthy if none is named. A job that has ended begins a new round with it. The new version,
/// and whose content it has.
///
/// `not-found` if the version is not kept or none was healthy, `conflict` if it is the wanted one, if
/// none is named and the job went back already, or if it is at another version than was asked for,
/// `invalid` if what it says of other jobs does not hold any more.
pub fn rollback(
    draft: &mut Draft,
    request: &RollbackRequest,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<(u32, u32), WireError> {
    check_reason(request.reason.as_deref())?;
    let (job, spec) = find(draft.state(), &request.job)?;
    let name = &job.name;
    check_version(name, job.version, request.if_version)?;
    let over = job.status.is_terminal() || job.wanted != Wanted::Run;
    if request.to.is_none() && !over {
        check_not_gone_back(draft.state(), job, spec)?;
    }
    let way_back = || way_back(draft.state(), job, spec);
    let to = request.to.or_else(way_back).ok_or_else(|| {
        WireError::not_found(format!(
            "job {name}: no other version than {} was healthy: say which to go back to (`--to`; \
             `loomctl history {name}` lists them)",
            job.version
        ))
    })?;
    let record = draft
        .state()
        .version(name, to)
        .ok_or_else(|| WireError::not_found(format!("job {name}: version {to} is not kept")))?;
    if record.spec == *spec && !over {
        let message = format!("job {name} is as version {to} says it already");
        return Err(WireError::new(ErrorCode::Conflict, message));
    }
    check_others(draft.state(), &record.spec)?;
    let because = match &request.reason {
        Some(reason) => format!("{}: {reason}", asker.user),
        None => format!("{} said so", asker.user),
    };
    // As many as there are; of what the version under way has not, as many as there were.
    let mut scaled = scaled_at(job, to);
    scaled.extend(job.scaled.clone());
    let mut job = if over {
        new_round(job, now)
    } else {
        job.clone()
    };
    job.stopped_slots.clear();
    let job = bring_back(draft, &job, to, scaled, (asker.user, &because), now)
        .ok_or_else(|| WireError::not_found(format!("version {to} is not kept")))?;
    if over {
        // Nothing of it runs, so there is nothing to take over from.
        let job = JobRecord {
            update: None,
            ..job.clone()
        };
        draft.put_job(job);
    }
    Ok((job.version, to))
}

/// Promotes, pauses or continues an update; true if anything changed. `conflict` if none is under
/// way, or none waits to be promoted.
pub fn steer(
    draft: &mut Draft,
    request: &UpdateRequest,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<bool, WireError> {
    let (job, spec) = find(draft.state(), &request.job)?;
    let mut job = job.clone();
    let conflict = |what: String| Err(WireError::new(ErrorCode::Conflict, what));
    let name = &job.name;
    let under_way = |update: &&mut UpdateState| update.phase != UpdatePhase::Done;
    let Some(update) = job.update.as_mut().filter(under_way) else {
        return conflict(format!("no update of job {name} is under way"));
    };
    let is_halted = matches!(update.phase, UpdatePhase::Paused | UpdatePhase::Failed);
    let what = match request.verb {
        UpdateVerb::Promote if spec.update.canary == 0 => {
            return conflict(format!("the update of job {name} has no canaries"));
        }
        UpdateVerb::Promote if update.promoted => return Ok(false),
        UpdateVerb::Promote if is_halted => {
            let why = update.reason.as_deref().unwrap_or("nobody knows why");
            let how = match update.phase {
                UpdatePhase::Failed => "has failed",
                _ => "is paused",
            };
            return conflict(format!(
                "the update of job {name} {how}: {why}: `loomctl update continue {name}`, or \
                 `loomctl rollback {name}`"
            ));
        }
        UpdateVerb::Promote if update.phase != UpdatePhase::Canary => {
            return conflict(format!(
                "the canaries of job {name} have not proved healthy yet"
            ));
        }
        UpdateVerb::Promote => {
            update.promoted = true;
            update.phase = UpdatePhase::Rolling;
            "promoted"
        }
        UpdateVerb::Pause if is_halted => return Ok(false),
        UpdateVerb::Pause => {
            update.phase = UpdatePhase::Paused;
            update.reason = Some(format!("paused by {}", asker.user));
            "update-paused"
        }
        UpdateVerb::Continue if !is_halted => return Ok(false),
        UpdateVerb::Continue => {
            update.phase = UpdatePhase::Rolling;
            "update-continued"
        }
    };
    if request.verb != UpdateVerb::Pause {
        update.reason = None;
        // Its deadline is for what is left.
        update.settled_at = now;
    }
    let mut event = job_event(now, &job, what);
    event.by = Some(asker.user.to_owned());
    event.request = asker.request.map(str::to_owned);
    draft.event(event);
    draft.put_job(job);
    Ok(true)
}
