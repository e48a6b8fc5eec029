//! The life of a placement on its node, decided without I/O and without a clock.
//!
//! ```text
//! idle -> entering -> starting -> running -> (stopping) -> ended -> idle | over
//!                         ^ adopting ^                     a new run id: every run is one-shot
//! ```
//!
//! [`Machine::next_call`] says what to do now, [`Machine::apply`] takes what happened. Time, the
//! randomness of pauses and fresh run ids are arguments.

mod call;
mod next;
mod progress;
mod restart;
mod verdict;

#[cfg(test)]
mod laws;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::{Exit, Marks, Order};
use loom_schemas::wire::{Assigned, RunReport};
use loom_schemas::words::RunState;
use nix::sys::signal::Signal;

pub use call::{Call, Happened, Moment, StartError};
pub use progress::Progress;

use crate::driver::{Adopted, Ended, Started};
use restart::Cause;
use verdict::Why;

/// A start that takes longer is reported as `starting`; a shorter one is told with `running`.
const START_TOLD_AFTER: Duration = Duration::from_millis(250);
/// The pause between two tries to end a tree that does not end.
const KILL_AGAIN: Duration = Duration::from_secs(1);
/// The pause before the driver is asked again what became of a run, doubling up to the longest.
const ADOPT_AGAIN: Duration = Duration::from_secs(1);
const ADOPT_AGAIN_MAX: Duration = Duration::from_secs(30);
/// How many ended runs keep their files while the placement goes on.
const KEPT: usize = 1;

/// Where a placement stands.
#[derive(Clone, Debug)]
pub struct Machine {
    placement: RunId,
    run: RunId,
    state: RunState,
    /// The greatest state reported of the run.
    reported: RunState,
    passed: Vec<RunState>,
    marks: Marks,
    restarts: u32,
    attempts: Vec<Timestamp>,
    restart: u32,
    kept: Vec<RunId>,
    started: Option<Started>,
    /// Why it shall end, once it was told to: it never starts again.
    stopped: Option<String>,
    phase: Phase,
    tidy: VecDeque<Call>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Not started; the start is due at `not_before`.
    Idle { not_before: Duration },
    /// At the node's gate, which says when it may start.
    Entering,
    /// Let through.
    Entered,
    /// The driver was asked to start it.
    Starting {
        since: Duration,
        /// When the tree is ended because it shall stop before it has started.
        kill_at: Option<Duration>,
    },
    /// Whether it runs is for the driver to say.
    Adopting {
        asked: bool,
        not_before: Duration,
        failures: u32,
    },
    Running(Live),
    /// Nothing of the placement will run again here.
    Over,
}

#[derive(Clone, Debug)]
struct Live {
    /// When it started, by the monotonic clock.
    since: Duration,
    warned: bool,
    stopping: Option<Stopping>,
}

#[derive(Clone, Debug)]
struct Stopping {
    why: Why,
    asked: bool,
    kill_at: Duration,
}

impl Machine {
    /// A placement that was never started.
    pub fn new(placement: RunId) -> Self {
        Self::at(Progress::first(placement), Phase::Idle {
            not_before: Duration::ZERO,
        })
    }

    /// A placement that an earlier agent or actor had; the driver is asked what became of it.
    pub fn resumed(progress: Progress) -> Self {
        let phase = if progress.state.is_terminal() {
            Phase::Over
        } else {
            Phase::Adopting {
                asked: false,
                not_before: Duration::ZERO,
                failures: 0,
            }
        };
        Self::at(progress, phase)
    }

    fn at(progress: Progress, phase: Phase) -> Self {
        Self {
            placement: progress.placement,
            run: progress.run,
            state: progress.state,
            reported: progress.state,
            passed: Vec::new(),
            marks: Marks::default(),
            restarts: progress.restarts,
            attempts: progress.attempts,
            restart: progress.restart,
            kept: progress.kept,
            started: None,
            stopped: None,
            phase,
            tidy: VecDeque::new(),
        }
    }

    /// The current run, or the last one.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// How far the run is.
    pub fn state(&self) -> RunState {
        self.state
    }

