//! Dependencies: what a task waits for in its job, and a job among the others.
//!
//! Pure. How far something is, is read off its slots ([`Progress`]); whether somebody who waits for
//! it may start follows from that ([`Gates`]). What waits holds nothing and asks nobody: it is woken
//! when what it waits for has come to something ([`decided_by`]).
//!
//! A gate is for the first start. What has once been started in a round is started again whatever
//! became of that which it had waited for.

mod accept;
mod circle;
mod progress;
#[cfg(test)]
mod tests;
mod upstream;
mod view;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use loom_schemas::ids::Name;
use loom_schemas::record::{JobRecord, SlotRecord, Wanted};
use loom_schemas::spec::{After, DependOn, DependsOn, JobSpec, TaskSpec};
use loom_schemas::words::JobStatus;

use crate::reconcile::JobStanding;
use crate::schedule;
use crate::state::{State, live_runs};

pub use accept::{check, check_circle};
pub use progress::Progress;
pub use upstream::upstream;
pub use view::standing;

use progress::{of_job, of_tasks};

/// The longest reason, in characters: the middle of a longer chain is left out.
const REASON_MAX: usize = 500;

/// At most so many of what is waited for are named.
const NAMED_MAX: usize = 3;

/// Whether somebody may start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    #[default]
    Open,
    /// Not yet; what it waits for in words.
    Waits(String),
    /// What it waits for has failed; how, in words.
    Never(String),
}

/// Which tasks of a job may be started.
#[derive(Clone, Debug, Default)]
pub struct Gates {
    job: Gate,
    tasks: BTreeMap<Name, Gate>,
}

impl Gates {
    /// The gates of a job as things stand.
    pub fn of(state: &State, job: &JobRecord, spec: &JobSpec) -> Self {
        Self {
            job: gate_of_job(state, job, spec),
            tasks: gates_of_tasks(state, job, spec),
        }
    }

    /// Whether a task may not be started, now or ever.
    pub fn is_closed(&self, task: &Name) -> bool {
        self.job != Gate::Open || self.tasks.contains_key(task)
    }

    /// That of one task, apart from that of the whole job.
    pub fn of_task(&self, task: &Name) -> &Gate {
        self.tasks.get(task).unwrap_or(&Gate::Open)
    }

    /// That of the whole job.
    pub fn of_whole(&self) -> &Gate {
        &self.job
    }

    /// The tasks that will never be started.
    pub fn never(&self) -> impl Iterator<Item = &Name> {
        let never = |(name, gate)| matches!(gate, &Gate::Never(_)).then_some(name);
        self.tasks.iter().filter_map(never)
    }

    /// The job with nothing wanted of the tasks that will never be started: what is left of it
    /// decides how it stands.
    pub fn without_never<'a>(&self, job: &'a JobRecord) -> Cow<'a, JobRecord> {
        let mut job = Cow::Borrowed(job);
        for task in self.never() {
            job.to_mut().scaled.insert(task.clone(), 0);
        }
        job
    }

    /// How a job stands, now that it is known what it waits for: one that never starts has failed
    /// as soon as nothing of an earlier round is left.
    pub fn judge<'a>(
        &self,
        job: &JobRecord,
        stands: JobStanding,
        slots: impl IntoIterator<Item = &'a SlotRecord>,
    ) -> JobStanding {
        if stands.status != JobStatus::Pending || job.wanted != Wanted::Run {
            return stands;
        }
        match &self.job {
            Gate::Open => stands,
            Gate::Waits(reason) => JobStanding {
                reason: Some(reason.clone()),
                ..stands
            },
            Gate::Never(_)
                if slots
                    .into_iter()
                    .any(|slot| live_runs(slot).next().is_some()) =>
            {
                stands
            }
            Gate::Never(reason) => JobStanding {
                status: JobStatus::Failed,
                reason: Some(reason.clone()),
                ..stands
            },
        }
    }
}

/// Whether a slot was started in this round before, so that its gate is behind it.
pub fn has_started(job: &JobRecord, slot: &SlotRecord) -> bool {
    let runs = slot.current.iter().chain(&slot.incoming).chain(&slot.ended);
    runs.into_iter().any(|run| run.round == job.round)
}

/// The jobs for which something is decided by how this one stands: they have what they waited for
/// of it, or never will, or had it and have to wait again.
pub fn decided_by(state: &State, name: &Name) -> Vec<Name> {
    let waiting: Vec<&Name> = state.dependants(name).collect();
    if waiting.is_empty() {
        return Vec::new();
    }
    let mut known: BTreeMap<Option<&Name>, Progress> = BTreeMap::new();
    let mut decided = Vec::new();
    for dependant in waiting {
        let Some(job) = state.job(dependant) else {
            continue;
        };
        let Some(spec) = state.spec(job) else {
            continue;
        };
        // Had it not been let go, it would say what it waits for.
        let was_let_go = job.status == JobStatus::Pending && job.reason.is_none();
        let mut of_it = spec.depends_on.iter().filter(|other| other.job == *name);
        let is_decided = of_it.any(|other| {
            let task = other.task.as_ref();
            let progress = known
                .entry(task)
                .or_insert_with(|| of_job(state, name, task));
            was_let_go || !matches!(verdict(state, other, progress), Verdict::NotYet)
        });
        if is_decided {
            decided.push(dependant.clone());
        }
    }
    decided
}

/// What a progress means for who waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    NotYet,
    Failed(String),
}

/// What it means for who waits for a job how far that is, and what it is by now: one that is not what
/// it was when it was named may never come to it.
fn verdict(state: &State, other: &DependsOn, progress: &Progress) -> Verdict {
    let verdict = progress.gate(other.on);
    let target = state.job(&other.job).and_then(|job| state.spec(job));
    let hopeless = target.and_then(|target| accept::hopeless(target, other));
    match (verdict, hopeless) {
        (Verdict::NotYet, Some(hopeless)) => Verdict::Failed(hopeless.how()),
        (verdict, _) => verdict,
    }
}

