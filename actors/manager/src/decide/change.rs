//! Stop, restart and scale.

use std::collections::BTreeSet;

use jiff::Timestamp;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::{Index, Name, Slot};
use loom_schemas::record::{JobRecord, Order, SlotRecord, Wanted};
use loom_schemas::spec::{JobSpec, REPLICAS_MAX};
use loom_schemas::wire::{JobAddress, JobRequest, ScaleRequest};
use loom_schemas::words::Kind;

use super::{Asker, find, new_round};
use crate::reconcile::{replicas, retire, stopped_by};
use crate::state::{Draft, State, is_live, job_event};

/// Slots of a job, by task and index.
type Slots = BTreeSet<(Name, Index)>;

/// The longest reason, in characters.
const REASON_MAX: usize = 1_000;

/// Stops a job, a task of it or one index; true if anything changed.
///
/// Tasks and indexes stay down until restarted, scaled or submitted again. Of a job that has ended
/// nothing is left to stop.
pub fn stop(
    draft: &mut Draft,
    request: &JobRequest,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<bool, WireError> {
    let reason = reason_of(request)?.unwrap_or_default();
    let (job, spec) = find(draft.state(), &request.address.job)?;
    let slots = slots_at(draft.state(), job, spec, &request.address)?;
    if job.status.is_terminal() {
        return Ok(false);
    }
    let mut job = job.clone();
    if request.address.task.is_none() && request.address.index.is_none() {
        let stop = Wanted::Stop {
            by: asker.user.to_owned(),
            reason,
        };
        if job.wanted != Wanted::Run {
            return Ok(false);
        }
        job.wanted = stop;
        tell_stopping(draft, &job, request, asker, now);
        draft.put_job(job);
        return Ok(true);
    }
    let before = job.stopped_slots.len();
    job.stopped_slots.extend(slots.iter().cloned());
    if job.stopped_slots.len() == before {
        return Ok(false);
    }
    let why = stopped_by(asker.user, &reason);
    for slot in records(draft, &job.name, &slots) {
        let mut slot = slot;
        let runs = slot.current.iter_mut().chain(&mut slot.incoming);
        for run in runs.filter(|run| is_live(run)) {
            run.order = Order::Stop {
                reason: why.clone(),
            };
        }
        draft.put_slot(slot);
    }
    tell_stopping(draft, &job, request, asker, now);
    draft.put_job(job);
    Ok(true)
}

/// Tells that somebody has a job stopped, or a part of it: what runs may take its time to end.
fn tell_stopping(
    draft: &mut Draft,
    job: &JobRecord,
    request: &JobRequest,
    asker: Asker<'_>,
    now: Timestamp,
) {
    let JobAddress { task, index, .. } = &request.address;
    let part = match (task, index) {
        (None, None) => None,
        _ => Some(request.address.to_string()),
    };
    let why: Vec<String> = part.into_iter().chain(request.reason.clone()).collect();
    let mut event = job_event(now, job, "stopping");
    event.by = Some(asker.user.to_owned());
    event.request = asker.request.map(str::to_owned);
    event.reason = (!why.is_empty()).then(|| why.join(": "));
    draft.event(event);
}

/// Restarts a job, a task or one index; true if anything changed.
///
/// Live runs are restarted in place, by their node. What was stopped, waits or has ended is placed
/// again at once; a whole job that has ended begins a new round, a part of it is a `conflict`. So does
/// a whole batch that has not ended: its tasks run again in their order, each after those it waits for.
pub fn restart(
    draft: &mut Draft,
    request: &JobRequest,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<bool, WireError> {
    let reason = reason_of(request)?;
    let (job, spec) = find(draft.state(), &request.address.job)?;
    let slots = slots_at(draft.state(), job, spec, &request.address)?;
    let mut job = job.clone();
    let is_whole = request.address.task.is_none() && request.address.index.is_none();
    let is_batch = spec.kind == Kind::Batch && spec.schedule.is_none();
    let is_over = job.status.is_terminal() || job.wanted != Wanted::Run;
    if is_over || (is_whole && is_batch) {
        if !is_whole {
            let message = format!(
                "job {} has ended or is being stopped: restart the whole job",
                job.name
            );
            return Err(WireError::new(ErrorCode::Conflict, message));
        }
        let job = new_round(&job, now);
        let mut event = job_event(now, &job, "accepted");
        event.by = Some(asker.user.to_owned());
        event.request = asker.request.map(str::to_owned);
        event.reason = Some(reason.unwrap_or_else(|| "restarted".to_owned()));
        draft.event(event);
        draft.put_job(job);
        return Ok(true);
    }
    let before = job.stopped_slots.len();
    job.stopped_slots.retain(|slot| !slots.contains(slot));
    let mut changed = job.stopped_slots.len() != before;
    if changed {
        draft.put_job(job.clone());
    }
    for mut slot in records(draft, &job.name, &slots) {
        changed |= restart_slot(&mut slot);
        draft.put_slot(slot);
    }
    draft.state_mut().mark_dirty(&job.name);
    Ok(changed)
}

/// Sets how many slots a task has; true if anything changed. Slots of the task that were stopped
/// one by one are wanted again.
pub fn scale(
    draft: &mut Draft,
    request: &ScaleRequest,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<bool, WireError> {
    let (job, spec) = find(draft.state(), &request.job)?;
    has_own_runs(spec)?;
    let name = task_at(spec, request.task.as_ref())?;
    let task = spec.tasks.get(&name).ok_or_else(|| no_task(spec, &name))?;
    if spec.kind == Kind::System {
        return Err(WireError::invalid(format!(
            "job {} is a system job: it has one on every node that matches",
            job.name
        )));
    }
    let others = spec.tasks.iter().filter(|(other, _)| **other != name);
    let others: u64 = others
        .map(|(other, task)| u64::from(replicas(job, other, task)))
        .sum();
    let total = others + u64::from(request.replicas);
    if total > REPLICAS_MAX {
        return Err(WireError::invalid(format!(
            "{total} replicas in job {}: at most {REPLICAS_MAX} a job",
            job.name
        )));
    }
    if job.status.is_terminal() || job.wanted != Wanted::Run {
        let message = format!(
            "job {} has ended or is being stopped: run it again",
            job.name
        );
        return Err(WireError::new(ErrorCode::Conflict, message));
    }
    let mut next = job.clone();
    if request.replicas == task.replicas {
        next.scaled.remove(&name);
    } else {
        next.scaled.insert(name.clone(), request.replicas);
    }
    next.stopped_slots.retain(|(task, _)| *task != name);
    if next != *job
        && let Some(mut update) = next.update.take()
    {
        // It holds whichever version stays, and there may be fewer slots that count.
        update.scaled.insert(name.clone(), request.replicas);
        next.update = Some(super::update::anew(update, now));
    }
    if next == *job {
        return Ok(false);
    }
    let mut event = job_event(now, &next, "updated");
    event.by = Some(asker.user.to_owned());
    event.request = asker.request.map(str::to_owned);
    event.reason = Some(format!("task {name} scaled to {}", request.replicas));
    draft.event(event);
    draft.put_job(next);
    Ok(true)
}

/// The reason of a request; it goes into records and events, so it is bounded.
fn reason_of(request: &JobRequest) -> Result<Option<String>, WireError> {
    check_reason(request.reason.as_deref())?;
    Ok(request.reason.clone())
}

/// `invalid` if a reason is longer than what goes into records and events.
pub fn check_reason(reason: Option<&str>) -> Result<(), WireError> {
    match reason.map_or(0, |reason| reason.chars().count()) {
        length if length > REASON_MAX => Err(WireError::invalid(format!(
            "a reason of {length} characters: at most {REASON_MAX}"
        ))),
        _ => Ok(()),
    }
}

/// An address as it is meant: of a job with one task on every node, `web/node-1` names a node.
fn meant(spec: &JobSpec, address: &JobAddress) -> JobAddress {
    match (&address.task, &address.index) {
        (Some(node), None)
            if spec.kind == Kind::System
                && spec.tasks.len() == 1
                && !spec.tasks.contains_key(node) =>
        {
            JobAddress {
                job: address.job.clone(),
                task: None,
                index: Some(Index::Node(node.clone())),
            }
        }
        _ => address.clone(),
    }
}

/// The slots of a task of a system job: all, or the one on a node.
fn on_nodes(
    state: &State,
    job: &JobRecord,
    task: &Name,
    index: Option<&Index>,
) -> Result<Slots, WireError> {
    let slots = state.slots_of(&job.name).map(|record| &record.slot);
    let of_task = slots.filter(|slot| slot.task == *task && slot.index.node().is_some());
    let found: Slots = of_task
        .filter(|slot| index.is_none_or(|index| *index == slot.index))
        .map(|slot| (slot.task.clone(), slot.index.clone()))
        .collect();
    match index {
        Some(index) if found.is_empty() => {
            let slot = Slot::at(job.name.clone(), task.clone(), index.clone());
            let message = format!("no slot {slot}: the index of a system job is a node it runs on");
            Err(WireError::not_found(message))
        }
        _ => Ok(found),
    }
}

/// The slots of an address, as they are wanted now.
fn slots_at(
    state: &State,
    job: &JobRecord,
    spec: &JobSpec,
    address: &JobAddress,
) -> Result<Slots, WireError> {
    let address = &meant(spec, address);
    let one = match (&address.task, &address.index) {
        (None, None) => None,
        (task, _) => {
            has_own_runs(spec)?;
            Some(task_at(spec, task.as_ref())?)
        }
    };
    let mut slots = Slots::new();
    for (name, task) in &spec.tasks {
        if one.as_ref().is_some_and(|one| one != name) {
            continue;
        }
        if spec.kind == Kind::System {
            slots.extend(on_nodes(state, job, name, address.index.as_ref())?);
            continue;
        }
        let replicas = replicas(job, name, task);
        match &address.index {
            Some(index) if index.number().is_none_or(|number| number >= replicas) => {
                let slot = Slot::at(job.name.clone(), name.clone(), index.clone());
                return Err(WireError::not_found(format!(
                    "no slot {slot}: the task has {replicas}"
                )));
            }
            Some(index) => {
                slots.insert((name.clone(), index.clone()));
            }
            None => slots.extend((0..replicas).map(|index| (name.clone(), Index::Number(index)))),
        }
    }
    Ok(slots)
}

/// `invalid` for a part of a job with a schedule: its firings run, each by itself.
fn has_own_runs(spec: &JobSpec) -> Result<(), WireError> {
    if spec.schedule.is_none() {
        return Ok(());
    }
    let job = &spec.name;
    Err(WireError::invalid(format!(
        "job {job} runs nothing itself, but by its schedule: name one of its firings, which `loomctl \
         status {job}` shows, or the whole job"
    )))
}

fn task_at(spec: &JobSpec, task: Option<&Name>) -> Result<Name, WireError> {
    match (task, spec.tasks.keys().next()) {
        (Some(name), _) if spec.tasks.contains_key(name) => Ok(name.clone()),
        (Some(name), _) => Err(no_task(spec, name)),
        (None, Some(only)) if spec.tasks.len() == 1 => Ok(only.clone()),
        (None, _) => Err(WireError::invalid(format!(
            "job {} has several tasks, say which: {}",
            spec.name,
            task_names(spec)
        ))),
    }
}

fn no_task(spec: &JobSpec, name: &Name) -> WireError {
    WireError::not_found(format!(
        "job {} has no task {name}: {}",
        spec.name,
        task_names(spec)
    ))
}

fn task_names(spec: &JobSpec) -> String {
    spec.tasks
        .keys()
        .map(Name::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

fn records(draft: &Draft, job: &Name, slots: &Slots) -> Vec<SlotRecord> {
    let state = draft.state();
    let at = |(task, index): &(Name, Index)| Slot::at(job.clone(), task.clone(), index.clone());
    slots
        .iter()
        .filter_map(|slot| state.slot(&at(slot)))
        .map(|r| SlotRecord::clone(r))
        .collect()
}

/// True if something of the slot changed or is placed again.
fn restart_slot(slot: &mut SlotRecord) -> bool {
    match slot.current.as_mut() {
        Some(run) if is_live(run) => {
            if run.order != Order::Run {
                // It is being stopped and is placed again once it has ended.
                return true;
            }
            run.restart_orders += 1;
            // What a person asked for is no failure, and the count begins anew.
            slot.failed_placements = 0;
            true
        }
        Some(_) => {
            retire(slot);
            true
        }
        None => {
            let waits = slot.not_before.is_some() || slot.failed_placements > 0;
            slot.not_before = None;
            slot.failed_placements = 0;
            waits
        }
    }
}
