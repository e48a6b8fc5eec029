//! How many files a process may have open.
//!
//! An agent of many tasks or many nodes needs more than the usual soft limit; programs get the
//! limit the agent was started with, because some of them break with more (`select(2)`).

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The variable that tells a shim the soft limit for its program.
pub(crate) const OPEN_FILES: &str = "LOOM_SHIM_OPEN_FILES";

/// The soft limit before it was raised.
static BEFORE: OnceLock<u64> = OnceLock::new();

/// Raises this process's soft limit of open files to its hard one, and says what it is now; none
/// if there is no limit. To be called once, before any task is started.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    let (Some(soft), hard) = (limit.current, limit.maximum) else {
        return Ok(None);
    };
    if hard.is_some_and(|hard| hard <= soft) {
        return Ok(Some(soft));
    }
    set_soft(hard, hard)?;
    // A second call finds nothing to raise; the first one's word stays.
    let _ = BEFORE.set(soft);
    Ok(hard)
}

/// What a shim is told, if anything was raised.
pub(crate) fn open_files_before() -> Option<String> {
    BEFORE.get().map(ToString::to_string)
}

/// Gives a shim, and so its program, the limit that its agent was started with.
pub(crate) fn restore_open_files() {
    let told = std::env::var(OPEN_FILES).ok();
    if let Some(soft) = told.and_then(|text| text.parse().ok()) {
        // Lowering is always allowed; a program with more than that is no worse than before.
        let _ = set_soft(Some(soft), getrlimit(Resource::Nofile).maximum);
    }
}

fn set_soft(current: Option<u64>, maximum: Option<u64>) -> io::Result<()> {
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).map_err(io::Error::from)
}
