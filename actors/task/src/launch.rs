//! What an operator makes of a task and a driver runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::spec::{ImageSpec, LogSpec, Network, Protocol, Resources, SimScript};

/// Everything a driver needs to start one run; made by an operator, a pure step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The run.
    pub run: RunId,
    /// Its slot.
    pub slot: Slot,
    /// Program and arguments, every reference filled in; see [`argv_in`](Self::argv_in). Of a
    /// container only what follows its entry point.
    pub argv: Vec<Word>,
    /// Programs beside the first of `argv` without which it cannot work, by name.
    pub needs: Vec<String>,
    /// The whole environment of the process, beside `PATH` and `HOME` where it sets none; of a
    /// container beside what its image sets.
    pub env: BTreeMap<String, String>,
    /// The container it runs in; none for plain processes.
    pub container: Option<Container>,
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
    /// Whether what it leaves in `$LOOM_RESULT` is wanted of a container; of a process it is taken
    /// in any case, at no cost.
    pub result: bool,
    /// What references were filled with, by what stands between the braces; long values are cut.
    pub filled: BTreeMap<String, String>,
    /// What the `sim` driver plays.
    pub sim: Option<SimScript>,
}

/// What makes a launch a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its image.
    pub image: ImageSpec,
    /// In place of the image's entry point and its arguments; the image's own if none.
    pub entrypoint: Option<Vec<Word>>,
    /// Its network.
    pub network: Network,
    /// Ports of the node that lead into it.
    pub ports: Vec<PublishedPort>,
    /// The gpus that are put into it, by their ids.
    pub gpus: Vec<String>,
}

/// A port of the node that leads into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    /// As the task names it.
    pub name: Name,
    /// The port inside.
    pub port: u16,
    /// The port of the node.
    pub host: u16,
    /// The protocol.
    pub protocol: Protocol,
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
        self.argv
            .iter()
            .map(|word| word.within(directory))
            .collect()
    }
}

impl Word {
    /// The word where the launch's files are in `directory`.
    pub fn within(&self, directory: &Path) -> OsString {
        match self {
            Self::Text(text) => text.into(),
            Self::File(name) => directory.join(name).into_os_string(),
        }
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
