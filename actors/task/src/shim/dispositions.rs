//! Signals that the shim was born ignoring (a script's `&` ignores INT and QUIT, nohup HUP): the
//! program would inherit that.
//!
//! What is caught is back at its default after an `execve`, so each of them gets a handler that
//! does nothing; tokio has one that takes no unsafe code. Its runtime is gone before this returns.

use std::fs;
use std::io;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Not looked at: PIPE, which the standard library ignores here and resets in every child, and 32
/// and 33, which are the C library's own.
const LEFT: u64 = bit(13) | bit(32) | bit(33);

/// Sees to it that the program starts with the default action of every signal.
pub(super) fn stop_ignoring() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let ignored = ignored(&status) & !LEFT;
    if ignored == 0 {
        return Ok(());
    }
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let outcome = (1..=64)
        .filter(|number| ignored & bit(*number) != 0)
        .try_for_each(|number| signal(SignalKind::from_raw(number)).map(drop));
    drop(entered);
    runtime.shutdown_background();
    outcome
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The mask of ignored signals in a `/proc/<pid>/status`.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
