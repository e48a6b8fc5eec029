//! Sub-jobs: a task whose run is another job, dispatched with the task's params. Pure.
//!
//! The run of such a task has no node: what the child job comes to is what the run comes to, read
//! off it whenever the task's job is planned ([`mirror`]), which the child's changes bring about. A
//! stop goes the other way: the run is ordered to end, and so the child is stopped.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use loom_schemas::error::WireError;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{Exit, JobRecord, MadeBy, Order, RunRecord, SlotRecord, Wanted};
use loom_schemas::spec::reference::{Context, Piece, Reference, Template};
use loom_schemas::spec::{JobSpec, Operator, Resources, SubJob, TaskSpec};
use loom_schemas::words::{JobStatus, Kind, RunState};

use crate::child::{self, Birth, CHILDREN_LIVE_MAX};
use crate::decide::with_params;
use crate::plan::{new_run, results};
use crate::state::{Draft, State, is_live, live_runs, run_event};

/// How many jobs may stand below each other.
const DEPTH_MAX: usize = 16;

/// `invalid` if a task of a job is a job that is not there, is no batch, has no such params, or
/// makes this one again.
pub fn check(state: &State, spec: &JobSpec) -> Result<(), WireError> {
    for (name, task) in &spec.tasks {
        let Operator::Job(SubJob { job }) = &task.operator else {
            continue;
        };
        let wrong = |why: String| WireError::invalid(format!("tasks.{name}: job: {why}"));
        if *job == spec.name {
            return Err(wrong(format!("{job} would make itself again and again")));
        }
        target(state, job)
            .and_then(|target| {
                check_depth(state, &spec.name, target)?;
                with_params(&target.spec, &task.params).map_err(|error| error.message)
            })
            .map_err(wrong)?;
    }
    Ok(())
}

/// The jobs below a job, as far down as they go.
fn check_depth(
    state: &State,
    top: &Name,
    first: &loom_schemas::record::VersionRecord,
) -> Result<(), String> {
    let mut level = vec![&first.spec];
    for _ in 0..DEPTH_MAX {
        let below = level.iter().flat_map(|spec| spec.tasks.values());
        let below = below.filter_map(|task| match &task.operator {
            Operator::Job(SubJob { job }) => Some(job),
            _ => None,
        });
        let mut next: BTreeMap<&Name, &JobSpec> = BTreeMap::new();
        for job in below {
            if job == top {
                return Err(format!("{} makes {top} again", first.spec.name));
            }
            let spec = state.job(job).and_then(|record| state.spec(record));
            next.extend(spec.map(|spec| (job, spec)));
        }
        if next.is_empty() {
            return Ok(());
        }
        level = next.into_values().collect();
    }
    Err(format!("more than {DEPTH_MAX} jobs below each other"))
}

/// What the jobs above are made of must not come again: they were checked when they were submitted,
/// but may stand at another version by now, as after an update that went back.
fn check_above(state: &State, job: &JobRecord, wanted: &Name) -> Result<(), String> {
    let mut above = job;
    for _ in 0..DEPTH_MAX {
        let parent = above.parent.as_ref();
        if parent.map_or(&above.name, |parent| &parent.job) == wanted {
            return Err(format!(
                "{wanted} would make itself again and again: {} is above",
                above.name
            ));
        }
        let maker = parent.and_then(|parent| match &parent.made_by {
            MadeBy::Task { slot, .. } => state.job(&slot.job),
            MadeBy::Schedule { .. } | MadeBy::Dispatch { .. } => None,
        });
        match maker {
            Some(maker) => above = maker,
            None => return Ok(()),
        }
    }
    Err(format!("more than {DEPTH_MAX} jobs below each other"))
}

fn target<'a>(
    state: &'a State,
    job: &Name,
) -> Result<&'a loom_schemas::record::VersionRecord, String> {
    let record = state.job(job);
    let version = record.and_then(|record| state.version(job, record.version));
    let version = version.ok_or_else(|| format!("there is no job {job}: run it first"))?;
    if version.spec.kind != Kind::Batch {
        let kind = version.spec.kind;
        return Err(format!("{job} is a {kind}: only a batch job can be a task"));
    }
    Ok(version)
}

