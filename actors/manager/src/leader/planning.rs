//! When the scheduler plans, and what becomes of its passes.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::scheduler::SLOTS_OF_A_PASS;
use super::{Leading, ManagerMessage, Pass, SchedulerMessage};
use crate::follower::chain;
use crate::state::State;

/// Nobody is given up before this manager has listened for long enough.
const NEVER: Duration = Duration::from_hours(100 * 365 * 24);

/// The pause before planning again after a pass failed.
const PAUSE: Duration = Duration::from_secs(1);

/// An append waits for a pass if the last one took no longer: a commit costs more than that.
const QUICK: Duration = Duration::from_millis(1);

/// What is known of planning.
#[derive(Debug, Default)]
pub(crate) struct Planning {
    pass: PassState,
    /// When the pass under way was ordered, and how long the last one took.
    begun: Option<Instant>,
    took: Duration,
    /// Whether what gathers has waited for a pass: it does so once.
    awaited: bool,
    /// Something is due although no job is dirty.
    woken: bool,
    /// When the clock gives something to do, and whether an alarm is set for it.
    due: Option<Timestamp>,
    not_before: Option<Instant>,
    /// Whether this manager has listened for long enough to give anybody up.
    patient: bool,
    /// How often the pass was halved because what it came to was larger than a commit can be.
    halvings: u32,
}

/// The pass under way, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PassState {
    #[default]
    None,
    UnderWay,
    /// The head was rolled back under it: what comes back is of no use.
    Dropped,
}

impl Planning {
    pub(crate) fn is_under_way(&self) -> bool {
        self.pass != PassState::None
    }

    /// Whether what gathers had better wait for the pass under way: what is asked for and what is
    /// planned for it then land in one commit in place of two. False once it has waited.
    pub(crate) fn is_worth_awaiting(&mut self) -> bool {
        self.pass == PassState::UnderWay
            && self.took <= QUICK
            && !std::mem::replace(&mut self.awaited, true)
    }

    /// What gathered is being appended.
    pub(crate) fn appending(&mut self) {
        self.awaited = false;
    }

    fn begin(&mut self) {
        self.pass = PassState::UnderWay;
        self.begun = Some(Instant::now());
        self.woken = false;
        self.due = None;
    }

    /// The clock says that something may be due.
    pub(crate) fn woken(&mut self) {
        self.woken = true;
    }

    /// The pass under way is of no use any more.
    pub(crate) fn drop_pass(&mut self) {
        if self.is_under_way() {
            self.pass = PassState::Dropped;
        }
    }

    /// How many slots the next pass may change.
    fn slots(&self) -> usize {
        SLOTS_OF_A_PASS
            .checked_shr(self.halvings)
            .unwrap_or_default()
            .max(1)
    }

    /// What came of a pass was too large for a commit; false if it cannot be made any smaller.
    fn halve(&mut self) -> bool {
        let more = self.slots() > 1;
        self.halvings += u32::from(more);
        more
    }

    /// A pass was taken in: the next may be larger again.
    fn restore(&mut self) {
        self.halvings = self.halvings.saturating_sub(1);
    }

    fn is_due(&mut self, head: &State, now: Timestamp) -> bool {
        if self.is_under_way() || self.not_before.is_some_and(|at| at > Instant::now()) {
            return false;
        }
        self.not_before = None;
        let by_clock = self.due.is_some_and(|at| at <= now);
        self.woken || by_clock || head.dirty().next().is_some() || head.waiting_may_fit()
    }
}

impl Leading {
    /// Has the scheduler plan if there is anything to plan.
    pub(super) fn plan(&mut self) {
        if self.is_recovering() || self.is_full() {
            return;
        }
        if !self.planning.is_due(&self.head, Timestamp::now()) {
            return;
        }
        let order = SchedulerMessage::Plan {
            state: Box::new(self.head.clone()),
            revision: self.durable.position.revision(),
            lost_after: self.lost_after(),
            unheard_before: self.unheard_before(),
            slots: self.planning.slots(),
        };
        self.planning.begin();
        // A scheduler that is gone is started anew by supervision, and asked again.
        drop(self.scheduler.cast(order));
    }

