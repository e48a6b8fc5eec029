//! What each node is told next: one call outstanding a node, what gathers meanwhile goes into the
//! next. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loom_schemas::ids::{Epoch, Name};

use crate::state::NodeDelta;

/// The pause before a call that failed is made again; it doubles.
const PAUSE: Duration = Duration::from_millis(250);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// All nodes' outboxes.
#[derive(Debug, Default)]
pub(crate) struct Outboxes {
    nodes: BTreeMap<Name, Outbox>,
}

#[derive(Debug, Default)]
struct Outbox {
    /// What changed since the last call.
    pending: Option<NodeDelta>,
    /// It must be told everything, whatever changed.
    whole: bool,
    calling: Option<Letter>,
    failures: u32,
    not_before: Option<Instant>,
    /// When it last took what it was told.
    settled_at: Option<Instant>,
}

/// What a node is told in one call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Letter {
    /// Everything, and placements the state knows nothing of among it.
    Whole(NodeDelta),
    /// What changed.
    Delta(NodeDelta),
}

/// How a call to a node came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has it.
    Taken,
    /// It has another generation than the delta was made for.
    Resync,
    /// It has obeyed a higher epoch: this manager leads no more, or the log was rewound.
    Stale(Epoch),
    /// It belongs to another cluster.
    Foreign(String),
    /// Nobody serves its subject.
    NobodyThere,
    /// No answer, or an error.
    Failed(String),
}

impl Outboxes {
    /// A node's assignment changed.
    pub(crate) fn put(&mut self, node: &Name, delta: NodeDelta) {
        let outbox = self.outbox(node);
        match &mut outbox.pending {
            Some(pending) => pending.merge(delta),
            None => outbox.pending = Some(delta),
        }
    }

    /// A node has to be told everything, now.
    pub(crate) fn want_whole(&mut self, node: &Name) {
        let outbox = self.outbox(node);
        outbox.whole = true;
        outbox.not_before = None;
    }

    /// A node is told everything in the answer to its `hello`. Returns what was pending for it.
    pub(crate) fn welcomed(&mut self, node: &Name, now: Instant) -> Option<NodeDelta> {
        let outbox = self.outbox(node);
        let calling = outbox.calling.take();
        let pending = std::mem::take(outbox).pending;
        // A call under way keeps the line: what it comes to no longer matters.
        let outbox = self.outbox(node);
        outbox.calling = calling;
        outbox.settled_at = Some(now);
        pending
    }

    /// Drops what is pending for a node that is gone: it is told everything when it is back.
    pub(crate) fn forget(&mut self, node: &Name) {
        self.nodes.remove(node);
    }

    /// The nodes to call now, each with what to tell it; the calls count as begun.
    pub(crate) fn begin(&mut self, now: Instant) -> Vec<(Name, Letter)> {
        let mut letters = Vec::new();
        for (node, outbox) in &mut self.nodes {
            if !outbox.is_due(now) {
                continue;
            }
            let delta = outbox.pending.take().unwrap_or_default();
            let letter = if std::mem::take(&mut outbox.whole) {
                Letter::Whole(delta)
            } else {
                Letter::Delta(delta)
            };
            outbox.calling = Some(letter.clone());
            letters.push((node.clone(), letter));
        }
        letters
    }

    /// A call came back.
    pub(crate) fn finish(&mut self, node: &Name, outcome: &Outcome, now: Instant) {
        let Some(outbox) = self.nodes.get_mut(node) else {
            return;
        };
        let Some(letter) = outbox.calling.take() else {
            return;
        };
        match outcome {
            Outcome::Taken => {
                outbox.failures = 0;
                outbox.not_before = None;
                outbox.settled_at = Some(now);
            }
            Outcome::Resync => {
                outbox.whole = true;
                outbox.take_back(letter);
            }
            Outcome::Stale(_) | Outcome::Foreign(_) | Outcome::NobodyThere | Outcome::Failed(_) => {
                outbox.whole |= matches!(letter, Letter::Whole(_));
                outbox.take_back(letter);
                let doubled = PAUSE.saturating_mul(1 << outbox.failures.min(8));
                outbox.failures = outbox.failures.saturating_add(1);
                outbox.not_before = Some(now + doubled.min(LONGEST_PAUSE));
            }
        }
    }

