//! How far a job or a task is, as far as others wait for it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{Health, JobRecord, Order, RunRecord, SlotRecord, Wanted};
use loom_schemas::spec::{DependOn, JobSpec, TaskSpec};
use loom_schemas::words::{JobStatus, Kind, RunState};

use super::{Verdict, shortened};
use crate::reconcile::{Stand, how_it_ended, is_stopped, replicas, stand, unstopped};
use crate::state::State;

/// How far a job or a task is. What is further has come to all that is before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No replica of it is wanted, so it comes to nothing before it is scaled.
    Idle,
    /// Not all of it runs.
    Begun,
    /// All of it runs, or has completed.
    Running,
    /// All of it is healthy as far as it is checked, or has completed.
    Healthy,
    /// All of it has completed.
    Completed,
    /// It will not come to anything more; how it failed, as in `failed: exit code 3`.
    Failed(String),
}

impl Progress {
    /// Whether it may still be that it never starts.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Idle | Self::Begun)
    }

    pub(crate) fn gate(&self, on: DependOn) -> Verdict {
        let met = match self {
            Self::Failed(how) => return Verdict::Failed(how.clone()),
            Self::Idle | Self::Begun => false,
            Self::Running => on == DependOn::Running,
            Self::Healthy => on != DependOn::Completed,
            Self::Completed => true,
        };
        if met { Verdict::Met } else { Verdict::NotYet }
    }
}

/// How far a job is, or one of its tasks.
pub(super) fn of_job(state: &State, name: &Name, task: Option<&Name>) -> Progress {
    let Some(job) = state.job(name) else {
        return Progress::Failed("is not there any more".to_owned());
    };
    let Some(spec) = state.spec(job) else {
        return Progress::Failed(format!("has lost its version {}", job.version));
    };
    let slots = state.slots_of(name).map(AsRef::as_ref);
    let tasks = of_tasks(job, spec, slots);
    let so_far = match task {
        Some(task) => match tasks.get(task) {
            Some(progress) => progress.clone(),
            None => Progress::Failed(format!("is not there any more: version {}", job.version)),
        },
        None => whole(tasks.into_values()),
    };
    match so_far {
        // What one task came to stands, whatever became of the others.
        Progress::Completed | Progress::Failed(_) => so_far,
        so_far => match job.status {
            JobStatus::Completed => Progress::Completed,
            JobStatus::Failed | JobStatus::Killed => {
                let why = job.reason.as_deref().unwrap_or("nobody knows why");
                let was = if job.status == JobStatus::Killed {
                    "was "
                } else {
                    ""
                };
                let of = if task.is_some() {
                    "never did: its job "
                } else {
                    ""
                };
                Progress::Failed(shortened(&format!("{of}{was}{}: {why}", job.status)))
            }
            // What runs of it is about to end.
            _ if job.wanted != Wanted::Run && !so_far.is_open() => Progress::Begun,
            _ => so_far,
        },
    }
}

/// A job is as far as the last of its tasks of which anything is wanted. That it completed or failed
/// as a whole is for its status to say.
fn whole(tasks: impl Iterator<Item = Progress>) -> Progress {
    let least = tasks.filter_map(|progress| match progress {
        Progress::Idle => None,
        Progress::Begun | Progress::Failed(_) => Some(0),
        Progress::Running => Some(1),
        Progress::Healthy | Progress::Completed => Some(2),
    });
    match least.min() {
        Some(2) => Progress::Healthy,
        Some(1) => Progress::Running,
        Some(_) => Progress::Begun,
        None => Progress::Idle,
    }
}

/// How far each task of a job is.
pub(super) fn of_tasks<'a>(
    job: &JobRecord,
    spec: &'a JobSpec,
    slots: impl Iterator<Item = &'a SlotRecord>,
) -> BTreeMap<Name, Progress> {
    let mut tallies: BTreeMap<&Name, Tally> = BTreeMap::new();
    for slot in slots {
        if let Some(task) = spec.tasks.get(&slot.slot.task) {
            let tally = tallies.entry(&slot.slot.task).or_default();
            tally.add(job, spec.kind, task, slot);
        }
    }
    let tasks = spec.tasks.iter().map(|(name, task)| {
        let tally = tallies.remove(name).unwrap_or_default();
        let wanted = match spec.kind {
            // Where it fits no node it has not come to anything.
            Kind::System => tally.slots.max(1),
            // What somebody stopped is not waited for, unless that is all there was.
            _ if replicas(job, name, task) > 0 => unstopped(job, name, task).max(1),
            _ => 0,
        };
        (name.clone(), tally.progress(wanted))
    });
    tasks.collect()
}

/// The slots of a task by how far they are.
#[derive(Default)]
struct Tally {
    slots: u32,
    running: u32,
    healthy: u32,
    done: u32,
    failed: Option<(Option<Timestamp>, Slot, String)>,
}

impl Tally {
    fn add(&mut self, job: &JobRecord, kind: Kind, task: &TaskSpec, slot: &SlotRecord) {
        let (name, index) = (&slot.slot.task, &slot.slot.index);
        let replicas = replicas(job, name, task);
        let beyond = index.number().is_some_and(|number| number >= replicas);
        if beyond || is_stopped(job, name, index) {
            return;
        }
        self.slots += 1;
        match stand(job, kind, task, slot) {
            Stand::Done => self.done += 1,
            Stand::Live => {
                let up = slot.current.as_ref().filter(|run| is_up(run));
                let up = up.filter(|run| run.round == job.round);
                let healthy = |run: &&RunRecord| {
                    let checked = task.health.is_some();
                    !checked || run.health.as_ref().is_some_and(Health::is_healthy)
                };
                self.running += u32::from(up.is_some());
                self.healthy += u32::from(up.as_ref().is_some_and(healthy));
            }
            Stand::Failed => self.add_failed(slot),
            Stand::Empty | Stand::Again(_) => {}
        }
    }

    fn add_failed(&mut self, slot: &SlotRecord) {
        let Some(run) = &slot.current else { return };
        let this = (run.ended_at, slot.slot.clone(), how_it_ended(run));
        let earlier =
            |first: &(Option<Timestamp>, Slot, String)| (this.0, &this.1) < (first.0, &first.1);
        if self.failed.as_ref().is_none_or(earlier) {
            self.failed = Some(this);
        }
    }

    fn progress(self, wanted: u32) -> Progress {
        if let Some((_, slot, how)) = self.failed {
            return Progress::Failed(format!("failed: {slot} {how}"));
        }
        if wanted == 0 {
            Progress::Idle
        } else if self.done >= wanted {
            Progress::Completed
        } else if self.done + self.healthy >= wanted {
            Progress::Healthy
        } else if self.done + self.running >= wanted {
            Progress::Running
        } else {
            Progress::Begun
        }
    }
}

fn is_up(run: &RunRecord) -> bool {
    let known = !run.marks.unknown && !run.marks.paused;
    run.state == RunState::Running && known && run.order == Order::Run
}
