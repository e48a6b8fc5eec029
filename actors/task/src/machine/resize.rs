//! Whether the run is held to the limits that are wanted, and when to have them changed.

use std::time::Duration;

use loom_schemas::ids::RunId;
use loom_schemas::record::Limits;
use loom_schemas::spec::Resources;
use loom_schemas::wire::{Assigned, RunReport};
use serde::{Deserialize, Serialize};

use super::restart::doubled;
use super::{Machine, Moment};
use crate::driver::Started;

/// The pause before limits that were refused are tried again, doubling up to the longest.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// How phrases begin that say which limits are not held.
const OF_LIMITS: [&str; 5] = [
    "cpu share",
    "cpu limit",
    "memory limit",
    "pids limit",
    "disk rate",
];

/// What a run is held to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The limits.
    pub limits: Resources,
    /// What of them the kernel could not hold it to, and what else it could not do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unenforced: Vec<String>,
}

/// What is known of the limits of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Limiting {
    /// What it is held to; none where nobody knows.
    held: Option<Held>,
    /// What the start under way was asked to hold it to.
    started_with: Option<Resources>,
    /// A run that an agent before this one may have begun, with limits nobody knows.
    doubted: Option<RunId>,
    /// What the driver is changing them to.
    asked: Option<Resources>,
    /// What was refused last.
    refused: Option<Refusal>,
    /// What the leader was told last, and upon which order.
    told: Option<(u32, Limits)>,
}

#[derive(Clone, Debug)]
struct Refusal {
    wanted: Resources,
    /// None where the driver says that the run has ended, which is told by who waits for that.
    reason: Option<String>,
    tries: u32,
    again_at: Duration,
}

/// What to do about limits.
pub(super) enum Due {
    /// Have them changed to these.
    Now(Resources),
    /// Look again then.
    At(Duration),
    /// Nothing, until something happens.
    Never,
}

impl Limiting {
    /// Of a placement that an earlier agent or actor had.
    pub(super) fn resumed(run: RunId, held: Option<Held>) -> Self {
        Self {
            held,
            doubted: Some(run),
            ..Self::default()
        }
    }

    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// A start was asked for with these limits.
    pub(super) fn starts(&mut self, run: RunId, wanted: Resources) {
        self.held = None;
        // The driver leaves what it has already as it is.
        self.started_with = (self.doubted != Some(run)).then_some(wanted);
    }

    /// It runs; what was known of an adopted one still holds.
    pub(super) fn runs(&mut self, started: &mut Started) {
        if let Some(limits) = self.started_with.take() {
            self.held = Some(Held {
                limits,
                unenforced: started.unenforced.clone(),
            });
        } else if let Some(held) = &self.held {
            started.unenforced.clone_from(&held.unenforced);
        }
    }

    fn due(&self, wanted: Resources, clock: Duration) -> Due {
        let holds = |held: &Held| held.limits == wanted;
        if self.asked.is_some() || self.held.as_ref().is_some_and(holds) {
            return Due::Never;
        }
        match &self.refused {
            Some(refused) if refused.wanted == wanted && clock < refused.again_at => {
                Due::At(refused.again_at)
            }
            _ => Due::Now(wanted),
        }
    }

    fn standing(&self, wanted: &Resources) -> Limits {
        if self
            .held
            .as_ref()
            .is_some_and(|held| held.limits == *wanted)
        {
            return Limits::Hold;
        }
        match &self.refused {
            Some(Refusal {
                wanted: tried,
                reason: Some(reason),
                ..
            }) if tried == wanted => Limits::Refused {
                reason: reason.clone(),
            },
            _ => Limits::Pending,
        }
    }
}

impl Machine {
    /// What to do about the limits of the run, which runs.
    pub(super) fn limits_due(&self, desired: &Assigned, clock: Duration) -> Due {
        self.limiting.due(wanted(desired), clock)
    }

    /// The driver was asked to change them.
    pub(super) fn resizes(&mut self, wanted: Resources) {
        // From now on it may be held to these, or to some of them.
        self.limiting.held = None;
        self.limiting.asked = Some(wanted);
    }

    /// The driver has changed them, or says why not.
    pub(super) fn resized(
        &mut self,
        wanted: Resources,
        outcome: Result<Vec<String>, Option<String>>,
        now: Moment,
    ) {
        let limiting = &mut self.limiting;
        if limiting.asked.as_ref() != Some(&wanted) {
            // What an earlier actor asked for.
            return;
        }
        limiting.asked = None;
        match outcome {
            Ok(notes) => {
                limiting.refused = None;
                let mut unenforced = notes;
                if let Some(started) = &mut self.started {
                    let others = started.unenforced.iter();
                    let others = others.filter(|note| !is_of_limits(note)).cloned();
                    unenforced = others.chain(unenforced).collect();
                    started.unenforced.clone_from(&unenforced);
                }
                limiting.held = Some(Held {
                    limits: wanted,
                    unenforced,
                });
            }
            Err(reason) => {
                let before = limiting.refused.take();
                let before = before.filter(|refused| refused.wanted == wanted);
                let tries = before.map_or(0, |refused| refused.tries.saturating_add(1));
                limiting.refused = Some(Refusal {
                    wanted,
                    reason,
                    tries,
                    again_at: now.clock + doubled(AGAIN, tries, AGAIN_MAX),
                });
            }
        }
    }

    /// Whether the limits of the run hold, for a report of it.
    pub(super) fn limits(&self, desired: &Assigned) -> Limits {
        if self.is_running() {
            self.limiting.standing(&wanted(desired))
        } else {
            Limits::Hold
        }
    }

    /// Notes what is reported of limits.
    pub(super) fn told_limits(&mut self, desired: &Assigned, report: &RunReport) {
        if self.is_running() {
            self.limiting.told = Some((desired.resize, report.limits.clone()));
        }
    }

    /// Whether the leader is to be told of limits: they hold, or are refused, and it does not know.
    pub(super) fn limits_untold(&self, desired: &Assigned) -> bool {
        let now = (desired.resize, self.limits(desired));
        now.1 != Limits::Pending && self.limiting.told.as_ref() != Some(&now)
    }
}

/// The limits that are wanted of the run.
fn wanted(desired: &Assigned) -> Resources {
    desired.task.resources_of(&desired.slot.index)
}

fn is_of_limits(note: &str) -> bool {
    OF_LIMITS.iter().any(|limit| note.starts_with(limit))
}
