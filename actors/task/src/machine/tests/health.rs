//! What the health checks mean for a run.

use loom_schemas::words::HealthStatus;

use super::super::samples;
use super::*;
use crate::driver::Adopted;
use crate::health::Finding;

fn checked() -> Life {
    let mut desired = assigned();
    desired.task.health = Some(samples::health());
    Life::new(desired)
}

impl Life {
    fn found(&mut self, status: HealthStatus, reason: Option<&str>) {
        let run = self.machine.run();
        let reason = reason.map(str::to_owned);
        self.happens(Happened::Checked(run, Finding { status, reason }));
    }

    fn told(&self) -> (RunState, Option<HealthStatus>) {
        let report = self.reports.last().unwrap();
        (
            report.state,
            report.health.as_ref().map(|health| health.status),
        )
    }
}

#[test]
fn a_run_with_checks_is_pending_until_they_say_otherwise() {
    let mut life = checked();
    life.starts();
    assert_eq!(
        life.told(),
        (RunState::Running, Some(HealthStatus::Pending))
    );
    assert!(life.machine.is_checked());
    let begun = life.at();
    life.passes(Duration::from_secs(5));
    life.found(HealthStatus::Pending, Some("connection refused"));
    let health = life.machine.health().unwrap();
    assert_eq!(
        (health.reason.as_deref(), health.since),
        (Some("connection refused"), begun)
    );
    life.found(HealthStatus::Healthy, None);
    assert_eq!(
        life.told(),
        (RunState::Running, Some(HealthStatus::Healthy))
    );
    assert_eq!(life.machine.health().unwrap().since, life.at());
    assert_eq!(life.call(), WAIT);
}

#[test]
fn an_unhealthy_run_is_ended_and_restarted_as_a_failure_is() {
    let mut life = checked();
    let run = life.starts();
    life.found(HealthStatus::Unhealthy, Some("http GET / on port 1: 503"));
    assert_eq!(
        life.told(),
        (RunState::Running, Some(HealthStatus::Unhealthy))
    );
    assert!(!life.machine.is_checked());
    let (signal, tree) = (Signal::SIGTERM, false);
    assert_eq!(life.call(), Call::Signal { run, signal, tree });
    life.exits(code(0));
    let end = life.last_end();
    assert_eq!((end.state, end.will_restart), (RunState::Failed, true));
    assert_eq!(
        end.reason.as_deref(),
        Some("unhealthy: http GET / on port 1: 503")
    );
    assert_eq!(end.health, None);
    life.passes(Duration::from_secs(1));
    assert_ne!(life.starts(), run);
    assert_eq!(
        life.told(),
        (RunState::Running, Some(HealthStatus::Pending))
    );
}

#[test]
fn what_is_never_restarted_goes_on_unhealthy() {
    let mut life = checked();
    life.desired.task.restart.on = RestartOn::Never;
    life.starts();
    life.found(HealthStatus::Unhealthy, Some("503"));
    assert_eq!(life.call(), WAIT);
    assert!(life.machine.is_checked(), "it may become healthy again");
    life.found(HealthStatus::Healthy, None);
    assert_eq!(
        life.told(),
        (RunState::Running, Some(HealthStatus::Healthy))
    );
}

#[test]
fn an_order_to_stop_outdoes_the_restart_of_an_unhealthy_run() {
    let mut life = checked();
    life.starts();
    life.found(HealthStatus::Unhealthy, Some("503"));
    life.call();
    life.orders_stop();
    life.exits(signalled(15));
    let end = life.last_end();
    assert_eq!((end.state, end.will_restart), (RunState::Killed, false));
    assert_eq!(end.reason.as_deref(), Some("stopped by alice"));
}

#[test]
fn a_paused_run_is_not_checked_and_late_outcomes_are_nothing() {
    let mut life = checked();
    let run = life.starts();
    life.happens(Happened::Paused(run, true));
    assert!(!life.machine.is_checked());
    life.found(HealthStatus::Unhealthy, Some("503"));
    assert_eq!(life.told().1, Some(HealthStatus::Pending));
    life.happens(Happened::Paused(run, false));
    assert!(life.machine.is_checked());
    life.exits(code(3));
    let before = life.reports.len();
    let (status, reason) = (HealthStatus::Healthy, None);
    life.happens(Happened::Checked(run, Finding { status, reason }));
    assert_eq!(life.reports.len(), before);
}

#[test]
fn checks_come_and_go_in_place() {
    let mut life = Life::new(assigned());
    life.starts();
    assert_eq!(life.told(), (RunState::Running, None));
    assert!(!life.machine.is_checked());
    life.desired.task.health = Some(samples::health());
    life.happens(Happened::Ordered);
    assert_eq!(
        life.told(),
        (RunState::Running, Some(HealthStatus::Pending))
    );
    life.found(HealthStatus::Healthy, None);
    // Other checks begin with what is known.
    life.desired.task.health.as_mut().unwrap().retries = 1;
    life.happens(Happened::Ordered);
    assert_eq!(life.machine.health().unwrap().status, HealthStatus::Healthy);
    life.desired.task.health = None;
    life.happens(Happened::Ordered);
    assert_eq!(life.told(), (RunState::Running, None));
    assert_eq!(life.call(), WAIT);
}

#[test]
fn an_adopted_run_is_as_healthy_as_it_was() {
    let mut life = checked();
    let run = life.starts();
    life.found(HealthStatus::Healthy, None);
    let since = life.at();
    life.passes(Duration::from_mins(1));
    life.machine = Machine::resumed(life.machine.progress());
    assert!(!life.machine.is_checked(), "nobody knows yet");
    assert_eq!(life.call(), Call::Adopt { run });
    let adopted = Adopted::Running {
        started: started(since),
        paused: false,
    };
    life.happens(Happened::Adopted(run, Ok(adopted)));
    assert_eq!(
        life.told(),
        (RunState::Running, Some(HealthStatus::Healthy))
    );
    assert_eq!(life.machine.health().unwrap().since, since);
    assert!(life.machine.is_checked());
}

#[test]
fn nobody_knows_the_health_of_a_run_that_cannot_be_asked_after() {
    let mut life = checked();
    let run = life.starts();
    life.found(HealthStatus::Healthy, None);
    life.happens(Happened::Ended(run, Err("socket gone".into())));
    life.call();
    life.happens(Happened::Adopted(run, Err("socket gone".into())));
    assert_eq!(
        life.told(),
        (RunState::Running, Some(HealthStatus::Unknown))
    );
    let health = life.machine.health().unwrap();
    assert_eq!(health.reason.as_deref(), Some("socket gone"));
}
