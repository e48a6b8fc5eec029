//! Jobs that other jobs have made.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Name, RunId, Slot};

/// Where a child job comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The job that has made it.
    pub job: Name,
    /// How it came to be.
    pub made_by: MadeBy,
}

/// How a child job came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MadeBy {
    /// The schedule of its parent fired.
    Schedule {
        /// For this time; it may have been seen later.
        at: Timestamp,
    },
    /// Somebody dispatched its parent.
    Dispatch {
        /// Who, as the server knows them.
        by: String,
    },
    /// It is the run of a task of its parent.
    Task {
        /// The slot.
        slot: Slot,
        /// The run.
        run: RunId,
    },
}

/// How far a schedule is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleRecord {
    /// The version of the job whose schedule this is.
    pub version: u32,
    /// When it fires next; never again if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// For which time it fired last, or passed over a firing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
}
