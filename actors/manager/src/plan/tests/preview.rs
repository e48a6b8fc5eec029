//! What a plan says before anything is done.

use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{Exit, NodeRecord};
use loom_schemas::spec::{
    After, DependOn, DependsOn, IndexSpec, JobSpec, Overlap, ScheduleSpec, TaskSpec, UpdateOrder,
};
use loom_schemas::wire::{JobPlan, PlanAction, RunReport, Standing};
use loom_schemas::words::{Kind, RunState};

use super::PlanOptions;
use crate::decide;
use crate::plan::{plan, preview};
use crate::state::State;
use crate::state::fixture::{
    ANNA, at, counter, decide as decided, job, name, report_of, submission, task, with_nodes,
};

/// What submitting a job would do.
fn previewed(state: &State, spec: &JobSpec) -> JobPlan {
    let options = PlanOptions::default();
    preview(
        state,
        submission(spec),
        ANNA,
        &options,
        at(9),
        &mut counter(),
    )
    .unwrap()
}

/// The state once a job was submitted and all that was placed of it is running.
fn running(state: &State, spec: &JobSpec) -> State {
    let mut state = decided(state, |draft| {
        decide::submit(draft, submission(spec), ANNA, at(0)).unwrap();
        plan(draft, at(0), &PlanOptions::default(), &mut counter());
    })
    .state;
    let slots: Vec<Slot> = state
        .slots_of(&spec.name)
        .map(|record| record.slot.clone())
        .collect();
    for slot in slots {
        state = reported(&state, &slot, RunState::Running);
    }
    state
}

/// The state once the run of a slot has come to something.
fn reported(state: &State, slot: &Slot, to: RunState) -> State {
    let Some(run) = state.slot(slot).and_then(|record| record.current.clone()) else {
        return state.clone();
    };
    let report = RunReport {
        started_at: Some(at(1)),
        ended_at: to.is_terminal().then(|| at(2)),
        exit: (to == RunState::Failed).then(|| Exit {
            code: Some(3),
            ..Exit::default()
        }),
        ..report_of(slot, run.run, to)
    };
    let mut ids = counter();
    let reported = decided(state, |draft| {
        decide::report(draft, &run.node.unwrap(), &[report], false, at(2));
    });
    let (mut state, mut more) = (reported.state, true);
    while more {
        let pass = decided(&state, |draft| {
            more = plan(draft, at(2), &PlanOptions::default(), &mut ids).more;
        });
        state = pass.state;
    }
    state
}

fn after(mut task: TaskSpec, others: &[(&str, DependOn)]) -> TaskSpec {
    let after = others.iter().map(|(other, on)| After {
        task: name(other),
        on: *on,
    });
    task.after = after.collect();
    task
}

fn cores(cores: u32) -> TaskSpec {
    let mut task = task(1);
    task.resources.cpu.0 = cores * 1000;
    task
}

fn tasks(kind: Kind, tasks: Vec<(&str, TaskSpec)>) -> JobSpec {
    let mut spec = job("big", kind, task(1));
    spec.tasks = tasks
        .into_iter()
        .map(|(task, spec)| (name(task), spec))
        .collect();
    spec
}

#[test]
fn a_task_that_waits_is_tried_with_the_room_of_those_that_have_completed_by_then() {
    let state = with_nodes(1, 4);
    let on = DependOn::Completed;
    let spec = tasks(
        Kind::Batch,
        vec![
            ("build", cores(4)),
            ("huge", after(cores(5), &[("build", on)])),
            ("test", after(cores(4), &[("build", on)])),
            ("watch", after(cores(1), &[("build", DependOn::Running)])),
        ],
    );
    let found = previewed(&state, &spec);
    let expected = [
        "big/huge/0: no node fits: 1 not enough cpu",
        "big/watch/0: no node fits: 1 not enough cpu",
    ];
    assert_eq!(
        found.blocked, expected,
        "build leaves no room beside it, and all after it"
    );
    let standing: Vec<(&str, Standing)> = found
        .graph
        .iter()
        .map(|task| (task.task.as_str(), task.standing))
        .collect();
    let waiting = Standing::Waiting;
    let expected = [
        ("build", Standing::Pending),
        ("huge", waiting),
        ("test", waiting),
        ("watch", waiting),
    ];
    assert_eq!(standing, expected);
}

