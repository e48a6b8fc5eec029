//! How far the relay was a while ago: what no death of the server can take back (pure).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use loom_schemas::ids::Revision;

/// How far the relay was at which time, oldest first.
#[derive(Debug, Default)]
pub(super) struct Samples {
    settled: Revision,
    recent: VecDeque<(Instant, Revision)>,
    settled_after: Duration,
}

impl Samples {
    pub(super) fn new(settled_after: Duration) -> Self {
        Self {
            settled_after,
            ..Self::default()
        }
    }

    /// Takes down how far the relay is; once a second will do.
    pub(super) fn note(&mut self, now: Instant, relayed: Revision) {
        let step = (self.settled_after / 64).min(Duration::from_secs(1));
        let last = self.recent.back().map(|(at, _)| *at);
        if last.is_none_or(|at| now.duration_since(at) >= step) {
            self.recent.push_back((now, relayed));
        }
    }

    /// How far the relay was long enough ago.
    pub(super) fn settled(&mut self, now: Instant) -> Revision {
        while let Some((at, revision)) = self.recent.front() {
            if now.duration_since(*at) < self.settled_after {
                break;
            }
            self.settled = self.settled.max(*revision);
            self.recent.pop_front();
        }
        self.settled
    }

    /// Nothing that was acknowledged recently counts any more: the server may have lost it.
    pub(super) fn forget(&mut self) {
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_relayed_counts_once_it_is_old_enough() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let revision = |sequence| Revision {
            incarnation: 1,
            sequence,
        };
        let mut samples = Samples::new(Duration::from_secs(100));
        for second in 0..=50 {
            samples.note(at(second), revision(second));
        }
        assert_eq!(samples.settled(at(99)), Revision::default());
        assert_eq!(samples.settled(at(120)).sequence, 20);
        samples.forget();
        assert_eq!(
            samples.settled(at(1000)).sequence,
            20,
            "what was settled stays so"
        );
    }
}
