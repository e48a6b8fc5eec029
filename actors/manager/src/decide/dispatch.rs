//! Dispatch: a batch job once more, with other values, as a child job.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::Name;
use loom_schemas::record::{JobRecord, MadeBy};
use loom_schemas::spec::JobSpec;
use loom_schemas::wire::{DispatchRequest, SubmitOutcome};
use loom_schemas::words::Kind;

use super::{Accepted, Asker, find};
use crate::child::{self, Birth, CHILDREN_LIVE_MAX, Sort};
use crate::state::{Draft, State};

/// The longest value, in bytes.
const VALUE_MAX: usize = 64 * 1024;

/// Makes a child job of a batch job, with these values in place of its params.
///
/// `invalid` if it is no batch job or has no such param, `unavailable` if too many of its dispatches
/// have not ended.
pub fn dispatch(
    draft: &mut Draft,
    request: &DispatchRequest,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<Accepted, WireError> {
    let state = draft.state().clone();
    let (job, spec) = find(&state, &request.job)?;
    check(&state, job, spec)?;
    let spec = with_params(spec, &request.params)?;
    let name = child::free_name(&state, child::name_at(&job.name, now)?)?;
    let Some(version) = state.version(&job.name, job.version) else {
        return Err(WireError::not_found(format!(
            "job {}: no version",
            job.name
        )));
    };
    let made_by = MadeBy::Dispatch {
        by: asker.user.to_owned(),
    };
    let birth = Birth {
        parent: job,
        version,
        name: name.clone(),
        spec,
        made_by,
        reason: format!("{} was dispatched", job.name),
        by: Some((asker.user, asker.request)),
    };
    child::create(draft, birth, now);
    Ok(Accepted {
        job: name,
        version: 1,
        outcome: SubmitOutcome::Created,
    })
}

fn check(state: &State, job: &JobRecord, spec: &JobSpec) -> Result<(), WireError> {
    let name = &job.name;
    if spec.kind != Kind::Batch {
        let message = format!(
            "job {name} is a {}: only a batch job is dispatched",
            spec.kind
        );
        return Err(WireError::invalid(message));
    }
    let dispatches = child::of_sort(state, name, Sort::Dispatch);
    let live = dispatches
        .filter(|child| !child.status.is_terminal())
        .count();
    if live >= CHILDREN_LIVE_MAX {
        let message = format!(
            "{live} dispatches of {name} have not ended, and at most {CHILDREN_LIVE_MAX} may live at \
             once: wait for some of them, or stop them"
        );
        return Err(WireError::new(ErrorCode::Unavailable, message));
    }
    Ok(())
}

/// The spec with these values for params, in each task that has them. They are values and no
/// templates: nothing in them is filled in.
pub(crate) fn with_params(
    spec: &JobSpec,
    params: &BTreeMap<Name, String>,
) -> Result<JobSpec, WireError> {
    let mut spec = spec.clone();
    for (name, value) in params {
        if value.len() > VALUE_MAX {
            return Err(WireError::new(
                ErrorCode::TooLarge,
                format!("param {name}: {} bytes, at most {VALUE_MAX}", value.len()),
            ));
        }
        let mut taken = false;
        for task in spec.tasks.values_mut() {
            if let Some(param) = task.params.get_mut(name) {
                *param = value.replace("${", "$${");
                taken = true;
            }
        }
        if !taken {
            return Err(WireError::invalid(no_param(&spec, name)));
        }
    }
    Ok(spec)
}

fn no_param(spec: &JobSpec, name: &Name) -> String {
    let params = spec.tasks.values().flat_map(|task| task.params.keys());
    let params: BTreeSet<&str> = params.map(Name::as_str).collect();
    if params.is_empty() {
        return format!("job {} has no param {name}: it has none at all", spec.name);
    }
    let params: Vec<&str> = params.into_iter().collect();
    format!(
        "job {} has no param {name}; its params are {}",
        spec.name,
        params.join(", ")
    )
}
