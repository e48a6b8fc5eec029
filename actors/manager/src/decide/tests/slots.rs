//! What becomes of slots.

use super::*;

/// The job `web` as a manager shows it.
fn view_of(leader: &Leader) -> loom_schemas::wire::JobView {
    let whole = loom_schemas::wire::JobGet {
        job: name("web"),
        after: None,
    };
    crate::view::job_view(&leader.state, &whole, usize::MAX).unwrap()
}

#[test]
fn a_batch_completes_once_all_its_slots_have() {
    let mut leader = Leader::new(1);
    leader.running(&job("etl", Kind::Batch, task(2)));
    assert_eq!(leader.last, ["job.etl.running"]);
    assert_eq!(leader.job("etl").status, JobStatus::Running);
    for index in 0..2 {
        let done = leader.said(&slot("etl", index), RunState::Completed, 5);
        leader.report(&[done], 5);
        leader.plan(5);
    }
    let etl = leader.job("etl");
    assert_eq!((etl.status, etl.exit_code), (JobStatus::Completed, Some(0)));
    assert_eq!((etl.started_at, etl.ended_at), (Some(at(2)), Some(at(5))));
    assert_eq!(leader.last, ["job.etl.completed"]);
    assert!(leader.state.loads().next().is_none());
}

#[test]
fn a_batch_with_a_failed_slot_stops_the_others_and_fails() {
    let mut leader = Leader::new(1);
    leader.running(&job("etl", Kind::Batch, task(3)));
    let failed = leader.said(&slot("etl", 1), RunState::Failed, 5);
    let decided = leader.report(&[failed], 5);
    assert_eq!(decided.events[0].exit_code, Some(1));
    leader.plan(5);
    assert_eq!(leader.job("etl").status, JobStatus::Running);
    let reason = "etl/1 failed: exit code 1".to_owned();
    for index in [0, 2] {
        let order = &leader.current(&slot("etl", index)).order;
        assert_eq!(
            *order,
            Order::Stop {
                reason: reason.clone()
            }
        );
        let killed = leader.said(&slot("etl", index), RunState::Killed, 6);
        leader.report(&[killed], 6);
    }
    leader.plan(6);
    let etl = leader.job("etl");
    assert_eq!((etl.status, etl.exit_code), (JobStatus::Failed, Some(1)));
    assert_eq!(etl.reason, Some(reason));
}

#[test]
fn a_batch_that_one_node_refuses_is_tried_on_another_while_it_has_attempts() {
    let mut leader = Leader::new(3);
    leader.submit(&job("etl", Kind::Batch, task(1))).unwrap();
    leader.plan(1);
    let etl = slot("etl", 0);
    for (number, time) in [(1, 10), (2, 20)] {
        let before = leader.node_of(&etl);
        let rejected = leader.said(&etl, RunState::Rejected, time);
        leader.report(&[rejected], time);
        leader.plan(time);
        leader.plan(time + 5);
        assert_ne!(leader.node_of(&etl), before);
        let record = leader.slot(&etl);
        let run = record.current.as_ref().unwrap();
        let told = crate::plan::assigned(&leader.state, record, run).unwrap();
        assert_eq!(told.spent, number);
    }
    let rejected = leader.said(&etl, RunState::Rejected, 30);
    leader.report(&[rejected], 30);
    leader.plan(30);
    let status = leader.job("etl").status;
    assert_eq!(status, JobStatus::Failed, "its 3 attempts are spent");
}

#[test]
fn a_batch_that_takes_its_nodes_down_is_not_sent_from_one_to_the_next_for_ever() {
    let mut leader = Leader::new(4);
    leader.running(&job("etl", Kind::Batch, task(1)));
    let etl = slot("etl", 0);
    for (number, time) in [(1, 10), (2, 20), (3, 30)] {
        let node = leader.node_of(&etl);
        let lost = |draft: &mut Draft| node_lost(draft, &node, "anna", None, at(time));
        leader.decide(lost).0.unwrap();
        leader.plan(time);
        if number < 3 {
            assert_eq!(leader.slot(&etl).failed_placements, number);
            assert_ne!(leader.node_of(&etl), node);
        }
    }
    let etl = leader.job("etl");
    assert_eq!(etl.status, JobStatus::Failed);
    let reason = etl.reason.as_deref().unwrap();
    assert!(reason.starts_with("etl/0 lost: node"), "{reason}");
}

