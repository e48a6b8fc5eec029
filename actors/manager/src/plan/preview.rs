//! What a submission would do, decided and planned on a copy of the state.

use jiff::Timestamp;
use loom_schemas::error::WireError;
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::JobRecord;
use loom_schemas::spec::JobSpec;
use loom_schemas::wire::{JobPlan, PlanAction, SubmitOutcome, TaskPlan};

use super::diff::{diff, task_diff};
use super::{PlanOptions, plan_job};
use crate::decide::{Asker, Submission, submit};
use crate::reconcile::{replicas, same_in_place};
use crate::state::{Draft, State};

/// At most so many lines say what finds no node.
const BLOCKED_MAX: usize = 20;

/// What a submission would do to a job, and what of it finds no node now. Refused as the
/// submission would be.
pub fn preview(
    state: &State,
    submission: Submission,
    asker: Asker<'_>,
    options: &PlanOptions,
    now: Timestamp,
    ids: &mut dyn FnMut() -> RunId,
) -> Result<JobPlan, WireError> {
    let spec = submission.spec.clone();
    let name = spec.name.clone();
    let mut draft = Draft::new(state.clone());
    let accepted = submit(&mut draft, submission, asker, now)?;
    let old = state
        .job(&name)
        .and_then(|job| Some((job, state.spec(job)?)));
    let tasks = match (old, accepted.outcome) {
        (Some((job, old)), SubmitOutcome::Updated) => changed(&draft, job, old, &spec),
        (_, outcome) => all(&draft, &name, &spec, outcome),
    };
    let changes = old.map(|(_, old)| diff(old, &spec)).unwrap_or_default();
    let waits = |state: &State| -> Vec<String> {
        let slots = state.slots_of(&name);
        let waiting = slots.filter_map(|record| Some((record, record.waiting.as_ref()?)));
        let said = waiting.filter(|(_, why)| !why.is_empty());
        said.map(|(record, why)| format!("{}: {why}", record.slot))
            .take(BLOCKED_MAX)
            .collect()
    };
    if accepted.outcome != SubmitOutcome::Unchanged {
        plan_job(&mut draft, &name, now, options, ids);
    }
    Ok(JobPlan {
        job: name.clone(),
        version: accepted.version,
        outcome: accepted.outcome,
        tasks,
        changes,
        blocked: waits(draft.state()),
    })
}

/// Tasks of a job that begins, begins anew, or stays as it is.
fn all(draft: &Draft, name: &Name, spec: &JobSpec, outcome: SubmitOutcome) -> Vec<TaskPlan> {
    let (action, reason) = match outcome {
        SubmitOutcome::Restarted => (PlanAction::Create, "a new round begins"),
        SubmitOutcome::Unchanged => (PlanAction::Keep, ""),
        SubmitOutcome::Created | SubmitOutcome::Updated => (PlanAction::Create, "new"),
    };
    let job = draft.state().job(name);
    let row = |(name, task): (&Name, _)| TaskPlan {
        task: name.clone(),
        action,
        replicas: job.map_or(0, |job| replicas(job, name, task)),
        reason: reason.to_owned(),
    };
    spec.tasks.iter().map(row).collect()
}

/// Tasks of a job that changes while it runs.
fn changed(draft: &Draft, before: &JobRecord, old: &JobSpec, new: &JobSpec) -> Vec<TaskPlan> {
    let job = draft.state().job(&new.name);
    let mut rows = Vec::new();
    for (name, task) in &new.tasks {
        let wanted = job.map_or(task.replicas, |job| replicas(job, name, task));
        let row = |action, reason| TaskPlan {
            task: name.clone(),
            action,
            replicas: wanted,
            reason,
        };
        let Some(earlier) = old.tasks.get(name) else {
            rows.push(row(PlanAction::Create, "new".to_owned()));
            continue;
        };
        let had = replicas(before, name, earlier);
        let mut reasons = Vec::new();
        if had != wanted {
            reasons.push(format!("replicas {had} to {wanted}"));
        }
        let in_place = same_in_place(earlier, task);
        let prefix = format!("tasks.{name}.");
        let paths = task_diff(old, new, name).into_iter().filter_map(|change| {
            let path = change.path.strip_prefix(&prefix)?.to_owned();
            (path != "replicas").then_some(path)
        });
        // Of a task that is replaced only what replaces it is a reason.
        reasons.extend(paths.filter(|path| in_place || !goes_in_place(path)));
        let action = match in_place {
            false => PlanAction::Replace,
            true if reasons.is_empty() => PlanAction::Keep,
            true => PlanAction::InPlace,
        };
        rows.push(row(action, reasons.join(", ")));
    }
    for name in old
        .tasks
        .keys()
        .filter(|name| !new.tasks.contains_key(*name))
    {
        rows.push(TaskPlan {
            task: name.clone(),
            action: PlanAction::Stop,
            replicas: 0,
            reason: "not in the job any more".to_owned(),
        });
    }
    rows.sort_by(|a, b| a.task.cmp(&b.task));
    rows
}

/// Whether a change of a field of a task restarts nothing.
fn goes_in_place(path: &str) -> bool {
    let field = path.split('.').next().unwrap_or_default();
    matches!(field, "restart" | "timeout" | "health")
}
