//! Runs that an earlier agent started.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loom_schemas::ids::RunId;
use rustix::fs::{FlockOperation, flock};

use super::run::{Run, Shim, has_ended, open, read};
use super::{Inner, failed};
use crate::driver::DriverError;
use crate::shim::record::{
    LAUNCH, STARTED, STATUS, ShimLaunch, StartedRecord, StatusRecord, boot_id,
};

/// How long a shim whose agent died under it may take to execute the program.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Every run that has a directory; control groups without one are removed.
pub(super) fn inventory(inner: &Arc<Inner>) -> Result<Vec<RunId>, DriverError> {
    // Groups first: a run that is started meanwhile has its directory before its group.
    let groups = inner.cgroups.runs();
    let context = || format!("list the runs in {}", inner.directory.display());
    let entries = fs::read_dir(&inner.directory).map_err(failed(context))?;
    let runs: Vec<RunId> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for group in groups {
        if group.parse::<RunId>().is_ok_and(|run| !runs.contains(&run)) {
            tracing::info!(run = group, "a run without a directory is removed");
            inner.cgroups.clear(&group);
        }
    }
    Ok(runs)
}

/// Takes a run over; none if nothing is known of it, or nothing that still holds.
pub(super) fn adopt(inner: &Arc<Inner>, id: RunId) -> Result<Option<Arc<Run>>, DriverError> {
    let _claim = inner.claim(id)?;
    if let Some(run) = inner.run(id) {
        return Ok(Some(run));
    }
    let found = look(inner, id);
    if let Some(run) = &found {
        inner.runs().insert(id, Arc::clone(run));
    }
    Ok(found)
}

/// What is there of a run to remove: one whose exit was recorded is not followed any more; the
/// caller holds the claim.
pub(super) fn left(inner: &Arc<Inner>, id: RunId) -> Option<Arc<Run>> {
    let directory = inner.directory_of(id);
    if read(&directory, STATUS, StatusRecord::decode).is_some()
        && let Some(launch) = read(&directory, LAUNCH, ShimLaunch::decode)
    {
        let started = read(&directory, STARTED, StartedRecord::decode);
        return Some(Run::over(id, directory, inner.with_groups(launch), started));
    }
    look(inner, id)
}

/// What the directory of a run, and the kernel, say of it; the caller holds the claim.
pub(super) fn look(inner: &Arc<Inner>, id: RunId) -> Option<Arc<Run>> {
    let directory = inner.directory_of(id);
    let name = id.to_string();
    let Some(launch) = read(&directory, LAUNCH, ShimLaunch::decode) else {
        inner.cgroups.clear(&name);
        return None;
    };
    let started = await_start(&directory);
    if let Some(started) = &started
        && started.boot == boot_id()
        && let Some(fd) = open(started.shim)
        // One that nobody reaps has a pidfd all the same.
        && !has_ended(&fd)
    {
        let shim = Shim { fd, child: None };
        return Some(Run::watched(
            id,
            directory,
            inner.with_groups(launch),
            started.clone(),
            shim,
        ));
    }
    if is_locked(&directory) {
        // A shim lives of which nothing can be read: it ends when its processes do.
        tracing::warn!(run = name, "the run's record cannot be read; it is killed");
        let begun = Instant::now();
        while is_locked(&directory) && begun.elapsed() < START_PATIENCE {
            inner.cgroups.clear(&name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let recorded = read(&directory, STATUS, StatusRecord::decode).is_some();
    let this_boot = started
        .as_ref()
        .is_some_and(|started| started.boot == boot_id());
    let torn = started.is_none() && directory.join(STARTED).exists();
    if recorded || this_boot || torn {
        return Some(Run::over(id, directory, inner.with_groups(launch), started));
    }
    inner.cgroups.clear(&name);
    None
}

/// The record of the start, after the shim had the time to write it.
fn await_start(directory: &Path) -> Option<StartedRecord> {
    let begun = Instant::now();
    loop {
        // In this order: a shim that ends after its record was looked for has written it.
        let locked = is_locked(directory);
        let started = read(directory, STARTED, StartedRecord::decode);
        let waits = locked && !directory.join(STARTED).exists();
        if started.is_some() || !waits || begun.elapsed() > START_PATIENCE {
            return started;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the shim of a run lives, or an agent that is starting it.
fn is_locked(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join(LAUNCH)) else {
        return false;
    };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}
