use loom_schemas::record::{Exit, Wanted};
use loom_schemas::spec::RestartOn;
use loom_schemas::units::Millis;
use loom_schemas::words::{JobStatus, Kind, RunState};

use super::*;
use crate::plan::{empty_slot, new_run};
use crate::state::State;
use crate::state::fixture::{ANNA, at, decide, job, name, run_id, submission, task};

/// A job of one task, and its record.
fn given(kind: Kind, on: RestartOn, replicas: u32) -> (JobRecord, JobSpec) {
    let mut spec = job("web", kind, task(replicas));
    spec.tasks.get_mut(&Name::main()).unwrap().restart.on = on;
    let state = decide(&State::default(), |draft| {
        crate::decide::submit(draft, submission(&spec), ANNA, at(0)).unwrap();
    })
    .state;
    (JobRecord::clone(state.job(&name("web")).unwrap()), spec)
}

fn slot_with(job: &JobRecord, index: u32, state: RunState, code: i32) -> SlotRecord {
    let mut record = empty_slot(Slot::new(job.name.clone(), Name::main(), index));
    let mut run = new_run(job, run_id(u64::from(index) + 1), task(1).resources, at(0));
    run.state = state;
    run.node = Some(name("node-1"));
    run.started_at = (state.rank() >= RunState::Running.rank()).then(|| at(1));
    if state.is_terminal() {
        run.ended_at = Some(at(i64::from(index) + 2));
        run.exit = Some(Exit {
            code: Some(code),
            ..Exit::default()
        });
    }
    record.current = Some(run);
    record.version = job.version;
    record
}

fn actions(job: &JobRecord, spec: &JobSpec, slots: &[SlotRecord]) -> Vec<(u32, Vec<Action>)> {
    let none = |_: u32| None;
    let up = |_: &Name| NodeStanding::Up;
    let facts = Facts {
        job,
        spec,
        version: &none,
        node: &up,
        belongs: &|_| true,
        room: &|_| None,
        leave: &|_, _| None,
        moves: &|_, _| None,
        waits: &|_| false,
        now: at(10),
    };
    let found = reconcile(&facts, slots, 100);
    found
        .steps
        .into_iter()
        .map(|step| (step.slot.index.number().unwrap(), step.actions))
        .collect()
}

#[test]
fn what_an_end_means_depends_on_kind_and_restart() {
    use RestartOn::{Any, Failure, Never};
    use RunState::{Completed, Failed, Killed, Lost, Rejected};
    let again = Stand::Again;
    let table = [
        (Kind::Batch, Failure, Completed, Stand::Done),
        (Kind::Batch, Failure, Failed, Stand::Failed),
        (Kind::Batch, Failure, Rejected, again(Why::Failed)),
        (Kind::Batch, Failure, Lost, again(Why::Lost)),
        (Kind::Batch, Never, Lost, Stand::Failed),
        (Kind::Batch, Never, Killed, again(Why::Failed)),
        (Kind::Service, Never, Killed, again(Why::Failed)),
        (Kind::Service, Any, Completed, again(Why::Failed)),
        (Kind::Service, Any, Failed, again(Why::Failed)),
        (Kind::Service, Any, Killed, again(Why::Failed)),
        (Kind::Service, Any, Lost, again(Why::Lost)),
        (Kind::Service, Failure, Completed, Stand::Done),
        (Kind::Service, Failure, Rejected, again(Why::Failed)),
        (Kind::Service, Never, Failed, Stand::Failed),
        (Kind::Service, Never, Completed, Stand::Done),
        (Kind::Service, Any, RunState::Running, Stand::Live),
    ];
    for (kind, on, state, expected) in table {
        let (job, spec) = given(kind, on, 1);
        let record = slot_with(&job, 0, state, 1);
        let stands = stand(&job, kind, &spec.tasks[&Name::main()], &record);
        assert_eq!(stands, expected, "{kind:?} {on:?} {state}");
    }
    for state in [Rejected, Lost] {
        let (job, spec) = given(Kind::Batch, Failure, 1);
        let mut record = slot_with(&job, 0, state, 1);
        record.failed_placements = 1;
        record.current.as_mut().unwrap().restarts = 1;
        let stands = stand(&job, Kind::Batch, &spec.tasks[&Name::main()], &record);
        assert_eq!(stands, Stand::Failed, "{state}: its 3 attempts are spent");
    }
}

