//! What nodes say.

use loom_schemas::words::Strategy;

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

/// A service with one port of its node's choosing.
fn with_port(job_name: &str) -> JobSpec {
    let mut main = task(1);
    main.ports.insert(
        name("http"),
        PortSpec {
            port: None,
            host: None,
            protocol: Protocol::Tcp,
        },
    );
    job(job_name, Kind::Service, main)
}

#[test]
fn what_a_taken_up_run_holds_is_reserved() {
    let mut leader = Leader::new(1);
    leader.submit(&with_port("web")).unwrap();
    let node = name("node-1");
    let gpu = loom_schemas::record::Gpu {
        name: name("a100"),
        id: "GPU-7".to_owned(),
    };
    let held = Holding {
        placement: run_id(77),
        ports: [(name("http"), 20_000)].into(),
        gpus: vec![gpu.clone()],
        restart: 3,
    };
    let mut message = hello_of(
        info(4, 8),
        vec![report_of(&slot("web", 0), run_id(77), RunState::Running)],
    );
    message.holdings = vec![held];
    leader.decide(|draft| hello(draft, &node, &message, true, at(2)));
    assert_eq!(leader.current(&slot("web", 0)).ports[&name("http")], 20_000);
    assert_eq!(leader.current(&slot("web", 0)).own_gpus(), [gpu]);
    let taken = &leader.state.load(&node).unwrap().gpus;
    assert_eq!(taken.get("GPU-7"), Some(&1));
    assert_eq!(
        leader.state.load(&node).unwrap().ports.get(&20_000),
        Some(&1)
    );
    // The next job gets another port, and the node is not told otherwise of the first.
    leader.submit(&with_port("next")).unwrap();
    leader.plan(3);
    assert_eq!(
        leader.current(&slot("next", 0)).ports[&name("http")],
        20_001
    );
    let assigned = crate::plan::assignment(&leader.state, &node);
    let web = assigned.iter().find(|one| one.placement == run_id(77));
    assert_eq!(web.unwrap().ports[&name("http")], 20_000);
    // A restart is one beyond those that were ordered before the log was lost.
    let (changed, _) = leader.decide(|draft| {
        let request = one("web", 0);
        restart(draft, &request, ANNA, at(4))
    });
    assert!(changed.unwrap());
    assert_eq!(leader.current(&slot("web", 0)).restart_orders, 4);
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

/// The reports of a placement with restarts, in the order its node made them: some of one run in
/// one state, with other health and marks.
fn life(web: &Slot, first: RunId, restarts: u32) -> Vec<RunReport> {
    let mut reports = Vec::new();
    for number in 0..=restarts {
        let run = if number == 0 {
            first
        } else {
            run_id(500 + u64::from(number))
        };
        for (state, health, paused) in [
            (RunState::Preparing, None, false),
            (RunState::Running, Some(HealthStatus::Pending), false),
            (RunState::Running, Some(HealthStatus::Healthy), false),
            (RunState::Running, Some(HealthStatus::Healthy), true),
            (RunState::Failed, None, false),
        ] {
            let seconds = i64::from(10 * number);
            let over = state == RunState::Failed;
            reports.push(RunReport {
                change: reports.len() as u64 + 1,
                health: health.map(|status| Health {
                    status,
                    since: at(seconds),
                    reason: None,
                }),
                marks: Marks {
                    paused,
                    ..Marks::default()
                },
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
        unsaid in 0..4usize,
        again in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        order in proptest::collection::vec(any::<u32>(), 64),
    ) {
        let mut leader = Leader::new(1);
        leader.running(&job("web", Kind::Service, task(1)));
        let web = slot("web", 0);
        let first = leader.current(&web).run;
        let mut reports = life(&web, first, restarts);
        // Its last run may go on.
        reports.truncate(reports.len() - unsaid);
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

#[test]
fn a_run_that_only_its_node_knows_of_takes_the_place_of_the_one_it_has_lost() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let web = slot("web", 0);
    let placement = leader.current(&web).placement;
    let restarted = |number| RunReport {
        placement,
        restarts: 1,
        ..report_of(&web, run_id(number), RunState::Running)
    };
    leader.report(&[restarted(600)], 5);
    assert_eq!(leader.current(&web).run, run_id(600));
    // The node lost its notes of that run, and counts it anew.
    leader.report(&[restarted(700)], 6);
    assert_eq!(
        leader.last,
        ["task.web.main.0.lost", "task.web.main.0.running"]
    );
    let record = leader.slot(&web);
    assert_eq!(record.current.as_ref().unwrap().run, run_id(700));
    let former = record.ended.last().unwrap();
    assert_eq!((former.run, former.state), (run_id(600), RunState::Lost));
    // What comes late of the former changes nothing.
    leader.report(&[restarted(600)], 7);
    assert_eq!(leader.last, Vec::<String>::new());
    assert_eq!(leader.current(&web).run, run_id(700));
    leader.plan(8);
    assert_eq!(leader.current(&web).run, run_id(700));
}

#[test]
fn a_node_that_somebody_gives_up_loses_its_runs_at_once() {
    let mut leader = Leader::new(2);
    leader.running(&job("web", Kind::Service, task(1)));
    let web = slot("web", 0);
    let node = leader.node_of(&web);
    let given_up = |leader: &mut Leader| {
        let lost = |draft: &mut Draft| node_lost(draft, &node, "anna", Some("burnt"), at(10));
        leader.decide(lost).0
    };
    assert_eq!(given_up(&mut leader), Ok(true));
    assert_eq!(leader.last, [format!("node.{node}.lost")]);
    assert_eq!(given_up(&mut leader), Ok(false));
    leader.plan(10);
    assert_eq!(
        leader.last,
        ["task.web.main.0.lost", "task.web.main.0.scheduled"]
    );
    assert_ne!(leader.node_of(&web), node);
    let after = std::time::Duration::from_secs(30);
    let (up, _) = leader.decide(|draft| node_up(draft, &node, after, at(11)));
    assert_eq!(up, Up::NeedsHello);
    let message = hello_of(info(4, 8), Vec::new());
    leader.decide(|draft| hello(draft, &node, &message, false, at(12)));
    assert!(!leader.state.node(&node).unwrap().lost);
}

fn office(manager: &Name, strategy: Strategy, restored: Option<u64>) -> Office<'_> {
    Office {
        manager,
        agent: "0.1.0",
        cluster: "c",
        strategy,
        deposed: None,
        restored,
        patience: std::time::Duration::from_secs(30),
    }
}

/// A leader of the first incarnation after a log was rewound, which is the second.
fn recovering(mut leader: Leader) -> Leader {
    let manager = name("m1");
    let office = office(&manager, Strategy::default(), Some(2));
    leader.decide(|draft| elected(draft, &office, at(100)));
    leader
}

#[test]
fn a_leader_that_ranks_nodes_otherwise_says_so() {
    let mut leader = Leader::new(1);
    let mut led_by = |strategy| {
        let manager = name("m1");
        let office = office(&manager, strategy, None);
        let ((), decided) = leader.decide(|draft| elected(draft, &office, at(100)));
        decided.events[0].reason.clone()
    };
    let (binpack, epvm) = (Strategy::Binpack, Strategy::Epvm);
    assert_eq!(led_by(binpack), None, "there was nobody before");
    assert_eq!(led_by(binpack), None);
    let why = "nodes are ranked by `epvm` from now on, by `binpack` before: each manager is to be \
               started with the same --strategy";
    assert_eq!(led_by(epvm).as_deref(), Some(why));
}

#[test]
fn a_recovery_waits_for_every_node_of_the_state_and_is_begun_once() {
    let mut leader = recovering(Leader::new(3));
    let awaited = |leader: &Leader| leader.state.recovery().unwrap().awaited.len();
    assert!(leader.state.is_recovering());
    assert_eq!(awaited(&leader), 3);
    leader.decide(|draft| heard(draft, &name("node-1")));
    // The next leader goes on with it.
    leader = recovering(leader);
    assert_eq!(awaited(&leader), 2);
    let lost = |draft: &mut Draft| node_lost(draft, &name("node-2"), "anna", None, at(110));
    leader.decide(lost).0.unwrap();
    assert!(leader.state.is_recovering());
    leader.decide(|draft| heard(draft, &name("node-3")));
    assert!(!leader.state.is_recovering());
    leader = recovering(leader);
    assert!(!leader.state.is_recovering(), "it is over for good");
}

#[test]
fn a_state_without_nodes_waits_for_a_time() {
    let mut leader = recovering(Leader::new(0));
    assert!(leader.state.is_recovering());
    // A node that is heard is awaited by name from then on, until somebody gives it up.
    leader.decide(|draft| await_node(draft, &name("stranger")));
    assert!(leader.state.awaits(&name("stranger")));
    let lost = |draft: &mut Draft| node_lost(draft, &name("stranger"), "anna", None, at(110));
    assert_eq!(leader.decide(lost).0, Ok(true));
    let (again, _) = leader.decide(lost);
    assert_eq!(again.unwrap_err().code, ErrorCode::NotFound);
    assert!(!is_wait_over(&leader.state, at(129)));
    assert!(is_wait_over(&leader.state, at(130)));
    leader.decide(end_wait);
    assert!(!leader.state.is_recovering());
}

#[test]
fn what_a_node_told_is_taken_up_in_a_commit_for_each_version() {
    let mut before = Leader::new(1);
    for name in ["b", "a"] {
        let mut spec = job(name, Kind::Service, task(1));
        // Written as JSON, each of these characters would be six.
        let main = spec
            .tasks
            .get_mut(&loom_schemas::ids::Name::main())
            .unwrap();
        main.args = vec!["\u{1}".repeat(1_000_000)];
        spec.tasks
            .insert(loom_schemas::ids::Name::new("side").unwrap(), task(1));
        before.running(&spec);
    }
    let told = crate::plan::assignment(&before.state, &name("node-1"));
    let lots = lots(told);
    let told: Vec<_> = lots
        .iter()
        .map(|lot| (lot[0].slot.job.as_str(), lot.len()))
        .collect();
    assert_eq!(told, [("a", 2), ("b", 2)]);
    let mut leader = recovering(Leader::new(1));
    for lot in &lots {
        let ((), decided) = leader.decide(|draft| take_up(draft, lot, at(102)));
        let values = decided
            .changes
            .iter()
            .filter_map(|change| change.value.as_ref());
        let bytes = values.fold(0, |sum, value| sum + value.len());
        assert!(bytes < 3_000_000, "{bytes}");
    }
    for name in ["a", "b"] {
        let spec = |leader: &Leader| leader.state.spec(leader.job(name)).unwrap().tasks.clone();
        assert_eq!(spec(&leader), spec(&before));
    }
}

#[test]
fn what_the_log_has_lost_is_taken_up_from_what_nodes_were_told() {
    let mut before = Leader::new(1);
    before.running(&job("web", Kind::Service, task(2)));
    let node = name("node-1");
    let told = crate::plan::assignment(&before.state, &node);
    let runs: Vec<RunReport> = (0..2)
        .map(|index| before.said(&slot("web", index), RunState::Running, 50))
        .collect();

    let mut leader = recovering(Leader::new(1));
    let message = hello_of(info(4, 8), runs.clone());
    leader.decide(|draft| hello(draft, &node, &message, true, at(101)));
    assert!(tells_more(&leader.state, &runs));
    leader.decide(|draft| take_up(draft, &told, at(102)));
    assert!(!tells_more(&leader.state, &runs));
    let ((), decided) = leader.decide(|draft| hello(draft, &node, &message, true, at(103)));
    assert!(decided.assigns.values().all(|delta| delta.stop.is_empty()));
    leader.decide(|draft| heard(draft, &node));
    leader.plan(104);
    for (index, run) in (0..).zip(&runs) {
        assert_eq!(leader.current(&slot("web", index)).run, run.run);
    }
    let web = leader.job("web");
    assert_eq!(
        (web.version, web.owner.as_str(), web.status),
        (1, RECOVERED, JobStatus::Running)
    );
    let spec = leader.state.spec(web).unwrap();
    assert_eq!(
        spec.tasks,
        before.state.spec(before.job("web")).unwrap().tasks
    );
}
