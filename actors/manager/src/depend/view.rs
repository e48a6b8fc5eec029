//! How those stand that wait for each other, for people.

use loom_schemas::ids::Name;
use loom_schemas::record::JobRecord;
use loom_schemas::spec::{DependsOn, JobSpec};
use loom_schemas::wire::{JobDependency, Standing, TaskStanding};

use super::progress::{Progress, of_job, of_tasks};
use super::{Gate, gate_of_job, gates_of_tasks};
use crate::state::State;

/// How the tasks of a job stand, if any of them waits for another, and the jobs that it waits for.
pub fn standing(
    state: &State,
    job: &JobRecord,
    spec: &JobSpec,
) -> (Vec<TaskStanding>, Vec<JobDependency>) {
    (tasks(state, job, spec), dependencies(state, spec))
}

/// How the jobs stand that a job waits for, or has waited for.
pub(super) fn dependencies(state: &State, spec: &JobSpec) -> Vec<JobDependency> {
    let others = spec.depends_on.iter().map(|other| {
        let progress = of_job(state, &other.job, other.task.as_ref());
        let waits = match progress {
            Progress::Begun => gate_of(state, &other.job),
            _ => None,
        };
        let (standing, reason) = match waits {
            Some(Gate::Waits(reason)) => (Standing::Waiting, Some(reason)),
            _ if progress == Progress::Begun => (Standing::Pending, failed_task(state, &other.job)),
            _ => said(progress, is_checked(state, other)),
        };
        JobDependency {
            dependency: other.clone(),
            standing,
            reason,
        }
    });
    others.collect()
}

/// Which task of a job has failed, while others go on: the job may never be all up again.
fn failed_task(state: &State, name: &Name) -> Option<String> {
    let job = state.job(name)?;
    let slots = state.slots_of(name).map(AsRef::as_ref);
    let tasks = of_tasks(job, state.spec(job)?, slots);
    tasks
        .into_iter()
        .find_map(|(task, progress)| match progress {
            Progress::Failed(how) => Some(format!("its task {task} {how}")),
            _ => None,
        })
}

/// Whether anything looks at how what is waited for does its work.
fn is_checked(state: &State, other: &DependsOn) -> bool {
    let spec = state.job(&other.job).and_then(|job| state.spec(job));
    let mut tasks = spec.into_iter().flat_map(|spec| &spec.tasks);
    tasks.any(|(name, task)| {
        task.health.is_some() && other.task.as_ref().is_none_or(|only| only == name)
    })
}

/// Whether a job may start, if it has not ended.
fn gate_of(state: &State, name: &Name) -> Option<Gate> {
    let job = state.job(name).filter(|job| !job.status.is_terminal())?;
    Some(gate_of_job(state, job, state.spec(job)?))
}

fn tasks(state: &State, job: &JobRecord, spec: &JobSpec) -> Vec<TaskStanding> {
    if spec.tasks.values().all(|task| task.after.is_empty()) {
        return Vec::new();
    }
    let slots = state.slots_of(&job.name).map(AsRef::as_ref);
    let progress = of_tasks(job, spec, slots);
    let mut gates = gates_of_tasks(state, job, spec);
    let tasks = progress.into_iter().map(|(name, progress)| {
        let task = &spec.tasks[&name];
        // A gate is for those that have not started.
        let gate = gates.remove(&name).filter(|_| progress.is_open());
        let (standing, reason) = match gate {
            Some(Gate::Never(reason)) => (Standing::Failed, Some(reason)),
            Some(Gate::Waits(_)) if job.status.is_terminal() => (Standing::Never, None),
            Some(Gate::Waits(reason)) => (Standing::Waiting, Some(reason)),
            _ => said(progress, task.health.is_some()),
        };
        TaskStanding {
            after: task.after.clone(),
            task: name,
            standing,
            reason,
        }
    });
    tasks.collect()
}

fn said(progress: Progress, is_checked: bool) -> (Standing, Option<String>) {
    match progress {
        Progress::Idle => (Standing::Pending, Some("it has 0 replicas".to_owned())),
        Progress::Begun => (Standing::Pending, None),
        Progress::Healthy if is_checked => (Standing::Healthy, None),
        Progress::Running | Progress::Healthy => (Standing::Running, None),
        Progress::Completed => (Standing::Completed, None),
        Progress::Failed(how) => (Standing::Failed, Some(how)),
    }
}
