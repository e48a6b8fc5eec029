//! What the health checks of the run mean for it.

use loom_schemas::record::Health;
use loom_schemas::spec::RestartOn;
use loom_schemas::wire::Assigned;
use loom_schemas::words::HealthStatus;

use super::{Machine, Moment, Phase};
use crate::health::Finding;

impl Machine {
    /// What the health checks of the run have come to, where it runs and has some.
    pub fn health(&self) -> Option<&Health> {
        self.health.as_ref()
    }

    /// Whether its health is worth checking: it runs, is not paused and is not about to end.
    pub fn is_checked(&self) -> bool {
        let goes_on =
            |phase: &Phase| matches!(phase, Phase::Running(live) if live.stopping.is_none());
        goes_on(&self.phase) && !self.marks.paused && self.health.is_some()
    }

    /// Takes what the checks have come to.
    pub(super) fn found(&mut self, desired: &Assigned, finding: Finding, now: Moment) {
        if desired.task.health.is_none() {
            return;
        }
        let same = |known: &&Health| known.status == finding.status;
        let since = self.health.as_ref().filter(same).map(|known| known.since);
        self.health = Some(Health {
            status: finding.status,
            reason: finding.reason,
            since: since.unwrap_or(now.at),
        });
    }

    /// Begins or ends the health of a running run as the task has checks; true if that changed.
    /// What an earlier agent found stays.
    pub(super) fn keep_health(&mut self, desired: &Assigned, now: Moment) -> bool {
        match (&desired.task.health, &self.health) {
            (Some(_), None) => {
                self.health = Some(Health {
                    status: HealthStatus::Pending,
                    reason: None,
                    since: now.at,
                });
                true
            }
            (None, Some(_)) => {
                self.health = None;
                true
            }
            _ => false,
        }
    }

    /// Nobody can ask after the run, so nobody knows its health: the checks may not have come to it.
    pub(super) fn doubt_health(&mut self, why: &str, now: Moment) {
        if let Some(health) = self.health.as_mut()
            && health.status != HealthStatus::Unknown
        {
            *health = Health {
                status: HealthStatus::Unknown,
                reason: Some(why.to_owned()),
                since: now.at,
            };
        }
    }

    /// Why the run is to end for its health, if it is: what is never restarted goes on as it is.
    pub(super) fn unhealthy(&self, desired: &Assigned) -> Option<String> {
        let health = self.health.as_ref()?;
        let ends =
            health.status == HealthStatus::Unhealthy && desired.task.restart.on != RestartOn::Never;
        ends.then(|| health.reason.clone().unwrap_or_default())
    }
}
