//! How a job stands after its turn.

use jiff::Timestamp;
use loom_schemas::record::{JobRecord, VersionRecord, Wanted};
use loom_schemas::words::JobStatus;

use crate::child;
use crate::depend::Gates;
use crate::reconcile::status;
use crate::schedule;
use crate::state::{Draft, job_event};

/// Writes down how the job stands, and tells if that is new.
pub(super) fn settle_job(
    draft: &mut Draft,
    job: &JobRecord,
    version: &VersionRecord,
    gates: &Gates,
    now: Timestamp,
) {
    let state = draft.state().clone();
    let before = state.job(&job.name);
    let slots = || state.slots_of(&job.name).map(AsRef::as_ref);
    let stands = if version.spec.schedule.is_some() {
        schedule::status(&state, job)
    } else {
        let stands = status(&gates.without_never(job), &version.spec, slots());
        gates.judge(job, stands, slots())
    };
    let ended_at = stands
        .status
        .is_terminal()
        .then(|| stands.ended_at.unwrap_or(now));
    let mut healthy = job.healthy.clone();
    if stands.status == JobStatus::Completed {
        healthy.insert(job.version);
    }
    let next = JobRecord {
        healthy,
        status: stands.status,
        reason: stands.reason,
        exit_code: stands.exit_code,
        started_at: stands.started_at,
        ended_at: job.ended_at.or(ended_at),
        ..job.clone()
    };
    if before.is_some_and(|before| **before == next) {
        return;
    }
    if next.status != job.status && next.status != JobStatus::Pending {
        let mut event = job_event(now, &next, next.status.as_str());
        event.reason.clone_from(&next.reason);
        event.exit_code = next.exit_code;
        if let Wanted::Stop { by, .. } = &next.wanted {
            event.by = Some(by.clone());
        }
        draft.event(event);
    }
    let turned = next.status != job.status;
    draft.put_job(next);
    if turned {
        child::turned(draft, job);
    }
}
