//! Which nodes are silent, and for how long: soft state of the leader, never in the log. Pure.
//!
//! A node is only as silent as this manager has been listening: a connection that was away, or a
//! manager that was asleep, starts all clocks again. What becomes of the runs of a node that is
//! down is the plan's to decide, but it gives nobody up before this manager has listened for the
//! whole of the patience.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use loom_schemas::ids::Name;

/// A node that nobody serves and that was silent for so long is gone: two heartbeats are overdue.
const OVERDUE: Duration = Duration::from_secs(5);

/// What is known of the nodes' silence.
#[derive(Debug)]
pub(crate) struct Liveness {
    down_after: Duration,
    listening_since: Instant,
    last_tick: Instant,
    heard: HashMap<Name, Instant>,
}

impl Liveness {
    /// Starts to listen.
    pub(crate) fn new(down_after: Duration, now: Instant) -> Self {
        Self {
            down_after,
            listening_since: now,
            last_tick: now,
            heard: HashMap::new(),
        }
    }

    /// A message of the node arrived, at `at`.
    pub(crate) fn heard(&mut self, node: &Name, at: Instant) {
        let last = self.heard.entry(node.clone()).or_insert(at);
        *last = at.max(*last);
    }

    /// The time goes on. `tick` is how often this is called: a much longer gap means that this
    /// manager slept, and `connected` whether its connection is up.
    pub(crate) fn tick(&mut self, connected: bool, tick: Duration, now: Instant) {
        let slept = now.saturating_duration_since(self.last_tick) > tick * 3 + tick / 2;
        self.last_tick = now;
        if slept || !connected {
            self.listening_since = now;
        }
    }

    /// For how long this manager has been listening without a break.
    pub(crate) fn listening(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.listening_since)
    }

    /// Whether a node was heard since this manager last began to listen.
    pub(crate) fn is_heard(&self, node: &Name, now: Instant) -> bool {
        self.heard
            .get(node)
            .is_some_and(|at| *at >= self.listening_since)
            && !self.is_silent(node, now)
    }

    /// Whether a node has been silent for so long that it is down.
    pub(crate) fn is_silent(&self, node: &Name, now: Instant) -> bool {
        self.silence(node, now) >= self.down_after
    }

    /// Whether a node that nobody serves is gone, rather than just coming up.
    pub(crate) fn is_overdue(&self, node: &Name, now: Instant) -> bool {
        self.silence(node, now) >= OVERDUE
    }

    /// How long a node has been silent.
    pub(crate) fn silence(&self, node: &Name, now: Instant) -> Duration {
        let last = self.heard.get(node).copied();
        let since = last.map_or(self.listening_since, |at| at.max(self.listening_since));
        now.saturating_duration_since(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(1);

    fn node() -> Name {
        Name::new("a").unwrap()
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn ticked(liveness: &mut Liveness, start: Instant, seconds: std::ops::RangeInclusive<u64>) {
        for second in seconds {
            liveness.tick(true, TICK, after(start, second));
        }
    }

    #[test]
    fn a_node_is_silent_once_its_time_is_up() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Duration::from_secs(10), start);
        liveness.heard(&node(), after(start, 3));
        ticked(&mut liveness, start, 1..=12);
        assert!(!liveness.is_silent(&node(), after(start, 12)));
        assert!(liveness.is_silent(&node(), after(start, 13)));
    }

    #[test]
    fn nobody_is_silent_longer_than_the_manager_listens() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Duration::from_secs(10), start);
        liveness.heard(&node(), start);
        ticked(&mut liveness, start, 1..=8);
        liveness.tick(false, TICK, after(start, 9));
        ticked(&mut liveness, start, 10..=18);
        assert!(!liveness.is_silent(&node(), after(start, 18)));
        assert!(liveness.is_silent(&node(), after(start, 19)));
        assert_eq!(
            liveness.listening(after(start, 19)),
            Duration::from_secs(10)
        );
    }

    #[test]
    fn a_manager_that_slept_starts_the_clocks_again() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Duration::from_secs(10), start);
        liveness.heard(&node(), start);
        let woken = after(start, 600);
        liveness.tick(true, TICK, woken);
        assert!(!liveness.is_silent(&node(), woken));
        assert!(!liveness.is_heard(&node(), woken));
        assert_eq!(liveness.listening(woken), Duration::ZERO);
    }

    #[test]
    fn an_old_message_does_not_turn_the_clock_back() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Duration::from_secs(10), start);
        liveness.heard(&node(), after(start, 5));
        liveness.heard(&node(), after(start, 2));
        assert_eq!(
            liveness.silence(&node(), after(start, 6)),
            Duration::from_secs(1)
        );
    }
}
