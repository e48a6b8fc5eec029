//! After the log was rewound: who is awaited, and what nodes tell that the state has lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::record::{ClusterRecord, JobRecord, Order, Recovery, VersionRecord, Wanted};
use loom_schemas::spec::{JOB_MAX, JobSpec, PRIORITY, Sets, UpdateSpec};
use loom_schemas::wire::{Assigned, RunReport};
use loom_schemas::words::JobStatus;

use crate::reconcile::replicas;
use crate::state::{Draft, State};

/// Who submitted what nobody knows the submitter of any more.
pub const RECOVERED: &str = "recovered";

/// Begins to wait for every node of the state but those that somebody gave up. A state without
/// nodes knows nobody to wait for: then it is waited for `patience`.
pub(super) fn begin(
    draft: &mut Draft,
    record: &mut ClusterRecord,
    incarnation: u64,
    patience: Duration,
    now: Timestamp,
) {
    if record.recovery.as_ref().map(|before| before.incarnation) == Some(incarnation) {
        return;
    }
    let nodes = draft.state().nodes().filter(|node| !node.lost);
    let awaited: BTreeSet<Name> = nodes.map(|node| node.name.clone()).collect();
    let nobody = draft.state().node_count() == 0;
    record.recovery = Some(Recovery {
        incarnation,
        awaited,
        not_before: nobody.then(|| now.checked_add(patience).ok()).flatten(),
    });
}

/// A node has said hello and the state knows what it has, or somebody gave it up.
pub fn heard(draft: &mut Draft, node: &Name) {
    edit(draft, |recovery| {
        recovery.awaited.remove(node);
    });
}

/// A node that the state knows nothing of is heard, or has said hello with runs that the state
/// knows nothing of and is asked what they are.
pub fn await_node(draft: &mut Draft, node: &Name) {
    edit(draft, |recovery| {
        recovery.awaited.insert(node.clone());
    });
}

/// Whether nodes that nobody knows by name were waited for long enough.
pub fn is_wait_over(state: &State, now: Timestamp) -> bool {
    let over = |recovery: &Recovery| recovery.not_before.is_some_and(|at| at <= now);
    state.recovery().is_some_and(over)
}

/// Ends that wait.
pub fn end_wait(draft: &mut Draft) {
    edit(draft, |recovery| recovery.not_before = None);
}

/// Whether a node has live runs of tasks that the state knows nothing of.
pub fn tells_more(state: &State, runs: &[RunReport]) -> bool {
    runs.iter()
        .filter(|run| !run.state.is_terminal() || run.will_restart)
        .any(|run| !knows(state, &run.slot.job, run.version, &run.slot.task))
}

/// Takes up the jobs and versions that a node's placements tell of and the state has lost. What
/// they do not tell (tasks without a run, who owned it) stays unknown.
pub fn take_up(draft: &mut Draft, placements: &[Assigned], now: Timestamp) {
    let unknown: Vec<&Assigned> = placements
        .iter()
        .filter(|told| !knows(draft.state(), &told.slot.job, told.version, &told.slot.task))
        .collect();
    for lot in unknown.chunk_by(|a, b| version_of(a) == version_of(b)) {
        take_up_version(draft, lot, now);
        for placement in lot {
            take_up_job(draft, placement, now);
        }
    }
}

/// What a node told in lots that are taken up in a commit each, so that none is larger than a
/// commit can be: one version of a job each, the oldest first.
pub fn lots(mut placements: Vec<Assigned>) -> Vec<Vec<Assigned>> {
    placements.sort_by(|a, b| version_of(a).cmp(&version_of(b)));
    let lots = placements.chunk_by(|a, b| version_of(a) == version_of(b));
    lots.map(<[Assigned]>::to_vec).collect()
}

fn version_of(placement: &Assigned) -> (&Name, u32) {
    (&placement.slot.job, placement.version)
}

fn knows(state: &State, job: &Name, version: u32, task: &Name) -> bool {
    state.job(job).is_some()
        && state
            .version(job, version)
            .is_some_and(|record| record.spec.tasks.contains_key(task))
}

