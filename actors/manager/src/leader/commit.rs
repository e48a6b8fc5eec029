//! From decision to durable: gather, append, and what happens then.

use std::time::{Duration, Instant};

use loom_bus::log::{AppendError, Commit, QueueCursor, Replica};
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::Name;
use loom_schemas::wire::{Assign, Welcome};

use super::effect::{self, Answer, Body, Effect, Ready, Waiting, refuse_waiting};
use super::recovery::TakingUp;
use super::{EventRelayMessage, Held, Landed, Leading, LogWriterMessage, QueueReaderMessage};
use crate::follower::chain;
use crate::plan::{PART_BYTES, parts, whole_assignment};
use crate::state::{Decided, Draft};
use crate::term::Loss;

/// How long a requester is kept waiting for an append.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long nothing is taken in after the log had no room.
const FULL: Duration = Duration::from_secs(1);

impl Leading {
    /// Makes a decision on the head and gathers what it comes to.
    pub(super) fn decide<T>(
        &mut self,
        waiting: Vec<Waiting>,
        decide: impl FnOnce(&mut Draft) -> T,
    ) -> Option<T> {
        let mut draft = Draft::new(self.head.clone());
        let outcome = decide(&mut draft);
        self.gather(draft, waiting, None).then_some(outcome)
    }

    /// Gathers a draft with the requests it answers; false if it cannot be committed.
    pub(super) fn gather(
        &mut self,
        draft: Draft,
        waiting: Vec<Waiting>,
        cursor: Option<QueueCursor>,
    ) -> bool {
        match draft.finish() {
            Ok(decided) => self.propose(decided, waiting, cursor),
            Err(error) => {
                let message = format!("the change cannot be written: {}", chain(&error));
                tracing::error!("{message}");
                refuse_waiting(waiting, &WireError::new(ErrorCode::Internal, message));
                false
            }
        }
    }

    /// Adds a decision to what gathers; the head has it from now on.
    pub(super) fn propose(
        &mut self,
        decided: Decided,
        waiting: Vec<Waiting>,
        queue_cursor: Option<QueueCursor>,
    ) -> bool {
        let Decided {
            state,
            changes,
            events,
            assigns,
        } = decided;
        let commit = Commit {
            changes,
            events,
            queue_cursor,
        };
        let mut effects: Vec<Effect> = waiting
            .into_iter()
            .map(|waiting| self.waiting.push(waiting))
            .collect();
        if !assigns.is_empty() {
            effects.push(Effect::Tell(assigns));
        }
        let mut effects = Some(effects);
        let taken = std::iter::once(()).flat_map(|()| effects.take().unwrap_or_default());
        match self.gatherer.push(commit, taken) {
            Ok(()) => {
                self.head = state;
                true
            }
            Err(error) => {
                let error = WireError::new(ErrorCode::TooLarge, error.to_string());
                let waiting = self.waiting.take_all(effects.unwrap_or_default());
                refuse_waiting(waiting, &error);
                false
            }
        }
    }

    /// Begins the next append if none is under way and something waits for one.
    pub(super) fn append(&mut self) {
        if self.appending.is_some() {
            return;
        }
        let order = if let Some(batch) = self.gatherer.take() {
            self.planning.appending();
            self.appending = Some(batch.effects);
            LogWriterMessage::Append(Box::new(batch.commit))
        } else if let Some((mark, _)) = self.snapshots.front() {
            self.appending = Some(Vec::new());
            LogWriterMessage::AppendSnapshot(Box::new(mark.clone()))
        } else {
            return;
        };
        self.last_append = Instant::now();
        // A writer that is gone ends this leader by supervision.
        drop(self.log_writer.cast(order));
    }

    /// An append came back.
    pub(super) fn landed(&mut self, landed: Result<Landed, AppendError>) {
        let effects = self.appending.take().unwrap_or_default();
        match landed {
            Ok(landed) => self.durable(landed, effects),
            Err(AppendError::NoSpace { reason }) => {
                tracing::error!("the log has no room: {reason}");
                self.full_until = Some(Instant::now() + FULL);
                self.context.make_room();
                let message = format!("the log has no room, nothing is taken in: {reason}");
                self.roll_back(effects, &WireError::unavailable(message));
            }
            Err(AppendError::Entry(error)) => {
                let error = WireError::new(ErrorCode::TooLarge, chain(&error));
                self.roll_back(effects, &error);
            }
            Err(error @ AppendError::Deposed { .. }) => {
                tracing::warn!("{error}");
                self.end(super::Ending::Deposed);
            }
            Err(error) => {
                tracing::error!("the log cannot be appended to: {}", chain(&error));
                self.end(super::Ending::Failed);
            }
        }
    }

