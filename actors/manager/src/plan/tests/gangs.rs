//! Gangs: whole or not at all, held and released, reserved for and filled around.

use loom_schemas::ids::Slot;
use loom_schemas::record::Order;
use loom_schemas::spec::{After, DependOn, IndexSpec, JobSpec, RestartOn, TaskSpec, TimeoutSpec};
use loom_schemas::units::{Bytes, MilliCores, Millis};
use loom_schemas::words::{Kind, RunState};

use super::line::{Leader, asking, service, slot};
use crate::decide;
use crate::plan::{PlanOptions, assignment, plan_on, preview};
use crate::scheduler::Cluster;
use crate::state::fixture::{ANNA, at, info, job, name, run_id, submission};
use crate::state::{State, is_live, live_runs};

/// A gang of so many members that ask for so many millicores, a service.
pub(super) fn gang(named: &str, millicores: u32, members: u32) -> JobSpec {
    let mut task = asking(millicores, 256, members);
    task.gang = true;
    service(named, 50, task)
}

/// A task that lasts at most so many seconds, its last ten for its end.
pub(super) fn timed(task: TaskSpec, seconds: u64) -> TaskSpec {
    let mut task = task;
    task.timeout = Some(TimeoutSpec {
        after: Millis::secs(seconds - 10),
        warn: None,
    });
    task.restart.on = RestartOn::Never;
    task
}

/// A batch that lasts at most so long and is not tried again.
pub(super) fn batch(named: &str, millicores: u32, replicas: u32, seconds: u64) -> JobSpec {
    let mut spec = job(named, Kind::Batch, asking(millicores, 256, replicas));
    let main = spec.tasks.values_mut().next().unwrap();
    *main = timed(main.clone(), seconds);
    spec
}

pub(super) fn waits(leader: &Leader, at: &Slot) -> String {
    leader.record(at).waiting.clone().unwrap_or_default()
}

/// One pass over at most so many slots; whether more is to be done.
pub(super) fn pass(leader: &mut Leader, slots: usize) -> bool {
    let options = PlanOptions {
        slots,
        ..PlanOptions::default()
    };
    let mut cluster = std::mem::replace(
        &mut leader.cluster,
        Cluster::empty(loom_schemas::words::Strategy::Epvm),
    );
    let (mut next, now) = (leader.ids, at(leader.seconds));
    let planned = leader.edit(|draft| {
        plan_on(&mut cluster, draft, now, &options, &mut || {
            next += 1;
            run_id(next)
        })
    });
    (leader.cluster, leader.ids) = (cluster, next);
    planned.more
}

/// How many placements the nodes are told of.
fn told(state: &State) -> usize {
    let nodes = state.nodes();
    nodes.map(|node| assignment(state, &node.name).len()).sum()
}

#[test]
fn all_start_together_or_none_and_what_waits_says_how_many_fit() {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    leader.submit("anna", &service("there", 50, asking(1000, 1024, 1)));
    leader.plan();
    leader.submit("anna", &gang("ranks", 2000, 4));
    leader.plan();
    assert_eq!(leader.placed("ranks"), 0);
    let why = "3 of 4 fit now, no node one more: 2 not enough cpu; nobody knows when all fit, for \
               runs without a time limit are in their way";
    assert_eq!(waits(&leader, &slot("ranks", 0)), why);
    assert_eq!(
        waits(&leader, &slot("ranks", 3)),
        "",
        "it waits for the same"
    );
    // What waits takes nothing.
    leader.submit("bert", &service("other", 50, asking(4000, 1024, 1)));
    leader.plan();
    assert_eq!(leader.placed("other"), 1);
    leader.says(&slot("other", 0), RunState::Running);
    leader.submit("bert", &service("other", 50, asking(4000, 1024, 0)));
    leader.submit("anna", &service("there", 50, asking(1000, 1024, 0)));
    leader.plan();
    leader.says(&slot("other", 0), RunState::Killed);
    leader.plan();
    assert_eq!(leader.placed("ranks"), 0, "three of them fit");
    leader.told.clear();
    leader.says(&slot("there", 0), RunState::Killed);
    leader.plan();
    assert_eq!(leader.placed("ranks"), 4);
    let released = leader
        .told
        .iter()
        .filter(|(what, _)| what.ends_with("gang-released"));
    assert_eq!(released.count(), 1);
}

#[test]
fn one_that_never_fits_says_so_and_a_plan_shows_it() {
    let mut leader = Leader::new(&[(4, 8)]);
    leader.submit("anna", &gang("wide", 3000, 2));
    leader.plan();
    let why = "1 of 2 fit now, no node one more: 1 not enough cpu; not all fit the nodes there are, \
               even if nothing else ran";
    assert_eq!(waits(&leader, &slot("wide", 0)), why);
    let (spec, options) = (gang("next", 3000, 2), PlanOptions::default());
    let mut ids = || run_id(1 << 40);
    let plan = preview(
        &leader.state,
        submission(&spec),
        ANNA,
        &options,
        at(9),
        &mut ids,
    )
    .unwrap();
    assert_eq!(plan.blocked, [format!("next/0 and 1 more: {why}")]);
    leader.hello("node-2", info(4, 8));
    leader.plan();
    assert_eq!(leader.placed("wide"), 2);
}

