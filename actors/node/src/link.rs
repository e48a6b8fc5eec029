//! A node's side of the talk with the leader: which call comes next, and whether runs may start.
//! Pure; times are since the host booted.
//!
//! One call is in flight at a time, so reports that gather meanwhile go together into the next. A
//! leader that does not answer is asked again after a pause that doubles, with jitter; one that
//! refuses a report is greeted again, because it may be another one that knows nothing of us.
//!
//! A node that is cut off must not start what the managers may by then have placed elsewhere: runs
//! start only while the last contact with a leader is younger than `lost_after`. A contact is the
//! time a call was *sent* that a leader then answered: a node that was suspended and finds old
//! answers or assignments in its sockets learns nothing from them about now. In quiet times a call
//! of no reports keeps the contact young. After a reboot it counts from the first welcome.

use std::time::Duration;

use crate::options::Timings;

/// What a node and its leader stand in.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    timings: Timings,
    /// As this node was started with; the managers may be less patient.
    own_lost_after: Duration,
    greet: bool,
    in_flight: Option<(Call, Duration)>,
    failures: u32,
    not_before: Duration,
    last_contact: Option<Duration>,
    /// When the bus went away; none while it is there.
    away_since: Option<Duration>,
    withheld: bool,
    /// Since when every call was answered with a welcome older than what the node obeyed.
    stale_since: Option<Duration>,
}

/// A call to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Who I am and all I have.
    Hello,
    /// What became of runs.
    Status,
    /// A status of nothing: is there a leader?
    Probe,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make this call now.
    Call(Call),
    /// Nothing before this time.
    WaitUntil(Duration),
    /// Nothing before something happens.
    Idle,
}

/// How a call came back without an answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody answered: no leader, or no bus.
    Silent,
    /// A leader answered and refused.
    Refused,
}

impl Link {
    /// A link not yet used. `last_contact` is what the disk says, unless the host was rebooted.
    /// Without one younger than `lost_after` the tasks' addresses wait for the first welcome.
    pub(crate) fn new(timings: Timings, last_contact: Option<Duration>, now: Duration) -> Self {
        let young = |last: Duration| now.saturating_sub(last) < timings.lost_after;
        let withheld = !last_contact.is_some_and(young);
        Self {
            own_lost_after: timings.lost_after,
            timings,
            greet: true,
            in_flight: None,
            failures: 0,
            not_before: Duration::ZERO,
            last_contact,
            away_since: None,
            withheld,
            stale_since: None,
        }
    }

    /// What to do next, with reports waiting or not.
    pub(crate) fn next(&self, now: Duration, reports: bool) -> Step {
        if self.in_flight.is_some() || !self.is_connected() {
            return Step::Idle;
        }
        if now < self.not_before {
            return Step::WaitUntil(self.not_before);
        }
        if self.greet {
            return Step::Call(Call::Hello);
        }
        if reports {
            return Step::Call(Call::Status);
        }
        let probe_at = self.last_contact.unwrap_or(now) + self.timings.lost_after / 3;
        if now < probe_at {
            Step::WaitUntil(probe_at)
        } else {
            Step::Call(Call::Probe)
        }
    }

    /// The call was made.
    pub(crate) fn called(&mut self, now: Duration, call: Call) {
        // Whatever asks for a greeting from here on is not answered by this one: it says what was.
        self.greet &= call != Call::Hello;
        self.in_flight = Some((call, now));
    }

    /// The leader answered the call in flight as it should.
    pub(crate) fn answered(&mut self) {
        let Some((call, sent)) = self.in_flight.take() else {
            return;
        };
        if call == Call::Hello {
            self.withheld = false;
        }
        self.stale_since = None;
        self.failures = 0;
        if !self.greet {
            self.not_before = Duration::ZERO;
        }
        self.last_contact = Some(self.last_contact.map_or(sent, |last| last.max(sent)));
    }

