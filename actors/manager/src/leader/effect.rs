//! What happens once a commit is durable, and not before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loom_bus::header::REVISION;
use loom_bus::serve::Request;
use loom_schemas::error::WireError;
use loom_schemas::ids::{Name, Revision};
use loom_schemas::wire::{Committed, StatusTaken, SubmitOutcome, Submitted, Welcome};

use crate::state::NodeDelta;

/// What happens once a commit is durable.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A request is answered.
    Answer(Waiting),
    /// Nodes are told how their assignments changed.
    Tell(BTreeMap<Name, NodeDelta>),
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
    /// A submission was taken in.
    Submitted {
        /// The job.
        job: Name,
        /// Its version.
        version: u32,
        /// What it did.
        outcome: SubmitOutcome,
    },
    /// A write was carried out.
    Committed {
        /// The job.
        job: Name,
        /// Whether anything changed.
        changed: bool,
    },
    /// A node's reports, or its farewell, are taken in.
    StatusTaken,
    /// A node is welcomed, with its assignment as of the commit.
    Welcome(Name),
    /// It is refused; also that only a leader may say.
    Refused(WireError),
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
    StatusTaken(StatusTaken),
    Welcome(Box<Welcome>),
    Refused(WireError),
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

    /// Whether it has waited longer than a requester should.
    pub(crate) fn is_overdue(&self, patience: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= patience
    }

    /// The answer, now that its commit is durable; `welcome` makes that of a node.
    pub(crate) fn ready(
        self,
        revision: Revision,
        welcome: impl FnOnce(&Name) -> Box<Welcome>,
    ) -> Ready {
        let body = match self.answer {
            Answer::Submitted { job, version, outcome } => Body::Submitted(Submitted {
                job,
                version,
                outcome,
                revision,
            }),
            Answer::Committed { job, changed } => Body::Committed(Committed {
                job,
                changed,
                revision,
            }),
            Answer::StatusTaken => Body::StatusTaken(StatusTaken {}),
            Answer::Welcome(node) => Body::Welcome(welcome(&node)),
            Answer::Refused(error) => Body::Refused(error),
        };
        Ready {
            request: self.request,
            body,
        }
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
                Body::StatusTaken(body) => request.reply_with(&body, &headers).await,
                Body::Welcome(body) => request.reply_with(&body, &headers).await,
                Body::Refused(error) => request.refuse(error).await,
            }
        }
    });
}

/// Refuses requests at once, for what is not decided but known: this manager cannot answer.
pub(crate) fn refuse(requests: impl IntoIterator<Item = Box<Request>>, error: &WireError) {
    let ready: Vec<Ready> = requests
        .into_iter()
        .map(|request| Ready {
            request,
            body: Body::Refused(error.clone()),
        })
        .collect();
    send(ready, Revision::default());
}
