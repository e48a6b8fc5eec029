//! What happens once a commit is durable, and not before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loom_bus::header::REVISION;
use loom_bus::serve::Request;
use loom_schemas::error::WireError;
use loom_schemas::ids::{Name, Revision};
use loom_schemas::record::CommandOutcome;
use loom_schemas::wire::{Committed, NodeChanged, RebalanceView, StatusTaken, Submitted, Welcome};

use crate::state::NodeDelta;
use crate::term::Loss;

/// What a node is told that knows more than the log.
const REWOUND: &str =
    "the log is older than what this node has obeyed: its state is restored first";

/// What happens once a commit is durable.
#[derive(Debug)]
pub(crate) enum Effect {
    /// If this manager still leads, the log was rewound: a node has said so.
    Rewound(Loss),
    /// The request that waits under this number is answered, unless it was given up.
    Answer(u64),
    /// All that this node said of its placements is taken up.
    TakenUp(Name),
    /// Nodes are told how their assignments changed.
    Tell(BTreeMap<Name, NodeDelta>),
}

/// Requests that wait for their commits, by number.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
}

/// A request that waits for its commit.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) request: Box<Request>,
    pub(crate) answer: Answer,
    pub(crate) since: Instant,
}

/// What a request will be answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A write was carried out, now or when it was first sent.
    Done(CommandOutcome),
    /// Runs are moved, or are not any more.
    Rebalance(Box<RebalanceView>),
    /// A node's reports, or its farewell, are taken in; with how far this clock is ahead.
    StatusTaken(Option<i64>),
    /// A node is welcomed, with its assignment as of the commit.
    Welcome(Name),
    /// It is refused; also that only a leader may say.
    Refused(WireError),
    /// A node has obeyed a later leader than there ever was in this log, or belongs to a cluster
    /// of which this log knows nothing: if this manager leads, the log was rewound.
    Rewound(Loss),
}

/// An answer ready to be sent.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) request: Box<Request>,
    pub(crate) body: Body,
}

/// What is sent.
#[derive(Debug)]
pub(crate) enum Body {
    Submitted(Submitted),
    Committed(Committed),
    NodeChanged(NodeChanged),
    Rebalance(Box<RebalanceView>),
    StatusTaken(StatusTaken),
    Welcome(Box<Welcome>),
    Refused(WireError),
}

impl Queue {
    /// Lines a request up; its number is the effect that answers it.
    pub(crate) fn push(&mut self, waiting: Waiting) -> Effect {
        self.last += 1;
        self.waiting.insert(self.last, waiting);
        Effect::Answer(self.last)
    }

    /// The request with this number, if it still waits.
    pub(crate) fn take(&mut self, number: u64) -> Option<Waiting> {
        self.waiting.remove(&number)
    }

    /// The requests that effects would have answered.
    pub(crate) fn take_all(&mut self, effects: impl IntoIterator<Item = Effect>) -> Vec<Waiting> {
        let numbers = effects.into_iter().filter_map(|effect| match effect {
            Effect::Answer(number) => Some(number),
            Effect::Tell(_) | Effect::Rewound(_) | Effect::TakenUp(_) => None,
        });
        numbers
            .filter_map(|number| self.waiting.remove(&number))
            .collect()
    }

    /// Those who have waited longer than a requester should; they lined up first.
    pub(crate) fn take_overdue(&mut self, patience: Duration, now: Instant) -> Vec<Waiting> {
        let mut overdue = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            if now.saturating_duration_since(first.get().since) < patience {
                break;
            }
            overdue.push(first.remove());
        }
        overdue
    }

    /// Everybody.
    pub(crate) fn drain(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}

impl Waiting {
    /// A request that waits from now on.
    pub(crate) fn new(request: Box<Request>, answer: Answer) -> Self {
        Self {
            request,
            answer,
            since: Instant::now(),
        }
    }

    /// The answer, now that its commit is durable; `welcome` makes that of a node.
    pub(crate) fn ready(
        self,
        revision: Revision,
        welcome: impl FnOnce(&Name) -> Box<Welcome>,
    ) -> Ready {
        let body = match self.answer {
            Answer::Done(outcome) => body_of(outcome, revision),
            Answer::Rebalance(view) => Body::Rebalance(view),
            Answer::StatusTaken(ahead_ms) => Body::StatusTaken(StatusTaken { ahead_ms }),
            Answer::Welcome(node) => Body::Welcome(welcome(&node)),
            Answer::Refused(error) => Body::Refused(error),
            Answer::Rewound(_) => Body::Refused(WireError::unavailable(REWOUND)),
        };
        Ready {
            request: self.request,
            body,
        }
    }
}

fn body_of(outcome: CommandOutcome, revision: Revision) -> Body {
    match outcome {
        CommandOutcome::Submitted {
            job,
            version,
            outcome,
            rolled_back_to,
        } => Body::Submitted(Submitted {
            job,
            version,
            outcome,
            rolled_back_to,
            revision,
        }),
        CommandOutcome::Committed { job, changed } => Body::Committed(Committed {
            job,
            changed,
            revision,
        }),
        CommandOutcome::Rebalanced { moves } => Body::Rebalance(Box::new(RebalanceView {
            repeated: Some(moves),
            ..RebalanceView::default()
        })),
        CommandOutcome::Node { node, changed } => Body::NodeChanged(NodeChanged {
            node,
            changed,
            revision,
        }),
    }
}

/// Sends answers in order, off the actor.
pub(crate) fn send(ready: Vec<Ready>, revision: Revision) {
    if ready.is_empty() {
        return;
    }
    tokio::spawn(async move {
        let headers = [(REVISION, revision.to_string())];
        for Ready { request, body } in ready {
            match body {
                Body::Submitted(body) => request.reply_with(&body, &headers).await,
                Body::Committed(body) => request.reply_with(&body, &headers).await,
                Body::NodeChanged(body) => request.reply_with(&body, &headers).await,
                Body::Rebalance(body) => request.reply_with(&*body, &headers).await,
                Body::StatusTaken(body) => request.reply_with(&body, &headers).await,
                Body::Welcome(body) => request.reply_with(&body, &headers).await,
                Body::Refused(error) => request.refuse(error).await,
            }
        }
    });
}

/// Refuses requests at once, for what is not decided but known: this manager cannot answer.
pub(crate) fn refuse(requests: impl IntoIterator<Item = Box<Request>>, error: &WireError) {
    let body = || Body::Refused(error.clone());
    let ready = requests.into_iter().map(|request| Ready {
        request,
        body: body(),
    });
    send(ready.collect(), Revision::default());
}

/// The same for requests that waited for a commit.
pub(crate) fn refuse_waiting(waiting: Vec<Waiting>, error: &WireError) {
    refuse(waiting.into_iter().map(|waiting| waiting.request), error);
}