    /// The call in flight came to nothing; `jitter` is from 0 to 1.
    pub(crate) fn failed(&mut self, now: Duration, failure: Failure, jitter: f64) {
        let greeted = matches!(self.in_flight.take(), Some((Call::Hello, _)));
        self.stale_since = None;
        self.greet |= greeted || failure == Failure::Refused;
        let doubled = self
            .timings
            .back_off
            .saturating_mul(1 << self.failures.min(16));
        let pause = doubled.min(self.timings.max_back_off);
        self.not_before = now + pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        self.failures = self.failures.saturating_add(1);
    }

    /// The welcome that came is older than what the node obeyed. Whether that is all that came for
    /// `lost_after`: then the log was rewound, and no other leader will come.
    pub(crate) fn stale(&mut self, now: Duration, jitter: f64) -> bool {
        let since = self.stale_since.unwrap_or(now);
        self.failed(now, Failure::Silent, jitter);
        self.stale_since = Some(since);
        now.saturating_sub(since) >= self.timings.lost_after
    }

    /// A new leader spoke, or one asks who the node is: greet it, after `delay`.
    pub(crate) fn greet(&mut self, now: Duration, delay: Duration) {
        self.greet = true;
        self.not_before = self.not_before.max(now + delay);
    }

    /// The bus went away.
    pub(crate) fn disconnected(&mut self, now: Duration) {
        self.away_since.get_or_insert(now);
    }

    /// The bus is back: greet the leader, after `delay`.
    pub(crate) fn reconnected(&mut self, now: Duration, delay: Duration) {
        self.away_since = None;
        self.failures = 0;
        self.not_before = now + delay;
        self.greet = true;
    }

    /// Whether the node has let go of its tasks' addresses: a replacement may hold them by now.
    /// So it does when it, or the bus, was away for `lost_after`, until it is welcomed again.
    pub(crate) fn withholds_addresses(&mut self, now: Duration) -> bool {
        let long = |since: Duration| now.saturating_sub(since) >= self.timings.lost_after;
        self.withheld |= self.away_since.is_some_and(long);
        self.withheld
    }

    /// When [`withholds_addresses`](Self::withholds_addresses) turns true if nothing happens.
    pub(crate) fn withholds_at(&self) -> Option<Duration> {
        self.away_since
            .filter(|_| !self.withheld)
            .map(|since| since + self.timings.lost_after)
    }

    /// The managers give a node up after so long: no longer than that runs start without contact.
    /// Whether that changes anything.
    pub(crate) fn lose_after(&mut self, managers: Duration) -> bool {
        let former = self.timings.lost_after;
        self.timings.lost_after = self.own_lost_after.min(managers);
        self.timings.lost_after != former
    }

    /// A contact as the disk keeps it for the next agent, who counts from it with its own patience
    /// until a leader has welcomed it.
    pub(crate) fn contact_to_keep(&self, last: Duration) -> Duration {
        last.saturating_sub(self.own_lost_after.saturating_sub(self.timings.lost_after))
    }

    /// The last contact with a leader.
    pub(crate) fn last_contact(&self) -> Option<Duration> {
        self.last_contact
    }

    /// Until when runs may start; none if they may not at all.
    pub(crate) fn may_start_until(&self) -> Option<Duration> {
        self.last_contact.map(|last| last + self.timings.lost_after)
    }

    /// Whether the bus is there.
    pub(crate) fn is_connected(&self) -> bool {
        self.away_since.is_none()
    }

    /// Whether a call is in flight.
    pub(crate) fn is_calling(&self) -> bool {
        self.in_flight.is_some()
    }
}

/// What the disk's last contact is worth to a new agent: nothing after a reboot, and nothing if it
/// lies ahead of the clock.
pub(crate) fn contact_after_start(
    kept: Option<(&str, Duration)>,
    boot_id: &str,
    now: Duration,
) -> Option<Duration> {
    kept.filter(|(boot, at)| !boot_id.is_empty() && *boot == boot_id && *at <= now)
        .map(|(_, at)| at)
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
