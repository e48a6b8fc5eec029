//! What nodes report of limits that change while a run runs.

use jiff::Timestamp;
use loom_schemas::ids::Slot;
use loom_schemas::record::{Limits, RunRecord};
use loom_schemas::wire::RunReport;

use crate::state::{Draft, run_event};

/// What its node says of limits that are being changed.
pub(super) fn limit(run: &mut RunRecord, report: &RunReport, now: Timestamp) {
    let Some(resize) = run.resize.as_mut() else {
        return;
    };
    let Some(pending) = resize.pending.as_mut() else {
        return;
    };
    // What is said of earlier limits says nothing of these.
    if pending.version != report.version {
        return;
    }
    match &report.limits {
        Limits::Pending => {}
        Limits::Refused { reason } => pending.refused = Some(reason.clone()),
        Limits::Hold => {
            run.version = pending.version;
            run.reserved = pending.wanted.clone();
            run.unenforced.clone_from(&report.unenforced);
            resize.pending = None;
            resize.held_at = Some(now);
        }
    }
}

/// Limits that came to hold while it runs, or do not because the kernel does not let them.
pub(super) fn tell_limits(
    draft: &mut Draft,
    slot: &Slot,
    was: Option<&RunRecord>,
    run: &RunRecord,
    now: Timestamp,
) {
    let Some(before) = was.and_then(RunRecord::resizing) else {
        return;
    };
    let refused = run.resizing().and_then(|pending| pending.refused.as_ref());
    let what = match (run.resizing(), refused) {
        (None, _) => "resized",
        (Some(_), Some(reason)) if before.refused.as_ref() != Some(reason) => "resize-refused",
        _ => return,
    };
    let mut event = run_event(now, slot, run, what);
    event.version = Some(run.told_version());
    event.reason = refused.cloned();
    draft.event(event);
}