    /// Since when a node has had everything there was to tell it; none while there is something.
    pub(crate) fn settled_since(&self, node: &Name) -> Option<Instant> {
        let outbox = self.nodes.get(node)?;
        let idle = outbox.calling.is_none() && outbox.pending.is_none() && !outbox.whole;
        outbox.settled_at.filter(|_| idle)
    }

    fn outbox(&mut self, node: &Name) -> &mut Outbox {
        self.nodes.entry(node.clone()).or_default()
    }
}

impl Outbox {
    fn is_due(&self, now: Instant) -> bool {
        (self.whole || self.pending.is_some())
            && self.calling.is_none()
            && self.not_before.is_none_or(|at| at <= now)
    }

    /// What a call did not get across stays to be told, before what came later.
    fn take_back(&mut self, letter: Letter) {
        let (Letter::Whole(mut delta) | Letter::Delta(mut delta)) = letter;
        if let Some(later) = self.pending.take() {
            delta.merge(later);
        }
        self.pending = Some(delta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Name {
        Name::new("n").unwrap()
    }

    fn delta(base: u64, generation: u64) -> NodeDelta {
        NodeDelta {
            base,
            generation,
            ..NodeDelta::default()
        }
    }

    #[test]
    fn what_gathers_during_a_call_goes_into_the_next() {
        let now = Instant::now();
        let mut outboxes = Outboxes::default();
        outboxes.put(&node(), delta(0, 1));
        let first = outboxes.begin(now);
        assert_eq!(first, [(node(), Letter::Delta(delta(0, 1)))]);
        outboxes.put(&node(), delta(1, 2));
        outboxes.put(&node(), delta(2, 3));
        assert_eq!(outboxes.begin(now), [], "one call at a time");
        outboxes.finish(&node(), &Outcome::Taken, now);
        assert_eq!(outboxes.begin(now), [(node(), Letter::Delta(delta(1, 3)))]);
    }

    #[test]
    fn what_did_not_get_across_is_told_again_after_a_pause() {
        let now = Instant::now();
        let mut outboxes = Outboxes::default();
        outboxes.put(&node(), delta(0, 1));
        outboxes.begin(now);
        outboxes.put(&node(), delta(1, 2));
        outboxes.finish(&node(), &Outcome::NobodyThere, now);
        assert_eq!(outboxes.begin(now), []);
        let later = now + Duration::from_secs(1);
        assert_eq!(
            outboxes.begin(later),
            [(node(), Letter::Delta(delta(0, 2)))]
        );
    }

    #[test]
    fn a_node_of_another_generation_is_told_everything_at_once() {
        let now = Instant::now();
        let mut outboxes = Outboxes::default();
        outboxes.put(&node(), delta(0, 1));
        outboxes.begin(now);
        outboxes.finish(&node(), &Outcome::Resync, now);
        assert_eq!(outboxes.begin(now), [(node(), Letter::Whole(delta(0, 1)))]);
        assert_eq!(outboxes.settled_since(&node()), None);
        outboxes.finish(&node(), &Outcome::Taken, now);
        assert_eq!(outboxes.settled_since(&node()), Some(now));
    }

    #[test]
    fn a_welcome_stands_for_all_that_was_pending() {
        let now = Instant::now();
        let mut outboxes = Outboxes::default();
        outboxes.put(&node(), delta(0, 1));
        outboxes.welcomed(&node(), now);
        assert_eq!(outboxes.begin(now), []);
        assert_eq!(outboxes.settled_since(&node()), Some(now));
    }
}
