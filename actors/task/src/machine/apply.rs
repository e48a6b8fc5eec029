//! What happened, put in place.

use std::time::Duration;

use loom_schemas::record::{Exit, Marks, Order};
use loom_schemas::wire::{Assigned, RunReport};
use loom_schemas::words::RunState;
use nix::sys::signal::Signal;

use super::resize::Limiting;
use super::restart::{self, Cause};
use super::verdict::{self, Why};
use super::{
    ADOPT_AGAIN, ADOPT_AGAIN_MAX, Call, End, Happened, KEPT, KILL_AGAIN, Live, Machine, Moment,
    Phase, START_TOLD_AFTER, StartError, Stopping,
};
use crate::driver::{Adopted, Ended, Left, Started};

impl Machine {
    /// Takes what happened; returns what the leader is to be told, in order.
    pub fn apply(&mut self, desired: &Assigned, happened: Happened, now: Moment) -> Vec<RunReport> {
        let mut reports = Vec::new();
        match happened {
            Happened::Called(call) => self.called(desired, call, now),
            Happened::Preparing(run, doing) if run == self.run => {
                self.prepares(desired, doing, now, &mut reports);
            }
            Happened::Prepared(run, outcome) if run == self.run => {
                self.prepare_returned(desired, outcome, now, &mut reports);
            }
            Happened::Entered(run) => {
                if run == self.run && matches!(self.phase, Phase::Entering) {
                    self.phase = Phase::Entered;
                }
            }
            Happened::Started(run, outcome) if run == self.run => {
                self.start_returned(desired, outcome, now, &mut reports);
            }
            Happened::Adopted(run, outcome) if run == self.run => {
                self.adopt_returned(desired, outcome, now, &mut reports);
            }
            Happened::Ended(run, outcome) if run == self.run && self.is_running() => {
                match outcome {
                    Ok(ended) => self.ended(desired, &ended, now, &mut reports),
                    Err(_) => self.ask_what_became(now),
                }
            }
            Happened::Paused(run, paused) if run == self.run && self.is_running() => {
                if self.marks.paused != paused {
                    self.marks.paused = paused;
                    reports.push(self.report(desired));
                }
            }
            Happened::Checked(run, finding) if run == self.run && self.is_checked() => {
                self.found(desired, finding, now);
                reports.push(self.report(desired));
            }
            Happened::Resized(run, wanted, outcome) if run == self.run && self.is_alive() => {
                self.resized(wanted, outcome, now);
            }
            Happened::Measured(run, taken) if run == self.run => {
                let limit = desired.task.resources_of(&desired.slot.index).disk.0;
                if let Phase::Running(live) = &mut self.phase {
                    live.over_disk = (limit > 0 && taken > limit).then_some(taken);
                }
            }
            // The rest is only about time or orders, or about a run that is not there any more.
            Happened::Ordered
            | Happened::Passed
            | Happened::Preparing(..)
            | Happened::Prepared(..)
            | Happened::Started(..)
            | Happened::Adopted(..)
            | Happened::Ended(..)
            | Happened::Paused(..)
            | Happened::Resized(..)
            | Happened::Measured(..)
            | Happened::Checked(..) => {}
        }
        self.settle(desired, now, &mut reports);
        reports
    }

    fn called(&mut self, desired: &Assigned, call: Call, now: Moment) {
        match (&mut self.phase, call) {
            (Phase::Idle { .. }, Call::Prepare { .. }) => {
                self.go(RunState::Preparing);
                self.phase = Phase::Preparing {
                    since: now.clock,
                    doing: None,
                };
            }
            (Phase::Idle { .. } | Phase::Prepared, Call::Enter { .. }) => {
                // The gate writes it down: this run is what the restart asked for.
                self.restart = self.restart.max(desired.restart);
                self.phase = Phase::Entering;
            }
            (Phase::Entered, Call::Start { .. }) => {
                self.attempt(now);
                self.prune_attempts(desired, now);
                let limits = desired.task.resources_of(&desired.slot.index);
                self.limiting.starts(self.run, limits);
                self.go(RunState::Preparing);
                self.go(RunState::Starting);
                self.phase = Phase::Starting {
                    since: now.clock,
                    kill_at: None,
                };
            }
            (Phase::Adopting { asked, .. }, Call::Adopt { .. }) => *asked = true,
            (Phase::Starting { kill_at, .. }, Call::Signal { .. }) => {
                *kill_at = Some(now.clock + KILL_AGAIN);
            }
            (Phase::Running(live), Call::Signal { signal, tree, .. }) => match &mut live.stopping {
                Some(stopping) if stopping.asked && tree && signal == Signal::SIGKILL => {
                    stopping.kill_at = now.clock + KILL_AGAIN;
                }
                Some(stopping) => stopping.asked = true,
                None => live.warned = true,
            },
            (Phase::Running(_), Call::Resize { wanted, .. }) => self.resizes(wanted),
            (Phase::Running(_), Call::Resume { .. }) => self.marks.paused = false,
            (_, call @ (Call::Release { .. } | Call::Remove { .. })) => {
                if let Call::Remove { run } = call {
                    self.kept.retain(|kept| *kept != run);
                }
                self.tidy.retain(|waiting| *waiting != call);
            }
            _ => {}
        }
    }

