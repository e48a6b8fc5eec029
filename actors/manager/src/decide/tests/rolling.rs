//! How a version takes over from another.

use super::slots::found;
use super::*;

/// A task whose runs are checked, in this variant.
fn checked(variant: &str) -> loom_schemas::spec::TaskSpec {
    let mut task = task(3);
    task.args = vec![variant.to_owned()];
    task.health = Some(crate::state::fixture::health());
    task
}

/// Versions of the runs in the slots, and whether they are wanted.
fn rolled(leader: &Leader) -> [(u32, bool); 3] {
    [0, 1, 2].map(|index| {
        let run = leader.current(&slot("web", index));
        (run.version, run.order == Order::Run)
    })
}

/// What was ordered to stop is ended, what is placed runs.
fn carried_out(leader: &mut Leader, seconds: i64) {
    for index in 0..3 {
        let web = slot("web", index);
        if leader.current(&web).order != Order::Run {
            let killed = leader.said(&web, RunState::Killed, seconds);
            leader.report(&[killed], seconds);
        }
    }
    leader.plan(seconds);
    for index in 0..3 {
        let web = slot("web", index);
        if leader.current(&web).state == RunState::Scheduled {
            let running = leader.said(&web, RunState::Running, seconds);
            leader.report(&[running], seconds);
        }
    }
    leader.plan(seconds);
}

#[test]
fn a_replace_goes_on_once_the_successor_is_healthy() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, checked("1")));
    for index in 0..3 {
        let good = found(&leader, &slot("web", index), HealthStatus::Healthy, None);
        leader.report(&[good], 3);
    }
    leader
        .submit(&job("web", Kind::Service, checked("2")))
        .unwrap();
    leader.plan(4);
    assert_eq!(rolled(&leader), [(1, false), (1, true), (1, true)]);
    carried_out(&mut leader, 5);
    assert_eq!(rolled(&leader), [(2, true), (1, true), (1, true)]);
    for status in [HealthStatus::Pending, HealthStatus::Unhealthy] {
        let bad = found(&leader, &slot("web", 0), status, Some("503"));
        leader.report(&[bad], 6);
        leader.plan(6);
        assert_eq!(
            rolled(&leader),
            [(2, true), (1, true), (1, true)],
            "{status:?}"
        );
    }
    let good = found(&leader, &slot("web", 0), HealthStatus::Healthy, None);
    leader.report(&[good], 7);
    leader.plan(7);
    assert_eq!(rolled(&leader), [(2, true), (1, false), (1, true)]);
}

#[test]
fn a_version_that_never_gets_healthy_makes_way_for_the_next_and_for_a_stop() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, checked("1")));
    for index in 0..3 {
        let good = found(&leader, &slot("web", index), HealthStatus::Healthy, None);
        leader.report(&[good], 3);
    }
    leader
        .submit(&job("web", Kind::Service, checked("bad")))
        .unwrap();
    leader.plan(4);
    carried_out(&mut leader, 5);
    assert_eq!(rolled(&leader), [(2, true), (1, true), (1, true)]);
    leader
        .submit(&job("web", Kind::Service, checked("3")))
        .unwrap();
    leader.plan(6);
    assert_eq!(
        rolled(&leader),
        [(2, false), (1, true), (1, true)],
        "the bad one goes first"
    );
    carried_out(&mut leader, 7);
    assert_eq!(rolled(&leader), [(3, true), (1, true), (1, true)]);
    leader
        .decide(|draft| stop(draft, &whole("web"), ANNA))
        .0
        .unwrap();
    leader.plan(8);
    assert_eq!(rolled(&leader), [(3, false), (1, false), (1, false)]);
}