    /// Marks on the run.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// How often the placement was restarted before the run.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// What the driver said of the run's start.
    pub fn started(&self) -> Option<&Started> {
        self.started.as_ref()
    }

    /// Whether the run has been started and has not ended.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }

    /// Whether it waits at the node's gate.
    pub fn is_entering(&self) -> bool {
        matches!(self.phase, Phase::Entering)
    }

    /// Whether the driver may have something of the run that is not ended: its address is held.
    pub fn is_alive(&self) -> bool {
        matches!(
            self.phase,
            Phase::Starting { .. } | Phase::Adopting { .. } | Phase::Running(_)
        )
    }

    /// Whether nothing of the placement will run here again.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Ended runs whose files are still there.
    pub fn kept(&self) -> &[RunId] {
        &self.kept
    }

    /// What must survive the agent.
    pub fn progress(&self) -> Progress {
        Progress {
            placement: self.placement,
            run: self.run,
            state: self.state,
            restarts: self.restarts,
            attempts: self.attempts.clone(),
            restart: self.restart,
            kept: self.kept.clone(),
        }
    }

    /// Takes what happened; returns what the leader is to be told, in order.
    pub fn apply(&mut self, desired: &Assigned, happened: Happened, now: Moment) -> Vec<RunReport> {
        let mut reports = Vec::new();
        match happened {
            Happened::Ordered | Happened::Passed => {}
            Happened::Called(call) => self.called(desired, call, now),
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
            Happened::Ended(run, outcome) if run == self.run && self.is_running() => match outcome {
                Ok(ended) => self.ended(desired, &ended, now, &mut reports),
                Err(_) => self.ask_what_became(now),
            },
            Happened::Paused(run, paused) if run == self.run && self.is_running() => {
                if self.marks.paused != paused {
                    self.marks.paused = paused;
                    reports.push(self.report(desired));
                }
            }
            Happened::Started(..)
            | Happened::Adopted(..)
            | Happened::Ended(..)
            | Happened::Paused(..) => {}
        }
        self.settle(desired, now, &mut reports);
        reports
    }

    fn called(&mut self, desired: &Assigned, call: Call, now: Moment) {
        match (&mut self.phase, call) {
            (Phase::Idle { .. }, Call::Enter { .. }) => self.phase = Phase::Entering,
            (Phase::Entered, Call::Start { .. }) => {
                self.attempts.push(now.at);
                self.prune_attempts(desired, now);
                self.restart = self.restart.max(desired.restart);
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
                let cause = if matches!(error, StartError::Failed(_)) {
                    Cause::Failed
                } else {
                    Cause::Hopeless
                };
                let reason = match &self.stopped {
                    Some(reason) => reason.clone(),
                    None => error.to_string(),
                };
                let state = if self.stopped.is_some() {
                    RunState::Killed
                } else {
                    RunState::Rejected
                };
                self.tidy.push_back(Call::Release {
                    run: self.run,
                    kill: true,
                });
                let end = End { state, reason: Some(reason), exit: None, at: now.at, cause };
                self.finish(desired, end, now, reports);
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
                self.phase = Phase::Idle { not_before: now.clock + pause };
            }
            Ok(Adopted::Gone) => {
                let exit = Exit::default();
                let reason = "gone: the host was restarted, or what it had left was removed";
                let ended = Ended { exit, at: now.at, reason: Some(reason.to_owned()) };
                self.ended(desired, &ended, now, reports);
            }
            Err(_) => {
                let pause = restart::doubled(ADOPT_AGAIN, failures, ADOPT_AGAIN_MAX);
                self.phase = Phase::Adopting {
                    asked: false,
                    not_before: now.clock + pause,
                    failures: failures.saturating_add(1),
                };
                if self.state == RunState::Running && !self.marks.unknown {
                    self.marks.unknown = true;
                    reports.push(self.report(desired));
                }
            }
        }
    }