#[test]
fn members_of_other_sizes_are_placed_the_largest_first() {
    let mut leader = Leader::new(&[(4, 8), (2, 8)]);
    let mut spec = gang("mixed", 1000, 3);
    let main = spec.tasks.values_mut().next().unwrap();
    let mut large = IndexSpec::default();
    large.resources.cpu = Some(MilliCores(4000));
    main.per_index.insert(2, large);
    leader.submit("anna", &spec);
    leader.plan();
    assert_eq!(leader.placed("mixed"), 3);
    let large = leader.run_of(&slot("mixed", 2));
    assert_eq!(large.node, Some(name("node-1")));
}

#[test]
fn a_gang_that_is_larger_than_a_commit_is_held_until_its_last_one_is_placed() {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    leader.submit("anna", &gang("large", 1000, 7));
    for (placed, more) in [(3, true), (6, true), (7, true)] {
        assert_eq!(pass(&mut leader, 3), more);
        assert_eq!(leader.placed("large"), placed);
        let all = if placed == 7 { 7 } else { 0 };
        assert_eq!(told(&leader.state), all, "no node knows of what is held");
        let held = leader.state.job(&name("large")).unwrap().held.clone();
        assert_eq!(held.len(), usize::from(placed < 7));
    }
    leader.plan();
    assert_eq!(told(&leader.state), 7);
}

/// What its slots cost depends on the order in which they are placed.
#[test]
fn a_gang_of_unlike_members_is_placed_over_several_passes_as_it_was_tried() {
    let mut leader = Leader::new(&[]);
    for (node, cores, gib, disk) in [("x", 10, 10, 10), ("y", 8, 8, 0)] {
        let mut info = info(cores, gib);
        info.capacity.disk = Bytes::mib(1024 * disk);
        leader.hello(node, info);
    }
    let mut spec = gang("mixed", 1000, 3);
    let main = spec.tasks.values_mut().next().unwrap();
    for (index, (cpu, gib, disk)) in [(3000, 4, 1), (4000, 4, 0), (2000, 7, 0)]
        .into_iter()
        .enumerate()
    {
        let mut own = IndexSpec::default();
        own.resources.cpu = Some(MilliCores(cpu));
        own.resources.memory = Some(Bytes::mib(1024 * gib));
        own.resources.disk = Some(Bytes::mib(1024 * disk));
        main.per_index.insert(u32::try_from(index).unwrap(), own);
    }
    leader.submit("anna", &spec);
    leader.plan_by(1);
    assert_eq!(leader.placed("mixed"), 3);
    let back = |(_, why): &&(String, String)| why.contains("given back");
    assert_eq!(leader.told.iter().find(back), None);
}

/// One job's tasks: the second starts once the first has completed.
#[test]
fn a_gang_that_starts_later_is_planned_whole_and_evicts_nobody() {
    let mut leader = Leader::new(&[(4, 8)]);
    leader.submit("anna", &service("low", 20, asking(2000, 1024, 1)));
    leader.plan();
    let plan_of = |members| {
        let mut spec = gang("solver", 1000, members);
        spec.kind = Kind::Batch;
        let mut first = asking(100, 64, 1);
        first.restart.on = RestartOn::Never;
        let main = spec.tasks.values_mut().next().unwrap();
        main.after.push(After {
            task: name("first"),
            on: DependOn::Completed,
        });
        spec.tasks.insert(name("first"), first);
        let (options, mut next) = (PlanOptions::default(), 1u64 << 40);
        let mut ids = || {
            next += 1;
            run_id(next)
        };
        let (state, submission) = (&leader.state, submission(&spec));
        preview(state, submission, ANNA, &options, at(9), &mut ids).unwrap()
    };
    assert_eq!(plan_of(2).blocked, [""; 0]);
    let found = plan_of(3);
    let why = "solver/0 and 2 more: 2 of 3 fit, no node one more: 1 not enough cpu";
    assert_eq!(found.blocked, [why]);
    assert_eq!(found.evicts, [""; 0]);
}

#[test]
fn whoever_leads_next_completes_what_is_held() {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    leader.submit("anna", &gang("large", 1000, 7));
    pass(&mut leader, 3);
    let mut next = Leader::new(&[]);
    (next.state, next.seconds, next.ids) = (State::from_records(&leader.state), 10, 1000);
    next.state.mark_all_dirty();
    next.plan_by(3);
    assert_eq!((next.placed("large"), told(&next.state)), (7, 7));
}

#[test]
fn what_is_held_is_given_back_when_the_rest_finds_no_place() {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    leader.submit("anna", &gang("large", 1000, 7));
    pass(&mut leader, 3);
    // Nobody comes between, whatever their priority; but there is less room than there was.
    leader.submit("bert", &service("high", 60, asking(2000, 1024, 1)));
    leader.hello("node-1", info(3, 8));
    leader.hello("node-2", info(3, 8));
    leader.plan_by(3);
    assert_eq!([leader.placed("high"), leader.placed("large")], [1, 0]);
    let job = leader.state.job(&name("large")).unwrap();
    assert!(job.held.is_empty());
    let why = waits(&leader, &slot("large", 0));
    assert!(why.starts_with("4 of 7 fit now"), "{why}");
    assert_eq!(told(&leader.state), 1);
}

