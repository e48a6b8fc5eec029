//! What nodes say.

use super::*;

#[test]
fn runs_of_a_silent_node_are_unknown_then_lost_and_replaced() {
    let mut leader = Leader::new(2);
    leader.running(&job("web", Kind::Service, task(1)));
    let web = slot("web", 0);
    let node = leader.node_of(&web);
    let old = leader.current(&web).run;
    leader.decide(|draft| node_down(draft, &node, "no heartbeat", at(10)));
    assert_eq!(leader.last, [format!("node.{node}.down")]);
    leader.plan(10);
    assert_eq!(leader.last, ["task.web.main.0.unknown"]);
    leader.plan(39);
    assert_eq!(leader.current(&web).run, old);
    leader.plan(40);
    assert_eq!(
        leader.last,
        ["task.web.main.0.lost", "task.web.main.0.scheduled"]
    );
    assert_ne!(leader.node_of(&web), node);
    // The node is back with the old run: it is told to stop it, then to forget it.
    let mut held = report_of(&web, old, RunState::Running);
    let hello_again = |held: &RunReport| hello_of(info(4, 8), vec![held.clone()]);
    let message = hello_again(&held);
    let ((), decided) = leader.decide(|draft| hello(draft, &node, &message, false, at(50)));
    assert_eq!(
        decided.assigns[&node].stop.keys().collect::<Vec<_>>(),
        [&old]
    );
    held.state = RunState::Killed;
    let ((), decided) = leader.decide(|draft| report(draft, &node, &[held], false, at(51)));
    assert!(decided.assigns[&node].remove.contains(&old));
    assert_eq!(
        leader.slot(&web).ended[0].state,
        RunState::Lost,
        "the first end stays"
    );
}

#[test]
fn a_node_back_in_time_keeps_its_runs() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let node = name("node-1");
    let away = Bye {
        back_within: Some(120),
    };
    leader.decide(|draft| bye(draft, &node, &away, at(10)));
    leader.plan(100);
    assert!(leader.current(&slot("web", 0)).marks.unknown);
    let after = std::time::Duration::from_secs(30);
    let (up, _) = leader.decide(|draft| node_up(draft, &node, after, at(110)));
    assert_eq!(up, Up::Up);
    assert_eq!(leader.current(&slot("web", 0)).marks, Marks::default());
    leader.decide(|draft| node_down(draft, &node, "no heartbeat", at(200)));
    let (up, _) = leader.decide(|draft| node_up(draft, &node, after, at(230)));
    assert_eq!(up, Up::NeedsHello);
}

#[test]
fn a_node_that_lost_a_run_is_believed_but_gets_what_it_never_had() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    leader.submit(&job("new", Kind::Service, task(1))).unwrap();
    leader.plan(5);
    let (node, message) = (name("node-1"), hello_of(info(4, 8), Vec::new()));
    leader.decide(|draft| hello(draft, &node, &message, false, at(6)));
    assert_eq!(leader.current(&slot("web", 0)).state, RunState::Lost);
    assert_eq!(leader.current(&slot("new", 0)).state, RunState::Scheduled);
    assert_eq!(crate::plan::assignment(&leader.state, &node).len(), 1);
    leader.plan(6);
    assert_eq!(leader.current(&slot("web", 0)).state, RunState::Scheduled);
}

#[test]
fn a_recovering_leader_takes_up_what_the_log_has_lost() {
    let mut leader = Leader::new(1);
    leader.submit(&job("web", Kind::Service, task(1))).unwrap();
    let unknown = report_of(&slot("web", 0), run_id(77), RunState::Running);
    let stray = report_of(&slot("gone", 0), run_id(78), RunState::Running);
    let message = hello_of(info(4, 8), vec![unknown, stray]);
    let node = name("node-1");
    let ((), decided) = leader.decide(|draft| hello(draft, &node, &message, true, at(2)));
    assert_eq!(leader.current(&slot("web", 0)).run, run_id(77));
    assert!(decided.assigns[&node].stop.is_empty(), "nothing is stopped");
    leader.plan(3);
    assert_eq!(leader.current(&slot("web", 0)).run, run_id(77));
}

#[test]
fn marks_are_told() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let mut said = leader.said(&slot("web", 0), RunState::Running, 5);
    said.marks.paused = true;
    leader.report(&[said.clone()], 5);
    assert_eq!(leader.last, ["task.web.main.0.paused"]);
    leader.report(&[said.clone()], 5);
    assert_eq!(leader.last, Vec::<String>::new());
    said.marks.paused = false;
    leader.report(&[said], 6);
    assert_eq!(leader.last, ["task.web.main.0.resumed"]);
}

/// The reports of a placement with restarts, in the order its node made them.
fn life(web: &Slot, first: RunId, restarts: u32) -> Vec<RunReport> {
    let mut reports = Vec::new();
    for number in 0..=restarts {
        let run = if number == 0 {
            first
        } else {
            run_id(500 + u64::from(number))
        };
        for state in [RunState::Preparing, RunState::Running, RunState::Failed] {
            let seconds = i64::from(10 * number);
            let over = state == RunState::Failed;
            reports.push(RunReport {
                placement: first,
                restarts: number,
                will_restart: over && number < restarts,
                pid: (state != RunState::Preparing).then_some(number + 40),
                started_at: (state != RunState::Preparing).then(|| at(seconds)),
                ended_at: over.then(|| at(seconds + 5)),
                exit: over.then(|| Exit {
                    code: Some(3),
                    ..Exit::default()
                }),
                ..report_of(web, run, state)
            });
        }
    }
    reports
}

proptest! {
    #![proptest_config(crate::state::fixture::cases(256))]

    /// Reports in any order, some twice, end in the same slot.
    #[test]
    fn the_order_of_reports_makes_no_difference(
        restarts in 0..7u32,
        again in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        order in proptest::collection::vec(any::<u32>(), 64),
    ) {
        let mut leader = Leader::new(1);
        leader.running(&job("web", Kind::Service, task(1)));
        let web = slot("web", 0);
        let first = leader.current(&web).run;
        let mut reports = life(&web, first, restarts);
        let node = name("node-1");
        let apply = |reports: &[RunReport]| {
            let mut draft = Draft::new(leader.state.clone());
            for said in reports {
                report(&mut draft, &node, std::slice::from_ref(said), false, at(99));
            }
            draft.state().slot(&web).unwrap().clone()
        };
        let expected = apply(&reports);
        for index in again {
            reports.push(reports[index.index(reports.len())].clone());
        }
        let mut turned: Vec<_> = reports.into_iter().zip(order.into_iter().cycle()).collect();
        turned.sort_by_key(|(_, place)| *place);
        let turned: Vec<_> = turned.into_iter().map(|(said, _)| said).collect();
        prop_assert_eq!(apply(&turned), expected);
    }
}
