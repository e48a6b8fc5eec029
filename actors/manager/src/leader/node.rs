//! What nodes say, and what they are told.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use loom_bus::call::CallError;
use loom_bus::connection::{Bus, BusError};
use loom_bus::header::EPOCH;
use loom_bus::serve::Request;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::Name;
use loom_schemas::record::NodeStatus;
use loom_schemas::subject;
use loom_schemas::wire::{Assign, AssignReply, HelloPart};

use super::effect::{self, Answer, Waiting};
use super::outbox::{Letter, Outcome};
use super::wish::Word;
use super::{Ending, Held, Leading, ManagerMessage};
use crate::decide;
use crate::plan::{PART_BYTES, parts};
use crate::state::Draft;
use crate::term::Loss;
use crate::work::carry_out;

/// A heartbeat this young may have been sent before the node was told.
const GRACE: Duration = Duration::from_secs(1);

impl Leading {
    /// Takes in what a node says; it is answered once that is durable.
    pub(super) fn said(&mut self, request: Box<Request>, node: &Name, word: Word) {
        self.liveness.heard(node, Instant::now());
        if let Some(error) = self.no_room() {
            return effect::refuse([request], &error);
        }
        if let Some(hello) = word.hello()
            && let Some(loss) = self.loss_told_by(hello)
        {
            // Whether this manager leads at all shows by the append that the answer waits for.
            let draft = Draft::new(self.head.clone());
            let waiting = Waiting::new(request, Answer::Rewound(loss));
            self.gather(draft, vec![waiting], None);
            return;
        }
        let refusal = match &word {
            Word::Hello(_) | Word::HelloPart(_) => {
                let cluster = word.hello().and_then(|hello| hello.cluster.as_deref());
                self.is_foreign(cluster)
            }
            Word::Status(_) if self.head.awaits(node) => {
                Some(WireError::unavailable("the state was restored: say hello"))
            }
            Word::Status(report) => self
                .is_foreign(Some(&report.cluster))
                .or_else(|| self.is_unknown(node))
                .or_else(|| self.is_given_up(node)),
            Word::Bye(_) => self.is_unknown(node),
        };
        let mut draft = Draft::new(self.head.clone());
        let answer = match refusal {
            Some(error) => Answer::Refused(error),
            None => self.take_word(&mut draft, node, word),
        };
        self.gather(draft, vec![Waiting::new(request, answer)], None);
    }

    fn take_word(&mut self, draft: &mut Draft, node: &Name, word: Word) -> Answer {
        let now = Timestamp::now();
        match word {
            Word::Hello(hello) => {
                let recovering = self.is_recovering();
                self.greetings.forget(node);
                let more = recovering && decide::tells_more(draft.state(), &hello.runs);
                decide::hello(draft, node, &hello, recovering, now);
                if recovering {
                    self.hello_in_recovery(draft, node, more);
                }
                Answer::Welcome(node.clone())
            }
            Word::HelloPart(part) => self.take_part(draft, node, &part, now),
            Word::Status(report) => {
                decide::report(draft, node, &report.runs, self.is_recovering(), now);
                Answer::StatusTaken(self.context.hearts.ahead_ms(node))
            }
            Word::Bye(bye) => {
                decide::bye(draft, node, &bye, now);
                Answer::StatusTaken(None)
            }
        }
    }

    /// A part of a hello: its runs are decided on now, what is missing once all of it was told.
    fn take_part(
        &mut self,
        draft: &mut Draft,
        node: &Name,
        part: &HelloPart,
        now: Timestamp,
    ) -> Answer {
        let recovering = self.is_recovering();
        let more = recovering && decide::tells_more(draft.state(), &part.hello.runs);
        let told = match self.greetings.take(node, part, more) {
            Ok(told) => told,
            Err(error) => return Answer::Refused(error),
        };
        decide::hello_part(draft, node, &part.hello, recovering, now);
        let Some(told) = told else {
            return Answer::StatusTaken(None);
        };
        if recovering {
            self.hello_in_recovery(draft, node, told.more);
        } else {
            decide::lose_missing(draft, node, &told.placements, now);
        }
        Answer::Welcome(node.clone())
    }

