//! The answers of the read API, built from the state.

use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{Health, JobRecord, NodeRecord, Order, RunRecord, SlotRecord};
use loom_schemas::spec::JobSpec;
use loom_schemas::wire::{
    Heartbeat, JobGet, JobList, JobListQuery, JobSummary, JobView, NodeGet, NodeList,
    NodeListQuery, NodeSummary, NodeView, RunView, SlotCursor,
};
use loom_schemas::words::{Kind, RunState};

use serde::Serialize;

use crate::depend::{standing, upstream};
use crate::reconcile::replicas;
use crate::size::size_of;
use crate::state::{State, live_runs};

use waits::explained;

#[cfg(test)]
mod tests;
mod waits;

/// The most children of a job that are shown with it.
const CHILDREN_MAX: usize = 200;

/// The fewest characters that name a run.
const RUN_SUFFIX_MIN: usize = 8;

/// Jobs in a line each: those after where the last page ended, about so many bytes of them.
pub fn job_list(state: &State, query: &JobListQuery, bytes: usize) -> JobList {
    let line = |job: &std::sync::Arc<JobRecord>| match state.spec(job) {
        Some(spec) => summary(state, job, spec),
        None => bare_summary(job),
    };
    let later = state
        .jobs()
        .filter(|job| query.after.as_ref().is_none_or(|after| job.name > *after));
    let (jobs, more) = page(later.map(line), bytes);
    let last = jobs.last().map(|line: &JobSummary| line.job.name.clone());
    JobList {
        jobs,
        next: last.filter(|_| more),
    }
}

/// One job, with the slots after where the last page ended, about so many bytes of them;
/// `not-found` if there is none.
pub fn job_view(state: &State, query: &JobGet, bytes: usize) -> Result<JobView, WireError> {
    let name = &query.job;
    let job = state
        .job(name)
        .ok_or_else(|| WireError::not_found(format!("no job {name}")))?;
    let spec = state.spec(job).ok_or_else(|| {
        WireError::not_found(format!("job {name}: version {} is not kept", job.version))
    })?;
    let cursor = |slot: &Slot| SlotCursor {
        task: slot.task.clone(),
        index: slot.index.clone(),
    };
    let slots = explained(state, job, spec);
    let later = slots.filter(|record| {
        query
            .after
            .as_ref()
            .is_none_or(|after| cursor(&record.slot) > *after)
    });
    let (slots, more) = page(later, bytes);
    let last = slots.last().map(|record: &SlotRecord| cursor(&record.slot));
    let (graph, depends_on, upstream) = match query.after {
        None => {
            let (graph, depends_on) = standing(state, job, spec);
            (graph, depends_on, upstream(state, spec))
        }
        Some(_) => Default::default(),
    };
    Ok(JobView {
        summary: summary(state, job, spec),
        spec: spec.clone(),
        slots,
        next: last.filter(|_| more),
        graph,
        depends_on,
        upstream,
        children: match query.after {
            None => children(state, name),
            Some(_) => Vec::new(),
        },
    })
}

/// The newest children of a job, by name.
fn children(state: &State, name: &Name) -> Vec<JobSummary> {
    let mut children: Vec<&std::sync::Arc<JobRecord>> = state.children(name).collect();
    children.sort_by_key(|child| std::cmp::Reverse(child.submitted_at));
    children.truncate(CHILDREN_MAX);
    children.sort_by(|a, b| a.name.cmp(&b.name));
    let line = |job: &std::sync::Arc<JobRecord>| match state.spec(job) {
        Some(spec) => summary(state, job, spec),
        None => bare_summary(job),
    };
    children.into_iter().map(line).collect()
}

/// The submitted text of a version, the wanted one if none is named.
pub fn job_text(state: &State, name: &Name, version: Option<u32>) -> Result<Vec<u8>, WireError> {
    let job = state
        .job(name)
        .ok_or_else(|| WireError::not_found(format!("no job {name}")))?;
    let version = version.unwrap_or(job.version);
    match state.version(name, version) {
        Some(record) => Ok(record.text.clone()),
        None => Err(WireError::not_found(format!(
            "job {name}: version {version} is not kept"
        ))),
    }
}

