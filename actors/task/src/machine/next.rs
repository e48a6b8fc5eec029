//! What to do now.

use std::time::Duration;

use loom_schemas::wire::Assigned;
use nix::sys::signal::Signal;

use super::resize::Due;
use super::{Call, Live, Machine, Phase, START_TOLD_AFTER};
use crate::signals;

impl Machine {
    /// What to do now; after doing it, [`apply`](Self::apply) a `Called` and ask again.
    pub fn next_call(&self, desired: &Assigned, clock: Duration) -> Call {
        if let Some(call) = self.tidy.front() {
            return call.clone();
        }
        let run = self.run;
        match &self.phase {
            Phase::Idle { not_before } if desired.task.image.is_some() => {
                due(*not_before, clock, Call::Prepare { run })
            }
            Phase::Idle { not_before } => due(*not_before, clock, Call::Enter { run }),
            Phase::Preparing { since, .. } => earliest(clock, [Some(*since + START_TOLD_AFTER)]),
            Phase::Prepared => Call::Enter { run },
            Phase::Entered => Call::Start { run },
            Phase::Starting { since, kill_at } => {
                let kill = Call::Signal {
                    run,
                    signal: Signal::SIGKILL,
                    tree: true,
                };
                match *kill_at {
                    Some(kill_at) if clock >= kill_at => kill,
                    kill_at => {
                        let told = *since + START_TOLD_AFTER;
                        earliest(clock, [Some(told), kill_at])
                    }
                }
            }
            Phase::Adopting {
                asked, not_before, ..
            } => {
                if *asked {
                    Call::Wait { until: None }
                } else {
                    due(*not_before, clock, Call::Adopt { run })
                }
            }
            Phase::Running(live) => self.next_of_running(live, desired, clock),
            Phase::Entering | Phase::Over => Call::Wait { until: None },
        }
    }

    fn next_of_running(&self, live: &Live, desired: &Assigned, clock: Duration) -> Call {
        let run = self.run;
        let signal = |signal, tree| Call::Signal { run, signal, tree };
        if let Some(stopping) = &live.stopping {
            return if !stopping.asked {
                signal(named(&desired.task.stop.signal), false)
            } else if clock >= stopping.kill_at {
                signal(Signal::SIGKILL, true)
            } else if self.marks.paused {
                Call::Resume { run }
            } else {
                Call::Wait {
                    until: Some(stopping.kill_at),
                }
            };
        }
        let again = match self.limits_due(desired, clock) {
            Due::Now(wanted) => return Call::Resize { run, wanted },
            Due::At(at) => Some(at),
            Due::Never => None,
        };
        let Some(timeout) = &desired.task.timeout else {
            return earliest(clock, [again]);
        };
        let deadline = live.reaches(timeout.after.into());
        let warning = timeout.warn.as_ref().filter(|_| !live.warned);
        let warn_at = warning.map(|warn| deadline.saturating_sub(warn.before.into()));
        match (warning, warn_at) {
            (Some(warning), Some(at)) if clock >= at => signal(named(&warning.signal), false),
            _ => earliest(clock, [Some(deadline), warn_at, again]),
        }
    }
}

fn due(at: Duration, clock: Duration, call: Call) -> Call {
    if clock >= at {
        call
    } else {
        Call::Wait { until: Some(at) }
    }
}

/// Waits for the first of these times that is still to come.
fn earliest<const N: usize>(clock: Duration, times: [Option<Duration>; N]) -> Call {
    let coming = times.into_iter().flatten().filter(|at| *at > clock);
    Call::Wait {
        until: coming.min(),
    }
}

/// Names were checked when the job was accepted; one this build does not know ends it as TERM would.
fn named(signal: &str) -> Signal {
    signals::parse(signal).unwrap_or(Signal::SIGTERM)
}
