//! Getting what a run needs before it starts.

use loom_schemas::wire::{Assigned, RunReport};

use super::{Machine, Moment, Phase, START_TOLD_AFTER, StartError};

impl Machine {
    /// Tells what the driver is doing, once that takes longer than a start may in silence.
    pub(super) fn prepares(
        &mut self,
        desired: &Assigned,
        said: String,
        now: Moment,
        reports: &mut Vec<RunReport>,
    ) {
        let Phase::Preparing { since, doing } = &mut self.phase else {
            return;
        };
        let told = now.clock >= *since + START_TOLD_AFTER;
        *doing = Some(said.clone());
        if told {
            let mut report = self.report(desired);
            report.reason = Some(said);
            reports.push(report);
        }
    }

    pub(super) fn prepare_returned(
        &mut self,
        desired: &Assigned,
        outcome: Result<(), StartError>,
        now: Moment,
        reports: &mut Vec<RunReport>,
    ) {
        if !self.is_preparing() {
            return;
        }
        match outcome {
            Ok(()) => self.phase = Phase::Prepared,
            Err(error) => {
                self.attempt(now);
                self.could_not_start(desired, &error, now, reports);
            }
        }
    }
}
