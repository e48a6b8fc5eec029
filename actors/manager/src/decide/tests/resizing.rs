//! Versions that change nothing but limits.

use loom_schemas::record::{Limits, UpdatePhase};
use loom_schemas::spec::{TaskSpec, UpdateOrder};
use loom_schemas::units::{Bytes, MilliCores, Millis};
use loom_schemas::wire::{JobPlan, PlanAction};

use super::*;
use crate::plan::{assignment, preview};

/// A service of so many, with this much memory in MiB.
fn service(replicas: u32, memory: u64) -> JobSpec {
    with(replicas, |main| main.resources.memory = Bytes::mib(memory))
}

fn with(replicas: u32, edit: impl FnOnce(&mut TaskSpec)) -> JobSpec {
    let mut main = task(replicas);
    edit(&mut main);
    let mut spec = job("web", Kind::Service, main);
    spec.update.healthy_for = Millis(0);
    spec
}

impl Leader {
    /// What the run of a slot says of its limits, at the version its node was told.
    fn says(&mut self, index: u32, limits: Limits, seconds: i64) -> Decided {
        let slot = slot("web", index);
        let report = RunReport {
            version: self.current(&slot).told_version(),
            limits,
            ..self.said(&slot, RunState::Running, seconds)
        };
        self.report(&[report], seconds)
    }

    fn previewed(&self, spec: &JobSpec) -> JobPlan {
        let options = PlanOptions::default();
        let mut ids = counter();
        let state = &self.state;
        preview(state, submission(spec), ANNA, &options, at(9), &mut ids).unwrap()
    }

    fn web(&self, index: u32) -> loom_schemas::record::RunRecord {
        self.current(&slot("web", index)).clone()
    }
}

fn refused(reason: &str) -> Limits {
    Limits::Refused {
        reason: reason.to_owned(),
    }
}

#[test]
fn runs_are_held_to_other_limits_one_after_the_other_and_go_on() {
    let mut leader = Leader::new(1);
    leader.running(&service(2, 1024));
    let before = [leader.web(0), leader.web(1)];
    let mut spec = service(2, 2048);
    spec.labels.insert("tier".into(), "front".into());
    spec.update.order = Some(UpdateOrder::StopFirst);
    leader.submit(&spec).unwrap();
    for index in [0, 1] {
        leader.plan(12);
        let run = leader.web(index);
        assert_eq!(run.run, before[index as usize].run);
        assert_eq!(
            (run.version, &run.order),
            (1, &Order::Run),
            "not reached yet"
        );
        assert_eq!(
            run.reserved.memory,
            Bytes::mib(2048),
            "reserved before it holds"
        );
        let told = assignment(&leader.state, &name("node-1"));
        let told = told
            .iter()
            .find(|told| told.placement == run.placement)
            .unwrap();
        assert_eq!((told.version, told.resize), (2, 1));
        assert_eq!(told.task.resources.memory, Bytes::mib(2048));
        assert_eq!(told.labels["tier"], "front");
        if index == 0 {
            assert_eq!(leader.web(1).resizing(), None, "one at a time");
        }
        leader.says(index, Limits::Pending, 11);
        assert_eq!(leader.last, Vec::<String>::new());
        leader.says(index, Limits::Hold, 11);
        assert_eq!(leader.last, [format!("task.web.main.{index}.resized")]);
        assert_eq!(leader.web(index).version, 2);
    }
    leader.plan(12);
    assert_eq!(leader.last, ["job.web.deployed"]);
    assert_eq!(leader.web(0).reserved, spec.tasks[&Name::main()].resources);
}

#[test]
fn less_is_given_back_once_it_holds_and_late_reports_change_nothing() {
    let mut leader = Leader::new(1);
    leader.running(&service(1, 2048));
    leader.submit(&service(1, 512)).unwrap();
    leader.plan(10);
    assert_eq!(leader.web(0).reserved.memory, Bytes::mib(2048));
    let of_before = RunReport {
        version: 1,
        ..leader.said(&slot("web", 0), RunState::Running, 10)
    };
    leader.report(std::slice::from_ref(&of_before), 10);
    assert_eq!(
        leader.web(0).version,
        1,
        "what holds are the limits of before"
    );
    leader.says(0, Limits::Hold, 11);
    let held = leader.web(0);
    assert_eq!((held.version, held.reserved.memory), (2, Bytes::mib(512)));
    let late = RunReport {
        version: 2,
        limits: refused("memory limit: it holds 1GiB"),
        ..of_before.clone()
    };
    leader.report(&[of_before, late], 12);
    assert_eq!(leader.web(0), held);
}