    /// Ends a run that never ran.
    pub(super) fn could_not_start(
        &mut self,
        desired: &Assigned,
        error: &StartError,
        now: Moment,
        reports: &mut Vec<RunReport>,
    ) {
        let cause = match error {
            StartError::Failed(_) => Cause::Failed,
            StartError::Rejected(_) | StartError::Known => Cause::Hopeless,
        };
        let (state, reason) = match &self.stopped {
            Some(reason) => (RunState::Killed, reason.clone()),
            None => (RunState::Rejected, error.to_string()),
        };
        let end = End::unstarted(state, Some(reason), cause, now.at);
        self.finish(desired, end, now, reports);
    }

    fn start_returned(
        &mut self,
        desired: &Assigned,
        outcome: Result<Started, StartError>,
        now: Moment,
        reports: &mut Vec<RunReport>,
    ) {
        if !matches!(self.phase, Phase::Starting { .. }) {
            return;
        }
        match outcome {
            Ok(started) => self.runs(desired, started, false, now, reports),
            Err(StartError::Known) => self.ask_what_became(now),
            Err(error) => {
                self.tidy.push_back(Call::Release {
                    run: self.run,
                    kill: true,
                });
                self.could_not_start(desired, &error, now, reports);
            }
        }
    }

    fn adopt_returned(
        &mut self,
        desired: &Assigned,
        outcome: Result<Adopted, String>,
        now: Moment,
        reports: &mut Vec<RunReport>,
    ) {
        let Phase::Adopting { failures, .. } = self.phase else {
            return;
        };
        match outcome {
            Ok(Adopted::Running { started, paused }) => {
                self.runs(desired, started, paused, now, reports);
            }
            Ok(Adopted::Ended { started, ended }) => {
                if let Some(started) = started {
                    self.pass_start();
                    self.go(RunState::Running);
                    self.started = Some(started);
                }
                self.ended(desired, &ended, now, reports);
            }
            Ok(Adopted::Gone) if self.state.rank() < RunState::Running.rank() => {
                // A driver that both knows the run and does not is not asked in a tight circle.
                let tried = self.state.rank() >= RunState::Starting.rank();
                let pause = if tried { ADOPT_AGAIN } else { Duration::ZERO };
                self.phase = Phase::Idle {
                    not_before: now.clock + pause,
                };
            }
            Ok(Adopted::Gone) => {
                let exit = Exit::default();
                let reason = "gone: the host was restarted, or what it had left was removed";
                let ended = Ended {
                    exit,
                    at: now.at,
                    reason: Some(reason.to_owned()),
                    left: Left::Nothing,
                };
                self.ended(desired, &ended, now, reports);
            }
            Err(error) => {
                let pause = restart::doubled(ADOPT_AGAIN, failures, ADOPT_AGAIN_MAX);
                self.phase = Phase::Adopting {
                    asked: false,
                    not_before: now.clock + pause,
                    failures: failures.saturating_add(1),
                };
                if self.state == RunState::Running && !self.marks.unknown {
                    self.marks.unknown = true;
                    self.doubt_health(&error, now);
                    let mut report = self.report(desired);
                    report.reason = Some(error);
                    reports.push(report);
                }
            }
        }
    }

    fn runs(
        &mut self,
        desired: &Assigned,
        mut started: Started,
        paused: bool,
        now: Moment,
        reports: &mut Vec<RunReport>,
    ) {
        let age = Duration::try_from(now.at.duration_since(started.at)).unwrap_or_default();
        // What was due before the adoption, an earlier agent or actor has sent.
        let adopted = matches!(self.phase, Phase::Adopting { .. });
        let warned = desired.task.timeout.as_ref().is_some_and(|timeout| {
            let after = Duration::from(timeout.after);
            let warning = timeout.warn.as_ref();
            warning.is_some_and(|warn| age >= after.saturating_sub(warn.before.into()))
        });
        self.phase = Phase::Running(Live {
            since: now.clock,
            elapsed_before: age,
            warned: adopted && warned,
            over_disk: None,
            stopping: None,
        });
        self.pass_start();
        self.go(RunState::Running);
        self.marks = Marks {
            paused,
            unknown: false,
        };
        self.limiting.runs(&mut started);
        self.started = Some(started);
        self.keep_health(desired, now);
        reports.push(self.report(desired));
    }

