//! When a job runs again and again.

use loom_schemas::spec::{Overlap, ScheduleSpec};
use loom_schemas::wire::JobView;

use crate::output::{table, time};

/// When a job runs again and again, and when next.
pub(super) fn of(view: &JobView) -> String {
    let mut text = String::new();
    let Some(ScheduleSpec {
        cron,
        timezone,
        overlap,
    }) = &view.spec.schedule
    else {
        return text;
    };
    let overlap = match overlap {
        Overlap::Allow => "allow",
        Overlap::Skip => "skip",
        Overlap::Replace => "replace",
    };
    let words = format!("{cron} ({timezone}, overlap {overlap})");
    table::field(&mut text, "Schedule", &words);
    let Some(known) = &view.summary.job.schedule else {
        return text;
    };
    let never = || "never again".to_owned();
    let next = known
        .next
        .map_or_else(never, |next| time::in_zone(next, timezone));
    table::field(&mut text, "Next", &next);
    if let Some(last) = known.last {
        table::field(&mut text, "Last", &time::in_zone(last, timezone));
    }
    text
}