    /// What follows from a commit, now that it is durable.
    fn durable(&mut self, landed: Landed, effects: Vec<Effect>) {
        let Landed { committed, replica } = landed;
        let recovered_before = !self.recovers_still();
        self.durable = replica;
        self.context.publish(self.durable.clone());
        if recovered_before == self.recovers_still() {
            self.recovery_turned();
        }
        if let Some(committed) = committed {
            if committed.entry.snapshot.is_some()
                && let Some((_, reply)) = self.snapshots.pop_front()
            {
                drop(reply.send(true));
            }
            if let Some(cursor) = committed.entry.queue_cursor {
                drop(self.queue_reader.cast(QueueReaderMessage::Purge(cursor)));
            }
            drop(self.relay.cast(EventRelayMessage::Committed(committed)));
        } else if let Some((_, reply)) = self.snapshots.pop_front() {
            drop(reply.send(false));
        }
        let revision = self.durable.position.revision();
        let mut ready = Vec::new();
        let mut loss = None;
        for effect in effects {
            match effect {
                Effect::Rewound(found) => loss = Some(found),
                Effect::TakenUp(node) => {
                    self.inventories.insert(node, TakingUp::Done);
                }
                Effect::Tell(assigns) => {
                    for (node, delta) in assigns {
                        self.outboxes.put(&node, delta);
                    }
                }
                Effect::Answer(number) => {
                    if let Some(waiting) = self.waiting.take(number) {
                        if let Answer::Rewound(found) = &waiting.answer {
                            loss = Some(found.clone());
                        }
                        ready.push(self.answer(waiting));
                    }
                }
            }
        }
        effect::send(ready, revision);
        if let Some(loss) = loss {
            self.log_was_rewound(&loss);
        }
    }

    /// The recovery of the cluster began or ended.
    fn recovery_turned(&mut self) {
        self.context.set_role(self.role());
        if !self.recovers_still() {
            tracing::info!("nobody is awaited any more: this manager has recovered");
            self.want_whole_of_all();
        }
    }

    /// This manager leads, and nodes know more than its log: it was rewound before this manager
    /// read it. The follower gives it its state back, in a later incarnation.
    fn log_was_rewound(&mut self, loss: &Loss) {
        tracing::error!(
            log = %self.durable.position.epoch(),
            obeyed = %loss.epoch,
            cluster = loss.cluster,
            "a node has obeyed a later leader than the log knows: the log was rewound"
        );
        self.context.note_loss(loss.clone());
        self.end(super::Ending::Rewound);
    }

    fn answer(&mut self, waiting: Waiting) -> Ready {
        let revision = self.durable.position.revision();
        if let Answer::Welcome(node) = &waiting.answer
            && self.recovers_still()
        {
            let message = match self.awaited().as_str() {
                "" => "the state was lost: nodes are waited for".to_owned(),
                awaited => format!("the state was restored: awaiting {awaited}"),
            };
            tracing::info!(%node, "{message}");
            let body = Body::Refused(WireError::unavailable(message));
            return Ready {
                request: waiting.request,
                body,
            };
        }
        waiting.ready(revision, |node| Box::new(self.welcome(node)))
    }

    fn welcome(&mut self, node: &Name) -> Welcome {
        let unknown = self.outboxes.welcomed(node, Instant::now());
        let mut assignment = self.whole(node);
        assignment.put.extend(
            unknown
                .into_iter()
                .flat_map(|delta| delta.stop.into_values()),
        );
        let mut parts = parts(assignment, PART_BYTES);
        let assignment = parts.swap_remove(0);
        if !parts.is_empty() {
            // An answer is one message: the node is told the rest, after the whole once more.
            self.outboxes.want_whole(node);
        }
        let lost_after = self.context.options.timings.lost_after;
        Welcome {
            cluster: assignment.cluster.clone(),
            assignment,
            lost_after_ms: u64::try_from(lost_after.as_millis()).ok(),
            ahead_ms: self.context.hearts.ahead_ms(node),
        }
    }

