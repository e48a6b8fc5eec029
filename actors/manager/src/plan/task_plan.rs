//! What becomes of each task of a job that is submitted, and of the job as a whole, in words.

use std::collections::{BTreeMap, BTreeSet};

use loom_schemas::ids::{Index, Name, Slot};
use loom_schemas::record::JobRecord;
use loom_schemas::spec::{JobSpec, TaskSpec};
use loom_schemas::wire::{PlanAction, SpecChange, SubmitOutcome, TaskPlan, WholeChange};
use loom_schemas::words::Kind;

use super::crowded::crowded;
use super::diff::task_diff;
use super::outside::outside;
use crate::reconcile::{Change, change, change_at, replicas};
use crate::scheduler::Cause;
use crate::state::{Draft, State};

/// Tasks of a job that begins, begins anew, or stays as it is.
pub(super) fn all(
    draft: &Draft,
    name: &Name,
    spec: &JobSpec,
    outcome: SubmitOutcome,
) -> Vec<TaskPlan> {
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
pub(super) fn changed(
    state: &State,
    draft: &Draft,
    (before, old): (&JobRecord, &JobSpec),
    new: &JobSpec,
) -> Vec<TaskPlan> {
    let job = draft.state().job(&new.name);
    let mut rows = Vec::new();
    for (name, task) in &new.tasks {
        let wanted = job.map_or(task.replicas, |job| replicas(job, name, task));
        let (action, reasons) = match old.tasks.get(name) {
            None => (PlanAction::Create, vec!["new".to_owned()]),
            Some(earlier) => {
                let had = replicas(before, name, earlier);
                let moving = crowded(state, before, name, task);
                let (action, mut reasons) =
                    compared((old, earlier, had), (new, task, wanted), name, &moving);
                let goes_on = matches!(action, PlanAction::Keep | PlanAction::InPlace);
                let outside = (goes_on && old.datacenters != new.datacenters)
                    .then(|| outside(draft.state(), new, name, wanted))
                    .flatten();
                let action = outside.map_or(action, |(action, reason)| {
                    reasons.push(reason);
                    action
                });
                (action, reasons)
            }
        };
        rows.push(TaskPlan {
            task: name.clone(),
            action,
            replicas: wanted,
            reason: reasons.join(", "),
        });
    }
    let gone = old
        .tasks
        .keys()
        .filter(|name| !new.tasks.contains_key(*name));
    rows.extend(gone.map(|name| TaskPlan {
        task: name.clone(),
        action: PlanAction::Stop,
        replicas: 0,
        reason: "not in the job any more".to_owned(),
    }));
    rows.sort_by(|a, b| a.task.cmp(&b.task));
    rows
}

/// What becomes of a task that both versions have, each with how many slots it has, and why; some
/// slots have to move for room.
fn compared(
    (old, earlier, had): (&JobSpec, &TaskSpec, u32),
    (new, task, wanted): (&JobSpec, &TaskSpec, u32),
    name: &Name,
    moving: &BTreeMap<Slot, (Name, Cause)>,
) -> (PlanAction, Vec<String>) {
    match (&old.schedule, &new.schedule) {
        (None, Some(_)) => {
            let why = "the job runs by its schedule from now on";
            return (PlanAction::Stop, vec![why.to_owned()]);
        }
        (Some(_), None) => {
            let why = "the job runs by no schedule any more";
            return (PlanAction::Create, vec![why.to_owned()]);
        }
        _ => {}
    }
    let moves = (old.kind == Kind::System) != (new.kind == Kind::System);
    let change = change(earlier, task);
    let in_place = change != Change::Replace && moving.is_empty();
    let mut reasons = Vec::new();
    if moves {
        reasons.push(format!("kind {} to {}", old.kind, new.kind));
    }
    if had != wanted {
        reasons.push(format!("replicas {had} to {wanted}"));
    }
    let prefix = format!("tasks.{name}.");
    let paths = task_diff(old, new, name).into_iter().filter_map(|change| {
        let path = change.path.strip_prefix(&prefix)?;
        // As it stands in job files.
        let path = path.strip_prefix("resources.").unwrap_or(path);
        (path != "replicas").then(|| path.to_owned())
    });
    // Of a task that is replaced only what replaces it is a reason.
    let is_reason = |path: &String| match change {
        Change::Replace => !goes_in_place(path) && !is_limit(path),
        Change::Resize => in_place || !goes_in_place(path),
        Change::Adopt => true,
    };
    reasons.extend(paths.filter(is_reason));
    if new.schedule.is_some() && !reasons.is_empty() {
        reasons.push("from the next firing on".to_owned());
        return (PlanAction::InPlace, reasons);
    }
    if moves {
        return (PlanAction::Replace, reasons);
    }
    let both = had.min(wanted);
    let moves_at = |index: u32| {
        let mut slots = moving.keys();
        slots.any(|slot| slot.index.number() == Some(index))
    };
    let other = |index: &u32| match change_at(earlier, task, &Index::Number(*index)) {
        Change::Adopt => false,
        Change::Resize => moves_at(*index),
        Change::Replace => true,
    };
    let others = (0..both).filter(|index| !in_place && other(index)).count();
    if others > 0 && u32::try_from(others).is_ok_and(|others| others < both) {
        reasons.push(format!("{others} of {both} runs"));
    }
    let nodes: BTreeSet<String> = moving
        .values()
        .map(|(node, cause)| format!("no room in place on {node}: {cause}"))
        .collect();
    reasons.extend(nodes);
    let action = match in_place {
        // What differs for no index that there is replaces nothing.
        false if others > 0 || both == 0 || new.kind == Kind::System => PlanAction::Replace,
        _ if reasons.is_empty() => PlanAction::Keep,
        _ => PlanAction::InPlace,
    };
    (action, reasons)
}

/// Whether a field is a limit, which changes in place where nothing else replaces the run.
fn is_limit(path: &str) -> bool {
    matches!(path, "cpu" | "cpu_limit" | "memory" | "pids" | "disk_rate")
}

/// Whether a change of a field of a task restarts nothing.
fn goes_in_place(path: &str) -> bool {
    let field = path.split('.').next().unwrap_or_default();
    matches!(field, "restart" | "timeout" | "health" | "gang")
}

/// What changes for a job as a whole, and what that does.
pub(super) fn whole_changes(spec: &JobSpec, changes: &[SpecChange]) -> Vec<WholeChange> {
    let mut whole: Vec<WholeChange> = Vec::new();
    for change in changes {
        let field = change.path.split('.').next().unwrap_or_default();
        if field == "tasks" || whole.iter().any(|known| known.field == field) {
            continue;
        }
        whole.push(WholeChange {
            field: field.to_owned(),
            effect: effect(spec, field).to_owned(),
        });
    }
    whole
}

/// What a change of a field of the job does.
fn effect(spec: &JobSpec, field: &str) -> &'static str {
    match field {
        "owner" => "whom it belongs to; restarts nothing",
        "kind" if spec.kind == Kind::System => "runs on every node from now on",
        "kind" => "what runs is judged by the new kind",
        "priority" => "who goes first where not all have room; restarts nothing",
        "datacenters" if spec.kind == Kind::System => "runs end where it may not be any more",
        "datacenters" => "what runs outside of them is replaced, the rest goes on",
        "schedule" => "when it runs from now on",
        "depends_on" => "holds back only what has not started",
        "vars" => "reaches the tasks that refer to them",
        "update" => "how this version and those after it take over",
        "labels" => "by which it is selected; restarts nothing",
        _ => "restarts nothing",
    }
}
