//! What an operator makes of a task and a driver runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use loom_schemas::ids::{RunId, Slot};
use loom_schemas::spec::{LogSpec, Resources, SimScript};

/// Everything a driver needs to start one run; made by an operator, a pure step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The run.
    pub run: RunId,
    /// Its slot.
    pub slot: Slot,
    /// Program and arguments, every reference filled in; see [`argv_in`](Self::argv_in).
    pub argv: Vec<Word>,
    /// The whole environment of the process, beside `PATH` and `HOME` where it sets none.
    pub env: BTreeMap<String, String>,
    /// Files to write into the run's directory before the start, by relative name.
    pub files: Vec<LaunchFile>,
    /// The directory it starts in; the run's own if none.
    pub workdir: Option<PathBuf>,
    /// `user` or `user:group`, by name or number; the agent's own if none.
    pub user: Option<String>,
    /// Limits to hold it to.
    pub resources: Resources,
    /// What is kept of its output.
    pub logs: LogSpec,
    /// What the `sim` driver plays.
    pub sim: Option<SimScript>,
}

/// One word of an argv.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// As it is.
    Text(String),
    /// The absolute path of the launch's file of that name, which only the driver knows.
    File(String),
}

impl Launch {
    /// The argv of a run whose directory is `directory`.
    pub fn argv_in(&self, directory: &Path) -> Vec<OsString> {
        let word = |word: &Word| match word {
            Word::Text(text) => text.into(),
            Word::File(name) => directory.join(name).into_os_string(),
        };
        self.argv.iter().map(word).collect()
    }
}

/// A file of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchFile {
    /// Relative to the run's directory.
    pub name: String,
    /// What is in it.
    pub contents: Vec<u8>,
    /// Permission bits, e.g. `0o700`.
    pub mode: u32,
}
