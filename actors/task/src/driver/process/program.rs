//! Which program becomes the shim of a run: a small one beside the agent's own, or the agent's own.
//!
//! Executing `loom-shim` costs a fraction of executing all of `loomctl` once more, but one file
//! is enough to run Loom: where there is none beside it, or it is another version's, the agent's own
//! program is used.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shim::{VERSION, VERSION_WORD};

/// The small program's name, looked for in the folder of the agent's own.
const NAME: &str = "loom-shim";

/// The executable this process runs, also after the file was replaced or removed.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// The program that becomes a shim, held so that an upgrade of the file changes nothing for a
/// running agent.
#[derive(Debug)]
pub(super) struct ShimProgram {
    path: PathBuf,
    /// Kept open: `path` names it by number.
    _file: Option<File>,
}

impl ShimProgram {
    /// The program that was chosen, else what is found.
    pub(super) fn new(chosen: Option<PathBuf>) -> Self {
        match chosen {
            Some(path) => Self { path, _file: None },
            None => Self::beside().unwrap_or_else(|| Self {
                path: OWN_EXECUTABLE.into(),
                _file: None,
            }),
        }
    }

    /// What is executed.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn beside() -> Option<Self> {
        let own = std::env::current_exe().ok()?;
        let found = own.with_file_name(NAME);
        let file = File::open(&found).ok()?;
        // The descriptor is closed on execution, and until then has this number in the child too.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let output = Command::new(&path).arg(VERSION_WORD).env_clear().output();
        let answer = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        match answer {
            Ok(version) if version == VERSION => Some(Self {
                path,
                _file: Some(file),
            }),
            other => {
                tracing::warn!(
                    shim = %found.display(),
                    expected = VERSION,
                    found = ?other,
                    "not used: it is not this version's, runs start more slowly without it"
                );
                None
            }
        }
    }
}
