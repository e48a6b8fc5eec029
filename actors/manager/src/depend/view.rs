//! How those stand that wait for each other, for people.

use loom_schemas::record::JobRecord;
use loom_schemas::spec::JobSpec;
use loom_schemas::wire::{JobDependency, Standing, TaskStanding};

use super::progress::{Progress, of_job, of_tasks};
use super::{Gate, gates_of_tasks};
use crate::state::State;

/// How the tasks of a job stand, if any of them waits for another, and the jobs that it waits for.
pub fn standing(
    state: &State,
    job: &JobRecord,
    spec: &JobSpec,
) -> (Vec<TaskStanding>, Vec<JobDependency>) {
    let others = spec.depends_on.iter().map(|other| {
        let progress = of_job(state, &other.job, other.task.as_ref());
        let (standing, reason) = said(progress, true);
        JobDependency {
            dependency: other.clone(),
            standing,
            reason,
        }
    });
    (tasks(state, job, spec), others.collect())
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
