//! The status of a job: a pure table over its slots.

use jiff::Timestamp;
use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{JobRecord, RunRecord, SlotRecord, Wanted};
use loom_schemas::spec::{JobSpec, TaskSpec};
use loom_schemas::words::{JobStatus, Kind};

use super::verdict::{Stand, how_it_ended, replicas, stand, stopped_by, unstopped, unwanted};
use crate::state::live_runs;

/// Why a batch of which nothing is wanted is not over.
const IDLE: &str = "its tasks have 0 replicas: scale one of them";

/// Why nothing runs of a service that goes on.
const ALL_STOPPED: &str = "every index was stopped: restart one of them, or stop the job";

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStanding {
    /// In a word.
    pub status: JobStatus,
    /// Why, where there is a why.
    pub reason: Option<String>,
    /// The first non-zero exit code by end time, or 0; once it ended. None where it was stopped before
    /// anything of it ended.
    pub exit_code: Option<i32>,
    /// When the first run of the round started.
    pub started_at: Option<Timestamp>,
    /// When the last run of the round ended, once the job ended.
    pub ended_at: Option<Timestamp>,
}

/// How a job stands.
///
/// A status that says a job ended stays until a new round, and is given only when nothing of the
/// job is live any more:
///
/// | wanted | slots | status |
/// |---|---|---|
/// | stop | none live | killed |
/// | run, batch | a slot failed, none live | failed |
/// | run, batch | every wanted slot done, and any is wanted | completed |
/// | run, batch | every slot stopped one by one, none done | killed |
/// | run, service | every wanted slot ended for good (its `restart` says so) | failed, completed |
/// | any other | one has started in this round | running |
/// | any other | none has | pending |
pub fn status<'a>(
    job: &JobRecord,
    spec: &JobSpec,
    slots: impl IntoIterator<Item = &'a SlotRecord>,
) -> JobStanding {
    if job.status.is_terminal() {
        return JobStanding {
            status: job.status,
            reason: job.reason.clone(),
            exit_code: job.exit_code,
            started_at: job.started_at,
            ended_at: job.ended_at,
        };
    }
    let sums = Sums::of(job, spec, slots);
    let (replicas, wanted) = wanted(job, spec);
    let failed = sums
        .failed
        .as_ref()
        .map(|(_, slot, how)| format!("{slot} {how}"));
    let (status, reason) = match (&job.wanted, spec.kind) {
        (Wanted::Stop { by, reason }, _) if sums.live == 0 => {
            (JobStatus::Killed, Some(stopped_by(by, reason)))
        }
        (Wanted::Stop { by, reason }, _) => (sums.under_way(job), Some(stopped_by(by, reason))),
        (Wanted::Run, Kind::Batch) if sums.live == 0 && failed.is_some() => {
            (JobStatus::Failed, failed)
        }
        // Nothing was done, so nothing is completed; those that wait for it go on waiting.
        (Wanted::Run, Kind::Batch) if replicas == 0 => (sums.under_way(job), Some(IDLE.to_owned())),
        (Wanted::Run, Kind::Batch) if sums.live == 0 && sums.done >= wanted => {
            if wanted == 0 && sums.completed == 0 && !job.stopped_slots.is_empty() {
                (JobStatus::Killed, Some("every slot was stopped".to_owned()))
            } else {
                (JobStatus::Completed, None)
            }
        }
        (Wanted::Run, Kind::Service)
            if sums.live == 0 && wanted > 0 && sums.done + sums.failures >= wanted =>
        {
            match failed {
                Some(failed) => (JobStatus::Failed, Some(failed)),
                None => (JobStatus::Completed, None),
            }
        }
        (Wanted::Run, Kind::Batch) => (sums.under_way(job), failed),
        // It is not over: any of them can be had back.
        (Wanted::Run, Kind::Service) if sums.live == 0 && wanted == 0 && replicas > 0 => {
            (sums.under_way(job), Some(ALL_STOPPED.to_owned()))
        }
        (Wanted::Run, Kind::Service | Kind::System) => (sums.under_way(job), None),
    };
    let over = status.is_terminal();
    let first = sums.exit.map(|(_, code)| code);
    JobStanding {
        status,
        reason,
        exit_code: match status {
            JobStatus::Failed => first,
            JobStatus::Killed => first.or(sums.has_exit.then_some(0)),
            _ if over => first.or(Some(0)),
            _ => None,
        },
        started_at: job.started_at.or(sums.started_at),
        ended_at: sums.ended_at.filter(|_| over),
    }
}

