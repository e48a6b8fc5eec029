//! What fields of a job say about where and as what its slots run.

use loom_schemas::ids::Revision;
use loom_schemas::record::Decision;
use loom_schemas::spec::{After, DependOn, IndexSpec, ResourceChange, ResultUse};
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::words::Strategy;

use super::*;
use crate::plan::assigned;
use crate::scheduler::Smoothed;
use crate::state::Key;
use crate::state::fixture::decide;

fn with_priority(job_name: &str, priority: u8, replicas: u32) -> JobSpec {
    let mut spec = job(job_name, Kind::Service, task(replicas));
    spec.priority = priority;
    spec
}

fn placed(leader: &Leader, job: &str) -> usize {
    let job = name(job);
    let slots = leader.state.slots_of(&job);
    slots.filter(|record| record.current.is_some()).count()
}

#[test]
fn the_job_of_the_highest_priority_gets_the_room_there_is() {
    let mut leader = Leader::new(1);
    for (job, priority) in [("a", 10), ("b", 90), ("c", 50)] {
        leader.submit(&with_priority(job, priority, 3)).unwrap();
    }
    leader.plan(1);
    // The node has four cores.
    assert_eq!([placed(&leader, "b"), placed(&leader, "c")], [3, 1]);
    assert_eq!(placed(&leader, "a"), 0);
    // What becomes free goes to who waits in the same order.
    leader
        .decide(|draft| stop(draft, &whole("b"), ANNA, at(1)))
        .0
        .unwrap();
    leader.plan(2);
    for index in 0..3 {
        let killed = leader.said(&slot("b", index), RunState::Killed, 3);
        leader.report(&[killed], 3);
    }
    leader.plan(4);
    assert_eq!([placed(&leader, "c"), placed(&leader, "a")], [3, 1]);
}

#[test]
fn a_job_with_more_slots_than_a_pass_takes_is_not_overtaken() {
    let mut leader = Leader::new(1);
    leader.submit(&with_priority("big", 60, 3)).unwrap();
    leader.submit(&with_priority("late", 50, 3)).unwrap();
    let options = PlanOptions {
        slots: 2,
        ..PlanOptions::default()
    };
    let mut ids = counter();
    for _ in 0..8 {
        leader.decide(|draft| plan(draft, at(1), &options, &mut ids));
    }
    assert_eq!([placed(&leader, "big"), placed(&leader, "late")], [3, 1]);
}

#[test]
fn a_job_runs_in_its_datacenters_alone() {
    let mut leader = Leader::new(3);
    for (node, datacenter) in [("node-1", "fra"), ("node-2", "ams")] {
        let mut info = info(4, 8);
        info.datacenter = Some(datacenter.to_owned());
        let said = hello_of(info, Vec::new());
        leader.decide(|draft| hello(draft, &name(node), &said, false, at(1)));
    }
    let mut spec = job("web", Kind::Service, task(5));
    spec.datacenters = vec!["ams".to_owned(), "lon".to_owned()];
    leader.submit(&spec).unwrap();
    leader.plan(1);
    assert_eq!(placed(&leader, "web"), 4);
    for index in 0..4 {
        assert_eq!(leader.node_of(&slot("web", index)), name("node-2"));
    }
    let waiting = leader.slot(&slot("web", 4)).waiting.as_deref();
    let expected = "no node fits: 2 in another datacenter, 1 not enough cpu";
    assert_eq!(waiting, Some(expected));
}

/// The nodes of the slots of a job, by index.
fn nodes_of(leader: &Leader, job: &str) -> Vec<String> {
    let job = name(job);
    let runs = leader
        .state
        .slots_of(&job)
        .filter_map(|record| record.current.as_ref());
    runs.filter_map(|run| Some(run.node.as_ref()?.to_string()))
        .collect()
}

#[test]
fn a_job_says_how_its_nodes_are_chosen() {
    for (strategy, nodes) in [
        (None, ["node-1", "node-2"]),
        (Some(Strategy::Binpack), ["node-1", "node-1"]),
        (Some(Strategy::RoundRobin), ["node-1", "node-2"]),
    ] {
        let mut leader = Leader::new(3);
        let mut spec = job("web", Kind::Service, task(2));
        spec.strategy = strategy;
        leader.submit(&spec).unwrap();
        leader.plan(1);
        assert_eq!(nodes_of(&leader, "web"), nodes, "{strategy:?}");
    }
}

