//! Which nodes are silent, and for how long: soft state of the leader, never in the log.
//!
//! A node is only as silent as this manager has been listening: a connection that was away, or a
//! manager that was asleep, starts the clocks again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loom_schemas::ids::Name;

/// How often nodes send a heartbeat.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long evictions stay frozen after many nodes fell silent at once.
const FREEZE: Duration = Duration::from_secs(300);

/// The pause between evictions after that.
const THAW: Duration = Duration::from_secs(60);

/// How many silent nodes are never taken for a silent bus.
const FEW: usize = 3;

/// What is known of the nodes' silence.
#[derive(Debug)]
pub(crate) struct Liveness {
    down_after: Duration,
    lost_after: Duration,
    listening_since: Instant,
    last_tick: Instant,
    nodes: BTreeMap<Name, Heard>,
    frozen_since: Option<Instant>,
    last_thawed: Option<Instant>,
}

/// What is known of one node's silence.
#[derive(Debug, Default)]
struct Heard {
    last: Option<Instant>,
    /// It said `bye` and is not awaited before.
    excused_until: Option<Instant>,
    /// This leader found it silent, so it counts as one that fell silent.
    fell_silent: bool,
    lost: bool,
}

/// What follows from a node's silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It answers no more: `down`.
    Silent(Name, Duration),
    /// It is given up: its runs are replaced.
    Lost(Name, Duration),
}

/// What the leader believes of a node, for [`Liveness::tick`].
#[derive(Clone, Debug)]
pub(crate) struct Believed {
    /// The node.
    pub(crate) name: Name,
    /// Whether its record says `up`.
    pub(crate) up: bool,
    /// Whether it has runs that have not ended.
    pub(crate) has_runs: bool,
}

impl Liveness {
    /// Starts to listen.
    pub(crate) fn new(down_after: Duration, lost_after: Duration, now: Instant) -> Self {
        Self {
            down_after,
            lost_after,
            listening_since: now,
            last_tick: now,
            nodes: BTreeMap::new(),
            frozen_since: None,
            last_thawed: None,
        }
    }

    /// A message of the node arrived.
    pub(crate) fn heard(&mut self, node: &Name, now: Instant) {
        let heard = self.nodes.entry(node.clone()).or_default();
        *heard = Heard {
            last: Some(now),
            ..Heard::default()
        };
    }

    /// The node's agent ends; it is not given up before `back_within` and the usual patience.
    pub(crate) fn said_bye(&mut self, node: &Name, back_within: Option<Duration>, now: Instant) {
        let heard = self.nodes.entry(node.clone()).or_default();
        heard.last = Some(now);
        heard.excused_until = Some(now + back_within.unwrap_or_default());
    }

    /// Nobody serves the node's subject. True if its heartbeats are overdue as well, so that it is
    /// gone rather than just coming up.
    pub(crate) fn is_gone_without_responder(&self, node: &Name, now: Instant) -> bool {
        let overdue = HEARTBEAT + Duration::from_secs(1);
        self.silence(node, now) >= overdue
    }

    /// This manager's own connection was away: all clocks start again.
    pub(crate) fn listen_again(&mut self, now: Instant) {
        self.listening_since = now;
    }

