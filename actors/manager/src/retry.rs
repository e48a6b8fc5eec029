//! What to do when the log cannot be followed: a pure table over what went wrong.

use std::time::Duration;

use loom_bus::log::{ApplyError, LogError};

/// The pause before what may be mended by now is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// The pause before something is read again that this build could not read, or not apply; it
/// doubles while that is so.
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(2);

/// What stands in the way of following the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// A newer build wrote what comes next.
    Newer,
    /// The entry with this sequence is none.
    Unreadable(u64),
    /// What was applied does not fit what comes next.
    Misfit,
    /// Anything else: the bus, or a log that was rewound.
    Other,
}

impl Obstacle {
    /// What an error of the log comes to.
    pub(crate) fn of(error: &LogError) -> Self {
        match error {
            _ if error.is_newer() => Self::Newer,
            LogError::Apply(ApplyError::Unreadable { sequence, .. }) => Self::Unreadable(*sequence),
            LogError::Apply(_) => Self::Misfit,
            _ => Self::Other,
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// Whether no further try will do better.
    pub(crate) is_hopeless: bool,
    /// Whether what was applied is of no more use.
    pub(crate) reload: bool,
    /// How long to wait before the next try.
    pub(crate) pause: Duration,
}

/// What stood in the way before, how far the log was applied then, and how often that was so.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    last: Option<(Obstacle, u64)>,
    times: u32,
}

impl Retry {
    /// What to do about an obstacle that was met once the log was applied so far.
    ///
    /// What cannot be read keeps what was applied before it: the next try reads on from there.
    pub(crate) fn next(&mut self, obstacle: Obstacle, applied: u64) -> Next {
        let again = self.last == Some((obstacle, applied));
        self.times = if again { self.times + 1 } else { 0 };
        self.last = Some((obstacle, applied));
        let pause = match (obstacle, self.times) {
            (Obstacle::Other, _) | (Obstacle::Unreadable(_) | Obstacle::Misfit, 0) => PAUSE,
            (Obstacle::Newer, times) => longer(times),
            (Obstacle::Unreadable(_) | Obstacle::Misfit, times) => longer(times - 1),
        };
        Next {
            // Bytes may have been hurt on their way once, but not twice.
            is_hopeless: match obstacle {
                Obstacle::Newer => true,
                Obstacle::Unreadable(_) => again,
                Obstacle::Misfit | Obstacle::Other => false,
            },
            reload: obstacle == Obstacle::Misfit,
            pause,
        }
    }
}

fn longer(times: u32) -> Duration {
    LONG_PAUSE
        .saturating_mul(1 << times.min(10))
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(obstacle: Obstacle, count: usize) -> Vec<u64> {
        let mut retry = Retry::default();
        (0..count)
            .map(|_| retry.next(obstacle, 6).pause.as_secs())
            .collect()
    }

    #[test]
    fn what_a_newer_build_wrote_is_hopeless_at_once_and_tried_ever_less_often() {
        let next = Retry::default().next(Obstacle::Newer, 6);
        assert!(next.is_hopeless && !next.reload, "{next:?}");
        assert_eq!(pauses(Obstacle::Newer, 7), [5, 10, 20, 40, 80, 120, 120]);
    }

    #[test]
    fn an_entry_that_is_none_is_read_once_more_before_it_is_hopeless() {
        let mut retry = Retry::default();
        let first = retry.next(Obstacle::Unreadable(7), 6);
        assert!(!first.is_hopeless && !first.reload, "{first:?}");
        let elsewhere = retry.next(Obstacle::Unreadable(8), 7);
        assert!(!elsewhere.is_hopeless, "{elsewhere:?}");
        assert!(retry.next(Obstacle::Unreadable(8), 7).is_hopeless);
        assert_eq!(pauses(Obstacle::Unreadable(7), 4), [0, 5, 10, 20]);
    }

    #[test]
    fn what_does_not_fit_is_loaded_anew_and_not_four_times_a_second() {
        let next = Retry::default().next(Obstacle::Misfit, 6);
        assert!(next.reload && !next.is_hopeless, "{next:?}");
        assert_eq!(pauses(Obstacle::Misfit, 4), [0, 5, 10, 20]);
    }

    #[test]
    fn a_bus_that_is_away_is_asked_often() {
        assert_eq!(pauses(Obstacle::Other, 4), [0; 4]);
        let mut retry = Retry::default();
        for _ in 0..3 {
            let next = retry.next(Obstacle::Other, 6);
            assert_eq!((next.is_hopeless, next.reload), (false, false));
        }
    }

    #[test]
    fn pauses_begin_anew_once_more_was_applied() {
        let mut retry = Retry::default();
        for _ in 0..3 {
            retry.next(Obstacle::Newer, 6);
        }
        assert_eq!(retry.next(Obstacle::Newer, 9).pause, LONG_PAUSE);
    }
}
