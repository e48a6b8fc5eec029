//! The clock that cut-offs are measured by: time since the host booted, which goes on while it
//! sleeps and which nobody sets.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Time since the host booted.
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

/// What tells one boot of the host from another; empty where the kernel does not say, which makes
/// every start of the agent wait for a leader.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID)
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
