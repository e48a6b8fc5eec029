//! Tests that need what not every machine has: they say what is missing, or fail where it must be.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

/// Says why a test is skipped, on standard error where it is seen; a failure if the variable
/// `must` says that this machine has what it needs.
///
/// # Panics
/// When `must` is `1`.
pub fn skip(what: &str, why: &str, must: &str) {
    assert!(
        std::env::var(must).as_deref() != Ok("1"),
        "{what}: {why}, and {must}=1 says that it must run"
    );
    let line = format!("SKIPPED {what}: {why}\n");
    // Past the test harness, which keeps what a passing test prints.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
    // A runner keeps that as well: `make test` says at its end what this file has.
    if let Some(path) = std::env::var_os("LOOM_SKIPPED") {
        let mut options = fs::OpenOptions::new();
        let file = options.create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("LOOM_SKIPPED: {}: {error}", path.display()));
    }
}

/// Whether a command can be run and ends well.
pub fn works(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command that has to end well, and gives what it printed.
///
/// # Panics
/// When it cannot be run or fails.
pub fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out
}
