//! The talk with the leader: hello, status, and what follows from the answers.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use loom_bus::call::CallError;
use loom_schemas::error::ErrorCode;
use loom_schemas::ids::Epoch;
use loom_schemas::subject;
use loom_schemas::wire::{Hello, StatusReport, StatusTaken, Welcome};

use super::{GREETING_SPREAD, NodeMessage, Phase, State};
use crate::assignment::Verdict;
use crate::clock;
use crate::greeting;
use crate::journal::{Batch, Mark};
use crate::ledger::{Record, contact};
use crate::link::{Call, Failure, Step};
use crate::serve::Loop;

/// How much younger a contact must be than the one on disk to be written down.
const CONTACT_KEPT_EVERY: Duration = Duration::from_secs(5);

/// How long a report waits to be on disk before it is sent all the same.
const DISK_PATIENCE: Duration = Duration::from_millis(250);

/// How a call to the leader came back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To `hello`.
    Hello(Result<Welcome, CallError>),
    /// To `status`, with what it reported.
    Status(Vec<Mark>, Result<StatusTaken, CallError>),
}

impl State {
    /// Makes the next call to the leader if it is due, else sees to it that it is when it is.
    pub(super) fn pump(&mut self) {
        let now = clock::since_boot();
        let mut wake = self.link.withholds_at();
        match self.link.next(now, !self.ledger.journal.is_empty()) {
            Step::Call(call) => {
                self.link.called(now, call);
                self.call(call);
            }
            Step::WaitUntil(at) => wake = Some(wake.map_or(at, |other| other.min(at))),
            Step::Idle => {}
        }
        let withheld = self.link.withholds_addresses(now);
        if withheld != self.withheld {
            self.withheld = withheld;
            self.tell_all();
        }
        if let Some(at) = wake {
            self.wake_at(at, now);
        }
    }

    /// Sees to it that the node looks again then; an earlier wake stays.
    fn wake_at(&mut self, at: Duration, now: Duration) {
        if self.wake.as_ref().is_some_and(|(armed, _)| *armed <= at) {
            return;
        }
        let pause = at.saturating_sub(now).max(Duration::from_millis(1));
        let timer = self.me.send_after(pause, || NodeMessage::Wake);
        self.wake = Some((at, Loop::from(timer)));
    }

    fn call(&self, call: Call) {
        match call {
            Call::Hello => self.say_hello(),
            Call::Status => self.report(self.ledger.journal.batch(self.context.limits.reports)),
            Call::Probe => self.report(Batch::default()),
        }
    }

    fn say_hello(&self) {
        let assignment = &self.ledger.assignment;
        let hello = Hello {
            cluster: assignment.cluster.clone(),
            info: self.info.clone(),
            epoch: assignment.epoch,
            generation: assignment.generation,
            runs: self.ledger.inventory(),
            holdings: self.ledger.holdings(),
        };
        let (bus, me) = (self.context.bus.clone(), self.me.clone());
        let (name, timeout) = (self.context.name.clone(), self.context.timings.call);
        let most = self.context.limits.reports;
        tokio::spawn(async move {
            let said = greeting::say(&bus, &name, hello, most, timeout).await;
            let answer = Answer::Hello(said);
            // A node that is gone needs no answer.
            let _ = me.cast(NodeMessage::CallReturned(Box::new(answer)));
        });
    }

    fn report(&self, batch: Batch) {
        let report = StatusReport {
            cluster: self.ledger.assignment.cluster.clone().unwrap_or_default(),
            runs: batch.reports,
        };
        let (bus, me) = (self.context.bus.clone(), self.me.clone());
        let subject = subject::ctl(&self.context.name, "status");
        let timeout = self.context.timings.call;
        let kept = self.context.store.kept();
        tokio::spawn(async move {
            // A disk that takes nothing must not keep the leader from knowing.
            let _ = tokio::time::timeout(DISK_PATIENCE, kept).await;
            let taken = bus.call(&subject, &report, timeout).await;
            let answer = Answer::Status(batch.marks, taken);
            // A node that is gone needs no answer.
            let _ = me.cast(NodeMessage::CallReturned(Box::new(answer)));
        });
    }

    pub(super) fn call_returned(&mut self, answer: Answer) {
        match answer {
            Answer::Hello(Ok(welcome)) => self.welcomed(welcome),
            Answer::Status(marks, Ok(StatusTaken { ahead_ms })) => {
                self.note_clock(ahead_ms);
                if !marks.is_empty() {
                    self.record(Record::Acknowledged(marks));
                }
                self.answered();
            }
            // The one conflict a greeting can meet.
            Answer::Hello(Err(CallError::Refused(error))) if error.code == ErrorCode::Conflict => {
                self.belongs_elsewhere(error.message);
            }
            Answer::Hello(Err(error)) => self.not_answered("hello", &error),
            Answer::Status(_, Err(error)) => self.not_answered("status", &error),
        }
    }