fn gate_of_job(state: &State, job: &JobRecord, spec: &JobSpec) -> Gate {
    let before = schedule::predecessor(state, job);
    if spec.depends_on.is_empty() && before.is_none() {
        return Gate::Open;
    }
    let first = || !state.slots_of(&job.name).any(|slot| has_started(job, slot));
    if job.started_at.is_some() || !first() {
        return Gate::Open;
    }
    if let Some(before) = before {
        return Gate::Waits(format!("waiting for job {before} to end"));
    }
    let verdicts = spec.depends_on.iter().map(|other| {
        let progress = of_job(state, &other.job, other.task.as_ref());
        (Awaited::Job(other), verdict(state, other, &progress))
    });
    gate(verdicts)
}

fn gates_of_tasks(state: &State, job: &JobRecord, spec: &JobSpec) -> BTreeMap<Name, Gate> {
    if spec.tasks.values().all(|task| task.after.is_empty()) {
        return BTreeMap::new();
    }
    let slots = state.slots_of(&job.name).map(AsRef::as_ref);
    let mut progress = of_tasks(job, spec, slots);
    let mut gates = BTreeMap::new();
    for (name, task) in in_order(spec) {
        let verdicts = task.after.iter().map(|after| {
            let progress = progress.get(&after.task);
            let verdict = progress.map_or(Verdict::Met, |progress| progress.gate(after.on));
            let idle = progress == Some(&Progress::Idle);
            (Awaited::Task(after, idle), verdict)
        });
        let gate = gate(verdicts);
        // Who never starts has failed, for those that wait for it in turn.
        if let (Gate::Never(reason), Some(progress)) = (&gate, progress.get_mut(name))
            && progress.is_open()
        {
            *progress = Progress::Failed(format!("never started: {reason}"));
        }
        if gate != Gate::Open {
            gates.insert(name.clone(), gate);
        }
    }
    gates
}

/// The tasks of a job, each behind those it waits for: one walk carries a failure all the way.
fn in_order(spec: &JobSpec) -> Vec<(&Name, &TaskSpec)> {
    let mut followers: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    let mut left: BTreeMap<&Name, usize> = BTreeMap::new();
    for (name, task) in &spec.tasks {
        let known = task.after.iter().map(|after| &after.task);
        let known: Vec<&Name> = known
            .filter(|other| spec.tasks.contains_key(*other))
            .collect();
        left.insert(name, known.len());
        for other in known {
            followers.entry(other).or_default().push(name);
        }
    }
    let free = left.iter().filter(|(_, count)| **count == 0);
    let mut free: Vec<&Name> = free.map(|(name, _)| *name).collect();
    let mut order = Vec::with_capacity(spec.tasks.len());
    while let Some(name) = free.pop() {
        order.extend(spec.tasks.get_key_value(name));
        for follower in followers.remove(name).unwrap_or_default() {
            if let Some(count) = left.get_mut(follower) {
                *count -= 1;
                if *count == 0 {
                    free.push(follower);
                }
            }
        }
    }
    order
}

/// One gate of many conditions: one that failed closes it for good.
fn gate<'a>(verdicts: impl Iterator<Item = (Awaited<'a>, Verdict)>) -> Gate {
    let mut waits: Vec<Awaited<'_>> = Vec::new();
    for (awaited, verdict) in verdicts {
        match verdict {
            Verdict::Met => {}
            Verdict::NotYet => waits.push(awaited),
            Verdict::Failed(how) => {
                return Gate::Never(shortened(&format!("{awaited} {how}")));
            }
        }
    }
    if waits.is_empty() {
        return Gate::Open;
    }
    let mut text = "waiting for ".to_owned();
    for (place, awaited) in waits.iter().take(NAMED_MAX).enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        let idle = if awaited.is_idle() {
            " (it has 0 replicas)"
        } else {
            ""
        };
        // Writing to a text cannot fail.
        let _ = write!(text, "{comma}{awaited} {}{idle}", to(awaited.on()));
    }
    if waits.len() > NAMED_MAX {
        let _ = write!(text, " and {} more", waits.len() - NAMED_MAX);
    }
    Gate::Waits(text)
}

/// What is waited for, and what it has to come to; put into words only where it is said.
enum Awaited<'a> {
    /// And whether nothing is wanted of it.
    Task(&'a After, bool),
    /// Nobody who waits for another job is planned anew when that is scaled to nothing.
    Job(&'a DependsOn),
}

impl Awaited<'_> {
    fn on(&self) -> DependOn {
        match self {
            Self::Task(after, _) => after.on,
            Self::Job(other) => other.on,
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self, Self::Task(_, true))
    }
}

impl fmt::Display for Awaited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(after, _) => write!(f, "task {}", after.task),
            Self::Job(DependsOn {
                task: Some(task),
                job,
                ..
            }) => write!(f, "task {task} of job {job}"),
            Self::Job(other) => write!(f, "job {}", other.job),
        }
    }
}

fn to(on: DependOn) -> &'static str {
    match on {
        DependOn::Completed => "to complete",
        DependOn::Running => "to run",
        DependOn::Healthy => "to be healthy",
    }
}

/// A chain of reasons with its two ends: who was waited for, and what went wrong in the first place.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= REASON_MAX {
        return text.to_owned();
    }
    let half = REASON_MAX / 2 - 3;
    let head: String = text.chars().take(half).collect();
    let tail: String = text.chars().skip(count - half).collect();
    format!("{head} ... {tail}")
}
