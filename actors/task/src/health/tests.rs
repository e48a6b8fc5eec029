//! Single watches, told as people would.

use loom_schemas::ids::Name;
use loom_schemas::spec::HealthCheck;
use loom_schemas::units::Millis;

use super::*;

pub(super) fn spec(interval: u64, retries: u32, start_period: u64) -> HealthSpec {
    HealthSpec {
        check: HealthCheck::Tcp {
            port: Name::new("http").unwrap(),
        },
        interval: Millis(interval),
        timeout: Millis(500),
        retries,
        start_period: Millis(start_period),
    }
}

struct Checked {
    spec: HealthSpec,
    watch: Watch,
    clock: Duration,
    findings: Vec<Finding>,
}

impl Checked {
    fn new(spec: HealthSpec, known: HealthStatus) -> Self {
        let watch = Watch::new(&spec, known, Duration::ZERO, Duration::ZERO, 0.0);
        Self {
            spec,
            watch,
            clock: Duration::ZERO,
            findings: Vec::new(),
        }
    }

    /// Waits until the next check is due, and lets it end so; when it was.
    fn next(&mut self, outcome: Outcome) -> u128 {
        if let Next::Wait(at) = self.watch.next(self.clock) {
            self.clock = at;
        }
        assert_eq!(self.watch.next(self.clock), Next::Check);
        self.watch.began();
        assert_eq!(self.watch.next(self.clock), Next::Await);
        let found = self.watch.ended(&self.spec, outcome, self.clock, 0.0);
        self.findings.extend(found);
        self.clock.as_millis()
    }

    fn last(&self) -> (HealthStatus, Option<&str>) {
        let last = self.findings.last().unwrap();
        (last.status, last.reason.as_deref())
    }
}

fn refused() -> Outcome {
    Outcome::Failed("connection refused".into())
}

#[test]
fn a_quick_start_is_seen_quickly_and_then_looked_at_an_interval_apart() {
    let mut checked = Checked::new(spec(10_000, 3, 10_000), HealthStatus::Pending);
    assert_eq!(checked.next(refused()), 0);
    assert_eq!(checked.next(refused()), 100);
    assert_eq!(checked.next(Outcome::Healthy), 300);
    assert_eq!(checked.next(Outcome::Healthy), 10_300);
    assert_eq!(checked.findings.len(), 2, "{:?}", checked.findings);
    assert_eq!(checked.last(), (HealthStatus::Healthy, None));
}

#[test]
fn what_never_answers_is_unhealthy_after_the_start_period_and_the_retries() {
    let mut checked = Checked::new(spec(10_000, 3, 10_000), HealthStatus::Pending);
    let mut at = 0;
    while checked.findings.len() < 2 {
        at = checked.next(refused());
    }
    assert_eq!(at, 30_000);
    let reason = Some("connection refused");
    assert_eq!(checked.findings[0].status, HealthStatus::Pending);
    assert_eq!(checked.last(), (HealthStatus::Unhealthy, reason));
}

#[test]
fn one_failure_of_a_healthy_run_is_not_news_and_a_success_forgives_it() {
    let mut checked = Checked::new(spec(1_000, 2, 0), HealthStatus::Healthy);
    for _ in 0..5 {
        checked.next(refused());
        checked.next(Outcome::Healthy);
    }
    assert_eq!(checked.findings, []);
    checked.next(refused());
    checked.next(Outcome::Failed("503".into()));
    assert_eq!(checked.last(), (HealthStatus::Unhealthy, Some("503")));
    checked.next(Outcome::Healthy);
    assert_eq!(checked.last(), (HealthStatus::Healthy, None));
}

#[test]
fn after_the_first_success_failures_count_within_the_start_period_too() {
    let mut checked = Checked::new(spec(1_000, 2, 3_600_000), HealthStatus::Pending);
    checked.next(Outcome::Healthy);
    checked.next(refused());
    checked.next(refused());
    assert_eq!(checked.last().0, HealthStatus::Unhealthy);
}

fn away() -> Outcome {
    Outcome::Unknown("the engine is away".into())
}

#[test]
fn what_the_node_cannot_find_out_for_long_is_unknown_with_the_reason() {
    let mut checked = Checked::new(spec(1_000, 3, 0), HealthStatus::Healthy);
    for _ in 0..9 {
        checked.next(away());
        checked.next(away());
        checked.next(Outcome::Healthy);
    }
    assert_eq!(checked.findings, []);
    for _ in 0..9 {
        checked.next(away());
    }
    let reason = Some("the engine is away");
    assert_eq!(checked.findings.len(), 1, "{:?}", checked.findings);
    assert_eq!(checked.last(), (HealthStatus::Unknown, reason));
    checked.next(Outcome::Healthy);
    assert_eq!(checked.last(), (HealthStatus::Healthy, None));
}

#[test]
fn a_failure_after_the_unknown_is_what_it_would_have_been_before() {
    let mut checked = Checked::new(spec(1_000, 2, 3_600_000), HealthStatus::Pending);
    checked.next(away());
    checked.next(away());
    assert_eq!(checked.last().0, HealthStatus::Unknown);
    checked.next(refused());
    let reason = Some("connection refused");
    assert_eq!(checked.last(), (HealthStatus::Pending, reason));

    let mut checked = Checked::new(spec(1_000, 2, 0), HealthStatus::Healthy);
    checked.next(away());
    checked.next(away());
    checked.next(refused());
    assert_eq!(
        checked.last().0,
        HealthStatus::Unknown,
        "one failure is none yet"
    );
    checked.next(refused());
    assert_eq!(checked.last(), (HealthStatus::Unhealthy, reason));
}

#[test]
fn a_reason_that_changes_is_told_now_and_then() {
    let mut checked = Checked::new(spec(1_000, 100, 0), HealthStatus::Pending);
    let mut at = 0;
    for number in 0.. {
        at = checked.next(Outcome::Failed(number.to_string()));
        if at > 60_000 {
            break;
        }
    }
    assert!((5..=7).contains(&checked.findings.len()), "{at}");
    assert!(
        checked
            .findings
            .iter()
            .all(|f| f.status == HealthStatus::Pending)
    );
}

#[test]
fn an_adopted_run_goes_on_where_it_was() {
    let spec = spec(10_000, 3, 10_000);
    let hour = Duration::from_hours(1);
    let watch = Watch::new(&spec, HealthStatus::Healthy, hour, Duration::ZERO, 0.5);
    assert_eq!(
        watch.next(Duration::ZERO),
        Next::Wait(Duration::from_secs(5))
    );
    // One that had never answered is past its start period: each failure counts.
    let mut watch = Watch::new(&spec, HealthStatus::Pending, hour, Duration::ZERO, 1.0);
    let mut clock = Duration::ZERO;
    let mut found = None;
    for _ in 0..3 {
        let Next::Wait(at) = watch.next(clock) else {
            panic!("it waits");
        };
        clock = at;
        watch.began();
        found = watch.ended(&spec, refused(), clock, 0.0);
    }
    assert_eq!(found.unwrap().status, HealthStatus::Unhealthy);
    assert_eq!(clock, Duration::from_secs(30));
}
