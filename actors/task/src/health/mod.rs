//! Whether a run does its work: when to check, and what the checks come to.
//!
//! ```text
//!            a check succeeds                 `retries` fail in a row
//! pending ----------------------> healthy <----------------------------> unhealthy
//!    `----------------------------------------------------------------------^
//!       `retries` fail that count: after the start period, one an interval
//! ```
//!
//! `retries` checks in a row that cannot be made are `unknown`: which of the three it is shows once
//! checks can be made again.
//!
//! [`Watch`] is pure: outcomes, time and jitter are arguments. Before the first success it looks
//! early and then less and less often, so that a quick start is seen quickly; those looks count as
//! failures only as often as the interval would have it. [`probe`] makes the checks.

pub mod probe;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

use std::time::Duration;

use loom_schemas::spec::HealthSpec;
use loom_schemas::words::HealthStatus;

/// The longest until the first check of a run; the pauses after it double up to the interval.
const EARLY: Duration = Duration::from_millis(100);
/// The part of a pause that jitter may take away, so that checks of many runs stay spread out.
const JITTER: f64 = 0.25;
/// Another reason for the same status is not told more often.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// No spec that was accepted asks for less; one that does must not spin.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The run does its work.
    Healthy,
    /// It does not; why, in words.
    Failed(String),
    /// Nothing was found out about the run, because the node's own means failed.
    Unknown(String),
}

/// What the checks have come to, where that is news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In a word.
    pub status: HealthStatus,
    /// The last failure, where it is not healthy.
    pub reason: Option<String>,
}

/// What to do next for the health of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Make a check.
    Check,
    /// Nothing until this time.
    Wait(Duration),
    /// Nothing until the check under way has ended.
    Await,
}

/// The health of one run, and when to look again. Times are of one monotonic clock.
#[derive(Clone, Debug)]
pub struct Watch {
    status: HealthStatus,
    /// Failures in a row that count.
    failures: u32,
    /// Checks in a row that could not be made.
    unknowns: u32,
    /// Whether `unknown` was told in place of the status.
    unknown: bool,
    /// Before the first success: from when on the next failure counts.
    counts_from: Duration,
    /// Before the first success: the pause after the next failure.
    pause: Duration,
    /// When the next check is due; none while one is under way.
    due: Option<Duration>,
    /// The reason that was told last, and when.
    told: Option<(String, Duration)>,
}

impl Watch {
    /// The watch over a run that has run for `age` and of which `known` was found before; `jitter`
    /// is from 0 to 1, drawn afresh each time.
    pub fn new(
        spec: &HealthSpec,
        known: HealthStatus,
        age: Duration,
        now: Duration,
        jitter: f64,
    ) -> Self {
        let interval = interval(spec);
        let counts_from = now.saturating_add(spec.start_period.into());
        let (status, pause) = match known {
            HealthStatus::Healthy | HealthStatus::Unhealthy => (known, interval),
            HealthStatus::Pending | HealthStatus::Unknown => {
                let early = EARLY.min(interval);
                (HealthStatus::Pending, age.clamp(early, interval))
            }
        };
        Self {
            status,
            failures: 0,
            unknowns: 0,
            unknown: false,
            counts_from: counts_from.saturating_sub(age),
            pause,
            due: Some(now.saturating_add(pause.mul_f64(jitter.clamp(0.0, 1.0)))),
            told: None,
        }
    }

    /// What to do now; tell with [`began`](Self::began) when it is a check.
    pub fn next(&self, now: Duration) -> Next {
        match self.due {
            Some(due) if now >= due => Next::Check,
            Some(due) => Next::Wait(due),
            None => Next::Await,
        }
    }

    /// A check was begun.
    pub fn began(&mut self) {
        self.due = None;
    }

    /// The check under way has ended; what it comes to, if that is to be told.
    pub fn ended(
        &mut self,
        spec: &HealthSpec,
        outcome: Outcome,
        now: Duration,
        jitter: f64,
    ) -> Option<Finding> {
        let steady = interval(spec).mul_f64(1.0 - JITTER * jitter.clamp(0.0, 1.0));
        if !matches!(outcome, Outcome::Unknown(_)) {
            self.unknowns = 0;
        }
        let (pause, finding) = match outcome {
            Outcome::Healthy => (steady, self.succeeded()),
            Outcome::Failed(reason) => {
                let pause = self.count_failure(spec, steady, now);
                (pause, self.failed(spec, reason, now))
            }
            Outcome::Unknown(reason) => (steady, self.cannot_tell(spec, reason, now)),
        };
        self.due = Some(now.saturating_add(pause));
        finding
    }

    fn succeeded(&mut self) -> Option<Finding> {
        self.failures = 0;
        self.told = None;
        let before = self.shown();
        self.status = HealthStatus::Healthy;
        self.unknown = false;
        (before != HealthStatus::Healthy).then_some(Finding {
            status: HealthStatus::Healthy,
            reason: None,
        })
    }

    /// Counts a failure if it counts; the pause until the next check.
    fn count_failure(&mut self, spec: &HealthSpec, steady: Duration, now: Duration) -> Duration {
        if self.status != HealthStatus::Pending {
            self.failures = self.failures.saturating_add(1);
            return steady;
        }
        if now >= self.counts_from {
            self.failures = self.failures.saturating_add(1);
            self.counts_from = now.saturating_add(interval(spec));
        }
        let pause = self.pause.min(interval(spec));
        self.pause = pause.saturating_mul(2);
        // The one that counts is not put off.
        pause.min(self.counts_from.saturating_sub(now))
    }

    fn failed(&mut self, spec: &HealthSpec, reason: String, now: Duration) -> Option<Finding> {
        let turned = self.status != HealthStatus::Unhealthy && self.failures >= spec.retries;
        if turned {
            self.status = HealthStatus::Unhealthy;
        } else if self.status == HealthStatus::Healthy {
            return None;
        }
        let known_again = std::mem::take(&mut self.unknown);
        if turned || known_again || self.is_news(&reason, now) {
            return Some(self.tell(reason, now));
        }
        None
    }

    /// A check could not be made: once or twice says nothing, for long is told.
    fn cannot_tell(&mut self, spec: &HealthSpec, reason: String, now: Duration) -> Option<Finding> {
        self.unknowns = self.unknowns.saturating_add(1);
        let turned = !self.unknown && self.unknowns >= spec.retries;
        self.unknown |= turned;
        let news = turned || (self.unknown && self.is_news(&reason, now));
        news.then(|| self.tell(reason, now))
    }

    /// Whether another reason for the same status is worth telling.
    fn is_news(&self, reason: &str, now: Duration) -> bool {
        let told = self.told.as_ref();
        told.is_none_or(|(told, at)| told != reason && now >= at.saturating_add(TELL_AGAIN))
    }

    fn tell(&mut self, reason: String, now: Duration) -> Finding {
        self.told = Some((reason.clone(), now));
        Finding {
            status: self.shown(),
            reason: Some(reason),
        }
    }

    /// The status as it is told.
    fn shown(&self) -> HealthStatus {
        if self.unknown {
            HealthStatus::Unknown
        } else {
            self.status
        }
    }
}

fn interval(spec: &HealthSpec) -> Duration {
    Duration::from(spec.interval).max(INTERVAL_MIN)
}
