//! A subject that is served or heard: what comes in is handed on one by one.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use loom_bus::connection::{Bus, BusError, Message};
use loom_bus::serve::{Request, Requests, ServeLimits, Tally};
use loom_schemas::error::WireError;
use tokio::sync::oneshot;

/// How long the former door stays open beside the one that takes its place.
pub(crate) const LINGER: Duration = Duration::from_millis(50);

/// How long the bus may take to hand out what it had when a door was closed.
const DRAIN: Duration = Duration::from_secs(5);

/// Whether to go on after a message was handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Take the next one.
    GoOn,
    /// Whoever took them is gone.
    Close,
}

/// What becomes of requests that the bus had handed out before a door was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// They are refused: whoever decides is gone.
    Refused,
    /// They are dropped: others answer as well, so a refusal would stand against an answer.
    Dropped,
}

/// An open subject. Dropping it closes it: what is on its way is refused or
/// dropped, and it unsubscribes.
#[derive(Debug)]
pub(crate) struct Door {
    /// Dropped with the door, which is what the pump waits for.
    _open: oneshot::Sender<()>,
    /// What becomes of the requests; of what is only heard there is nothing to say.
    tally: Arc<Tally>,
}

impl Door {
    /// Serves a subject; resolves once it is subscribed.
    pub(crate) async fn serve(
        bus: &Bus,
        subject: &str,
        queue: Option<&str>,
        limits: ServeLimits,
        rest: Rest,
        mut take: impl FnMut(Request) -> Next + Send + 'static,
    ) -> Result<Self, BusError> {
        let mut requests = bus.serve(subject, queue, limits).await?;
        let tally = requests.tally();
        let (open, mut closed) = oneshot::channel();
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    biased;
                    _ = &mut closed => break,
                    request = requests.next() => request,
                };
                if request.is_none_or(|request| take(request) == Next::Close) {
                    break;
                }
            }
            if rest == Rest::Refused {
                // Whoever asked is still there: nobody is left without an answer.
                requests.drain().await;
                drop(tokio::time::timeout(DRAIN, refuse_rest(&mut requests)).await);
            }
        });
        Ok(Self { _open: open, tally })
    }

    /// What becomes of the requests that come in here.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Hears what is published on a subject; resolves once it is subscribed.
    pub(crate) async fn hear(
        bus: &Bus,
        subject: &str,
        mut take: impl FnMut(Message) -> Next + Send + 'static,
    ) -> Result<Self, BusError> {
        let mut messages = bus.subscribe(subject).await?;
        let (open, closed) = oneshot::channel();
        let hear = async move {
            while let Some(message) = messages.next().await {
                if take(message) == Next::Close {
                    break;
                }
            }
        };
        tokio::spawn(async move {
            // Either way it is over.
            drop(futures::future::select(closed, hear.boxed()).await);
        });
        Ok(Self {
            _open: open,
            tally: Arc::default(),
        })
    }
}

async fn refuse_rest(requests: &mut Requests) {
    while let Some(request) = requests.next().await {
        let error = WireError::unavailable("this part of the manager ended: ask again");
        request.refuse(error).await;
    }
}