/// How many slots a job has, and how many of them nobody stopped.
fn wanted(job: &JobRecord, spec: &JobSpec) -> (u32, u32) {
    let of_task =
        |(name, task): (&Name, &TaskSpec)| (replicas(job, name, task), unstopped(job, name, task));
    let add = |(all, wanted): (u32, u32), (more, of_them)| (all + more, wanted + of_them);
    spec.tasks.iter().map(of_task).fold((0, 0), add)
}

#[derive(Default)]
struct Sums {
    live: u32,
    /// Wanted slots whose work is done.
    done: u32,
    /// Slots whose work is done, wanted or not.
    completed: u32,
    /// Wanted slots that have spent their attempts.
    failures: u32,
    failed: Option<(Option<Timestamp>, Slot, String)>,
    exit: Option<(Option<Timestamp>, i32)>,
    /// Whether any of it ended with an exit code.
    has_exit: bool,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

impl Sums {
    fn of<'a>(
        job: &JobRecord,
        spec: &JobSpec,
        slots: impl IntoIterator<Item = &'a SlotRecord>,
    ) -> Self {
        let mut sums = Self::default();
        for slot in slots {
            sums.live += u32::try_from(live_runs(slot).count()).unwrap_or(u32::MAX);
            let history = slot.ended.iter().chain(&slot.current);
            for run in history.filter(|run| run.round == job.round) {
                sums.add_times(run);
            }
            let Some(run) = slot.current.as_ref().filter(|run| run.round == job.round) else {
                continue;
            };
            if let Some(code) = run.exit.as_ref().and_then(|exit| exit.code)
                && run.state.is_terminal()
            {
                sums.add_exit(run.ended_at, code);
            }
            let Some(task) = spec.tasks.get(&slot.slot.task) else {
                continue;
            };
            let wanted = unwanted(job, spec, slot).is_none();
            match stand(job, spec.kind, task, slot) {
                Stand::Done => {
                    sums.completed += 1;
                    sums.done += u32::from(wanted);
                }
                Stand::Failed if wanted => {
                    sums.failures += 1;
                    sums.add_failed(slot, run);
                }
                _ => {}
            }
        }
        sums
    }

    fn add_exit(&mut self, at: Option<Timestamp>, code: i32) {
        self.has_exit = true;
        if code != 0 {
            self.exit = Some(self.exit.map_or((at, code), |first| first.min((at, code))));
        }
    }

    fn add_times(&mut self, run: &RunRecord) {
        if let Some(at) = run.started_at {
            self.started_at = Some(self.started_at.map_or(at, |first| first.min(at)));
        }
        if let Some(at) = run.ended_at {
            self.ended_at = Some(self.ended_at.map_or(at, |last| last.max(at)));
        }
    }

    fn add_failed(&mut self, slot: &SlotRecord, run: &RunRecord) {
        let this = (run.ended_at, slot.slot.clone(), how_it_ended(run));
        if self
            .failed
            .as_ref()
            .is_none_or(|first| (this.0, &this.1) < (first.0, &first.1))
        {
            self.failed = Some(this);
        }
    }

    fn under_way(&self, job: &JobRecord) -> JobStatus {
        if job.started_at.or(self.started_at).is_some() {
            JobStatus::Running
        } else {
            JobStatus::Pending
        }
    }
}
