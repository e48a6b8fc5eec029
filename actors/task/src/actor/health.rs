//! Checking the health of the run: the watch decides when, probes are made beside the actor.

use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::spec::HealthSpec;
use loom_schemas::words::HealthStatus;
use ractor::ActorRef;

use super::background::{Background, caught};
use super::message::TaskMessage;
use super::{Internal, Returned, State};
use crate::health::probe::Probe;
use crate::health::{Next, Outcome, Watch};
use crate::machine::Happened;
use crate::operator::Place;

/// The health of one run being checked.
pub(super) struct Checking {
    /// Tells the outcomes of this one from those of an earlier one.
    number: u64,
    run: RunId,
    spec: HealthSpec,
    watch: Watch,
    /// When to look again.
    timer: Option<(Duration, Background)>,
    /// Whether the last check could not be made.
    blind: bool,
    /// The check under way.
    probe: Option<Background>,
}

impl State {
    /// Begins, goes on with, or ends the checks as the run and its task have it.
    pub(super) fn check_health(&mut self, myself: &ActorRef<TaskMessage>) {
        let wanted = self.assigned.task.health.as_ref();
        let Some(spec) = wanted.filter(|_| self.machine.is_checked()) else {
            self.checking = None;
            return;
        };
        let run = self.machine.run();
        let goes_on = |known: &Checking| known.run == run && known.spec == *spec;
        let mut checking = match self.checking.take().filter(goes_on) {
            Some(checking) => checking,
            None => self.begin_checks(run, spec.clone()),
        };
        match checking.watch.next(self.clock()) {
            Next::Check => {
                checking.watch.began();
                checking.timer = None;
                checking.probe = Some(self.probe(checking.number, run, myself));
            }
            Next::Wait(at) if checking.timer.as_ref().is_none_or(|(set, _)| *set != at) => {
                let due = self.origin.checked_add(at);
                let myself = myself.clone();
                let timer = Background::spawn(async move {
                    match due {
                        Some(due) => tokio::time::sleep_until(due).await,
                        // A time beyond the clock's reach never comes.
                        None => std::future::pending().await,
                    }
                    let _ = myself.cast(TaskMessage::Internal(Internal(Returned::CheckDue)));
                });
                checking.timer = Some((at, timer));
            }
            Next::Wait(_) | Next::Await => {}
        }
        self.checking = Some(checking);
    }

    fn begin_checks(&mut self, run: RunId, spec: HealthSpec) -> Checking {
        let known = self.machine.health().map(|health| health.status);
        let known = known.unwrap_or(HealthStatus::Pending);
        let started = self.machine.started().map(|started| started.at);
        let age = started.map(|at| Timestamp::now().duration_since(at));
        let age = age.and_then(|age| Duration::try_from(age).ok());
        self.checks += 1;
        Checking {
            number: self.checks,
            run,
            watch: Watch::new(
                &spec,
                known,
                age.unwrap_or_default(),
                self.clock(),
                rand::random(),
            ),
            spec,
            timer: None,
            blind: false,
            probe: None,
        }
    }

    fn probe(&self, number: u64, run: RunId, myself: &ActorRef<TaskMessage>) -> Background {
        let labels = self.node.labels.get();
        let place = Place {
            node: &self.node.name,
            address: &self.node.address,
            labels: &labels,
            log_dirs: &self.node.log_dirs,
        };
        let probe = Probe::new(&self.assigned, place, self.driver.kind());
        let driver = self.driver.clone();
        let myself = myself.clone();
        Background::spawn(async move {
            let outcome = match probe {
                Ok(Some(probe)) => caught(probe.make(&*driver, run))
                    .await
                    .unwrap_or_else(Outcome::Unknown),
                Ok(None) => return,
                Err(reason) => Outcome::Failed(reason),
            };
            let checked = Returned::Checked(number, outcome);
            // A task that is gone is not checked.
            let _ = myself.cast(TaskMessage::Internal(Internal(checked)));
        })
    }

    /// Takes in how a check ended.
    pub(super) fn checked(&mut self, number: u64, outcome: Outcome) {
        let now = self.clock();
        let current = self.checking.as_mut();
        let Some(checking) = current.filter(|checking| checking.number == number) else {
            return;
        };
        checking.probe = None;
        let run = checking.run;
        let blind = matches!(outcome, Outcome::Unknown(_));
        if let (Outcome::Unknown(error), false) = (&outcome, checking.blind) {
            tracing::warn!(%run, "health checks cannot be made: {error}");
        }
        checking.blind = blind;
        let jitter = rand::random();
        let found = checking.watch.ended(&checking.spec, outcome, now, jitter);
        if let Some(finding) = found {
            self.happen(Happened::Checked(run, finding));
        }
    }
}