/// Status and exit code of two slots with such runs; `stop`: somebody stopped the job.
fn stands(
    kind: Kind,
    on: RestartOn,
    stop: bool,
    runs: &[(RunState, i32)],
) -> (JobStatus, Option<i32>) {
    let (mut job, spec) = given(kind, on, 2);
    if stop {
        job.wanted = Wanted::Stop {
            by: "anna".to_owned(),
            reason: String::new(),
        };
    }
    let slots: Vec<_> = (0..)
        .zip(runs)
        .map(|(index, (state, code))| slot_with(&job, index, *state, *code))
        .collect();
    let stands = status(&job, &spec, &slots);
    (stands.status, stands.exit_code)
}

#[test]
fn the_status_of_a_batch_is_a_table() {
    use RunState::{Completed, Failed, Killed, Running, Scheduled};
    let batch = |runs: &[(RunState, i32)]| stands(Kind::Batch, RestartOn::Failure, false, runs);
    assert_eq!(batch(&[]), (JobStatus::Pending, None));
    assert_eq!(batch(&[(Scheduled, 0)]), (JobStatus::Pending, None));
    assert_eq!(batch(&[(Running, 0)]), (JobStatus::Running, None));
    assert_eq!(batch(&[(Completed, 0)]), (JobStatus::Running, None));
    assert_eq!(
        batch(&[(Completed, 0), (Completed, 0)]),
        (JobStatus::Completed, Some(0))
    );
    assert_eq!(
        batch(&[(Failed, 3), (Running, 0)]),
        (JobStatus::Running, None)
    );
    assert_eq!(
        batch(&[(Failed, 3), (Failed, 4)]),
        (JobStatus::Failed, Some(3))
    );
    let stopped = [(Killed, 143), (Completed, 0)];
    let stopped = stands(Kind::Batch, RestartOn::Failure, true, &stopped);
    assert_eq!(stopped, (JobStatus::Killed, Some(143)));
    let early = stands(Kind::Batch, RestartOn::Failure, true, &[]);
    assert_eq!(early, (JobStatus::Killed, None), "nothing of it succeeded");
}

#[test]
fn the_status_of_a_service_is_a_table() {
    use RunState::{Completed, Failed, Running};
    let service = |on, stop, runs: &[(RunState, i32)]| stands(Kind::Service, on, stop, runs);
    let (any, never) = (RestartOn::Any, RestartOn::Never);
    let failed = [(Failed, 1), (Failed, 1)];
    assert_eq!(service(any, false, &failed), (JobStatus::Running, None));
    let one_failed = [(Completed, 0), (Failed, 7)];
    assert_eq!(
        service(never, false, &one_failed),
        (JobStatus::Failed, Some(7))
    );
    let done = [(Completed, 0), (Completed, 0)];
    assert_eq!(
        service(never, false, &done),
        (JobStatus::Completed, Some(0))
    );
    assert_eq!(
        service(any, true, &[(Running, 0)]),
        (JobStatus::Running, None)
    );
    assert_eq!(service(any, true, &failed), (JobStatus::Killed, Some(1)));
}

#[test]
fn a_service_of_which_every_index_was_stopped_goes_on_and_says_so() {
    let (mut job, spec) = given(Kind::Service, RestartOn::Any, 2);
    job.started_at = Some(at(0));
    let slots = |states: [RunState; 2]| -> Vec<SlotRecord> {
        let slots = (0..).zip(states);
        slots
            .map(|(index, state)| slot_with(&job, index, state, 143))
            .collect()
    };
    let slots = [
        slots([RunState::Killed, RunState::Running]),
        slots([RunState::Killed; 2]),
    ];
    job.stopped_slots = [0, 1]
        .map(|index| (Name::main(), Index::Number(index)))
        .into();
    let why = |slots: &[SlotRecord]| {
        let stands = status(&job, &spec, slots);
        assert_eq!(stands.status, JobStatus::Running);
        stands.reason
    };
    assert_eq!(why(&slots[0]), None, "one of them has not ended yet");
    let all = "every index was stopped: restart one of them, or stop the job";
    assert_eq!(why(&slots[1]).as_deref(), Some(all));
}

