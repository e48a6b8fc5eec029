//! Reads of jobs: `orch.api.{job,version,run}.<verb>`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Index, Name, Slot};
use crate::record::{JobRecord, RunRecord, SlotRecord};
use crate::spec::{After, DependsOn, JobSpec, Sets};
use crate::words::{JobStatus, Kind};

/// `orch.api.job.list`: what is larger than a message comes in pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobListQuery {
    /// Only jobs whose names come later: [`JobList::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Name>,
}

/// The answer to [`JobListQuery`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobList {
    /// By name.
    pub jobs: Vec<JobSummary>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Name>,
}

/// A job in a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSummary {
    /// The job's own record.
    pub job: JobRecord,
    /// How long it is meant to live.
    pub kind: Kind,
    /// Labels of the job.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How it stands now.
    pub status: JobStatus,
    /// Slots wanted.
    pub wanted: u32,
    /// Slots running, and meant to go on.
    pub running: u32,
    /// Slots whose runs are being stopped and have not ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stopping: u32,
    /// Slots running of which the health checks, if there are any, say healthy; none where no task
    /// has a health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<u32>,
    /// Slots completed.
    pub completed: u32,
    /// Slots waiting for a node.
    pub waiting: u32,
}

/// `orch.api.job.get`: asks by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobGet {
    /// The job.
    pub job: Name,
    /// Only slots that come later: [`JobView::next`] of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<SlotCursor>,
}

/// A place among the slots of a job, which come by task and index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotCursor {
    /// The task.
    pub task: Name,
    /// The index.
    pub index: Index,
}

/// One job whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// The line of it.
    pub summary: JobSummary,
    /// The wanted version.
    pub spec: JobSpec,
    /// Its slots, by task and index; of a large job as many as fit into a message.
    pub slots: Vec<SlotRecord>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<SlotCursor>,
    /// How its tasks stand, if any of them waits for another; on the first page.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub graph: Vec<TaskStanding>,
    /// How the jobs stand that it waits for; on the first page.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<JobDependency>,
    /// Those of them, and of the jobs further up, that wait for others themselves, the nearest
    /// first; on the first page.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<UpstreamJob>,
    /// The last 200 jobs it has made, by name: firings, dispatches, runs of its tasks; on the first
    /// page.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<JobSummary>,
}

/// How a task stands among those of its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStanding {
    /// The task.
    pub task: Name,
    /// In a word.
    pub standing: Standing,
    /// What it waits for, or how it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The tasks it waits for, or has waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<After>,
}

/// How a job stands that another waits for, or has waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDependency {
    /// What is waited for.
    #[serde(flatten)]
    pub dependency: DependsOn,
    /// In a word.
    pub standing: Standing,
    /// How it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a job waits for, or has waited for, that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamJob {
    /// The job.
    pub job: Name,
    /// How the jobs stand that it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<JobDependency>,
    /// What it waits for is left out: there are too many jobs before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// How a task or job stands, for those that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It waits for others itself.
    Waiting,
    /// Not all of it runs yet.
    Pending,
    /// All of it runs.
    Running,
    /// All of it is healthy.
    Healthy,
    /// All of it completed.
    Completed,
    /// It failed, or never starts because another has.
    Failed,
    /// It was not started before the job ended.
    Never,
    /// A standing this build does not know, from a newer one.
    #[serde(other)]
    Unknown,
}

impl Standing {
    /// The word as it stands in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Never => "never started",
            Self::Unknown => "unknown",
        }
    }
}

/// The answer to `orch.api.job.versions`, asked like [`JobGet`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionList {
    /// The versions kept, oldest first.
    pub versions: Vec<VersionSummary>,
}

/// A version of a job in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSummary {
    /// From 1.
    pub version: u32,
    /// When it was submitted.
    pub at: Timestamp,
    /// By whom, as the server knows them.
    pub by: String,
    /// Bytes of the text as submitted.
    pub size: u64,
    /// What its vars were set to beside the text.
    #[serde(default, skip_serializing_if = "Sets::is_empty")]
    pub sets: Sets,
    /// Whether it is the one that is wanted.
    #[serde(default)]
    pub wanted: bool,
    /// Why it was made, where it was not submitted: `rolled back to version 3: ...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `orch.api.job.export`: asks for the text of a version; the answer is that text, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionGet {
    /// The job.
    pub job: Name,
    /// The version; the wanted one if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// `orch.api.run.get`: asks for a run by its id or its last characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunGet {
    /// A UUID, or at least its last 8 characters.
    pub run: String,
}

/// A run and its slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// The slot.
    pub slot: Slot,
    /// The run.
    pub run: RunRecord,
    /// Why its slot waits for another place, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}
