//! Submissions: a new job, a new version, a new round, or nothing to do.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::Name;
use loom_schemas::record::{JobRecord, VERSIONS_KEPT, VersionRecord, Wanted};
use loom_schemas::spec::{JobSpec, Sets};
use loom_schemas::wire::SubmitOutcome;
use loom_schemas::words::JobStatus;

use super::{Asker, new_round, update};
use crate::depend;
use crate::state::{Draft, Key, State, job_event, live_runs};
use crate::{schedule, subjob};

/// A job as somebody hands it in.
#[derive(Clone, Debug)]
pub struct Submission {
    /// What it says.
    pub spec: JobSpec,
    /// The text it was read from, byte for byte.
    pub text: Vec<u8>,
    /// What its vars were set to beside it.
    pub sets: Sets,
    /// Only if the job is at this version; 0: only if there is no such job.
    pub if_version: Option<u32>,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The job.
    pub job: Name,
    /// Its version.
    pub version: u32,
    /// What the submission did.
    pub outcome: SubmitOutcome,
}

/// Takes a job in.
///
/// `invalid` if what it waits for is not there or waits for it. `conflict` if it is not at the version asked for, `denied` if it names an owner other than the
/// caller and the caller is no admin. The owner of a job that exists stays unless it is named.
pub fn submit(
    draft: &mut Draft,
    submission: Submission,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<Accepted, WireError> {
    let name = submission.spec.name.clone();
    let old = draft.state().job(&name).cloned();
    check_version(
        &name,
        old.as_ref().map_or(0, |job| job.version),
        submission.if_version,
    )?;
    let owner = owner(&submission.spec, old.as_deref(), asker)?;
    let Some(old) = old else {
        check_others(draft.state(), &submission.spec)?;
        return Ok(create(draft, submission, owner, asker, now));
    };
    let same_spec = draft
        .state()
        .spec(&old)
        .is_some_and(|spec| *spec == submission.spec);
    let over = old.status.is_terminal() || old.wanted != Wanted::Run;
    if over || !same_spec {
        // What was taken in and lives is not refused for what has become of others since.
        check_others(draft.state(), &submission.spec)?;
    }
    let as_submitted = old.scaled.is_empty() && old.stopped_slots.is_empty();
    let same = same_spec && old.owner == owner;
    if same && !over && as_submitted {
        let outcome = SubmitOutcome::Unchanged;
        return Ok(Accepted {
            job: name,
            version: old.version,
            outcome,
        });
    }
    let mut job = if over {
        new_round(&old, now)
    } else {
        JobRecord::clone(&old)
    };
    job.owner = owner;
    if same_spec && !over {
        update::unscale(&mut job, now);
    }
    job.scaled = BTreeMap::new();
    job.stopped_slots = BTreeSet::new();
    if !same_spec {
        if !over {
            job.update = update::begin(draft.state(), &old, &submission.spec, now);
        }
        let version = next_version(draft, &name, old.version);
        let before = draft.state().spec(&old);
        let schedules = (
            before.and_then(|spec| spec.schedule.as_ref()),
            submission.spec.schedule.as_ref(),
        );
        job.schedule = schedule::carried(&job, schedules, version);
        job.version = version;
        put_version(draft, submission, job.version, asker, now);
    }
    let outcome = if over {
        SubmitOutcome::Restarted
    } else {
        SubmitOutcome::Updated
    };
    let what = if over { "accepted" } else { "updated" };
    tell(draft, &job, what, asker, now);
    let version = job.version;
    draft.put_job(job);
    drop_old_versions(draft, &name, version);
    Ok(Accepted {
        job: name,
        version,
        outcome,
    })
}

/// `invalid` if what a job says of others, or of times, cannot be.
pub(super) fn check_others(state: &State, spec: &JobSpec) -> Result<(), WireError> {
    depend::check(state, spec)?;
    schedule::check(spec)?;
    subjob::check(state, spec)
}

/// `conflict` if a job is at another version than was asked for; 0 stands for none yet.
pub(super) fn check_version(name: &Name, at: u32, asked: Option<u32>) -> Result<(), WireError> {
    let conflict = |message| Err(WireError::new(ErrorCode::Conflict, message));
    match asked {
        Some(asked) if asked != at && at == 0 => conflict(format!(
            "there is no job {name} yet, but version {asked} was asked for"
        )),
        Some(0) if at != 0 => conflict(format!("job {name} exists, at version {at}")),
        Some(asked) if asked != at => {
            conflict(format!("job {name} is at version {at}, not {asked}"))
        }
        _ => Ok(()),
    }
}

fn owner(spec: &JobSpec, old: Option<&JobRecord>, asker: Asker<'_>) -> Result<String, WireError> {
    match &spec.owner {
        None => Ok(old.map_or_else(|| asker.user.to_owned(), |job| job.owner.clone())),
        Some(owner) if owner == asker.user || asker.admin => Ok(owner.clone()),
        Some(owner) => Err(WireError::new(
            ErrorCode::Denied,
            format!("only an admin may submit a job for {owner}: leave out `owner`"),
        )),
    }
}

fn create(
    draft: &mut Draft,
    submission: Submission,
    owner: String,
    asker: Asker<'_>,
    now: Timestamp,
) -> Accepted {
    let name = submission.spec.name.clone();
    let version = next_version(draft, &name, 0);
    let job = fresh_job(name.clone(), owner, version, now);
    put_version(draft, submission, version, asker, now);
    tell(draft, &job, "accepted", asker, now);
    draft.put_job(job);
    Accepted {
        job: name,
        version,
        outcome: SubmitOutcome::Created,
    }
}

/// The record of a job that begins.
pub(crate) fn fresh_job(name: Name, owner: String, version: u32, now: Timestamp) -> JobRecord {
    JobRecord {
        name,
        owner,
        version,
        round: 1,
        wanted: Wanted::Run,
        scaled: BTreeMap::new(),
        stopped_slots: BTreeSet::new(),
        status: JobStatus::Pending,
        reason: None,
        exit_code: None,
        created_at: now,
        submitted_at: now,
        started_at: None,
        ended_at: None,
        parent: None,
        schedule: None,
        healthy: BTreeSet::new(),
        update: None,
        held: BTreeMap::new(),
    }
}

/// One more than the job has, and than any version that is kept.
pub(super) fn next_version(draft: &Draft, job: &Name, current: u32) -> u32 {
    let kept = draft
        .state()
        .versions(job)
        .last()
        .map_or(0, |record| record.version);
    current.max(kept) + 1
}

fn put_version(
    draft: &mut Draft,
    submission: Submission,
    version: u32,
    asker: Asker<'_>,
    now: Timestamp,
) {
    draft.put_version(VersionRecord {
        job: submission.spec.name.clone(),
        version,
        spec: submission.spec,
        text: submission.text,
        sets: submission.sets,
        at: now,
        by: asker.user.to_owned(),
        reason: None,
    });
}

/// Keeps the last versions, those that a live run still runs, the one that an update goes back to if
/// it fails, and the last that was healthy.
pub(super) fn drop_old_versions(draft: &mut Draft, job: &Name, version: u32) {
    let kept = u32::try_from(VERSIONS_KEPT).unwrap_or(u32::MAX);
    let Some(last_dropped) = version.checked_sub(kept).filter(|last| *last > 0) else {
        return;
    };
    let old: Vec<u32> = draft
        .state()
        .versions(job)
        .map(|record| record.version)
        .take_while(|version| *version <= last_dropped)
        .collect();
    if old.is_empty() {
        return;
    }
    let mut used: BTreeSet<u32> = draft
        .state()
        .slots_of(job)
        .flat_map(|record| live_runs(record).map(|run| run.version).collect::<Vec<_>>())
        .collect();
    let record = draft.state().job(job);
    used.extend(record.and_then(|record| record.healthy.last().copied()));
    let update = record.and_then(|record| record.update.as_ref());
    used.extend(
        update
            .into_iter()
            .flat_map(|update| [update.from, update.undoes])
            .flatten(),
    );
    let dropped: Vec<u32> = old.into_iter().filter(|old| !used.contains(old)).collect();
    for version in &dropped {
        draft.delete(Key::Version(job.clone(), *version));
    }
    if let Some(record) = draft.state().job(job).cloned() {
        let mut record = JobRecord::clone(&record);
        record.healthy.retain(|version| !dropped.contains(version));
        draft.put_job(record);
    }
}

fn tell(draft: &mut Draft, job: &JobRecord, what: &str, asker: Asker<'_>, now: Timestamp) {
    let mut event = job_event(now, job, what);
    event.by = Some(asker.user.to_owned());
    event.request = asker.request.map(str::to_owned);
    draft.event(event);
}
