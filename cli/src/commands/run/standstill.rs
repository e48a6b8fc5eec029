//! Since when nothing of what is followed has come further.

use loom_schemas::record::{UpdatePhase, UpdateState};
use tokio::time::Instant;

/// From when on the deadline counts: of an update that has many steps, from the last of them.
pub(super) struct Standstill {
    since: Instant,
    settled: Option<u32>,
}

impl Standstill {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            settled: None,
        }
    }

    /// Since when, now that the update of a job, if one is under way, stands so.
    pub(super) fn since(&mut self, update: Option<&UpdateState>, now: Instant) -> Instant {
        let rolling = update.filter(|update| update.phase == UpdatePhase::Rolling);
        let settled = rolling.map(|update| update.settled);
        if settled.is_some() && settled > self.settled {
            (self.since, self.settled) = (now, settled);
        }
        self.since
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_step_of_an_update_begins_the_deadline_anew_and_nothing_else_does() {
        let update = |settled| -> UpdateState {
            let phase = "rolling";
            let at = "2026-01-01T00:00:00Z";
            let json = serde_json::json!({
                "phase": phase, "started_at": at, "settled": settled, "settled_at": at,
            });
            serde_json::from_value(json).unwrap()
        };
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut standstill = Standstill::new(now);
        assert_eq!(standstill.since(None, after(1)), now);
        assert_eq!(standstill.since(Some(&update(0)), after(2)), after(2));
        assert_eq!(standstill.since(Some(&update(0)), after(9)), after(2));
        assert_eq!(standstill.since(Some(&update(3)), after(10)), after(10));
        assert_eq!(standstill.since(Some(&update(2)), after(11)), after(10));
        assert_eq!(standstill.since(None, after(12)), after(10));
    }
}