/// Nodes in a line each: those after where the last page ended, about so many bytes of them;
/// heartbeats are what this manager saw last.
pub fn node_list(
    state: &State,
    query: &NodeListQuery,
    heartbeat: &dyn Fn(&Name) -> Option<Heartbeat>,
    bytes: usize,
) -> NodeList {
    let later = state
        .nodes()
        .filter(|node| query.after.as_ref().is_none_or(|after| node.name > *after));
    let line = |node: &std::sync::Arc<NodeRecord>| node_summary(state, node, heartbeat(&node.name));
    let (nodes, more) = page(later.map(line), bytes);
    let last = nodes
        .last()
        .map(|line: &NodeSummary| line.node.name.clone());
    NodeList {
        nodes,
        next: last.filter(|_| more),
    }
}

/// One node, with the runs after where the last page ended, about so many bytes of them;
/// `not-found` if there is none.
pub fn node_view(
    state: &State,
    query: &NodeGet,
    heartbeat: Option<Heartbeat>,
    bytes: usize,
) -> Result<NodeView, WireError> {
    let name = &query.node;
    let node = state
        .node(name)
        .ok_or_else(|| WireError::not_found(format!("no node {name}")))?;
    let placements = state
        .load(name)
        .into_iter()
        .flat_map(|load| &load.placements);
    let later = placements.filter(|(placement, _)| query.after.is_none_or(|at| **placement > at));
    let runs = later.filter_map(|(placement, slot)| {
        let record = state.slot(slot)?;
        let run = live_runs(record).find(|run| run.placement == *placement)?;
        Some(RunView {
            slot: Slot::clone(slot),
            run: run.clone(),
            waiting: record.waiting.clone(),
        })
    });
    let (runs, more) = page(runs, bytes);
    let last = runs.last().map(|view: &RunView| view.run.placement);
    Ok(NodeView {
        summary: node_summary(state, node, heartbeat),
        runs,
        next: last.filter(|_| more),
    })
}

/// A run by its id or at least the last 8 characters of it; `conflict` if several end so.
pub fn run_view(state: &State, text: &str) -> Result<RunView, WireError> {
    let (run, slot) = find_run(state, text)?;
    let record = state.slot(&slot);
    let mut runs = record.into_iter().flat_map(|record| {
        record
            .current
            .iter()
            .chain(&record.incoming)
            .chain(&record.ended)
    });
    match runs.find(|record| record.run == run) {
        Some(found) => Ok(RunView {
            slot,
            run: RunRecord::clone(found),
            waiting: None,
        }),
        None => Err(WireError::not_found(format!("no run {text}"))),
    }
}

fn find_run(state: &State, text: &str) -> Result<(RunId, Slot), WireError> {
    let none = || WireError::not_found(format!("no run {text}"));
    if let Ok(run) = text.parse::<RunId>() {
        return Ok((run, state.slot_of_run(run).ok_or_else(none)?.clone()));
    }
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let hexadecimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !hexadecimal || digits.len() < RUN_SUFFIX_MIN || digits.len() > 32 {
        return Err(WireError::invalid(format!(
            "`{text}` names no run: expected a UUID or at least its last {RUN_SUFFIX_MIN} characters"
        )));
    }
    let number = u128::from_str_radix(&digits, 16).map_err(|_| none())?;
    let count = u32::try_from(digits.len()).unwrap_or(32);
    let mut found = state.runs_ending(number, count);
    let (run, slot) = found.next().ok_or_else(none)?;
    let first = (*run, Slot::clone(slot));
    if found.next().is_some() {
        let message = format!("more than one run ends in {text}: give more of its id");
        return Err(WireError::new(ErrorCode::Conflict, message));
    }
    Ok(first)
}