#[test]
fn a_run_says_why_it_is_where_it_is() {
    let mut leader = Leader::new(3);
    let revision = Revision {
        incarnation: 2,
        sequence: 41,
    };
    let options = PlanOptions {
        revision,
        ..PlanOptions::default()
    };
    let spec = job("web", Kind::Service, task(2));
    leader.submit(&spec).unwrap();
    let mut ids = counter();
    leader.decide(|draft| plan(draft, at(1), &options, &mut ids));
    let decision = |index| {
        let record = leader.slot(&slot("web", index));
        let run = record.current.as_ref().unwrap();
        (run.run, *run.decision.clone().unwrap())
    };
    let next = |decision: &Decision| -> Vec<String> {
        let next = decision.runners_up.iter().map(|next| next.node.to_string());
        next.collect()
    };
    let (run, first) = decision(0);
    assert_eq!((first.strategy, first.revision), (Strategy::Epvm, revision));
    assert_eq!(first.seed, crate::scheduler::seed(run));
    assert_eq!(next(&first), ["node-2", "node-3"]);
    // All three are alike: 3^(1/4) - 1 for a quarter of the cores, the same for the memory's eighth.
    let cost = 3f64.powf(0.25) - 1.0 + 3f64.powf(0.125) - 1.0;
    for score in std::iter::once(first.score).chain(first.runners_up.iter().map(|n| n.score)) {
        assert!((score.0 - cost).abs() < 1e-12, "{score:?}");
    }
    // The first of them has a replica by now, and is twice as dear and more.
    let (_, second) = decision(1);
    assert_eq!(next(&second), ["node-3", "node-1"]);
    assert!(second.runners_up[1].score.0 > 2.0 * cost);
}

/// What nodes measure is in the same commit as the choices it made a difference to, so that these can
/// be made again from the log.
#[test]
fn a_choice_by_what_was_measured_can_be_made_again_from_the_log() {
    let spec = job("web", Kind::Service, task(1));
    let base = decide(&with_nodes(2, 4), |draft| {
        drop(crate::decide::submit(draft, submission(&spec), ANNA, at(0)));
    });
    let chosen = |state: &State, options: &PlanOptions| {
        let planned = decide(state, |draft| {
            plan(draft, at(1), options, &mut counter());
        });
        let record = planned.state.slot(&slot("web", 0)).unwrap();
        let run = record.current.clone().unwrap();
        (run.node.unwrap().to_string(), run.decision, planned.changes)
    };
    let mut options = PlanOptions::default();
    assert_eq!(chosen(&base.state, &options).0, "node-1", "they are alike");
    // Whatever it is that runs on the first has a core and a half of its four.
    let measured = [("node-1", 1500), ("node-2", 300)];
    let measured = measured.map(|(node, cores)| (name(node), Smoothed::first(cores)));
    options.measured = measured.into_iter().collect();
    let (node, decision, changes) = chosen(&base.state, &options);
    assert_eq!(node, "node-2");
    let cpu = 2f64.powf(0.075) * (2f64.powf(0.25) - 1.0);
    let cost = cpu + 2f64.powf(0.125) - 1.0;
    let score = decision.as_ref().unwrap().score.0;
    assert!((score - cost).abs() < 1e-12, "{score} {cost}");
    let mut again = State::from_records(&base.state);
    let uses = changes
        .iter()
        .filter(|change| change.key.starts_with("use/"));
    for change in uses {
        again.put_bytes(&change.key, change.value.as_ref().unwrap());
    }
    let (node, by_log, changes) = chosen(&again, &PlanOptions::default());
    assert_eq!((node.as_str(), by_log), ("node-2", decision));
    assert!(!changes.iter().any(|change| change.key.starts_with("use/")));
    // Nothing is written down while nothing is placed.
    let idle = decide(&again, |draft| {
        draft.delete(Key::Slot(slot("web", 0)));
        draft.delete(Key::Job(name("web")));
        plan(draft, at(2), &options, &mut counter());
    });
    assert_eq!(idle.state.node_uses(), again.node_uses());
}

