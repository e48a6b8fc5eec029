//! One more program in a run: entered like the run's own, but not watched by its shim.
//!
//! A mode of the agent's executable like the shim itself: it leaves the agent's session, enters the
//! run's control groups and becomes the program, with the run's user, directory and environment.
//! What it cannot do it says on standard error, with the exit code a shell would use.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::SigSet;
use rustix::process::setsid;

use super::dispositions;
use super::record::{LAUNCH, ShimLaunch};

/// The program was found and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The program was not found.
const NOT_FOUND: u8 = 127;

/// Becomes the program; returns only if that fails, with the exit code and why.
pub(super) fn exec(directory: &Path, argv: &[OsString]) -> (u8, String) {
    let name = argv.first().cloned().unwrap_or_default();
    let error = match enter(directory) {
        Ok(launch) => command(&launch, argv).exec(),
        Err((what, error)) => return (NOT_EXECUTABLE, format!("{what}: {error}")),
    };
    let code = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    (
        code,
        format!("cannot execute `{}`: {error}", name.display()),
    )
}

/// Goes where the run is; on failure what could not be done.
fn enter(directory: &Path) -> Result<ShimLaunch, (String, io::Error)> {
    setsid().map_err(|error| ("setsid".to_owned(), error.into()))?;
    let path = directory.join(LAUNCH);
    let read = fs::read(&path)
        .and_then(|bytes| ShimLaunch::decode(&bytes).ok_or(io::ErrorKind::InvalidData.into()));
    let launch = read.map_err(|error| (format!("read {}", path.display()), error))?;
    for group in &launch.enter {
        // A group that is gone went with the run.
        fs::write(group, "0").map_err(|error| (format!("enter {}", group.display()), error))?;
    }
    // What cannot be reset the program inherits, like the run's own.
    let _ = dispositions::stop_ignoring();
    let _ = SigSet::empty().thread_set_mask();
    Ok(launch)
}

fn command(launch: &ShimLaunch, argv: &[OsString]) -> Command {
    let mut command = Command::new(argv.first().map_or(OsStr::new(""), OsString::as_os_str));
    command.args(argv.iter().skip(1));
    super::environment(&mut command, launch);
    command.current_dir(&launch.workdir);
    if let Some(gid) = launch.gid {
        command.gid(gid);
    }
    if let Some(uid) = launch.uid {
        command.uid(uid);
    }
    command
}