    /// After how long the runs of a node that is down are given up: never before this manager has
    /// listened for as long.
    pub(super) fn lost_after(&self) -> Duration {
        if self.planning.patient {
            self.context.options.timings.lost_after
        } else {
            NEVER
        }
    }

    /// What was made before may have ended while nobody listened, until this manager has done so for
    /// long enough.
    fn unheard_before(&self) -> Option<Timestamp> {
        let myself = self.head.manager(self.context.name())?;
        myself.elected_at.filter(|_| !self.planning.patient)
    }

    /// Looks how long this manager has listened.
    pub(super) fn note_patience(&mut self, now: Instant) {
        let patient = self.liveness.listening(now) >= self.context.options.timings.lost_after;
        self.planning.woken |= patient && !self.planning.patient;
        self.planning.patient = patient;
    }

    /// A pass came back: nothing was decided meanwhile, so it is as good as it was.
    pub(super) fn planned(&mut self, pass: Pass) {
        if let Some(begun) = self.planning.begun.take() {
            self.planning.took = begun.elapsed();
        }
        if std::mem::take(&mut self.planning.pass) == PassState::Dropped {
            return;
        }
        let decided = match pass.decided {
            Ok(decided) => decided,
            Err(error) => {
                tracing::error!("a plan cannot be written: {}", chain(&error));
                self.planning.not_before = Some(Instant::now() + PAUSE);
                return;
            }
        };
        self.wake_at(pass.planned.due);
        if decided.changes.is_empty() && decided.events.is_empty() && decided.assigns.is_empty() {
            // Only marks were cleared: nothing to commit.
            self.head = decided.state;
            self.planning.restore();
        } else if self.propose(decided, Vec::new(), None) {
            self.planning.restore();
        } else if self.planning.halve() {
            let slots = self.planning.slots();
            tracing::warn!(
                slots,
                "a plan is larger than one commit can be: a smaller one is made"
            );
            self.planning.woken = true;
        } else {
            tracing::error!("a plan for one slot is larger than one commit can be");
            self.planning.not_before = Some(Instant::now() + PAUSE);
        }
    }

    /// The scheduler is gone with its pass.
    pub(super) fn planning_failed(&mut self) {
        if std::mem::take(&mut self.planning.pass) != PassState::None {
            self.planning.not_before = Some(Instant::now() + PAUSE);
            let myself = self.myself.clone();
            myself.send_after(PAUSE, || ManagerMessage::Wake);
        }
        self.go_on();
    }

    fn wake_at(&mut self, due: Option<Timestamp>) {
        self.planning.due = due;
        let Some(due) = due else { return };
        let wait = due
            .duration_since(Timestamp::now())
            .max(jiff::SignedDuration::ZERO);
        // Far-off times are met by the tick.
        let wait = wait.unsigned_abs();
        if wait < self.context.options.timings.tick {
            self.myself.send_after(wait, || ManagerMessage::Wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gathers_waits_for_a_quick_pass_once_and_for_no_other() {
        let mut planning = Planning::default();
        assert!(!planning.is_worth_awaiting(), "there is no pass");
        planning.begin();
        assert!(planning.is_worth_awaiting());
        assert!(!planning.is_worth_awaiting(), "it has waited");
        planning.appending();
        assert!(planning.is_worth_awaiting(), "this is the next batch");
        planning.appending();
        planning.drop_pass();
        assert!(!planning.is_worth_awaiting(), "nothing comes of that pass");
        planning.begin();
        planning.took = QUICK * 2;
        assert!(!planning.is_worth_awaiting(), "passes take long here");
    }

    #[test]
    fn a_pass_that_is_too_large_is_halved_down_to_one_slot_and_grows_again() {
        let mut planning = Planning::default();
        assert_eq!(planning.slots(), SLOTS_OF_A_PASS);
        let mut sizes = Vec::new();
        while planning.halve() {
            sizes.push(planning.slots());
        }
        assert_eq!(sizes, [128, 64, 32, 16, 8, 4, 2, 1]);
        for _ in 0..20 {
            planning.restore();
        }
        assert_eq!(planning.slots(), SLOTS_OF_A_PASS);
    }
}
