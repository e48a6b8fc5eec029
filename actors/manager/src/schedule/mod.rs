//! Schedules: jobs that run again and again, each firing a child job. Pure: the time is an argument.
//!
//! When a schedule fires next stands in the job's record, and the commit that makes the child moves
//! it: so a leader that takes over neither fires twice nor leaves one out, whatever its clock says.
//! What was missed while nobody led is made up for once, for the last of the missed times.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use loom_schemas::error::WireError;
use loom_schemas::ids::Name;
use loom_schemas::record::{JobRecord, MadeBy, ScheduleRecord, VersionRecord, Wanted};
use loom_schemas::spec::cron::{Cron, CronError};
use loom_schemas::spec::{JobSpec, Overlap, ScheduleSpec};
use loom_schemas::words::JobStatus;

use crate::child::{self, Birth, CHILDREN_LIVE_MAX, Sort};
use crate::reconcile::{JobStanding, stopped_by};
use crate::state::{Draft, State, job_event};

/// `invalid` if a schedule says no time.
pub fn check(spec: &JobSpec) -> Result<(), WireError> {
    let Some(schedule) = &spec.schedule else {
        return Ok(());
    };
    cron(schedule)
        .map(drop)
        .map_err(|error| WireError::invalid(format!("schedule: {error}")))
}

/// Fires every schedule that is due.
///
/// Whether firings that have not ended hold one up is decided once it is known how they stand: they
/// are planned, and, of those made before `unheard_before`, nodes have had the time to tell whoever
/// leads since then. Until then the time stays due.
pub fn fire(draft: &mut Draft, unheard_before: Option<Timestamp>, now: Timestamp) {
    let due: Vec<Name> = draft.state().firings_due(now).cloned().collect();
    for name in due {
        let state = draft.state().clone();
        let Some(job) = state.job(&name) else {
            continue;
        };
        let Some(version) = state.version(&name, job.version) else {
            continue;
        };
        if let Some(schedule) = &version.spec.schedule {
            fire_one(draft, (job, version, schedule), unheard_before, now);
        }
    }
}

/// Finds out when a job's schedule fires next, where that is not known: it is new, or of another
/// version. Stops its firings where the job is to stop.
pub fn settle(draft: &mut Draft, name: &Name, now: Timestamp) {
    let state = draft.state().clone();
    let Some(job) = state.job(name) else { return };
    let Some(schedule) = state.spec(job).and_then(|spec| spec.schedule.as_ref()) else {
        return;
    };
    if let Wanted::Stop { by, reason } = &job.wanted {
        for firing in live_firings(&state, name) {
            stop(draft, firing, by, reason);
        }
        return;
    }
    let known = job.schedule.as_ref();
    if job.status.is_terminal() || known.is_some_and(|known| known.version == job.version) {
        return;
    }
    let cron = cron(schedule).ok();
    draft.put_job(JobRecord {
        schedule: Some(ScheduleRecord {
            version: job.version,
            next: cron.and_then(|cron| cron.next_after(now)),
            last: known.and_then(|known| known.last),
        }),
        ..JobRecord::clone(job)
    });
}

/// How far the schedule of a job is at its next version. A time that is due stays due where the times
/// are the same; else only what was fired last is kept, and nothing where there is no schedule: what
/// passed before it comes back is not made up.
pub fn carried(
    job: &JobRecord,
    (before, after): (Option<&ScheduleSpec>, Option<&ScheduleSpec>),
    version: u32,
) -> Option<ScheduleRecord> {
    let known = job.schedule.clone()?;
    let after = after?;
    let times = |schedule: &ScheduleSpec| (schedule.cron.clone(), schedule.timezone.clone());
    if known.version == job.version && before.map(times) == Some(times(after)) {
        return Some(ScheduleRecord { version, ..known });
    }
    Some(known)
}

/// How a job with a schedule stands: it runs from its first firing until it is stopped.
pub fn status(state: &State, job: &JobRecord) -> JobStanding {
    let fired = job.started_at.is_some();
    let under_way = if fired {
        JobStatus::Running
    } else {
        JobStatus::Pending
    };
    let (status, reason) = match &job.wanted {
        _ if job.status.is_terminal() => (job.status, job.reason.clone()),
        Wanted::Stop { by, reason } => {
            let live = live_firings(state, &job.name).next().is_some();
            let status = if live { under_way } else { JobStatus::Killed };
            (status, Some(stopped_by(by, reason)))
        }
        Wanted::Run => {
            let next = job.schedule.as_ref().and_then(|schedule| schedule.next);
            let never = || "its schedule never fires again".to_owned();
            (under_way, next.is_none().then(never))
        }
    };
    JobStanding {
        status,
        reason,
        exit_code: job.exit_code,
        started_at: job.started_at,
        ended_at: job.ended_at,
    }
}