#[test]
fn missing_slots_are_placed_and_those_beyond_removed() {
    let (job, spec) = given(Kind::Service, RestartOn::Any, 2);
    let slots = [
        slot_with(&job, 0, RunState::Running, 0),
        slot_with(&job, 2, RunState::Running, 0),
        slot_with(&job, 3, RunState::Killed, 143),
    ];
    let expected = [
        (
            2,
            vec![Action::Stop {
                placement: run_id(3),
                reason: "scaled to 2".to_owned(),
            }],
        ),
        (3, vec![Action::Remove]),
        (1, vec![Action::Turn(1), Action::Place]),
    ];
    assert_eq!(actions(&job, &spec, &slots), expected);
}

#[test]
fn a_limit_leaves_the_rest_for_later() {
    let (job, spec) = given(Kind::Service, RestartOn::Any, 5);
    let none = |_: u32| None;
    let up = |_: &Name| NodeStanding::Up;
    let facts = Facts {
        job: &job,
        spec: &spec,
        version: &none,
        node: &up,
        belongs: &|_| true,
        room: &|_| None,
        leave: &|_, _| None,
        moves: &|_, _| None,
        waits: &|_| false,
        now: at(10),
    };
    let found = reconcile(&facts, [], 3);
    assert_eq!((found.steps.len(), found.more), (3, true));
    let found = reconcile(&facts, [], 5);
    assert_eq!((found.steps.len(), found.more), (5, false));
}

#[test]
fn a_run_that_awaits_its_restart_on_a_lost_node_costs_a_batch_what_it_has_spent() {
    for (kind, spent) in [(Kind::Batch, 1), (Kind::Service, 0)] {
        let (job, spec) = given(kind, RestartOn::Failure, 1);
        costs(&job, &spec, spent);
    }
}

fn costs(job: &JobRecord, spec: &JobSpec, spent: u32) {
    let mut record = slot_with(job, 0, RunState::Failed, 1);
    record.current.as_mut().unwrap().will_restart = true;
    let none = |_: u32| None;
    let gone = |_: &Name| NodeStanding::Gone("gone".to_owned());
    let facts = Facts {
        job,
        spec,
        version: &none,
        node: &gone,
        belongs: &|_| true,
        room: &|_| None,
        leave: &|_, _| None,
        moves: &|_, _| None,
        waits: &|_| false,
        now: at(10),
    };
    let found = reconcile(&facts, [&record], 10);
    let retire = Action::Retire {
        failures: spent,
        not_before: None,
    };
    assert_eq!(found.steps[0].actions, [retire, Action::Place]);
}

#[test]
fn pauses_of_runs_that_failed_at_once_are_spread_over_a_quarter() {
    let ids = [0, 0x4000, 0x8000, 0xffff].map(run_id);
    let pauses = ids.map(|run| super::turn::spread(Millis::secs(8), run).0);
    assert_eq!(pauses, [8000, 7500, 7000, 6001]);
}

#[test]
fn the_pause_doubles_up_to_the_longest() {
    let task = task(1);
    let pauses: Vec<u64> = (1..9)
        .map(|failures| pause(&task, failures).0 / 1000)
        .collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(pause(&task, u32::MAX), Millis::secs(60));
    let (job, _) = given(Kind::Service, RestartOn::Any, 1);
    let mut run = slot_with(&job, 0, RunState::Failed, 1).current.unwrap();
    assert_eq!(failures_after(&task, 4, &run), 5);
    run.ended_at = Some(at(100));
    assert_eq!(failures_after(&task, 4, &run), 1, "it had lasted");
}