    fn is_foreign(&self, cluster: Option<&str>) -> Option<WireError> {
        let ours = self.durable.position.cluster.as_str();
        let theirs = cluster.filter(|theirs| *theirs != ours)?;
        let message = format!("this is cluster {ours}, the node belongs to cluster {theirs}");
        Some(WireError::new(ErrorCode::Conflict, message))
    }

    fn is_unknown(&self, node: &Name) -> Option<WireError> {
        let known = self.head.node(node).is_some();
        (!known).then(|| WireError::not_found(format!("node {node} is not known: say hello")))
    }

    /// Nothing but `hello` brings a node back whose runs may have been given up.
    fn is_given_up(&self, node: &Name) -> Option<WireError> {
        let now = Timestamp::now();
        let given_up = decide::is_given_up(&self.head, node, self.lost_after(), now);
        given_up.then(|| {
            let message = format!("node {node} was given up: say hello");
            WireError::unavailable(message)
        })
    }

    /// Looks which nodes fell silent and which are heard again.
    pub(super) fn look_for_nodes(&mut self, now: Instant) {
        let liveness = &mut self.liveness;
        self.context
            .hearts
            .for_each(|node, at, _| liveness.heard(node, at));
        let nodes: Vec<_> = self.head.nodes().cloned().collect();
        for record in nodes {
            let node = &record.name;
            let up = record.status == NodeStatus::Up;
            if up && self.liveness.is_silent(node, now) {
                let seconds = self.liveness.silence(node, now).as_secs();
                self.node_is_down(node, &format!("silent for {seconds} s"));
            } else if !up && self.is_back(node, record.since, now) {
                self.node_is_back(node);
            } else if up && self.has_another(node) {
                self.outboxes.want_whole(node);
            }
        }
    }

    /// Whether a node that is down sent a heartbeat after it went down.
    fn is_back(&self, node: &Name, since: Timestamp, now: Instant) -> bool {
        let ago = Timestamp::now().duration_since(since).unsigned_abs();
        self.liveness.is_heard(node, now) && self.liveness.silence(node, now) < ago
    }

    /// Whether a heartbeat says that a node has another assignment than it was told.
    fn has_another(&self, node: &Name) -> bool {
        let (Some(settled), Some((at, heartbeat))) = (
            self.outboxes.settled_since(node),
            self.context.hearts.last_with_time(node),
        ) else {
            return false;
        };
        let Some(record) = self.durable.state.node(node) else {
            return false;
        };
        let told = (self.durable.position.epoch(), record.generation);
        // One that was on its way while the node was told says nothing.
        at > settled + GRACE && (heartbeat.epoch, heartbeat.generation) != told
    }

    fn node_is_down(&mut self, node: &Name, reason: &str) {
        tracing::warn!(%node, reason, "a node is down");
        self.greetings.forget(node);
        let now = Timestamp::now();
        let down = |draft: &mut Draft| decide::node_down(draft, node, reason, now);
        self.decide(Vec::new(), down);
    }

    fn node_is_back(&mut self, node: &Name) {
        let (lost_after, now) = (self.lost_after(), Timestamp::now());
        self.decide(Vec::new(), |draft| {
            decide::node_up(draft, node, lost_after, now)
        });
        // Either it is up again and may have missed something, or it has to say hello, which it
        // does once it sees a leader's word.
        self.outboxes.want_whole(node);
    }

    /// A new leader tells every node all it should have, and so its epoch.
    pub(super) fn want_whole_of_all(&mut self) {
        let nodes: Vec<Name> = self.head.nodes().map(|node| node.name.clone()).collect();
        for node in nodes {
            self.outboxes.want_whole(&node);
        }
    }

    /// Calls the nodes that have something to be told.
    pub(super) fn tell_nodes(&mut self) {
        // A recovering leader tells nobody anything: what is missing from a set would be stopped.
        if self.recovers_still() || self.ending.is_some() {
            return;
        }
        let position = &self.durable.position;
        let (cluster, epoch) = (position.cluster.clone(), position.epoch());
        let letters = self.outboxes.begin(Instant::now());
        for (node, letter) in letters {
            let assign = match letter {
                Letter::Whole(unknown) => {
                    let mut whole = self.whole(&node);
                    whole.put.extend(unknown.stop.into_values());
                    whole
                }
                Letter::Delta(delta) => delta.message(&self.durable.state, &node, &cluster, epoch),
            };
            self.call(node, assign);
        }
    }

