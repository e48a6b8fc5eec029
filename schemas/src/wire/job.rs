//! Writes of jobs, and what nodes are told to be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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

/// `orch.admin.node.lost`: this node is not coming back as it was. Bare text names it as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRequest {
    /// The node.
    pub node: Name,
    /// In words, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The leader's answer to [`NodeRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChanged {
    /// The node.
    pub node: Name,
    /// Whether anything changed.
    pub changed: bool,
    /// The commit it is in.
    pub revision: Revision,
}
