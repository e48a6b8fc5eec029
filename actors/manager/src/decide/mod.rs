//! Decisions: each request of a client and each fact from a node, as edits of a draft.
//!
//! Pure: the state, the request, who asks, the time and nothing else. A refusal leaves the draft
//! as it was.

mod adopt;
mod change;
mod cluster;
mod command;
mod dispatch;
mod limits;
mod machine;
mod merge;
mod node;
mod recover;
mod report;
mod submit;
#[cfg(test)]
mod tests;
mod update;

pub use change::{check_reason, restart, scale, stop};
pub use cluster::{Office, elected};
pub use command::{Command, remember, repeated};
pub use dispatch::dispatch;
pub(crate) use dispatch::with_params;
pub use machine::{DRAIN_DEADLINE, drain, label, taint, undrain};
pub use node::{
    Up, bye, hello, hello_part, is_given_up, lose_missing, node_down, node_lost, node_up,
};
pub use recover::{
    RECOVERED, await_node, end_wait, heard, is_wait_over, lots, take_up, tells_more,
};
pub use report::report;
pub use submit::{Accepted, Submission, submit};
pub use update::{check_way_back, roll_back, rollback, steer};

pub(crate) use submit::fresh_job;

use jiff::Timestamp;
use loom_schemas::error::WireError;
use loom_schemas::ids::Name;
use loom_schemas::record::JobRecord;
use loom_schemas::spec::JobSpec;

use crate::state::State;

/// Who asks, as the server knows them.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The user.
    pub user: &'a str,
    /// Whether they may act for others.
    pub admin: bool,
    /// The id of the command or queue message, for the events that answer it.
    pub request: Option<&'a str>,
}

/// A job and the spec of its wanted version.
fn find<'a>(state: &'a State, name: &Name) -> Result<(&'a JobRecord, &'a JobSpec), WireError> {
    let job = state
        .job(name)
        .ok_or_else(|| WireError::not_found(format!("no job {name}")))?;
    let spec = state.spec(job).ok_or_else(|| {
        WireError::not_found(format!("job {name}: version {} is not kept", job.version))
    })?;
    Ok((job, spec))
}

/// The record of a job whose round begins anew.
fn new_round(job: &JobRecord, now: Timestamp) -> JobRecord {
    JobRecord {
        round: job.round + 1,
        wanted: loom_schemas::record::Wanted::Run,
        stopped_slots: std::collections::BTreeSet::new(),
        status: loom_schemas::words::JobStatus::Pending,
        reason: None,
        exit_code: None,
        submitted_at: now,
        started_at: None,
        ended_at: None,
        schedule: None,
        update: None,
        ..job.clone()
    }
}
