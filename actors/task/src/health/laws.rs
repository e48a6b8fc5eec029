//! Laws of the watch, whatever the outcomes.

use proptest::prelude::*;

use super::tests::spec;
use super::*;

#[derive(Clone, Debug)]
struct Step {
    /// How late the check begins, and how long it takes, in milliseconds.
    late: u64,
    takes: u64,
    outcome: u8,
    jitter: f64,
}

fn step(outcomes: std::ops::Range<u8>) -> impl Strategy<Value = Step> {
    (0_u64..50, 0_u64..500, outcomes, 0.0..=1.0).prop_map(|(late, takes, outcome, jitter)| Step {
        late,
        takes,
        outcome,
        jitter,
    })
}

fn watched() -> impl Strategy<Value = HealthSpec> {
    (100_u64..20_000, 1_u32..5, 0_u64..60_000)
        .prop_map(|(interval, retries, start_period)| spec(interval, retries, start_period))
}

/// One check: when it began and ended, how, and what was found.
struct Check {
    began: Duration,
    ended: Duration,
    outcome: Outcome,
    found: Option<Finding>,
    status: HealthStatus,
}

fn play(spec: &HealthSpec, steps: &[Step]) -> Vec<Check> {
    let mut watch = Watch::new(
        spec,
        HealthStatus::Pending,
        Duration::ZERO,
        Duration::ZERO,
        0.3,
    );
    let mut clock = Duration::ZERO;
    let interval = Duration::from(spec.interval);
    let play = |step: &Step| {
        if let Next::Wait(at) = watch.next(clock) {
            assert!(at > clock, "waits for the past");
            assert!(
                at <= clock + interval,
                "a run is looked at once an interval"
            );
            clock = at + Duration::from_millis(step.late);
        }
        assert_eq!(watch.next(clock), Next::Check);
        watch.began();
        let began = clock;
        clock += Duration::from_millis(step.takes);
        assert_eq!(watch.next(clock), Next::Await, "one check at a time");
        let outcome = match step.outcome {
            0 => Outcome::Healthy,
            1 => Outcome::Unknown("the engine is away".into()),
            other => Outcome::Failed(other.to_string()),
        };
        let found = watch.ended(spec, outcome.clone(), clock, step.jitter);
        Check {
            began,
            ended: clock,
            outcome,
            found,
            status: watch.shown(),
        }
    };
    steps.iter().map(play).collect()
}

/// Failures in a row up to and with this check, unknown outcomes left out.
fn failures(checks: &[Check]) -> Vec<&Check> {
    let known = checks
        .iter()
        .rev()
        .filter(|check| !matches!(check.outcome, Outcome::Unknown(_)));
    known
        .take_while(|check| check.outcome != Outcome::Healthy)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_success_is_healthy_and_only_enough_failures_in_a_row_are_unhealthy(
        spec in watched(),
        steps in proptest::collection::vec(step(0..5), 0..60),
    ) {
        let checks = play(&spec, &steps);
        let retries = spec.retries as usize;
        for (at, check) in checks.iter().enumerate() {
            let past = &checks[..=at];
            let failures = failures(past);
            let succeeded = past.iter().any(|check| check.outcome == Outcome::Healthy);
            if check.outcome == Outcome::Healthy {
                prop_assert_eq!(check.status, HealthStatus::Healthy);
            }
            if succeeded && matches!(check.outcome, Outcome::Failed(_)) {
                let enough = failures.len() >= retries;
                prop_assert_eq!(check.status == HealthStatus::Unhealthy, enough);
            }
            if !succeeded && check.status == HealthStatus::Unhealthy {
                let interval = Duration::from(spec.interval) * (spec.retries - 1);
                let earliest = Duration::from(spec.start_period) + interval;
                prop_assert!(failures.len() >= retries);
                prop_assert!(check.ended >= earliest, "{:?} {:?}", check.ended, earliest);
            }
        }
    }

    #[test]
    fn what_is_told_is_news(
        spec in watched(),
        steps in proptest::collection::vec(step(0..5), 0..60),
    ) {
        let mut status = HealthStatus::Pending;
        let mut told: Option<(String, Duration)> = None;
        for check in play(&spec, &steps) {
            let Some(found) = check.found else {
                prop_assert_eq!(check.status, status, "a change is told");
                continue;
            };
            prop_assert_eq!(found.status, check.status);
            prop_assert_eq!(found.reason.is_none(), found.status == HealthStatus::Healthy);
            if found.status == status
                && let (Some(reason), Some((before, at))) = (&found.reason, &told)
            {
                prop_assert_ne!(reason, before);
                prop_assert!(check.ended >= *at + TELL_AGAIN);
            }
            status = found.status;
            told = found.reason.map(|reason| (reason, check.ended));
        }
    }

    #[test]
    fn what_fails_for_ever_is_unhealthy_in_time(
        spec in watched(),
        steps in proptest::collection::vec(step(2..5), 400),
    ) {
        let checks = play(&spec, &steps);
        let turned = checks.iter().find(|check| check.status == HealthStatus::Unhealthy);
        let last = checks.last().map(|check| check.began).unwrap_or_default();
        // Each check begins late and takes long, and each that counts is waited for.
        let slack = Duration::from_millis(600) * (spec.retries + 1);
        let limit = Duration::from(spec.start_period)
            + Duration::from(spec.interval) * spec.retries
            + slack;
        prop_assume!(last > limit);
        prop_assert!(turned.is_some_and(|check| check.ended <= limit));
    }
}
