//! Figures of planning, and what a crash-looping job costs.

use std::time::{Duration, Instant};

use loom_schemas::ids::Name;
use loom_schemas::record::{Exit, Order};
use loom_schemas::spec::{JobSpec, TaskSpec};
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::wire::RunReport;
use loom_schemas::words::{Kind, RunState};

use super::PlanOptions;
use crate::decide;
use crate::plan::{plan, preview};
use crate::state::fixture::{
    ANNA, at, counter, decide as decided, job, name, report_of, submission, task, with_nodes,
};
use crate::state::{Draft, State};

/// A task that needs next to nothing.
fn small(replicas: u32) -> TaskSpec {
    let mut task = task(replicas);
    task.resources.cpu = MilliCores(1);
    task.resources.memory = Bytes::mib(1);
    task
}

/// Plans until nothing is left.
fn planned(state: &mut State, seconds: i64, ids: &mut dyn FnMut() -> loom_schemas::ids::RunId) {
    loop {
        let mut draft = Draft::new(state.clone());
        let planned = plan(&mut draft, at(seconds), &PlanOptions::default(), ids);
        *state = draft.finish().unwrap().state;
        if !planned.more {
            return;
        }
    }
}

/// Whatever the clock of its node says.
#[test]
fn a_crash_looping_job_costs_a_bounded_rate_of_commits_and_events() {
    for ahead in [0, -3600, -61, 61, 86_400] {
        crash_loops_for_an_hour(ahead);
    }
}

fn crash_loops_for_an_hour(ahead: i64) {
    let mut state = with_nodes(2, 4);
    let mut ids = counter();
    let spec = job("web", Kind::Service, task(1));
    state = decided(&state, |draft| {
        decide::submit(draft, submission(&spec), ANNA, at(0)).unwrap();
    })
    .state;
    let (mut commits, mut events) = (0, 0);
    // It fails as soon as it runs, and its node does not try again; an hour of that.
    for second in 0..3600 {
        let mut draft = Draft::new(state.clone());
        plan(&mut draft, at(second), &PlanOptions::default(), &mut ids);
        let live = draft.state().slots().next().and_then(|record| {
            let run = record.current.clone()?;
            let goes_on = !run.state.is_terminal() && run.order == Order::Run;
            goes_on.then(|| (record.slot.clone(), run))
        });
        if let Some((slot, run)) = live {
            let failed = RunReport {
                started_at: Some(at(second + ahead)),
                ended_at: Some(at(second + ahead)),
                exit: Some(Exit {
                    code: Some(1),
                    ..Exit::default()
                }),
                ..report_of(&slot, run.run, RunState::Failed)
            };
            let node = run.node.unwrap();
            decide::report(&mut draft, &node, &[failed], false, at(second));
        }
        let done = draft.finish().unwrap();
        commits += usize::from(!done.changes.is_empty());
        events += done.events.len();
        state = done.state;
    }
    // 1, 2, 4 ... 60 seconds: a placement a minute once the pauses are at their longest.
    // Each is retired in one commit and placed, with what its node says, in another.
    assert!(
        (60..=140).contains(&commits),
        "{commits} commits in an hour of a clock ahead by {ahead} s"
    );
    assert!(events <= 140, "{events} events in an hour");
}

/// Prints what the preview of a job of 1,000 tasks takes, new and changed in one of them.
#[test]
#[ignore = "prints a figure"]
fn previewing_a_job_of_a_thousand_tasks() {
    let mut spec: JobSpec = job("big", Kind::Service, small(1));
    for number in 1..1000 {
        spec.tasks.insert(name(&format!("task-{number}")), small(1));
    }
    let mut state = with_nodes(50, 64);
    let mut ids = counter();
    let options = PlanOptions::default();
    let mut time = |state: &State, spec: &JobSpec, what: &str| {
        let begin = Instant::now();
        let found = preview(state, submission(spec), ANNA, &options, at(1), &mut ids).unwrap();
        println!("{what}: {:?}, {} tasks", begin.elapsed(), found.tasks.len());
    };
    time(&state, &spec, "new");
    state = decided(&state, |draft| {
        decide::submit(draft, submission(&spec), ANNA, at(0)).unwrap();
    })
    .state;
    planned(&mut state, 0, &mut counter());
    let changed = spec.tasks.get_mut(&Name::main()).unwrap();
    changed.args = vec!["other".to_owned()];
    time(&state, &spec, "changed");
}

/// Prints what planning a changed job takes alone and among 10,000 others.
#[test]
#[ignore = "prints a figure"]
fn planning_one_changed_job_among_many() {
    let median = |others: u32| {
        let mut state = with_nodes(100, 256);
        let mut ids = counter();
        let jobs = (0..=others).map(|n| job(&format!("job-{n}"), Kind::Service, small(1)));
        for spec in jobs {
            state = decided(&state, |draft| {
                decide::submit(draft, submission(&spec), ANNA, at(0)).unwrap();
            })
            .state;
        }
        planned(&mut state, 0, &mut ids);
        let mut times: Vec<Duration> = (0..101)
            .map(|n| {
                let mut spec = job("job-0", Kind::Service, small(1));
                spec.tasks.get_mut(&Name::main()).unwrap().args = vec![n.to_string()];
                let begin = Instant::now();
                state = decided(&state, |draft| {
                    decide::submit(draft, submission(&spec), ANNA, at(n)).unwrap();
                })
                .state;
                planned(&mut state, n, &mut ids);
                begin.elapsed()
            })
            .collect();
        times.sort();
        times[50]
    };
    let (alone, among) = (median(0), median(10_000));
    let ratio = among.as_secs_f64() / alone.as_secs_f64();
    println!("alone {alone:?}, among 10,000 {among:?}, ratio {ratio:.2}");
}
