//! A subject that is served or heard: what comes in is handed on one by one.

use futures::FutureExt;
use futures::future::BoxFuture;
use loom_bus::connection::{Bus, BusError, Message};
use loom_bus::serve::{Request, ServeLimits};
use tokio::task::AbortHandle;

/// Whether to go on after a message was handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Take the next one.
    GoOn,
    /// Whoever took them is gone.
    Close,
}

/// An open subject. Dropping it unsubscribes.
#[derive(Debug)]
pub(crate) struct Door(AbortHandle);

impl Door {
    /// Serves a subject; resolves once it is subscribed.
    pub(crate) async fn serve(
        bus: &Bus,
        subject: &str,
        queue: Option<&str>,
        limits: ServeLimits,
        mut take: impl FnMut(Request) -> Next + Send + 'static,
    ) -> Result<Self, BusError> {
        let mut requests = bus.serve(subject, queue, limits).await?;
        Ok(Self::spawn(
            async move {
                while let Some(request) = requests.next().await {
                    if take(request) == Next::Close {
                        break;
                    }
                }
            }
            .boxed(),
        ))
    }

    /// Hears what is published on a subject; resolves once it is subscribed.
    pub(crate) async fn hear(
        bus: &Bus,
        subject: &str,
        mut take: impl FnMut(Message) -> Next + Send + 'static,
    ) -> Result<Self, BusError> {
        let mut messages = bus.subscribe(subject).await?;
        Ok(Self::spawn(
            async move {
                while let Some(message) = messages.next().await {
                    if take(message) == Next::Close {
                        break;
                    }
                }
            }
            .boxed(),
        ))
    }

    fn spawn(pump: BoxFuture<'static, ()>) -> Self {
        Self(tokio::spawn(pump).abort_handle())
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.0.abort();
    }
}