/// Why no job was made for a slot.
#[derive(Debug)]
pub enum NotMade {
    /// It will be possible later.
    Yet(String),
    /// Nor any other of its job, until one that there is has ended.
    Full(String),
    /// Neither time nor room makes it possible: the run is rejected.
    Ever(String),
}

/// Makes the child job that is the run of a slot, of this version and with this id; the run, or why
/// it cannot be made.
pub fn start(
    draft: &mut Draft,
    job: &JobRecord,
    task: &TaskSpec,
    sub: &SubJob,
    slot: &Slot,
    (of_version, run): (u32, RunId),
    now: Timestamp,
) -> Result<RunRecord, NotMade> {
    let state = draft.state().clone();
    let version = target(&state, &sub.job).map_err(NotMade::Ever)?;
    check_above(&state, job, &sub.job).map_err(NotMade::Ever)?;
    let is_child = |run: &RunRecord| run.child.is_some();
    let live = state.slots_of(&job.name);
    let live = live.filter(|slot| live_runs(slot).any(is_child)).count();
    if live >= CHILDREN_LIVE_MAX {
        return Err(NotMade::Full(format!(
            "{live} jobs that {} has made have not ended, and at most {CHILDREN_LIVE_MAX} may live at once",
            job.name
        )));
    }
    let params = filled(&state, job, task, slot).map_err(NotMade::Ever)?;
    let never = |error: WireError| NotMade::Ever(error.message);
    let spec = with_params(&version.spec, &params).map_err(never)?;
    let name = child::name_at(&sub.job, now).map_err(never)?;
    let name = child::free_name(&state, name);
    let name = name.map_err(|error| NotMade::Yet(error.message))?;
    let birth = Birth {
        parent: job,
        version,
        name: name.clone(),
        spec,
        made_by: MadeBy::Task {
            slot: slot.clone(),
            run,
        },
        reason: format!("it is the run of {slot}"),
        by: None,
    };
    child::create(draft, birth, now);
    Ok(RunRecord {
        version: of_version,
        reason: Some(format!("job {name}")),
        child: Some(name),
        ..new_run(job, run, Resources::default(), now)
    })
}

/// The run of a slot that came to nothing.
pub fn rejected(
    job: &JobRecord,
    (of_version, run): (u32, RunId),
    why: String,
    now: Timestamp,
) -> RunRecord {
    RunRecord {
        version: of_version,
        state: RunState::Rejected,
        reason: Some(why),
        ended_at: Some(now),
        ..new_run(job, run, Resources::default(), now)
    }
}

/// The values of a task's params, with what is known here filled in.
fn filled(
    state: &State,
    job: &JobRecord,
    task: &TaskSpec,
    slot: &Slot,
) -> Result<BTreeMap<Name, String>, String> {
    let results = results(state, slot, task);
    let known = |reference: &Reference| match reference {
        Reference::JobName => Some(job.name.to_string()),
        Reference::JobVersion => Some(job.version.to_string()),
        Reference::TaskName => Some(slot.task.to_string()),
        Reference::TaskIndex => Some(slot.index.to_string()),
        Reference::Var(name) => task.vars.get(name).cloned(),
        Reference::Result(of) => results.get(&of.to_string()).cloned(),
        // It has no node.
        Reference::NodeName | Reference::NodeIp | Reference::NodeLabel(_) | Reference::Port(_) => {
            None
        }
    };
    let value = |(name, text): (&Name, &String)| {
        let template = Template::parse(text, Context::Argument)
            .map_err(|error| format!("param {name}: {error}"))?;
        let pieces = template.pieces().iter().map(|piece| match piece {
            Piece::Text(text) => Ok(text.clone()),
            Piece::Reference(reference) => {
                known(reference).ok_or_else(|| format!("param {name}: {}", unknown(reference)))
            }
        });
        Ok((name.clone(), pieces.collect::<Result<String, String>>()?))
    };
    task.params.iter().map(value).collect()
}