/// Takes up what placements of one version tell of it.
fn take_up_version(draft: &mut Draft, lot: &[&Assigned], now: Timestamp) {
    let Some(placement) = lot.first() else { return };
    let (job, version) = version_of(placement);
    let state = draft.state();
    let wanted = || state.job(job).and_then(|job| state.spec(job));
    let mut spec = match state.version(job, version) {
        Some(known) if known.by != RECOVERED => return,
        Some(known) => known.spec.clone(),
        // What a lost version changed is in the placements, the rest is as it was before.
        None => wanted().cloned().unwrap_or_else(|| JobSpec {
            name: job.clone(),
            owner: None,
            kind: placement.kind,
            priority: PRIORITY,
            datacenters: Vec::new(),
            strategy: None,
            schedule: None,
            depends_on: Vec::new(),
            vars: BTreeMap::new(),
            update: UpdateSpec::default(),
            labels: placement.labels.clone(),
            tasks: BTreeMap::new(),
        }),
    };
    for Assigned { slot, task, .. } in lot {
        // Each placement has of `per_index` what its own slot has.
        let known = spec.tasks.remove(&slot.task);
        let mut task = task.clone();
        task.per_index
            .extend(known.into_iter().flat_map(|known| known.per_index));
        spec.tasks.insert(slot.task.clone(), task);
    }
    let text = text_of(&spec);
    draft.put_version(VersionRecord {
        job: job.clone(),
        version,
        spec,
        text,
        sets: Sets::new(),
        at: now,
        by: RECOVERED.to_owned(),
        reason: None,
    });
}

/// A spec as a text that can be submitted. One of maps, texts and numbers can be written as JSON;
/// one that would be too large so is MessagePack, which escapes nothing.
fn text_of(spec: &JobSpec) -> Vec<u8> {
    let text = serde_json::to_vec_pretty(spec).unwrap_or_default();
    if text.len() <= JOB_MAX {
        return text;
    }
    rmp_serde::to_vec_named(spec).unwrap_or_default()
}

fn take_up_job(draft: &mut Draft, placement: &Assigned, now: Timestamp) {
    let name = &placement.slot.job;
    let mut job = match draft.state().job(name) {
        Some(job) => JobRecord::clone(job),
        None => lost_job(placement, now),
    };
    job.version = job.version.max(placement.version);
    let stopped_here = matches!(&job.wanted, Wanted::Stop { by, .. } if by == RECOVERED);
    if stopped_here && placement.order == Order::Run {
        job.wanted = Wanted::Run;
    }
    let task = &placement.slot.task;
    if job.version == placement.version
        && placement.replicas > 0
        && replicas(&job, task, &placement.task) != placement.replicas
    {
        job.scaled.insert(task.clone(), placement.replicas);
    }
    draft.put_job(job);
}

fn lost_job(placement: &Assigned, now: Timestamp) -> JobRecord {
    let wanted = match &placement.order {
        Order::Run => Wanted::Run,
        Order::Stop { reason } => Wanted::Stop {
            by: RECOVERED.to_owned(),
            reason: reason.clone(),
        },
    };
    JobRecord {
        name: placement.slot.job.clone(),
        owner: RECOVERED.to_owned(),
        version: placement.version,
        round: 1,
        wanted,
        scaled: BTreeMap::new(),
        stopped_slots: BTreeSet::new(),
        status: JobStatus::Pending,
        reason: None,
        exit_code: None,
        created_at: now,
        submitted_at: now,
        started_at: None,
        ended_at: None,
        parent: None,
        schedule: None,
        healthy: BTreeSet::new(),
        update: None,
        held: BTreeMap::new(),
    }
}

fn edit(draft: &mut Draft, edit: impl FnOnce(&mut Recovery)) {
    let Some(mut record) = draft.state().cluster().cloned() else {
        return;
    };
    if let Some(recovery) = record.recovery.as_mut() {
        edit(recovery);
        draft.put_cluster(record);
    }
}