fn summary(state: &State, job: &JobRecord, spec: &JobSpec) -> JobSummary {
    let slots = || state.slots_of(&job.name).map(AsRef::as_ref);
    let mut line = JobSummary {
        kind: spec.kind,
        labels: spec.labels.clone(),
        wanted: wanted(state, job, spec),
        ..bare_summary(job)
    };
    let stopped = u32::try_from(job.stopped_slots.len()).unwrap_or(u32::MAX);
    line.wanted = line.wanted.saturating_sub(stopped);
    if spec.tasks.values().any(|task| task.health.is_some()) {
        let healthy = slots().filter(|slot| is_healthy(spec, slot)).count();
        line.healthy = Some(u32::try_from(healthy).unwrap_or(u32::MAX));
    }
    for slot in slots() {
        line.waiting += u32::from(slot.waiting.is_some());
        line.stopping += u32::from(live_runs(slot).any(|run| run.order != Order::Run));
        match slot.holder().map(|run| (run.state, &run.order)) {
            Some((RunState::Running, Order::Run)) => line.running += 1,
            Some((RunState::Completed, _)) => line.completed += 1,
            _ => {}
        }
    }
    line
}

/// How many slots are wanted, those that were stopped one by one among them.
fn wanted(state: &State, job: &JobRecord, spec: &JobSpec) -> u32 {
    let tasks = spec.tasks.iter();
    if spec.schedule.is_some() {
        // Its firings run in its place.
        return 0;
    }
    match spec.kind {
        Kind::System => {
            let slots = state.slots_of(&job.name);
            let count = slots
                .filter(|slot| slot.slot.index.node().is_some())
                .count();
            u32::try_from(count).unwrap_or(u32::MAX)
        }
        _ => tasks.map(|(name, task)| replicas(job, name, task)).sum(),
    }
}

/// Whether the run of a slot does its work as far as its checks can tell; one without checks does
/// while it runs.
fn is_healthy(spec: &JobSpec, slot: &SlotRecord) -> bool {
    let Some(run) = slot.holder() else {
        return false;
    };
    let checked = spec.tasks.get(&slot.slot.task);
    let checked = checked.is_some_and(|task| task.health.is_some());
    let healthy = run.health.as_ref().is_some_and(Health::is_healthy);
    let goes_on = run.state == RunState::Running && run.order == Order::Run;
    goes_on && !run.marks.unknown && (healthy || !checked)
}

/// A job of which only its own record is known.
fn bare_summary(job: &JobRecord) -> JobSummary {
    JobSummary {
        status: job.status,
        kind: Kind::default(),
        labels: std::collections::BTreeMap::new(),
        wanted: 0,
        running: 0,
        stopping: 0,
        healthy: None,
        completed: 0,
        waiting: 0,
        job: job.clone(),
    }
}

fn node_summary(state: &State, node: &NodeRecord, heartbeat: Option<Heartbeat>) -> NodeSummary {
    let load = state.load(&node.name);
    let runs = load.map_or(0, |load| load.placements.len());
    let held = load.map(|load| load.held).unwrap_or_default();
    NodeSummary {
        node: node.clone(),
        heartbeat,
        ahead_ms: None,
        reserved_cpu_millis: u32::try_from(held.cpu).unwrap_or(u32::MAX),
        reserved_memory: held.memory,
        reserved_disk: held.disk,
        reserved_disk_rate: held.disk_rate,
        reserved_pids: held.pids,
        reserved_gpus: load.map_or(0, |l| u32::try_from(l.gpus.len()).unwrap_or(u32::MAX)),
        runs: u32::try_from(runs).unwrap_or(u32::MAX),
    }
}

/// The first of the rows, until they have so many bytes; and whether there are more.
fn page<T: Serialize>(rows: impl Iterator<Item = T>, bytes: usize) -> (Vec<T>, bool) {
    let (mut page, mut filled) = (Vec::new(), 0);
    for row in rows {
        filled += size_of(&row);
        if filled > bytes && !page.is_empty() {
            return (page, true);
        }
        page.push(row);
    }
    (page, false)
}
