//! Whether and when an ended run is followed by another on the same node.

use std::time::Duration;

use loom_schemas::spec::RestartOn;
use loom_schemas::units::Millis;
use loom_schemas::wire::Assigned;

use super::{End, Machine, Moment};

/// The part of a pause that jitter may take away.
const JITTER: f64 = 0.25;

/// A task starts at most so often within [`CRASH_LOOP`], whatever its pauses and its window are:
/// each start costs its node and the cluster work, and one task must not take all of it.
pub(super) const STARTS_MAX: usize = 5;

/// See [`STARTS_MAX`].
pub(super) const CRASH_LOOP: Duration = Duration::from_secs(10);

/// What an end means for the restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It ended with exit code 0.
    Completed,
    /// It failed, or could not be started for a reason that may pass.
    Failed,
    /// Somebody asked for a restart in place.
    Asked,
    /// It shall not run again here.
    Hopeless,
}

impl Machine {
    /// The pause before the next run; none if there is no next run.
    pub(super) fn pause_before_next(
        &mut self,
        desired: &Assigned,
        cause: Cause,
        now: Moment,
    ) -> Option<Duration> {
        if self.stopped.is_some() || matches!(cause, Cause::Hopeless) {
            return None;
        }
        if cause == Cause::Asked {
            // What a person asked for is no failure, and the count begins anew.
            self.attempts.clear();
            return Some(Duration::ZERO);
        }
        let restart = &desired.task.restart;
        let wanted = match restart.on {
            RestartOn::Any => true,
            RestartOn::Failure => cause == Cause::Failed,
            RestartOn::Never => false,
        };
        self.prune_attempts(desired, now);
        let attempts = u32::try_from(self.attempts.len()).unwrap_or(u32::MAX);
        if !wanted || attempts.saturating_add(desired.spent) >= restart.attempts {
            return None;
        }
        let longest = restart.max_delay.max(restart.delay).into();
        let pause = doubled(restart.delay.into(), attempts.saturating_sub(1), longest);
        let pause = pause.mul_f64(1.0 - JITTER * now.jitter.clamp(0.0, 1.0));
        Some(pause.max(self.crash_loop_pause(now)))
    }

    /// Counts a start, or what should have become one.
    pub(super) fn attempt(&mut self, now: Moment) {
        self.attempts.push(now.at);
        if self.recent.len() == STARTS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(now.clock);
    }

    /// How long it must wait so that it does not start too often.
    fn crash_loop_pause(&self, now: Moment) -> Duration {
        match self.recent.front() {
            Some(first) if self.recent.len() == STARTS_MAX => {
                (*first + CRASH_LOOP).saturating_sub(now.clock)
            }
            _ => Duration::ZERO,
        }
    }

    /// Forgets attempts that are older than the window.
    pub(super) fn prune_attempts(&mut self, desired: &Assigned, now: Moment) {
        if let Some(window) = desired.task.restart.window {
            let window = Duration::from(window);
            self.attempts.retain(|at| {
                let age = Duration::try_from(now.at.duration_since(*at)).unwrap_or_default();
                age < window
            });
        }
    }

    /// The reason of an end, with the attempts where they are what keeps it from going on.
    pub(super) fn with_attempts(
        &self,
        desired: &Assigned,
        end: &End,
        will_restart: bool,
    ) -> Option<String> {
        let restart = &desired.task.restart;
        let spent = !will_restart
            && end.cause == Cause::Failed
            && self.stopped.is_none()
            && restart.on != RestartOn::Never
            && restart.attempts > 1;
        let reason = end.reason.as_ref()?;
        Some(match (spent, restart.window) {
            (false, _) => reason.clone(),
            (true, Some(window)) => format!(
                "{reason}; its {} attempts within {window} are spent",
                restart.attempts
            ),
            (true, None) => format!("{reason}; its {} attempts are spent", restart.attempts),
        })
    }
}

/// `base * 2^times`, at most `longest`.
pub(super) fn doubled(base: Duration, times: u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    base.saturating_mul(factor).min(longest)
}

/// Why a run that was not started yet waits, in words.
pub(super) fn announced(cause: Cause, pause: Duration) -> String {
    if cause == Cause::Asked {
        return "restarted".to_owned();
    }
    let pause = Millis(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    format!("restarts in {pause}")
}