#[test]
fn a_service_is_placed_again_elsewhere_after_a_growing_pause() {
    let mut leader = Leader::new(2);
    leader.running(&job("web", Kind::Service, task(1)));
    let web = slot("web", 0);
    let mut time = 10;
    for pause in [1, 2, 4, 8] {
        let before = leader.node_of(&web);
        let failed = leader.said(&web, RunState::Failed, time);
        leader.report(&[failed], time);
        leader.plan(time);
        assert_eq!(leader.slot(&web).not_before, Some(at(time + pause)));
        leader.plan(time + pause - 1);
        assert!(leader.slot(&web).current.is_none());
        leader.plan(time + pause);
        assert_ne!(leader.node_of(&web), before, "another node is preferred");
        time += pause;
    }
    assert_eq!(leader.job("web").status, JobStatus::Running);
}

#[test]
fn a_restart_on_the_node_is_a_new_run_in_the_same_slot() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let web = slot("web", 0);
    let first = leader.current(&web).clone();
    let mut failed = leader.said(&web, RunState::Failed, 5);
    failed.will_restart = true;
    leader.report(&[failed.clone()], 5);
    leader.plan(5);
    assert_eq!(
        leader.current(&web).run,
        first.run,
        "it is left to the node"
    );
    let second = RunReport {
        run: run_id(99),
        state: RunState::Running,
        restarts: 1,
        passed: vec![RunState::Preparing, RunState::Starting],
        exit: None,
        ended_at: None,
        will_restart: false,
        ..failed
    };
    let decided = leader.report(&[second], 6);
    assert_eq!(leader.current(&web).run, run_id(99));
    assert_eq!(leader.slot(&web).ended[0].run, first.run);
    assert_eq!(
        decided.events[0].passed,
        [RunState::Preparing, RunState::Starting]
    );
    assert_eq!(decided.assigns.len(), 0, "the node knows already");
    leader
        .decide(|draft| restart(draft, &whole("web"), ANNA, at(7)))
        .0
        .unwrap();
    assert_eq!(leader.current(&web).restart_orders, 1);
}

#[test]
fn a_stopped_index_stays_down_until_it_is_restarted() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(2)));
    let (changed, decided) = leader.decide(|draft| stop(draft, &one("web", 1), ANNA, at(1)));
    assert!(changed.unwrap());
    assert_eq!(decided.assigns[&name("node-1")].put.len(), 1);
    let [told] = decided.events.as_slice() else {
        panic!("{:?}", decided.events)
    };
    assert_eq!(told.subject(), "orch.events.job.web.stopping");
    assert_eq!(told.reason.as_deref(), Some("web/1: maintenance"));
    let killed = leader.said(&slot("web", 1), RunState::Killed, 5);
    let decided = leader.report(&[killed], 5);
    let reason = decided.events[0].reason.as_deref();
    assert_eq!(reason, Some("stopped by anna: maintenance"));
    assert_eq!(decided.assigns[&name("node-1")].remove.len(), 1);
    leader.plan(5);
    assert!(!crate::state::is_live(leader.current(&slot("web", 1))));
    assert!(
        !leader
            .decide(|draft| stop(draft, &one("web", 1), ANNA, at(1)))
            .0
            .unwrap()
    );
    leader
        .decide(|draft| restart(draft, &one("web", 1), ANNA, at(6)))
        .0
        .unwrap();
    leader.plan(6);
    assert!(crate::state::is_live(leader.current(&slot("web", 1))));
}

#[test]
fn scaling_down_stops_the_highest_and_removes_their_slots() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(3)));
    let to = |replicas| ScaleRequest {
        job: name("web"),
        task: None,
        replicas,
    };
    assert!(
        leader
            .decide(|draft| scale(draft, &to(1), ANNA, at(3)))
            .0
            .unwrap()
    );
    assert!(
        !leader
            .decide(|draft| scale(draft, &to(1), ANNA, at(3)))
            .0
            .unwrap()
    );
    leader.plan(3);
    assert_eq!(leader.current(&slot("web", 0)).order, Order::Run);
    for index in [1, 2] {
        let stop = Order::Stop {
            reason: "scaled to 1".to_owned(),
        };
        assert_eq!(leader.current(&slot("web", index)).order, stop);
        let killed = leader.said(&slot("web", index), RunState::Killed, 4);
        leader.report(&[killed], 4);
    }
    leader.plan(4);
    assert_eq!(leader.state.slots_of(&name("web")).count(), 1);
}