    fn ended(
        &mut self,
        desired: &Assigned,
        ended: &Ended,
        now: Moment,
        reports: &mut Vec<RunReport>,
    ) {
        let why = match &self.phase {
            Phase::Running(Live {
                stopping: Some(stopping),
                ..
            }) if stopping.asked => Some(stopping.why.clone()),
            _ => None,
        };
        // Whatever ended it after an order to stop, other than its own good end, was the order.
        let why = why.or_else(|| {
            let reason = self.stopped.clone().filter(|_| ended.exit.code != Some(0));
            reason.map(Why::Ordered)
        });
        let ran = self.state.rank() >= RunState::Running.rank();
        let end = verdict::verdict(why.as_ref(), ended, ran, desired);
        self.tidy.push_back(Call::Release {
            run: self.run,
            kill: false,
        });
        self.finish(desired, end, now, reports);
    }

    /// Ends the run, reports it, and makes room for the next one or for none.
    fn finish(&mut self, desired: &Assigned, end: End, now: Moment, reports: &mut Vec<RunReport>) {
        let pause = self.pause_before_next(desired, end.cause, now);
        self.go(end.state);
        self.marks = Marks::default();
        self.health = None;
        let mut report = self.report(desired);
        report.will_restart = pause.is_some();
        report.reason = self.with_attempts(desired, &end, pause.is_some());
        report.exit = end.exit;
        report.result = end.result;
        report.ended_at = Some(end.at);
        reports.push(report);
        self.kept.push(self.run);
        for run in self.kept.iter().rev().skip(KEPT).rev() {
            let remove = Call::Remove { run: *run };
            if !self.tidy.contains(&remove) {
                self.tidy.push_back(remove);
            }
        }
        let Some(pause) = pause else {
            self.phase = Phase::Over;
            return;
        };
        self.run = now.fresh;
        self.restarts = self.restarts.saturating_add(1);
        self.state = RunState::Scheduled;
        self.reported = RunState::Pending;
        self.passed.clear();
        self.started = None;
        self.limiting = Limiting::default();
        self.filled.clear();
        self.phase = Phase::Idle {
            not_before: now.clock + pause,
        };
        let mut report = self.report(desired);
        report.reason = Some(restart::announced(end.cause, pause));
        reports.push(report);
    }

    /// Brings the phase in line with what is wanted and with the time.
    fn settle(&mut self, desired: &Assigned, now: Moment, reports: &mut Vec<RunReport>) {
        if let (None, Order::Stop { reason }) = (&self.stopped, &desired.order) {
            self.stopped = Some(reason.clone());
        }
        if self.is_running() && self.keep_health(desired, now) {
            reports.push(self.report(desired));
        }
        if self.is_running() && self.limits_untold(desired) {
            reports.push(self.report(desired));
        }
        let unhealthy = self.unhealthy(desired);
        match &mut self.phase {
            Phase::Idle { .. }
            | Phase::Preparing { .. }
            | Phase::Prepared
            | Phase::Entering
            | Phase::Entered
                if self.stopped.is_some() =>
            {
                let reason = self.stopped.clone();
                let end = End::unstarted(RunState::Killed, reason, Cause::Hopeless, now.at);
                self.finish(desired, end, now, reports);
            }
            Phase::Idle { not_before } if desired.restart > self.restart => {
                *not_before = (*not_before).min(now.clock);
            }
            // Nothing but the gate writes it down, so it is asked anew: a start that carries out a
            // restart of which the disk knows nothing would be repeated by the next agent.
            Phase::Entering | Phase::Entered if desired.restart > self.restart => {
                self.phase = Phase::Prepared;
            }
            Phase::Preparing { since, doing } => {
                let told = self.reported.rank() >= RunState::Preparing.rank();
                if !told && now.clock >= *since + START_TOLD_AFTER {
                    let reason = doing.clone();
                    let mut report = self.report(desired);
                    report.reason = reason;
                    reports.push(report);
                }
            }
            Phase::Starting { since, kill_at } => {
                if self.stopped.is_some() && kill_at.is_none() {
                    *kill_at = Some(now.clock + Duration::from(desired.task.stop.grace));
                }
                let told = self.reported.rank() >= RunState::Starting.rank();
                if !told && now.clock >= *since + START_TOLD_AFTER {
                    reports.push(self.report(desired));
                }
            }
            Phase::Running(live) => {
                let why = Why::now(live, self.stopped.as_ref(), self.restart, desired, now);
                let why = why.or_else(|| unhealthy.map(Why::Unhealthy));
                match (&mut live.stopping, why) {
                    // An order to stop for good outdoes a restart under way.
                    (Some(stopping), Some(why @ Why::Ordered(_)))
                        if matches!(stopping.why, Why::Restart | Why::Unhealthy(_)) =>
                    {
                        stopping.why = why;
                    }
                    (None, Some(why)) => {
                        let grace = Duration::from(desired.task.stop.grace);
                        live.stopping = Some(Stopping {
                            why,
                            asked: false,
                            kill_at: now.clock + grace,
                        });
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}
