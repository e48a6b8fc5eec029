//! How far an update of a job is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::Name;

/// How a version takes over from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateState {
    /// How far it is.
    pub phase: UpdatePhase,
    /// The last version that was healthy before it: what it goes back to if it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// The version that failed, where this update goes back from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<u32>,
    /// Replicas by task as they were scaled before it began, and since: what it goes back to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scaled: BTreeMap<Name, u32>,
    /// Whether somebody let it go on beyond its canaries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub promoted: bool,
    /// Why it failed, was paused or goes back, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// The most slots so far that ran the version and had proved healthy.
    #[serde(default)]
    pub settled: u32,
    /// When there last was one more, or it was let go on: its deadline counts from then, or from when
    /// a run was placed that is younger.
    pub settled_at: Timestamp,
}

/// How far an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdatePhase {
    /// Slots take the version over.
    Rolling,
    /// Its canaries are healthy: somebody has to promote it.
    Canary,
    /// No further slot takes the version over.
    Paused,
    /// It has failed, and there is nothing to go back to: nothing more happens until somebody decides.
    Failed,
    /// Every slot has taken it over.
    Done,
    /// A phase this build does not know, from a newer one.
    #[serde(other)]
    Unknown,
}

impl UpdatePhase {
    /// The word as it stands in events and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Canary => "canary",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Done => "done",
            Self::Unknown => "unknown",
        }
    }
}
