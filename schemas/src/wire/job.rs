//! Writes of jobs, and what nodes are told to be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::read::{JobDependency, TaskStanding, UpstreamJob};
use crate::ids::{Index, Name, Revision};

/// The leader's answer to a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub job: Name,
    /// Its version.
    pub version: u32,
    /// What the submission did.
    pub outcome: SubmitOutcome,
    /// The version whose content it has, where the job was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_to: Option<u32>,
    /// The commit it is in, for reading one's own writes.
    pub revision: Revision,
}

/// What a submission did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubmitOutcome {
    /// A new job.
    Created,
    /// A new version of a live job.
    Updated,
    /// The same spec on a live job: nothing to do.
    Unchanged,
    /// A new round of a job that had ended.
    Restarted,
}

/// The answer to `orch.job.plan`, which is asked like a submission: what that would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPlan {
    /// The job.
    pub job: Name,
    /// The version it would have.
    pub version: u32,
    /// What the submission would do.
    pub outcome: SubmitOutcome,
    /// What becomes of each task, by name; those of the version before that are gone as well.
    pub tasks: Vec<TaskPlan>,
    /// What changes for the job as a whole, and what that does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whole: Vec<WholeChange>,
    /// In what the spec differs from the wanted one, in the canonical form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<SpecChange>,
    /// What finds no node as things stand, also of what would be placed only later, and what is
    /// never started because another has failed; a line each: `web/2: no node fits: 3 not enough
    /// memory`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<String>,
    /// Whose runs would be evicted to make room for it, a line each: `low/0 on node-1, for
    /// web/2`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evicts: Vec<String>,
    /// How its tasks would stand, if any of them waits for another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub graph: Vec<TaskStanding>,
    /// How the jobs stand that it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<JobDependency>,
    /// Those of them, and of the jobs further up, that wait for others themselves, the nearest
    /// first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<UpstreamJob>,
}

/// A change of a job that is none of a single task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeChange {
    /// The field of the job: `priority`.
    pub field: String,
    /// What changing it does, in words.
    pub effect: String,
}

/// What becomes of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPlan {
    /// The task.
    pub task: Name,
    /// In a word.
    pub action: PlanAction,
    /// How many slots it then has.
    pub replicas: u32,
    /// Why: `args, env.MODE`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What becomes of a task, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanAction {
    /// It is new, or begins anew.
    Create,
    /// Its runs go on, changed.
    InPlace,
    /// Other runs take the place of its runs.
    Replace,
    /// Its runs end.
    Stop,
    /// Nothing.
    Keep,
}

impl PlanAction {
    /// The word as it stands in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::InPlace => "in-place",
            Self::Replace => "replace",
            Self::Stop => "stop",
            Self::Keep => "keep",
        }
    }
}

/// In what a spec differs from another, in the canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecChange {
    /// Where: `tasks.web.env.MODE`.
    pub path: String,
    /// What it says now, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What it would say, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// Which part of a job a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAddress {
    /// The job.
    pub job: Name,
    /// One task of it; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Name>,
    /// One index; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Index>,
}

impl std::fmt::Display for JobAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.job)?;
        if let Some(task) = &self.task {
            write!(f, "/{task}")?;
        }
        if let Some(index) = &self.index {
            write!(f, "/{index}")?;
        }
        Ok(())
    }
}

/// Reads `web`, `web/0`, `web/api` and `web/api/0`; an index without a task is of the only one. The
/// index of a system job is a node's name: `web/api/node-1`; in `web/node-1` it reads as a task, which
/// whoever knows the job puts right.
impl std::str::FromStr for JobAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(200).collect();
        let wrong = |why: &str| {
            format!("address `{shown}`: {why}; expected JOB, JOB/INDEX, JOB/TASK or JOB/TASK/INDEX")
        };
        let name = |part: &str| Name::new(part).map_err(|error| wrong(&error.to_string()));
        let number = |part: &str| part.parse().ok().map(Index::Number);
        let mut parts = text.split('/');
        let job = name(parts.next().unwrap_or_default())?;
        let (second, third) = (parts.next(), parts.next());
        let (task, index) = match (second, third) {
            (None, _) => (None, None),
            (Some(part), None) => match number(part) {
                Some(index) => (None, Some(index)),
                None => (Some(name(part)?), None),
            },
            (Some(task), Some(index)) => {
                let index = index
                    .parse()
                    .map_err(|_| wrong("the last part is no index"))?;
                (Some(name(task)?), Some(index))
            }
        };
        if parts.next().is_some() {
            return Err(wrong("too many parts"));
        }
        Ok(Self { job, task, index })
    }
}

/// `orch.job.stop` and `orch.job.restart`; bare text is the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    /// What to stop or restart.
    pub address: JobAddress,
    /// In words, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `orch.job.dispatch`: a batch job once more, as a child job; bare text names it. The answer is
/// that to a submission, of the child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchRequest {
    /// The job.
    pub job: Name,
    /// Values in place of those that its tasks have for these params.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<Name, String>,
}

/// `orch.job.scale`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleRequest {
    /// The job.
    pub job: Name,
    /// The task; the only one if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Name>,
    /// How many slots.
    pub replicas: u32,
}

/// `orch.job.rollback`: an earlier version becomes the wanted one again, as a version of its own.
/// Bare text names the job. The answer is that of a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// The job.
    pub job: Name,
    /// The version; the last other one that was healthy if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
    /// Only if the job is at this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u32>,
    /// In words, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `orch.job.update`: what becomes of an update under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateRequest {
    /// The job.
    pub job: Name,
    /// What to do with it.
    pub verb: UpdateVerb,
}

/// What can be done with an update under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateVerb {
    /// Go on beyond the canaries.
    Promote,
    /// Let no further slot take the version over.
    Pause,
    /// Go on after a pause.
    Continue,
}

/// The leader's answer to a write that was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The job.
    pub job: Name,
    /// Whether anything changed.
    pub changed: bool,
    /// The commit it is in.
    pub revision: Revision,
}

/// `orch.admin.node.lost`: this node is not coming back as it was; `orch.admin.node.undrain`: it takes
/// runs again. Bare text names it as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRequest {
    /// The node.
    pub node: Name,
    /// In words, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `orch.admin.node.drain`: the runs of this node are to leave it. Bare text names the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// The node.
    pub node: Name,
    /// Runs that are left after so long are stopped, in milliseconds; an hour if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Runs are never stopped before they could move; `deadline_ms` means nothing beside it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_deadline: bool,
    /// In words, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `orch.admin.node.label`: labels of a node, beside those its agent was started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelRequest {
    /// The node.
    pub node: Name,
    /// Labels to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Keys to take away again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// `orch.admin.node.taint`: what keeps runs away from a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaintRequest {
    /// The node.
    pub node: Name,
    /// Taints to set, each `key:effect` or `key=value:effect`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Taints to take away again, each `key` or `key:effect`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// For those that are set to `evict`: runs are given so long to move, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
}

/// The leader's answer to [`NodeRequest`] and the other orders about a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChanged {
    /// The node.
    pub node: Name,
    /// Whether anything changed.
    pub changed: bool,
    /// The commit it is in.
    pub revision: Revision,
}