    fn welcomed(&mut self, welcome: Welcome) {
        let own = &self.ledger.assignment.cluster;
        let verdict = self.ledger.assignment.judge(&welcome.assignment);
        if own.as_ref().is_some_and(|own| *own != welcome.cluster) || verdict == Verdict::Foreign {
            let (own, other) = (own.as_deref().unwrap_or_default(), &welcome.cluster);
            return self.belongs_elsewhere(format!("this node's is {own}, the leader's {other}"));
        }
        self.note_clock(welcome.ahead_ms);
        self.note_lost_after(welcome.lost_after_ms);
        let now = clock::since_boot();
        if verdict == Verdict::Stale {
            tracing::warn!("a leader that leads no more answered hello, asking again");
            if self.link.stale(now, rand::random()) {
                self.log_was_rewound(welcome.assignment.epoch);
            }
            return;
        }
        if verdict == Verdict::Resync {
            tracing::warn!("hello was answered with a part of the assignment, asking again");
            return self.link.failed(now, Failure::Silent, rand::random());
        }
        let touched = if verdict == Verdict::Take {
            self.record(Record::Assign(welcome.assignment))
        } else {
            BTreeSet::new()
        };
        if *self.context.phase.borrow() == Phase::Starting {
            let (node, epoch) = (&self.context.name, self.ledger.assignment.epoch);
            tracing::info!(%node, %epoch, placements = touched.len(), "welcomed by the leader");
        }
        self.answered();
        self.act_when_kept(touched, None);
        self.sweep();
        let starting = |phase: &mut Phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Ready;
            }
            starting
        };
        self.context.phase.send_if_modified(starting);
    }

    /// Deadlines are the leader's time.
    fn note_clock(&self, ahead_ms: Option<i64>) {
        if let Some(ahead) = ahead_ms {
            let ahead = SignedDuration::from_millis(ahead);
            self.context.bus.set_clock_offset(ahead);
        }
    }

    /// The managers place elsewhere what they have given up, so nothing starts here past that.
    fn note_lost_after(&mut self, told_ms: Option<u64>) {
        let own = self.context.timings.lost_after;
        let told = told_ms.map_or(own, Duration::from_millis);
        if self.link.lose_after(told) && told < own {
            let node = &self.context.name;
            tracing::warn!(
                %node,
                "--lost-after {own:?} of this node is longer than the managers' {told:?}: theirs \
                 holds"
            );
        }
    }

    fn belongs_elsewhere(&mut self, reason: String) {
        let node = &self.context.name;
        tracing::error!(%node, reason, "the leader leads another cluster: this node ends");
        self.context.phase.send_replace(Phase::Foreign { reason });
        self.me.stop(None);
    }

    fn log_was_rewound(&mut self, led: Epoch) {
        let (node, own) = (&self.context.name, self.ledger.assignment.epoch);
        let reason = format!("this node obeyed epoch {own}, the leader's is {led}");
        tracing::error!(%node, reason, "the bus's store is older than this node's data: it ends");
        self.context.phase.send_replace(Phase::Rewound { reason });
        self.me.stop(None);
    }

    fn answered(&mut self) {
        self.link.answered();
        if std::mem::replace(&mut self.silent, false) {
            tracing::info!(node = %self.context.name, "a leader answers again");
        }
        self.until.send_replace(self.link.may_start_until());
        let Some(last) = self.link.last_contact() else {
            return;
        };
        if self
            .contact_kept
            .is_none_or(|kept| last >= kept + CONTACT_KEPT_EVERY)
        {
            self.contact_kept = Some(last);
            let kept = self.link.contact_to_keep(last);
            self.record(contact(&self.context.boot_id, kept));
        }
    }

    fn not_answered(&mut self, call: &str, error: &CallError) {
        let refused = matches!(error, CallError::Refused(_) | CallError::Decode(_));
        let failure = if refused {
            Failure::Refused
        } else {
            Failure::Silent
        };
        self.link
            .failed(clock::since_boot(), failure, rand::random());
        if !std::mem::replace(&mut self.silent, true) {
            let node = &self.context.name;
            tracing::warn!(%node, call, %error, "no leader takes what this node says, asking on");
        }
    }

    pub(super) fn bus_changed(&mut self, connected: bool) {
        let now = clock::since_boot();
        if !connected {
            self.link.disconnected(now);
        } else if !self.link.is_connected() {
            self.link
                .reconnected(now, GREETING_SPREAD.mul_f64(rand::random::<f64>() / 5.0));
        }
    }
}
