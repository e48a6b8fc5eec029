//! When a standby takes over: a pure table over what it heard of the leader.

use std::time::{Duration, Instant};

use crate::options::Timings;

/// How many pings must go unanswered.
const PINGS: u32 = 3;

/// What a ping of the leader came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pinged {
    /// It lives and leads.
    Leads,
    /// It lives and does not lead.
    Follows,
    /// Nobody serves its subject: its connection is gone.
    NobodyThere,
    /// No answer in time.
    Unanswered,
    /// The question could not be asked: this manager's own connection is away.
    NotAsked,
}

/// Why a standby takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nobody has led yet, or the last leader was this manager itself.
    Vacant,
    /// The leader said `bye`.
    Bye,
    /// The last to lead was not there any more when this manager came.
    Absent,
    /// The leader's connection is gone, or it leads no more.
    Gone,
    /// The leader hangs: neither entries nor answers.
    Hung,
}

impl Cause {
    /// In words, for the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Vacant => "nobody leads",
            Self::Bye => "the leader said bye",
            Self::Absent => "the last leader is not there",
            Self::Gone => "the leader is gone",
            Self::Hung => "the leader hangs",
        }
    }
}

/// What a standby knows of the leader's life.
#[derive(Debug)]
pub(crate) struct Watch {
    stopped_after: Duration,
    last_entry: Instant,
    asked: bool,
    /// Whether the leader showed that it lives since this manager watches.
    seen: bool,
    unanswered: u32,
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn new(timings: &Timings, now: Instant) -> Self {
        Self {
            stopped_after: timings.entries_stopped_after,
            last_entry: now,
            asked: false,
            seen: false,
            unanswered: 0,
        }
    }

    /// An entry of the leader arrived: it lives.
    pub(crate) fn entry(&mut self, now: Instant) {
        self.last_entry = now;
        self.seen = true;
        self.unanswered = 0;
    }

    /// Whether the leader is asked: when it has been quiet for so long, and once to begin with.
    pub(crate) fn asks(&self, quiet: Duration, now: Instant) -> bool {
        !self.asked || self.is_quiet(quiet, now)
    }

    fn is_quiet(&self, quiet: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.last_entry) >= quiet
    }

    /// A ping came back, or did not.
    pub(crate) fn pinged(&mut self, pinged: Pinged, now: Instant) -> Option<Cause> {
        self.asked = true;
        match pinged {
            Pinged::Leads | Pinged::NotAsked => {
                self.seen |= pinged == Pinged::Leads;
                self.unanswered = 0;
                None
            }
            Pinged::NobodyThere if !self.seen => Some(Cause::Absent),
            Pinged::Follows | Pinged::NobodyThere => Some(Cause::Gone),
            Pinged::Unanswered => {
                self.unanswered += 1;
                let stopped = self.is_quiet(self.stopped_after, now);
                (stopped && self.unanswered >= PINGS).then_some(Cause::Hung)
            }
        }
    }
}

/// The pause before a manager that lost or took leadership by force tries again.
#[derive(Debug)]
pub(crate) struct BackOff {
    first: Duration,
    most: Duration,
    next: Duration,
    until: Option<Instant>,
}

impl BackOff {
    /// No pause to begin with.
    pub(crate) fn new(timings: &Timings) -> Self {
        Self {
            first: timings.back_off,
            most: timings.max_back_off,
            next: timings.back_off,
            until: None,
        }
    }

    /// Leadership was lost or taken by force; `jitter` is between 0 and 1.
    pub(crate) fn step(&mut self, jitter: f64, now: Instant) {
        if self.until.is_some_and(|until| now > until + self.most) {
            self.next = self.first;
        }
        let pause = self.next.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        self.until = Some(now + pause);
        self.next = (self.next * 2).min(self.most);
    }

    /// How long still to wait.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_gone_leader_is_replaced_at_once() {
        let now = Instant::now();
        let mut watch = Watch::new(&Timings::default(), now);
        assert_eq!(watch.pinged(Pinged::NobodyThere, now), Some(Cause::Absent));
        assert_eq!(watch.pinged(Pinged::Leads, now), None);
        assert_eq!(watch.pinged(Pinged::NobodyThere, now), Some(Cause::Gone));
        assert_eq!(watch.pinged(Pinged::Follows, now), Some(Cause::Gone));
    }

    #[test]
    fn a_hung_leader_is_replaced_after_silence_and_three_pings() {
        let now = Instant::now();
        let mut watch = Watch::new(&Timings::default(), now);
        let later = now + seconds(4);
        assert_eq!(watch.pinged(Pinged::Unanswered, later), None);
        assert_eq!(watch.pinged(Pinged::Unanswered, later), None);
        assert_eq!(watch.pinged(Pinged::Unanswered, later), Some(Cause::Hung));
    }

    #[test]
    fn a_leader_whose_entries_arrive_is_never_replaced() {
        let now = Instant::now();
        let mut watch = Watch::new(&Timings::default(), now);
        for second in 1..100 {
            watch.entry(now + seconds(second));
            assert_eq!(
                watch.pinged(Pinged::Unanswered, now + seconds(second)),
                None
            );
        }
    }

    #[test]
    fn the_pause_doubles_and_is_bounded() {
        let now = Instant::now();
        let mut back_off = BackOff::new(&Timings::default());
        assert_eq!(back_off.left(now), Duration::ZERO);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            back_off.step(1.0, now);
            pauses.push(back_off.left(now).as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        back_off.step(1.0, now + seconds(300));
        assert_eq!(back_off.left(now + seconds(300)), seconds(2));
    }
}
