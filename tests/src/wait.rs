//! Waiting for conditions, never for times.

use std::thread;
use std::time::{Duration, Instant};

/// How long a condition may take on a slow, shared machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until `look` finds something; panics with `what` and the last look after [`PATIENCE`].
///
/// # Panics
/// When the condition does not come true in time.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => {
                assert!(
                    start.elapsed() < PATIENCE,
                    "never came true: {what}; last seen: {seen}"
                );
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// [`until`] for a plain condition.
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || {
        if look() {
            Ok(())
        } else {
            Err("false".to_owned())
        }
    });
}