    /// How evictions stand, in words; none if they go on as usual.
    pub(crate) fn freeze(&self) -> Option<&'static str> {
        self.frozen_since
            .map(|_| "many nodes fell silent at once: evictions are frozen")
    }

    /// What follows now. `tick` is how often it is called: a longer gap means this manager slept.
    pub(crate) fn tick(
        &mut self,
        nodes: impl IntoIterator<Item = Believed>,
        tick: Duration,
        now: Instant,
    ) -> Vec<Verdict> {
        if now.duration_since(self.last_tick) > tick * 3 + Duration::from_secs(1) {
            self.listen_again(now);
        }
        self.last_tick = now;
        let nodes: Vec<Believed> = nodes.into_iter().collect();
        let mut verdicts = Vec::new();
        for node in &nodes {
            let silence = self.silence(&node.name, now);
            if node.up && silence >= self.down_after {
                self.nodes.entry(node.name.clone()).or_default().fell_silent = true;
                verdicts.push(Verdict::Silent(node.name.clone(), silence));
            }
        }
        self.consider_freeze(nodes.len(), now);
        for node in &nodes {
            let silence = self.silence(&node.name, now);
            if !node.has_runs || silence < self.lost_after || self.is_excused(&node.name, now) {
                continue;
            }
            if self.may_evict(now) {
                self.nodes.entry(node.name.clone()).or_default().lost = true;
                verdicts.push(Verdict::Lost(node.name.clone(), silence));
            }
        }
        verdicts
    }

    fn silence(&self, node: &Name, now: Instant) -> Duration {
        let last = self.nodes.get(node).and_then(|heard| heard.last);
        let since = last.map_or(self.listening_since, |at| at.max(self.listening_since));
        now.saturating_duration_since(since)
    }

    fn is_excused(&self, node: &Name, now: Instant) -> bool {
        let until = self.nodes.get(node).and_then(|heard| heard.excused_until);
        until.is_some_and(|until| now < until + self.lost_after)
    }

    /// More than max(3, 20 %) silent at once is taken for the bus, not for the nodes.
    fn consider_freeze(&mut self, known: usize, now: Instant) {
        let silent = self
            .nodes
            .values()
            .filter(|heard| heard.fell_silent && !heard.lost)
            .count();
        if silent > FEW.max(known / 5) {
            self.frozen_since.get_or_insert(now);
        } else {
            self.frozen_since = None;
            self.last_thawed = None;
        }
    }

    fn may_evict(&mut self, now: Instant) -> bool {
        let Some(since) = self.frozen_since else {
            return true;
        };
        if now.duration_since(since) < FREEZE {
            return false;
        }
        if self.last_thawed.is_some_and(|last| now.duration_since(last) < THAW) {
            return false;
        }
        self.last_thawed = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(1);

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn up(text: &str) -> Believed {
        Believed {
            name: name(text),
            up: true,
            has_runs: true,
        }
    }

    fn liveness(now: Instant) -> Liveness {
        Liveness::new(Duration::from_secs(10), Duration::from_secs(30), now)
    }

    /// Ticks every second and gathers the verdicts with the second they fell in.
    fn run(
        liveness: &mut Liveness,
        nodes: &[Believed],
        from: Instant,
        seconds: u64,
    ) -> Vec<(u64, Verdict)> {
        let mut nodes = nodes.to_vec();
        let mut verdicts = Vec::new();
        for second in 1..=seconds {
            let now = from + Duration::from_secs(second);
            for verdict in liveness.tick(nodes.clone(), TICK, now) {
                for node in &mut nodes {
                    match &verdict {
                        Verdict::Silent(name, _) if *name == node.name => node.up = false,
                        Verdict::Lost(name, _) if *name == node.name => node.has_runs = false,
                        _ => {}
                    }
                }
                verdicts.push((second, verdict));
            }
        }
        verdicts
    }

    #[test]
    fn a_silent_node_is_down_and_then_lost() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        let verdicts = run(&mut liveness, &[up("a")], start, 40);
        let at: Vec<u64> = verdicts.iter().map(|(second, _)| *second).collect();
        assert_eq!(at, [10, 30], "{verdicts:?}");
    }

    #[test]
    fn nobody_is_silent_longer_than_the_manager_listens() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        liveness.heard(&name("a"), start);
        let back = start + Duration::from_secs(100);
        liveness.listen_again(back);
        assert!(liveness.tick([up("a")], Duration::from_secs(200), back).is_empty());
    }

    #[test]
    fn a_manager_that_slept_starts_the_clocks_again() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        liveness.heard(&name("a"), start);
        let woken = start + Duration::from_secs(600);
        assert!(liveness.tick([up("a")], TICK, woken).is_empty());
        assert_eq!(run(&mut liveness, &[up("a")], woken, 9), []);
    }

    #[test]
    fn many_silent_nodes_are_taken_for_the_bus() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        let nodes: Vec<Believed> = (0..5).map(|n| up(&format!("n{n}"))).collect();
        let verdicts = run(&mut liveness, &nodes, start, 500);
        let lost: Vec<u64> = verdicts
            .iter()
            .filter(|(_, verdict)| matches!(verdict, Verdict::Lost(..)))
            .map(|(second, _)| *second)
            .collect();
        // Frozen when they fell silent at 10 s; one after five minutes, one more a minute later,
        // by which time so few are left unaccounted for that the rest is no longer the bus.
        assert_eq!(lost[0], 310);
        assert!(lost[1] >= 311, "{lost:?}");
        assert_eq!(lost.len(), 5);
    }

    #[test]
    fn a_node_that_said_bye_is_awaited() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        liveness.said_bye(&name("a"), Some(Duration::from_secs(60)), start);
        let mut node = up("a");
        node.up = false;
        let verdicts = run(&mut liveness, &[node], start, 100);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].0, 90);
    }
}