#[test]
fn a_slot_reserves_and_is_told_what_its_index_says() {
    let mut leader = Leader::new(1);
    let mut main = task(2);
    let own = IndexSpec {
        args: Some(vec!["own".to_owned()]),
        resources: ResourceChange {
            cpu: Some(MilliCores(2500)),
            memory: Some(Bytes::mib(1)),
            ..ResourceChange::default()
        },
        ..IndexSpec::default()
    };
    main.per_index.insert(1, own.clone());
    main.per_index.insert(7, IndexSpec::default());
    leader.running(&job("web", Kind::Service, main));
    assert_eq!(leader.current(&slot("web", 0)).reserved.cpu.0, 1000);
    let reserved = &leader.current(&slot("web", 1)).reserved;
    assert_eq!((reserved.cpu.0, reserved.memory), (2500, Bytes::mib(1)));
    let record = leader.slot(&slot("web", 1));
    let told = assigned(&leader.state, record, record.current.as_ref().unwrap()).unwrap();
    // Of the others it is told nothing.
    assert_eq!(told.task.per_index, [(1, own)].into());
}

#[test]
fn what_a_task_left_is_told_to_those_that_use_it() {
    let mut leader = Leader::new(1);
    let mut spec = job("etl", Kind::Batch, task(1));
    let of = ResultUse {
        task: Name::main(),
        key: "rows".to_owned(),
    };
    let mut load = spec.tasks["main"].clone();
    load.results.insert(of.clone());
    spec.tasks.insert(name("load"), load);
    leader.running(&spec);
    let mut done = leader.said(&slot("etl", 0), RunState::Completed, 5);
    done.result = Some("{\"rows\": 7}".to_owned());
    done.filled.insert("job.name".to_owned(), "etl".to_owned());
    leader.report(&[done], 5);
    let run = leader.current(&slot("etl", 0));
    assert_eq!(run.result.as_deref(), Some("{\"rows\": 7}"));
    assert_eq!(run.filled["job.name"], "etl");
    // Only the last result of a slot is kept.
    let record = leader.slot(&slot("etl", 0));
    let results = record.current.iter().chain(&record.ended);
    assert_eq!(results.filter(|run| run.result.is_some()).count(), 1);
    let record = leader.slot(&Slot::new(name("etl"), name("load"), 0));
    let told = assigned(&leader.state, record, record.current.as_ref().unwrap()).unwrap();
    assert_eq!(told.results, [(of.to_string(), "7".to_owned())].into());
}

#[test]
fn what_a_task_left_in_an_earlier_round_is_no_value_of_this_one() {
    let mut leader = Leader::new(1);
    let mut spec = job("etl", Kind::Batch, task(1));
    let of = ResultUse {
        task: Name::main(),
        key: "rows".to_owned(),
    };
    let mut load = spec.tasks["main"].clone();
    load.results.insert(of);
    load.after = vec![After {
        task: Name::main(),
        on: DependOn::Completed,
    }];
    spec.tasks.insert(name("load"), load);
    leader.running(&spec);
    let (main, load) = (slot("etl", 0), Slot::new(name("etl"), name("load"), 0));
    let complete = |leader: &mut Leader, slot: &Slot, result: Option<&str>, seconds| {
        let mut done = leader.said(slot, RunState::Completed, seconds);
        done.result = result.map(str::to_owned);
        leader.report(&[done], seconds);
        leader.plan(seconds);
    };
    let told = |leader: &Leader| {
        let record = leader.slot(&load);
        let told = assigned(&leader.state, record, record.current.as_ref().unwrap());
        told.unwrap().results.into_values().collect::<Vec<_>>()
    };
    complete(&mut leader, &main, Some("{\"rows\": 7}"), 5);
    assert_eq!(told(&leader), ["7"]);
    complete(&mut leader, &load, None, 6);
    assert_eq!(leader.job("etl").status, JobStatus::Completed);
    let again = |draft: &mut Draft| restart(draft, &whole("etl"), ANNA, at(7));
    leader.decide(again).0.unwrap();
    leader.plan(7);
    complete(&mut leader, &main, None, 8);
    assert!(told(&leader).is_empty());
}
