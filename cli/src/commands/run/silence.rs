//! How long `run` waits while no manager answers.

use std::time::Duration;

use loom_schemas::ids::Name;
use tokio::time::Instant;

use crate::exit::{Code, Failure};

/// When a manager answered last: the deadline holds for them as well.
pub(super) struct Silence {
    job: Name,
    deadline: Duration,
    heard: Instant,
}

impl Silence {
    /// The leader has just accepted the job.
    pub(super) fn new(job: &Name, deadline: Duration, now: Instant) -> Self {
        Self {
            job: job.clone(),
            deadline,
            heard: now,
        }
    }

    /// A manager has answered.
    pub(super) fn is_over(&mut self, now: Instant) {
        self.heard = now;
    }

    /// None has; an error once none has for too long.
    pub(super) fn goes_on(&self, now: Instant) -> Result<(), Failure> {
        if now.duration_since(self.heard) < self.deadline {
            return Ok(());
        }
        Err(Failure::new(
            Code::NoAnswer,
            format!(
                "{0} is accepted, but no manager has answered for {1} (loomctl status {0})",
                self.job,
                humantime::format_duration(self.deadline)
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_may_be_silent_for_as_long_as_the_deadline_at_a_time() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let job = Name::new("web").unwrap();
        let mut silence = Silence::new(&job, Duration::from_secs(5), now);
        assert!(silence.goes_on(after(4)).is_ok());
        silence.is_over(after(4));
        assert!(silence.goes_on(after(8)).is_ok());
        let failure = silence.goes_on(after(9)).unwrap_err();
        assert_eq!(failure.code, Code::NoAnswer);
        assert!(failure.message.unwrap().contains("for 5s"));
    }
}