#[test]
fn slots_that_find_no_node_for_the_same_reason_are_one_line() {
    let spec = job("web", Kind::Service, task(6));
    let found = previewed(&with_nodes(1, 4), &spec);
    assert_eq!(
        found.blocked,
        ["web/4 and 1 more: no node fits: 1 not enough cpu"]
    );
}

#[test]
fn a_slot_whose_turn_has_not_come_is_tried_as_the_update_will_do_it() {
    // One core is left beside three replicas of one.
    let mut spec = job("web", Kind::Service, task(3));
    let state = running(&with_nodes(1, 4), &spec);
    let main = spec.tasks.get_mut(&Name::main()).unwrap();
    main.args = vec!["other".to_owned()];
    assert!(
        previewed(&state, &spec).blocked.is_empty(),
        "one at a time fits"
    );
    let main = spec.tasks.get_mut(&Name::main()).unwrap();
    main.resources.cpu.0 = 2000;
    let found = previewed(&state, &spec);
    assert_eq!(
        found.blocked,
        ["web/0 and 2 more: no node fits: 1 not enough cpu"],
        "two cores are not free beside the old ones"
    );
    spec.update.order = Some(UpdateOrder::StopFirst);
    let found = previewed(&state, &spec);
    assert_eq!(
        found.blocked,
        ["web/1 and 1 more: no node fits: 1 not enough cpu"],
        "one has two once its old run has ended, and then there is one core too few"
    );
}

#[test]
fn what_a_failed_job_holds_back_is_said_to_never_start() {
    let mut db = job("db", Kind::Batch, task(1));
    db.tasks.get_mut(&Name::main()).unwrap().restart.attempts = 0;
    let state = running(&with_nodes(1, 4), &db);
    let mut api = job("api", Kind::Batch, task(1));
    let wait = |job: &str| DependsOn {
        job: name(job),
        task: None,
        on: DependOn::Completed,
    };
    api.depends_on = vec![wait("db")];
    let state = decided(&state, |draft| {
        decide::submit(draft, submission(&api), ANNA, at(1)).unwrap();
        plan(draft, at(1), &PlanOptions::default(), &mut counter());
    })
    .state;
    let mut web = job("web", Kind::Batch, cores(9));
    web.depends_on = vec![wait("api")];
    let found = previewed(&state, &web);
    assert_eq!(found.blocked, ["web/0: no node fits: 1 not enough cpu"]);
    let [dependency] = found.depends_on.as_slice() else {
        panic!("{:?}", found.depends_on)
    };
    assert_eq!(dependency.standing, Standing::Waiting);
    assert_eq!(
        dependency.reason.as_deref(),
        Some("waiting for job db to complete")
    );
    let [upstream] = found.upstream.as_slice() else {
        panic!("{:?}", found.upstream)
    };
    assert_eq!(upstream.job, name("api"));
    assert_eq!(upstream.depends_on[0].standing, Standing::Running);

    let failed = reported(
        &state,
        &Slot::new(name("db"), Name::main(), 0),
        RunState::Failed,
    );
    let found = previewed(&failed, &web);
    let why = "web never starts: job api failed: job db failed: db/0 failed: exit code 3";
    assert_eq!(found.blocked, [why]);
}

#[test]
fn changes_of_the_whole_job_are_named_with_what_they_do() {
    let mut spec = job("web", Kind::Service, task(1));
    let state = running(&with_nodes(1, 4), &spec);
    spec.priority = 60;
    spec.labels.insert("team".to_owned(), "a".to_owned());
    let found = previewed(&state, &spec);
    let fields: Vec<&str> = found
        .whole
        .iter()
        .map(|change| change.field.as_str())
        .collect();
    assert_eq!(fields, ["labels", "priority"]);
    assert!(
        found
            .whole
            .iter()
            .all(|change| change.effect.contains("restarts nothing"))
    );
    assert_eq!(found.tasks[0].action, PlanAction::Keep);
    spec.kind = Kind::System;
    let found = previewed(&state, &spec);
    assert_eq!(
        found.tasks[0].action,
        PlanAction::Replace,
        "its slots are of nodes now"
    );
    assert_eq!(found.tasks[0].reason, "kind service to system");
}