#[test]
fn a_new_version_replaces_one_slot_after_the_other() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(3)));
    let mut main = task(3);
    main.args = vec!["new".to_owned()];
    let mut spec = job("web", Kind::Service, main);
    spec.update.order = Some(loom_schemas::spec::UpdateOrder::StopFirst);
    spec.update.healthy_for = loom_schemas::units::Millis(0);
    leader.submit(&spec).unwrap();
    for index in 0..3 {
        leader.plan(10);
        let stopping: Vec<u32> = leader
            .state
            .slots_of(&name("web"))
            .filter(|record| record.current.as_ref().unwrap().order != Order::Run)
            .filter_map(|record| record.slot.index.number())
            .collect();
        assert_eq!(stopping, [index]);
        let killed = leader.said(&slot("web", index), RunState::Killed, 10);
        leader.report(&[killed], 10);
        leader.plan(10);
        assert_eq!(leader.current(&slot("web", index)).version, 2);
        let running = leader.said(&slot("web", index), RunState::Running, 10);
        leader.report(&[running], 10);
    }
    leader.plan(10);
    assert!(
        leader
            .state
            .slots()
            .all(|record| record.current.as_ref().unwrap().version == 2)
    );
}

#[test]
fn what_changes_in_place_restarts_nothing() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(2)));
    let mut main = task(3);
    main.restart.attempts = 9;
    leader.submit(&job("web", Kind::Service, main)).unwrap();
    leader.plan(10);
    for index in 0..2 {
        let run = leader.current(&slot("web", index));
        assert_eq!(
            (run.version, &run.order, run.state),
            (2, &Order::Run, RunState::Running)
        );
    }
    assert_eq!(leader.current(&slot("web", 2)).state, RunState::Scheduled);
}

/// A report that a run is this healthy.
pub(super) fn found(
    leader: &Leader,
    slot: &Slot,
    status: HealthStatus,
    reason: Option<&str>,
) -> RunReport {
    RunReport {
        health: Some(Health {
            status,
            reason: reason.map(str::to_owned),
            since: at(3),
        }),
        ..leader.said(slot, RunState::Running, 3)
    }
}

#[test]
fn health_is_marked_told_once_and_counted() {
    let mut leader = Leader::new(1);
    let mut checked = task(2);
    checked.health = Some(crate::state::fixture::health());
    leader.running(&job("web", Kind::Service, checked));
    let healthy = |leader: &Leader| {
        let view = view_of(leader);
        (view.summary.running, view.summary.healthy)
    };
    assert_eq!(healthy(&leader), (2, Some(0)));
    let web = slot("web", 0);
    let reason = "http GET / on port 20001: connection refused";
    let pending = found(&leader, &web, HealthStatus::Pending, Some(reason));
    leader.report(&[pending], 3);
    assert_eq!(leader.last, Vec::<String>::new());
    let known = leader.current(&web).health.clone().unwrap();
    assert_eq!(known.reason.as_deref(), Some(reason));
    let good = found(&leader, &web, HealthStatus::Healthy, None);
    leader.report(std::slice::from_ref(&good), 3);
    assert_eq!(leader.last, ["task.web.main.0.healthy"]);
    leader.report(&[good], 3);
    assert_eq!(
        leader.last,
        Vec::<String>::new(),
        "what is known is not told"
    );
    assert_eq!(healthy(&leader), (2, Some(1)));

    let bad = found(&leader, &web, HealthStatus::Unhealthy, Some("503"));
    let decided = leader.report(&[bad], 4);
    assert_eq!(leader.last, ["task.web.main.0.unhealthy"]);
    assert_eq!(decided.events[0].reason.as_deref(), Some("503"));
    assert_eq!(healthy(&leader), (2, Some(0)));
    let mut failed = leader.said(&web, RunState::Failed, 5);
    failed.will_restart = true;
    leader.report(&[failed], 5);
    assert_eq!(leader.current(&web).health, None, "health is of what runs");
}

#[test]
fn a_folded_report_tells_of_running_and_healthy() {
    let mut leader = Leader::new(1);
    let mut checked = task(1);
    checked.health = Some(crate::state::fixture::health());
    leader.submit(&job("web", Kind::Service, checked)).unwrap();
    leader.plan(1);
    let good = found(&leader, &slot("web", 0), HealthStatus::Healthy, None);
    leader.report(&[good], 3);
    assert_eq!(
        leader.last,
        ["task.web.main.0.running", "task.web.main.0.healthy"]
    );
}

#[test]
fn health_checks_change_in_place() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let run = leader.current(&slot("web", 0)).run;
    let mut checked = task(1);
    checked.health = Some(crate::state::fixture::health());
    leader.submit(&job("web", Kind::Service, checked)).unwrap();
    leader.plan(2);
    let current = leader.current(&slot("web", 0));
    assert_eq!((current.run, current.version), (run, 2));
    assert_eq!(current.order, Order::Run);
}

#[test]
fn without_checks_nothing_is_counted_healthy() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let view = view_of(&leader);
    assert_eq!(view.summary.healthy, None);
}
