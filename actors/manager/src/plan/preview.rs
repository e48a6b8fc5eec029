//! What a submission would do, decided and planned on a copy of the state.

use jiff::Timestamp;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::RunId;
use loom_schemas::wire::{JobPlan, SubmitOutcome};

use super::blocked::blocked;
use super::diff::diff;
use super::task_plan::{all, changed, whole_changes};
use super::{PlanOptions, plan_job};
use crate::decide::{Asker, Submission, submit};
use crate::depend::{standing, upstream};
use crate::state::{Draft, State};

/// What a submission would do to a job, and what of it finds no node now. Refused as the
/// submission would be.
pub fn preview(
    state: &State,
    submission: Submission,
    asker: Asker<'_>,
    options: &PlanOptions,
    now: Timestamp,
    ids: &mut dyn FnMut() -> RunId,
) -> Result<JobPlan, WireError> {
    let name = submission.spec.name.clone();
    let mut draft = Draft::new(state.clone());
    let accepted = submit(&mut draft, submission, asker, now)?;
    let Some(version) = draft.state().version(&name, accepted.version).cloned() else {
        let message = format!("job {name} has lost its version {}", accepted.version);
        return Err(WireError::new(ErrorCode::Internal, message));
    };
    let spec = &version.spec;
    let old = state
        .job(&name)
        .and_then(|job| Some((job, state.spec(job)?)));
    let tasks = match (old, accepted.outcome) {
        (Some((job, old)), SubmitOutcome::Updated) => changed(state, &draft, (job, old), spec),
        (_, outcome) => all(&draft, &name, spec, outcome),
    };
    let changes = old.map(|(_, old)| diff(old, spec)).unwrap_or_default();
    if accepted.outcome != SubmitOutcome::Unchanged {
        plan_job(&mut draft, &name, now, options, ids);
    }
    let (blocked, evicts) = blocked(&draft, &name, now, options, ids);
    let after = draft.state();
    let (graph, depends_on) = match after.job(&name) {
        Some(job) => standing(after, job, spec),
        None => Default::default(),
    };
    Ok(JobPlan {
        job: name.clone(),
        version: accepted.version,
        outcome: accepted.outcome,
        tasks,
        whole: whole_changes(spec, &changes),
        changes,
        blocked,
        evicts,
        graph,
        depends_on,
        upstream: upstream(after, spec),
    })
}