#[test]
fn a_change_for_one_index_says_how_many_runs_it_replaces() {
    let mut spec = job("web", Kind::Service, task(3));
    let state = running(&with_nodes(1, 4), &spec);
    let own = IndexSpec {
        args: Some(vec!["other".to_owned()]),
        ..IndexSpec::default()
    };
    let main = spec.tasks.get_mut(&Name::main()).unwrap();
    main.per_index.insert(1, own);
    let found = previewed(&state, &spec);
    assert_eq!(found.tasks[0].action, PlanAction::Replace);
    assert!(
        found.tasks[0].reason.ends_with("1 of 3 runs"),
        "{}",
        found.tasks[0].reason
    );
}

#[test]
fn a_job_that_is_so_already_says_what_of_it_waits() {
    let spec = job("web", Kind::Service, task(6));
    let state = running(&with_nodes(1, 4), &spec);
    let found = previewed(&state, &spec);
    assert_eq!(found.tasks[0].action, PlanAction::Keep);
    assert_eq!(
        found.blocked,
        ["web/4 and 1 more: no node fits: 1 not enough cpu"]
    );
}

/// Two nodes, each in a datacenter of its own.
fn east_and_west() -> State {
    let mut state = with_nodes(2, 4);
    for (node, datacenter) in [("node-1", "east"), ("node-2", "west")] {
        let mut record = NodeRecord::clone(state.node(&name(node)).unwrap());
        record.info.datacenter = Some(datacenter.to_owned());
        state = decided(&state, |draft| draft.put_node(record)).state;
    }
    state
}

#[test]
fn what_moves_for_other_datacenters_is_not_kept() {
    for (kind, datacenters, expected) in [
        (
            Kind::Service,
            &["east"][..],
            Some((PlanAction::Replace, "datacenters: 1 of 2 runs are outside")),
        ),
        (Kind::Service, &["east", "west"], None),
        (
            Kind::System,
            &["east"],
            Some((PlanAction::Stop, "datacenters: 1 of 2 runs end")),
        ),
    ] {
        let spec = job("web", kind, task(2));
        let state = running(&east_and_west(), &spec);
        let mut other = spec.clone();
        other.datacenters = datacenters.iter().map(|&name| name.to_owned()).collect();
        let found = previewed(&state, &other);
        let expected = expected.unwrap_or((PlanAction::Keep, ""));
        let row = &found.tasks[0];
        assert_eq!(
            (row.action, &*row.reason),
            expected,
            "{kind} {datacenters:?}"
        );
    }
    let mut spec = job("web", Kind::System, task(1));
    spec.datacenters = vec!["west".to_owned()];
    let state = running(&east_and_west(), &spec);
    spec.datacenters = vec!["east".to_owned()];
    let found = previewed(&state, &spec);
    assert_eq!(found.tasks[0].action, PlanAction::Replace);
    let reason = "datacenters: 1 of 1 runs end, 1 begin";
    assert_eq!(found.tasks[0].reason, reason);
    spec.datacenters.push("west".to_owned());
    let found = previewed(&state, &spec);
    assert_eq!(found.tasks[0].action, PlanAction::Create);
    assert_eq!(found.tasks[0].reason, "datacenters: 1 begin");
}

#[test]
fn what_a_schedule_starts_is_tried_as_if_it_fired_now() {
    let mut spec = job("backup", Kind::Batch, task(5));
    spec.schedule = Some(ScheduleSpec {
        cron: "0 3 * * *".to_owned(),
        timezone: "UTC".to_owned(),
        overlap: Overlap::Skip,
    });
    let says = previewed(&with_nodes(1, 4), &spec);
    assert_eq!(says.blocked, ["backup/4: no node fits: 1 not enough cpu"]);
    let says = previewed(&with_nodes(2, 4), &spec);
    assert_eq!(says.blocked, [""; 0]);
}