    /// The whole assignment of a node as of what is durable.
    pub(super) fn whole(&self, node: &Name) -> Assign {
        let Replica {
            state, position, ..
        } = &self.durable;
        let whole = whole_assignment(state, node, &position.cluster, position.epoch());
        whole.unwrap_or_else(|| Assign {
            cluster: position.cluster.clone(),
            epoch: position.epoch(),
            generation: 0,
            base: None,
            put: Vec::new(),
            keep: Vec::new(),
            remove: Vec::new(),
            labels: std::collections::BTreeMap::new(),
        })
    }

    /// Goes back to what is durable: nothing decided since is going to be committed.
    fn roll_back(&mut self, effects: Vec<Effect>, error: &WireError) {
        let effects: Vec<Effect> = effects.into_iter().chain(self.gatherer.drain()).collect();
        for effect in &effects {
            if let Effect::TakenUp(node) = effect {
                self.not_taken_up(node, error.message.clone());
            }
        }
        refuse_waiting(self.waiting.take_all(effects), error);
        self.head = self.durable.state.clone();
        self.head.mark_all_dirty();
        self.planning.drop_pass();
        self.pause_queue();
    }

    /// Whether nothing is taken in for want of room.
    pub(super) fn is_full(&mut self) -> bool {
        self.no_room().is_some()
    }

    /// Why nothing is taken in, if there is no room for it.
    pub(super) fn no_room(&mut self) -> Option<WireError> {
        let now = Instant::now();
        self.full_until = self.full_until.filter(|until| *until > now);
        if let Some(trouble) = self.context.trouble() {
            let message = format!("the bus cannot write, nothing is taken in: {trouble}");
            return Some(WireError::unavailable(message));
        }
        let full = || WireError::unavailable("the log has no room, nothing is taken in");
        self.full_until.map(|_| full())
    }

    /// Answers those who have waited too long: whether their commit lands is not known yet.
    pub(super) fn answer_overdue(&mut self) {
        let overdue = self.waiting.take_overdue(PATIENCE, Instant::now());
        let why = self.context.trouble();
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        let message =
            format!("the log does not answer{why}: whether this is carried out is not known yet");
        refuse_waiting(overdue, &WireError::unavailable(message));
    }

    /// Refuses what waits for a decision.
    pub(super) fn refuse_held(held: Held, error: &WireError) {
        match held {
            Held::Asked(asked) => effect::refuse([asked.request], error),
            Held::Said(request, ..) => effect::refuse([request], error),
            // The next leader reads it again from the queue.
            Held::Queued(_) | Held::NotThere(_) | Held::Inventoried(..) | Held::Tick => {}
        }
    }

    /// Looks whether this manager leads, and if it does, restores what the log has lost.
    pub(super) fn suspect(&mut self, loss: Loss) {
        let pushed = self
            .gatherer
            .push(Commit::default(), [Effect::Rewound(loss)]);
        debug_assert!(pushed.is_ok(), "an empty commit is never too large");
    }

    /// Has an entry appended even if there is nothing to commit: it shows that this leader leads.
    pub(super) fn append_empty(&mut self) {
        let pushed = self.gatherer.push(Commit::default(), []);
        debug_assert!(pushed.is_ok(), "an empty commit is never too large");
    }

    /// A decision that may refuse: what it says is answered after an append either way.
    pub(super) fn decide_or_refuse(
        &mut self,
        request: Box<loom_bus::serve::Request>,
        decide: impl FnOnce(&mut Draft) -> Result<Answer, WireError>,
    ) {
        let mut draft = Draft::new(self.head.clone());
        match decide(&mut draft) {
            Ok(answer) => {
                self.gather(draft, vec![Waiting::new(request, answer)], None);
            }
            Err(error) => {
                let unchanged = Draft::new(self.head.clone());
                let waiting = Waiting::new(request, Answer::Refused(error));
                self.gather(unchanged, vec![waiting], None);
            }
        }
    }
}
