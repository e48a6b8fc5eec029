//! The shim: a small process between the agent and a program, which outlives the agent.
//!
//! It is a small program beside the agent's, or where there is none a mode of the agent's own, entered
//! before anything else of the program runs: no async runtime, one thread, `poll(2)`. There is one
//! for each run. In this order it
//!
//! 1. reads its launch from standard input (the open `launch` file, see below), becomes the leader
//!    of a session and the reaper of its descendants, and enters the run's control groups;
//! 2. executes the program with its output in two pipes, and tells the agent that it was executed
//!    or the exact error, on standard output; leaves the group that is frozen and killed as one;
//! 3. writes the output, line by line with time and stream, to files that it rotates;
//! 4. when the main process ends: records how in `status`, kills what is left of the tree, writes
//!    what is left in the pipes, and exits.
//!
//! It obeys no signal but `SIGKILL`. The agent learns of the end by the end of the shim.
//!
//! # What other versions depend on
//!
//! A shim outlives the agent that started it, so a later (or earlier) agent reads what it wrote.
//! Frozen, whatever else changes:
//!
//! - `<run directory>/launch`, `started` and `status` are sequences of entries, each ended by a NUL
//!   byte: `loom-<kind> 1`, then `<key>=<value>` in any order, then `end`. A file without its first
//!   or its `end` entry does not count. Unknown keys are skipped; a key keeps its meaning for ever;
//!   a change that cannot be said by a new key raises the number, and agents go on reading this one.
//! - Files appear whole, by a rename. They are not synced: a crash of the host ends the run anyway,
//!   and `boot` tells that it did.
//! - The shim holds an exclusive `flock` on `launch` through its standard input: the file is locked
//!   if and only if the shim lives (or its agent has not yet let go of the start).
//! - `started`: `shim` and `main` (`<pid> <start time in ticks, field 22 of /proc/<pid>/stat>`),
//!   `boot` (`/proc/sys/kernel/random/boot_id`), `at` (nanoseconds since 1970), `output` (path),
//!   `base` (bytes of the output that are older than the run), `note` (any number, for people).
//! - `status`: `code` or `signal`, `oom` (0 or 1), `at`, `end_of_output`, `note`.
//! - `launch`: the fields of `record::ShimLaunch`; later agents read from it only `tree`, `group`,
//!   `unenforced` and `run`.
//! - The output files are in the form that containers' logs have under Kubernetes (CRI): a line is
//!   `<RFC 3339 time> <stdout|stderr> <F|P> <text>`; `P` marks a piece whose line goes on in the next
//!   one of its stream. A full file is renamed once, to `<name>.<offset of its end, 15 digits>`.
//!   The writer holds an exclusive `flock` on the current file.

mod dispositions;
mod exec;
pub(crate) mod lines;
pub(crate) mod record;
mod supervise;
pub(crate) mod tree;
pub(crate) mod writer;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use record::ShimLaunch;

/// The first argument that makes the executable a shim; the second is the run's directory.
pub const SHIM_WORD: &str = "__shim";

/// The first argument that makes the executable one more program of a run; the second is the run's
/// directory, the rest the program and its arguments.
pub const EXEC_WORD: &str = "__exec";

/// The first argument by which the executable tells whether it is of this version.
pub(crate) const VERSION_WORD: &str = "__version";

/// What it answers.
pub(crate) const VERSION: &str = concat!("loom-shim ", env!("CARGO_PKG_VERSION"), " 1");

/// Runs as a shim and returns its exit code if the command line says so; to be called first in
/// `main`. None if this is not a shim.
pub fn main_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let word = arguments.next()?;
    if word == OsStr::new(EXEC_WORD) {
        let directory = arguments.next().map(PathBuf::from)?;
        let argv: Vec<OsString> = arguments.collect();
        let (code, why) = exec::exec(&directory, &argv);
        let _ = writeln!(std::io::stderr(), "{why}");
        return Some(code.into());
    }
    if word == OsStr::new(VERSION_WORD) {
        let told = writeln!(std::io::stdout(), "{VERSION}");
        return Some(if told.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    if word != OsStr::new(SHIM_WORD) {
        return None;
    }
    let directory = arguments.next().map(PathBuf::from)?;
    Some(match supervise::supervise(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Gives a program the environment of the run, and nothing else.
fn environment(command: &mut Command, launch: &ShimLaunch) {
    command.env_clear();
    for entry in &launch.env {
        let bytes = entry.as_bytes();
        let at = bytes
            .iter()
            .position(|byte| *byte == b'=')
            .unwrap_or(bytes.len());
        let value = bytes.get(at + 1..).unwrap_or_default();
        command.env(OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(value));
    }
}