    fn runs(
        &mut self,
        desired: &Assigned,
        started: Started,
        paused: bool,
        now: Moment,
        reports: &mut Vec<RunReport>,
    ) {
        let age = Duration::try_from(now.at.duration_since(started.at)).unwrap_or_default();
        self.phase = Phase::Running(Live {
            since: now.clock.saturating_sub(age),
            warned: false,
            stopping: None,
        });
        self.pass_start();
        self.go(RunState::Running);
        self.marks = Marks { paused, unknown: false };
        self.started = Some(started);
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
            Phase::Running(Live { stopping: Some(stopping), .. }) if stopping.asked => {
                Some(stopping.why.clone())
            }
            _ => None,
        };
        // Whatever ended it after an order to stop, other than its own good end, was the order.
        let why = why.or_else(|| {
            let reason = self.stopped.clone().filter(|_| ended.exit.code != Some(0));
            reason.map(Why::Ordered)
        });
        let ran = self.state.rank() >= RunState::Running.rank();
        let end = verdict::verdict(why.as_ref(), ended, ran, desired);
        self.tidy.push_back(Call::Release { run: self.run, kill: false });
        self.finish(desired, end, now, reports);
    }

    /// Ends the run, reports it, and makes room for the next one or for none.
    fn finish(
        &mut self,
        desired: &Assigned,
        end: End,
        now: Moment,
        reports: &mut Vec<RunReport>,
    ) {
        let pause = self.pause_before_next(desired, end.cause, now);
        self.go(end.state);
        self.marks = Marks::default();
        let mut report = self.report(desired);
        report.will_restart = pause.is_some();
        report.reason = self.with_attempts(desired, &end, pause.is_some());
        report.exit = end.exit;
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
        self.phase = Phase::Idle { not_before: now.clock + pause };
        let mut report = self.report(desired);
        report.reason = Some(restart::announced(end.cause, pause));
        reports.push(report);
    }

    /// Brings the phase in line with what is wanted and with the time.
    fn settle(&mut self, desired: &Assigned, now: Moment, reports: &mut Vec<RunReport>) {
        if let (None, Order::Stop { reason }) = (&self.stopped, &desired.order) {
            self.stopped = Some(reason.clone());
        }
        match &mut self.phase {
            Phase::Idle { .. } | Phase::Entering | Phase::Entered if self.stopped.is_some() => {
                let end = End {
                    state: RunState::Killed,
                    reason: self.stopped.clone(),
                    exit: None,
                    at: now.at,
                    cause: Cause::Hopeless,
                };
                self.finish(desired, end, now, reports);
            }
            Phase::Idle { not_before } if desired.restart > self.restart => {
                *not_before = (*not_before).min(now.clock);
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
                let why = Why::now(live.since, self.stopped.as_ref(), self.restart, desired, now);
                match (&mut live.stopping, why) {
                    // An order to stop for good outdoes a restart under way.
                    (Some(stopping), Some(why @ Why::Ordered(_))) => {
                        if stopping.why == Why::Restart {
                            stopping.why = why;
                        }
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

    fn ask_what_became(&mut self, now: Moment) {
        self.phase = Phase::Adopting {
            asked: false,
            not_before: now.clock,
            failures: 0,
        };
    }

    fn pass_start(&mut self) {
        self.go(RunState::Preparing);
        self.go(RunState::Starting);
    }

    /// Moves the run's state forward, never back.
    fn go(&mut self, to: RunState) {
        if to.rank() <= self.state.rank() {
            return;
        }
        if self.state.rank() > self.reported.rank() {
            self.passed.push(self.state);
        }
        self.state = to;
    }

    fn report(&mut self, desired: &Assigned) -> RunReport {
        self.reported = self.state;
        let started = self.started.as_ref();
        RunReport {
            run: self.run,
            placement: self.placement,
            slot: desired.slot.clone(),
            version: desired.version,
            state: self.state,
            passed: std::mem::take(&mut self.passed),
            marks: self.marks,
            restarts: self.restarts,
            will_restart: false,
            pid: started.and_then(|started| started.pid),
            exit: None,
            reason: None,
            unenforced: started.map(|s| s.unenforced.clone()).unwrap_or_default(),
            started_at: started.map(|started| started.at),
            ended_at: None,
        }
    }
}

/// How a run ended, judged.
struct End {
    state: RunState,
    reason: Option<String>,
    exit: Option<Exit>,
    at: Timestamp,
    cause: Cause,
}