#[test]
fn what_is_held_is_given_back_with_its_job_its_node_and_its_version() {
    let held = || {
        let mut leader = Leader::new(&[(4, 8), (4, 8)]);
        leader.submit("anna", &gang("large", 1000, 7));
        pass(&mut leader, 3);
        leader
    };
    let mut leader = held();
    let request = loom_schemas::wire::JobRequest {
        address: "large".parse().unwrap(),
        reason: None,
    };
    leader.edit(|draft| decide::stop(draft, &request, ANNA, at(1)).unwrap());
    leader.plan_by(3);
    assert!(leader.state.loads().next().is_none());
    let job = leader.state.job(&name("large")).unwrap();
    assert!(job.status.is_terminal() && job.held.is_empty(), "{job:?}");

    let mut leader = held();
    let node = leader.run_of(&slot("large", 0)).node.clone().unwrap();
    leader.edit(|draft| decide::node_down(draft, &node, "silent", at(2)));
    leader.seconds = 100;
    leader.plan_by(3);
    assert_eq!((leader.placed("large"), told(&leader.state)), (0, 0));
    assert!(
        leader
            .state
            .loads()
            .all(|(_, load)| load.placements.is_empty())
    );

    let mut leader = held();
    leader.submit("anna", &gang("large", 500, 7));
    leader.plan_by(3);
    let runs = leader.state.slots().flat_map(|slot| live_runs(slot));
    let versions: Vec<u32> = runs.map(|run| run.version).collect();
    assert_eq!((versions, told(&leader.state)), (vec![2; 7], 7));
}

#[test]
fn of_two_gangs_that_need_all_there_is_one_runs_and_then_the_other() {
    for slots in [1, 3, 256] {
        let mut leader = Leader::new(&[(4, 8), (4, 8)]);
        leader.submit("anna", &gang("one", 1000, 8));
        leader.submit("bert", &gang("two", 1000, 8));
        leader.plan_by(slots);
        assert_eq!([leader.placed("one"), leader.placed("two")], [8, 0]);
        assert!(waits(&leader, &slot("two", 0)).contains(" of 8 fit now"));
        leader.submit("anna", &gang("one", 1000, 0));
        leader.plan_by(slots);
        for index in 0..8 {
            leader.says(&slot("one", index), RunState::Killed);
            leader.plan_by(slots);
            let all = if index == 7 { 8 } else { 0 };
            assert_eq!(leader.placed("two"), all);
        }
    }
}

#[test]
fn one_that_is_lost_is_replaced_alone_and_a_new_round_starts_together() {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    let mut spec = gang("ranks", 1000, 4);
    spec.kind = Kind::Batch;
    let main = spec.tasks.values_mut().next().unwrap();
    main.restart.on = RestartOn::Failure;
    leader.submit("anna", &spec);
    leader.plan();
    for index in 0..4 {
        leader.says(&slot("ranks", index), RunState::Running);
    }
    leader.says(&slot("ranks", 1), RunState::Killed);
    leader.plan();
    leader.seconds += 60;
    leader.plan();
    assert_eq!(leader.placed("ranks"), 4);
    // One completes, the node of the others goes: these come back together.
    leader.says(&slot("ranks", 1), RunState::Running);
    leader.says(&slot("ranks", 0), RunState::Completed);
    for index in 1..4 {
        leader.says(&slot("ranks", index), RunState::Killed);
    }
    leader.submit("bert", &service("hog", 60, asking(3000, 1024, 2)));
    leader.plan();
    leader.seconds += 60;
    leader.plan();
    assert_eq!([leader.placed("hog"), leader.placed("ranks")], [2, 0]);
    assert!(waits(&leader, &slot("ranks", 1)).starts_with("2 of 3 fit now"));
    leader.submit("bert", &service("hog", 60, asking(3000, 1024, 1)));
    leader.plan();
    leader.says(&slot("hog", 1), RunState::Killed);
    leader.plan();
    assert_eq!(leader.placed("ranks"), 3);
    // A new round: the last of the old ones is waited for.
    let request = loom_schemas::wire::JobRequest {
        address: "ranks".parse().unwrap(),
        reason: None,
    };
    leader.edit(|draft| decide::restart(draft, &request, ANNA, at(500)).unwrap());
    leader.seconds = 500;
    leader.plan();
    let ends = |record: &loom_schemas::record::SlotRecord| {
        let run = record.current.as_ref();
        run.is_some_and(|run| is_live(run) && run.order != Order::Run)
    };
    for index in 1..4 {
        assert!(ends(leader.record(&slot("ranks", index))));
        leader.says(&slot("ranks", index), RunState::Killed);
        leader.plan();
        let of_round = leader.state.slots().flat_map(|slot| live_runs(slot));
        let of_round = of_round.filter(|run| run.round == 2).count();
        assert_eq!(of_round, if index == 3 { 4 } else { 0 });
    }
}