/// Why a reference has no value.
fn unknown(reference: &Reference) -> String {
    match reference {
        Reference::Result(of) => format!(
            "`${{{of}}}` has no value: task `{}` left no `{}` in its result",
            of.task, of.key
        ),
        _ => format!("`${{{reference}}}` has no value here"),
    }
}

/// Brings the runs of a job that are jobs to what these have come to, and stops those whose runs are
/// to end.
pub fn mirror(draft: &mut Draft, job: &Name, now: Timestamp) {
    let state = draft.state().clone();
    // By the runs there are, whatever the wanted version says: a former one may have made them.
    let is_job = |run: &RunRecord| run.child.is_some();
    let slots = state.slots_of(job).map(AsRef::as_ref);
    for record in slots.filter(|slot: &&SlotRecord| live_runs(slot).any(is_job)) {
        let mut next = record.clone();
        let runs = next.current.iter_mut().chain(&mut next.incoming);
        for run in runs.filter(|run| is_live(run)) {
            let Some(child) = run.child.clone() else {
                continue;
            };
            let child_record = state.job(&child).map(AsRef::as_ref);
            if let Some(child) = child_record.filter(|_| is_ended_by_us(run)) {
                stop(draft, child, job, run);
            }
            let seen = RunRecord {
                result: child_record.and_then(|child| result(&state, child)),
                ..seen(run, &child, child_record, now)
            };
            if seen != *run {
                draft.event(run_event(now, &record.slot, &seen, seen.state.as_str()));
                *run = seen;
            }
        }
        if next != *record {
            draft.put_slot(next);
        }
    }
}

/// Whether the task's own job wants the run to end, for good or to begin anew.
fn is_ended_by_us(run: &RunRecord) -> bool {
    run.order != Order::Run || run.restart_orders > 0
}

fn stop(draft: &mut Draft, child: &JobRecord, job: &Name, run: &RunRecord) {
    if child.wanted != Wanted::Run || child.status.is_terminal() {
        return;
    }
    let reason = match &run.order {
        Order::Stop { reason } => reason.clone(),
        Order::Run => "restarted".to_owned(),
    };
    draft.put_job(JobRecord {
        wanted: Wanted::Stop {
            by: format!("job {job}"),
            reason,
        },
        ..child.clone()
    });
}

/// What a job has left that completed: the result of its only task.
fn result(state: &State, child: &JobRecord) -> Option<String> {
    let spec = state.spec(child)?;
    if child.status != JobStatus::Completed || spec.tasks.len() != 1 {
        return None;
    }
    let task = spec.tasks.keys().next()?;
    let slot = state.slot(&Slot::new(child.name.clone(), task.clone(), 0))?;
    slot.current.as_ref()?.result.clone()
}

/// The run as its job has it.
fn seen(run: &RunRecord, name: &Name, child: Option<&JobRecord>, now: Timestamp) -> RunRecord {
    let Some(child) = child else {
        return RunRecord {
            state: RunState::Lost,
            reason: Some(format!("job {name} is not there any more")),
            ended_at: Some(now),
            ..run.clone()
        };
    };
    let state = match child.status {
        JobStatus::Completed => RunState::Completed,
        JobStatus::Failed => RunState::Failed,
        // Somebody else wanted the job gone, so the task is not to make another in its place.
        JobStatus::Killed if !is_ended_by_us(run) => RunState::Failed,
        JobStatus::Killed => RunState::Killed,
        JobStatus::Running => RunState::Running,
        JobStatus::Pending | JobStatus::Unknown => return run.clone(),
    };
    let why = child
        .reason
        .as_ref()
        .map(|reason| format!("job {name}: {reason}"));
    RunRecord {
        state,
        reason: why.or_else(|| Some(format!("job {name}"))),
        exit: state.is_terminal().then(|| Exit {
            code: child.exit_code,
            ..Exit::default()
        }),
        started_at: child.started_at,
        ended_at: child.ended_at,
        ..run.clone()
    }
}