/// The firing that has to end before this one may start, where they replace each other.
pub fn predecessor<'a>(state: &'a State, job: &JobRecord) -> Option<&'a Name> {
    let parent = job.parent.as_ref()?;
    let MadeBy::Schedule { at } = parent.made_by else {
        return None;
    };
    let spec = state.job(&parent.job).and_then(|job| state.spec(job))?;
    if spec.schedule.as_ref()?.overlap != Overlap::Replace {
        return None;
    }
    let parent = state.job(&parent.job)?;
    let before = |other: &&JobRecord| fired_for(other).is_some_and(|other| other < at);
    let mut live = live_firings(state, &parent.name);
    live.find(before).map(|other| &other.name)
}

fn fire_one(
    draft: &mut Draft,
    (job, version, schedule): (&JobRecord, &VersionRecord, &ScheduleSpec),
    unheard_before: Option<Timestamp>,
    now: Timestamp,
) {
    let Some(due) = job.schedule.as_ref().and_then(|known| known.next) else {
        return;
    };
    let state = draft.state().clone();
    let live: Vec<&JobRecord> = live_firings(&state, &job.name).collect();
    if may_be_free(&state, &live, schedule.overlap, unheard_before) {
        return;
    }
    let cron = cron(schedule).ok();
    let last = cron.as_ref().and_then(|cron| cron.last_until(now));
    let at = last.map_or(due, |last| last.max(due));
    let next = JobRecord {
        schedule: Some(ScheduleRecord {
            version: job.version,
            next: cron.and_then(|cron| cron.next_after(now.max(at))),
            last: Some(at),
        }),
        started_at: job.started_at.or(Some(now)),
        ..job.clone()
    };
    draft.put_job(next);
    let why_not = match (schedule.overlap, live.first()) {
        (Overlap::Skip, Some(first)) => Some(format!("{} has not ended", first.name)),
        _ if live.len() >= CHILDREN_LIVE_MAX => Some(format!(
            "{} firings have not ended, and at most {CHILDREN_LIVE_MAX} may live at once",
            live.len()
        )),
        _ => None,
    };
    if let Some(why) = why_not {
        return tell_skipped(
            draft,
            job,
            &format!("the firing of {at} is passed over: {why}"),
            now,
        );
    }
    let Ok(name) = child::name_at(&job.name, at) else {
        return;
    };
    if schedule.overlap == Overlap::Replace {
        let by = format!("the schedule of {}", job.name);
        for firing in &live {
            stop(draft, firing, &by, &format!("{name} takes its place"));
        }
    }
    let of_it = |other: &JobRecord| fired_for(other) == Some(at);
    if state.job(&name).is_some_and(|other| of_it(other)) {
        return;
    }
    let Ok(name) = child::free_name(&state, name) else {
        return;
    };
    let birth = Birth {
        parent: job,
        version,
        name,
        spec: version.spec.clone(),
        made_by: MadeBy::Schedule { at },
        reason: format!("the schedule of {} fired for {at}", job.name),
        by: None,
    };
    child::create(draft, birth, now);
}

/// Whether what holds a firing up may have ended, and it is only not known yet.
fn may_be_free(
    state: &State,
    live: &[&JobRecord],
    overlap: Overlap,
    unheard_before: Option<Timestamp>,
) -> bool {
    let in_the_way = match overlap {
        Overlap::Allow => live.len() >= CHILDREN_LIVE_MAX,
        Overlap::Skip | Overlap::Replace => !live.is_empty(),
    };
    let may_have_ended = |firing: &&JobRecord| {
        let unheard = unheard_before.is_some_and(|at| firing.created_at < at);
        unheard || state.is_dirty(&firing.name)
    };
    in_the_way && live.iter().any(may_have_ended)
}

fn tell_skipped(draft: &mut Draft, job: &JobRecord, why: &str, now: Timestamp) {
    let mut event = job_event(now, job, "skipped");
    event.reason = Some(why.to_owned());
    draft.event(event);
}

fn stop(draft: &mut Draft, firing: &JobRecord, by: &str, reason: &str) {
    if firing.wanted != Wanted::Run {
        return;
    }
    draft.put_job(JobRecord {
        wanted: Wanted::Stop {
            by: by.to_owned(),
            reason: reason.to_owned(),
        },
        ..firing.clone()
    });
}

fn live_firings<'a>(state: &'a State, job: &'a Name) -> impl Iterator<Item = &'a JobRecord> {
    child::of_sort(state, job, Sort::Schedule).filter(|child| !child.status.is_terminal())
}

fn fired_for(job: &JobRecord) -> Option<Timestamp> {
    match job.parent.as_ref()?.made_by {
        MadeBy::Schedule { at } => Some(at),
        _ => None,
    }
}

fn cron(schedule: &ScheduleSpec) -> Result<Cron, CronError> {
    Cron::read(&schedule.cron, &schedule.timezone)
}