#[test]
fn what_is_refused_is_said_and_undone_when_its_deadline_passes() {
    let mut leader = Leader::new(1);
    let mut good = service(1, 1024);
    good.update.deadline = Millis::secs(60);
    leader.running(&good);
    let run = leader.web(0).run;
    let mut bad = service(1, 16);
    bad.update.deadline = Millis::secs(60);
    leader.submit(&bad).unwrap();
    leader.plan(10);
    let why = "memory limit: it holds 100MiB, more than 16MiB";
    let decided = leader.says(0, refused(why), 11);
    assert_eq!(leader.last, ["task.web.main.0.resize-refused"]);
    assert_eq!(decided.events[0].reason.as_deref(), Some(why));
    assert_eq!(decided.events[0].version, Some(2));
    leader.says(0, refused(why), 12);
    assert_eq!(leader.last, Vec::<String>::new(), "said once");
    assert_eq!(
        leader.web(0).resizing().unwrap().refused.as_deref(),
        Some(why)
    );
    leader.plan(80);
    leader.plan(80);
    let job = leader.job("web");
    assert_eq!(job.version, 3);
    let update = job.update.as_ref().unwrap();
    let reason = update.reason.clone().unwrap();
    assert!(
        reason.contains(&format!("is not held to the limits of version 2: {why}")),
        "{reason}"
    );
    // Nobody knows how far the node came: it says when the limits of before hold again.
    let back = leader.web(0);
    assert_eq!((back.run, back.version, back.told_version()), (run, 1, 3));
    leader.says(0, Limits::Hold, 81);
    leader.plan(81);
    let back = leader.web(0);
    assert_eq!((back.run, back.version), (run, 3));
    assert_eq!(back.reserved.memory, Bytes::mib(1024));
    assert_eq!(
        leader.job("web").update.as_ref().unwrap().phase,
        UpdatePhase::Done
    );
}

#[test]
fn a_run_that_ends_meanwhile_begins_with_the_new_limits() {
    let mut leader = Leader::new(1);
    leader.running(&service(1, 1024));
    leader.submit(&service(1, 512)).unwrap();
    leader.plan(10);
    let first = leader.web(0);
    let mut ended = leader.said(&slot("web", 0), RunState::Failed, 11);
    ended.will_restart = true;
    leader.report(&[ended], 11);
    let next = RunReport {
        version: 2,
        placement: first.placement,
        restarts: 1,
        ..report_of(&slot("web", 0), run_id(900), RunState::Running)
    };
    leader.report(&[next], 12);
    let run = leader.web(0);
    assert_eq!(
        (run.run, run.version, run.resizing()),
        (run_id(900), 2, None)
    );
    assert_eq!(run.reserved.memory, Bytes::mib(512));
    assert_eq!(leader.slot(&slot("web", 0)).ended[0].resizing(), None);
}

#[test]
fn what_has_no_room_where_it_is_moves_and_plan_says_so() {
    let mut leader = Leader::new(2);
    // 8 GiB each: three of 2 GiB here, two there.
    leader.running(&service(5, 2048));
    let larger = service(5, 3072);
    let plan = leader.previewed(&larger);
    assert_eq!(plan.tasks[0].action, PlanAction::Replace);
    let reason = &plan.tasks[0].reason;
    assert!(
        reason.starts_with("memory, 1 of 5 runs, no room in place on node-"),
        "{reason}"
    );
    assert!(reason.ends_with(": not enough memory"), "{reason}");
    leader.submit(&larger).unwrap();
    let mut resized = 0;
    for _ in 0..20 {
        leader.plan(20);
        let slots = leader.state.slots();
        let pending = slots.filter_map(|record| {
            let run = record.current.as_ref()?;
            run.resizing().and(record.slot.index.number())
        });
        for index in pending.collect::<Vec<_>>() {
            leader.says(index, Limits::Hold, 20);
            resized += 1;
        }
    }
    assert_eq!(resized, 4, "the others stay where they are");
    let moving: Vec<_> = leader
        .state
        .slots()
        .filter(|r| r.waiting.is_some())
        .collect();
    assert_eq!(moving.len(), 1, "both nodes are full");
    for node in ["node-1", "node-2"] {
        let load = leader.state.load(&name(node)).unwrap();
        assert!(load.held.memory <= Bytes::mib(8 * 1024).0);
    }
}

#[test]
fn plan_names_what_changes_in_place() {
    let mut leader = Leader::new(1);
    leader.running(&service(2, 1024));
    let row = |spec: &JobSpec| {
        let row = leader.previewed(spec).tasks.remove(0);
        (row.action, row.reason)
    };
    let limits = with(2, |main| {
        main.resources.cpu = MilliCores(500);
        main.resources.pids = Some(9);
        main.restart.attempts = 9;
    });
    let expected = "cpu, pids, restart.attempts";
    let (action, reason) = row(&limits);
    let mut fields: Vec<&str> = reason.split(", ").collect();
    fields.sort_unstable();
    assert_eq!(
        (action, fields.join(", ").as_str()),
        (PlanAction::InPlace, expected)
    );
    let both = with(2, |main| {
        main.resources.pids = Some(9);
        main.args.push("x".into());
    });
    assert_eq!(row(&both), (PlanAction::Replace, "args".to_owned()));
    let disk = with(2, |main| main.resources.disk = Bytes::mib(1));
    assert_eq!(row(&disk), (PlanAction::Replace, "disk".to_owned()));
}

#[test]
fn a_batch_goes_on_with_other_limits() {
    let mut leader = Leader::new(1);
    leader.running(&job("sum", Kind::Batch, task(1)));
    let mut main = task(1);
    main.resources.pids = Some(9);
    leader.submit(&job("sum", Kind::Batch, main)).unwrap();
    leader.plan(3);
    let sum = slot("sum", 0);
    let run = leader.current(&sum);
    assert_eq!((run.told_version(), &run.order), (2, &Order::Run));
    let held = RunReport {
        version: 2,
        ..leader.said(&sum, RunState::Running, 4)
    };
    leader.report(&[held], 4);
    leader.plan(4);
    assert_eq!(leader.current(&sum).version, 2);
}
