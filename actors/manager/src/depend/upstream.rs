//! The jobs further up: what those wait for that a job waits for, and so on.

use std::collections::{BTreeSet, VecDeque};

use loom_schemas::ids::Name;
use loom_schemas::spec::JobSpec;
use loom_schemas::wire::UpstreamJob;

use super::view::dependencies;
use crate::state::State;

/// At most so many jobs further up are shown, the nearest first.
const JOBS_MAX: usize = 500;

/// The jobs that wait for others themselves among those a job waits for, the nearest first, each
/// once; those beyond `JOBS_MAX` are left out, and who waits for one of them says so.
pub fn upstream(state: &State, spec: &JobSpec) -> Vec<UpstreamJob> {
    let mut seen: BTreeSet<Name> = BTreeSet::from([spec.name.clone()]);
    let mut left: VecDeque<Name> = VecDeque::new();
    let mut queue = |left: &mut VecDeque<Name>, spec: &JobSpec| {
        for other in &spec.depends_on {
            if seen.insert(other.job.clone()) {
                left.push_back(other.job.clone());
            }
        }
    };
    queue(&mut left, spec);
    let mut jobs = Vec::new();
    while let Some(name) = left.pop_front() {
        let Some(spec) = state.job(&name).and_then(|job| state.spec(job)) else {
            continue;
        };
        if spec.depends_on.is_empty() {
            continue;
        }
        let cut = jobs.len() >= JOBS_MAX;
        let mut depends_on = Vec::new();
        if !cut {
            depends_on = dependencies(state, spec);
            queue(&mut left, spec);
        }
        jobs.push(UpstreamJob {
            job: name,
            depends_on,
            cut,
        });
    }
    jobs
}
