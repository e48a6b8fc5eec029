//! The life of a placement on its node, decided without I/O and without a clock.
//!
//! ```text
//! idle -> (preparing) -> entering -> starting -> running -> (stopping) -> ended -> idle | over
//!                                        ^ adopting ^                     a new run id: every run is one-shot
//! ```
//!
//! [`Machine::next_call`] says what to do now, [`Machine::apply`] takes what happened. Time, the
//! randomness of pauses and fresh run ids are arguments.

mod apply;
mod call;
mod health;
mod next;
mod prepare;
mod progress;
mod resize;
mod restart;
mod verdict;

#[cfg(test)]
mod laws;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::record::{Exit, Health, Marks};
use loom_schemas::wire::{Assigned, RunReport};
use loom_schemas::words::RunState;

pub use call::{Call, Happened, Moment, StartError};
pub use progress::Progress;
pub use resize::Held;

use crate::driver::Started;
use resize::Limiting;
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
    health: Option<Health>,
    restarts: u32,
    attempts: Vec<Timestamp>,
    /// When it was last started here, oldest first: at most so many as are allowed at once.
    recent: VecDeque<Duration>,
    restart: u32,
    kept: Vec<RunId>,
    started: Option<Started>,
    limiting: Limiting,
    /// What references in its launch were filled with; empty once an agent took over from another.
    filled: BTreeMap<String, String>,
    /// Why it shall end, once it was told to: it never starts again.
    stopped: Option<String>,
    phase: Phase,
    tidy: VecDeque<Call>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Not started; the start is due at `not_before`.
    Idle {
        not_before: Duration,
    },
    /// The driver was asked to get what it needs: an image.
    Preparing {
        since: Duration,
        /// What the driver says that it is doing.
        doing: Option<String>,
    },
    /// All that it needs is there.
    Prepared,
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
    /// Since when it is followed, by the monotonic clock.
    since: Duration,
    /// How long it had run by then; more than the whole clock under a young agent.
    elapsed_before: Duration,
    warned: bool,
    /// What its files take, where that is more than they may.
    over_disk: Option<u64>,
    stopping: Option<Stopping>,
}

impl Live {
    /// When it will have run for `limit`, by the monotonic clock; zero if before that clock began.
    fn reaches(&self, limit: Duration) -> Duration {
        let end = self.since.saturating_add(limit);
        end.saturating_sub(self.elapsed_before)
    }
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
        Self::at(
            Progress::first(placement),
            Phase::Idle {
                not_before: Duration::ZERO,
            },
        )
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
        let limiting = Limiting::resumed(progress.run, progress.held.clone());
        Self {
            limiting,
            ..Self::at(progress, phase)
        }
    }

    fn at(progress: Progress, phase: Phase) -> Self {
        Self {
            placement: progress.placement,
            run: progress.run,
            state: progress.state,
            reported: progress.state,
            passed: Vec::new(),
            marks: Marks::default(),
            health: progress.health,
            restarts: progress.restarts,
            attempts: progress.attempts,
            recent: VecDeque::new(),
            restart: progress.restart,
            kept: progress.kept,
            started: None,
            limiting: Limiting::default(),
            filled: BTreeMap::new(),
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

    /// What references in the launch of the run were filled with.
    pub fn filled(&self) -> &BTreeMap<String, String> {
        &self.filled
    }

    /// Notes what references in the launch of the run were filled with.
    pub fn fill(&mut self, filled: BTreeMap<String, String>) {
        self.filled = filled;
    }

    /// Whether the run has been started and has not ended.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }

    /// Whether what it needs is being got.
    pub fn is_preparing(&self) -> bool {
        matches!(self.phase, Phase::Preparing { .. })
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
            health: self.health.clone(),
            attempts: self.attempts.clone(),
            restart: self.restart,
            held: self.limiting.held().cloned(),
            kept: self.kept.clone(),
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
        let limits = self.limits(desired);
        let started = self.started.as_ref();
        let report = RunReport {
            run: self.run,
            placement: self.placement,
            slot: desired.slot.clone(),
            version: desired.version,
            state: self.state,
            passed: std::mem::take(&mut self.passed),
            marks: self.marks,
            health: self.health.clone(),
            restarts: self.restarts,
            will_restart: false,
            pid: started.and_then(|started| started.pid),
            image: started
                .and_then(|started| started.container.as_ref())
                .map(|container| container.image.clone()),
            exit: None,
            reason: None,
            limits,
            unenforced: started.map(|s| s.unenforced.clone()).unwrap_or_default(),
            filled: self.filled.clone(),
            result: None,
            started_at: started.map(|started| started.at),
            ended_at: None,
            change: 0,
        };
        self.told_limits(desired, &report);
        report
    }
}

/// How a run ended, judged.
struct End {
    state: RunState,
    reason: Option<String>,
    exit: Option<Exit>,
    /// What it left as its result.
    result: Option<String>,
    at: Timestamp,
    cause: Cause,
}

impl End {
    /// Of a run that never ran.
    fn unstarted(state: RunState, reason: Option<String>, cause: Cause, at: Timestamp) -> Self {
        Self {
            state,
            reason,
            exit: None,
            result: None,
            at,
            cause,
        }
    }
}
