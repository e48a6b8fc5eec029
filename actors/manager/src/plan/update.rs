//! What becomes of a job's update, written down and told.

use jiff::Timestamp;
use loom_schemas::record::{JobRecord, UpdatePhase, UpdateState};

use crate::decide::{check_way_back, roll_back};
use crate::reconcile::UpdateChange;
use crate::state::{Draft, job_event};

/// Writes down how far a job's update has come; true if another version is wanted now.
pub(super) fn carry_out(
    draft: &mut Draft,
    job: &mut JobRecord,
    change: &UpdateChange,
    now: Timestamp,
) -> bool {
    let Some(update) = job.update.as_mut() else {
        return false;
    };
    match change {
        UpdateChange::Counted(counted) => count(update, *counted, now),
        UpdateChange::AwaitsPromotion(counted) => {
            count(update, *counted, now);
            update.phase = UpdatePhase::Canary;
            let why = format!(
                "its canaries are healthy: `loomctl promote {}` lets it go on",
                job.name
            );
            tell(draft, job, "canary", why, now);
        }
        UpdateChange::Done => {
            update.phase = UpdatePhase::Done;
            update.reason = update.reason.take().filter(|_| update.undoes.is_some());
            tell(draft, job, "deployed", String::new(), now);
        }
        UpdateChange::Paused(reason) => {
            update.phase = UpdatePhase::Paused;
            update.reason = Some(reason.clone());
            tell(draft, job, "update-paused", reason.clone(), now);
        }
        UpdateChange::GoesOn(reason) => {
            update.reason = Some(reason.clone());
            tell(draft, job, "update-failed", reason.clone(), now);
        }
        UpdateChange::Failed(reason) => {
            update.phase = UpdatePhase::Failed;
            update.reason = Some(reason.clone());
            tell(draft, job, "update-failed", reason.clone(), now);
        }
        UpdateChange::GoBack { to, reason } => {
            let checked = check_way_back(draft.state(), job, *to);
            let Err(why) = checked else {
                tell(draft, job, "update-failed", reason.clone(), now);
                roll_back(draft, job, *to, reason, now);
                return true;
            };
            let reason = format!("{reason}; it does not go back to version {to}: {why}");
            if let Some(update) = job.update.as_mut() {
                update.phase = UpdatePhase::Failed;
                update.reason = Some(reason.clone());
            }
            tell(draft, job, "update-failed", reason, now);
        }
    }
    false
}

fn count(update: &mut UpdateState, counted: u32, now: Timestamp) {
    if counted > update.settled {
        update.settled = counted;
        update.settled_at = now;
    }
}

fn tell(draft: &mut Draft, job: &JobRecord, what: &str, reason: String, now: Timestamp) {
    let mut event = job_event(now, job, what);
    event.reason = Some(reason).filter(|reason| !reason.is_empty());
    draft.event(event);
}
