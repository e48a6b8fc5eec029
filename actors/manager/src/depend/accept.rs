//! What a job waits for, looked at when it is accepted.

use loom_schemas::error::WireError;
use loom_schemas::ids::Name;
use loom_schemas::spec::{DependOn, DependsOn, JobSpec, RestartOn, TaskSpec};
use loom_schemas::words::Kind;

use super::circle::circle;
use crate::state::State;

/// `invalid` if a job waits for one that is not there, that can never come to what is waited for, or
/// that waits for this one in turn.
pub fn check(state: &State, spec: &JobSpec) -> Result<(), WireError> {
    for other in &spec.depends_on {
        let wrong = wrong_with(state, spec, other);
        if let Some(wrong) = wrong {
            return Err(WireError::invalid(format!("depends_on: {wrong}")));
        }
    }
    check_circle(state, spec)
}

/// `invalid` if a job waits for one that waits for this one in turn, be it as its task.
pub fn check_circle(state: &State, spec: &JobSpec) -> Result<(), WireError> {
    match circle(state, spec) {
        Some(way) => Err(WireError::invalid(format!(
            "depends_on: the jobs wait for each other: {way}"
        ))),
        None => Ok(()),
    }
}

fn wrong_with(state: &State, spec: &JobSpec, other: &DependsOn) -> Option<String> {
    let job = &other.job;
    if *job == spec.name {
        return Some("a job cannot wait for itself (`after` orders the tasks of a job)".to_owned());
    }
    let Some(target) = state.job(job).and_then(|record| state.spec(record)) else {
        return Some(format!("there is no job {job}: run it first"));
    };
    if let Some(task) = &other.task
        && !target.tasks.contains_key(task)
    {
        let names: Vec<&str> = target.tasks.keys().map(Name::as_str).take(20).collect();
        return Some(format!(
            "job {job} has no task {task}; its tasks are {}",
            names.join(", ")
        ));
    }
    match hopeless(target, other) {
        Some(Hopeless::Scheduled) => Some(format!(
            "job {job} runs again and again by its schedule: nothing can wait for it"
        )),
        Some(Hopeless::Endless(kind)) => Some(format!(
            "job {job} is a {kind} and does not complete: write `on: running` or `on: healthy`"
        )),
        None if other.on == DependOn::Healthy
            && tasks_of(target, other).all(|task| task.health.is_none()) =>
        {
            Some(format!(
                "job {job} is never healthy, as nothing checks it: write `on: running`, or give \
                 it a `health`"
            ))
        }
        None => None,
    }
}

/// Why nobody can wait for a job as it is now.
pub(super) enum Hopeless {
    /// It runs nothing itself.
    Scheduled,
    /// It is of a kind that never completes.
    Endless(Kind),
}

impl Hopeless {
    /// In words, after `job b`.
    pub(super) fn how(&self) -> String {
        match self {
            Self::Scheduled => "runs by its schedule now, never itself".to_owned(),
            Self::Endless(kind) => format!("never completes: it is a {kind} now"),
        }
    }
}

/// Whether a job can never come to what is waited for, as its spec is.
pub(super) fn hopeless(target: &JobSpec, other: &DependsOn) -> Option<Hopeless> {
    if target.schedule.is_some() {
        return Some(Hopeless::Scheduled);
    }
    let endless = |task: &TaskSpec| task.restart.on == RestartOn::Any;
    let is_endless = other.on == DependOn::Completed
        && target.kind != Kind::Batch
        && tasks_of(target, other).any(endless);
    is_endless.then_some(Hopeless::Endless(target.kind))
}

/// The tasks of a job that are waited for.
fn tasks_of<'a>(target: &'a JobSpec, other: &DependsOn) -> impl Iterator<Item = &'a TaskSpec> {
    let tasks = target.tasks.iter();
    let meant = move |name: &Name| other.task.as_ref().is_none_or(|task| task == name);
    tasks
        .filter(move |(name, _)| meant(name))
        .map(|(_, task)| task)
}