    pub(super) fn call(&mut self, node: Name, assign: Assign) {
        let bus = self.context.control.clone();
        let wait = self.context.options.timings.node_call;
        let name = node.clone();
        let call = async move { tell(&bus, &name, assign, wait).await };
        let told = node.clone();
        let tell = move |outcome| ManagerMessage::Told(told, outcome);
        let worker = carry_out(&self.myself, call, tell);
        self.calls.insert(node, worker);
    }

    /// A call to a node came back.
    pub(super) fn told(&mut self, node: &Name, outcome: &Outcome) {
        let now = Instant::now();
        self.calls.remove(node);
        self.outboxes.finish(node, outcome, now);
        match outcome {
            Outcome::Taken | Outcome::Resync => self.liveness.heard(node, now),
            Outcome::Stale(epoch) => {
                tracing::warn!(%node, %epoch, "a node obeys a later leader");
                // If there is one, the next append is refused; nothing else tells for sure.
                self.suspect(Loss {
                    epoch: *epoch,
                    cluster: None,
                });
            }
            Outcome::Foreign(cluster) => {
                tracing::error!(%node, cluster, "a node belongs to another cluster");
            }
            // A decision waits for the pass under way.
            Outcome::NobodyThere => self.hold(Held::NotThere(node.clone())),
            Outcome::Failed(reason) => tracing::debug!(%node, reason, "a node was not told"),
        }
    }

    /// Nobody serves a node's subject.
    pub(super) fn is_not_there(&mut self, node: &Name) {
        let now = Instant::now();
        let up = self
            .head
            .node(node)
            .is_some_and(|node| node.status == NodeStatus::Up);
        if !up {
            self.outboxes.forget(node);
        } else if self.liveness.is_overdue(node, now) {
            self.node_is_down(node, "nobody answers for it");
        }
    }

    /// Ends this leadership: no door stays open, nothing more is decided.
    pub(super) fn end(&mut self, ending: Ending) {
        if self
            .ending
            .replace(ending)
            .is_some_and(|before| before != Ending::HandedOver)
        {
            return;
        }
        self.context
            .set_role(loom_schemas::wire::ManagerRole::Standby);
        self.doors.clear();
        self.calls.clear();
        let held: Vec<_> = self.held.drain(..).collect();
        for held in held {
            Self::refuse_held(held, &super::leads_no_more());
        }
        if ending != Ending::HandedOver {
            effect::refuse_waiting(self.waiting.drain(), &super::leads_no_more());
            // What came in before is in the mailbox before this, and refused.
            drop(self.myself.cast(ManagerMessage::End(ending)));
        }
    }
}

/// Tells a node what it shall have; what is larger than a message goes in parts, one after the
/// other.
async fn tell(bus: &Bus, node: &Name, assign: Assign, wait: Duration) -> Outcome {
    let parts = match tokio::task::spawn_blocking(move || parts(assign, PART_BYTES)).await {
        Ok(parts) => parts,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    for part in &parts {
        match tell_part(bus, node, part, wait).await {
            Outcome::Taken => {}
            other => return other,
        }
    }
    Outcome::Taken
}

async fn tell_part(bus: &Bus, node: &Name, assign: &Assign, wait: Duration) -> Outcome {
    let headers = [(EPOCH, assign.epoch.to_string())];
    let subject = subject::assign(node);
    match bus
        .call_with::<_, AssignReply>(&subject, assign, wait, &headers)
        .await
    {
        Ok(AssignReply::Taken { .. }) => Outcome::Taken,
        Ok(AssignReply::Resync { .. }) => Outcome::Resync,
        Ok(AssignReply::Stale { epoch }) => Outcome::Stale(epoch),
        Ok(AssignReply::Foreign { cluster }) => Outcome::Foreign(cluster),
        Err(CallError::NoResponders) => Outcome::NobodyThere,
        Err(CallError::Send(BusError::TooLarge { size, limit })) => {
            tracing::error!(%node, size, limit, "an assignment is larger than a message can be");
            Outcome::Failed(format!("{size} bytes, at most {limit} fit into a message"))
        }
        Err(error) => Outcome::Failed(error.to_string()),
    }
}
