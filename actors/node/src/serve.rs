//! Loops that turn what comes over the bus into messages to the node's actor.

use std::time::Duration;

use loom_bus::connection::{Bus, ConnectionState};
use loom_bus::serve::{Request, ServeLimits};
use ractor::ActorRef;
use tokio::task::{AbortHandle, JoinHandle};

use crate::actor::NodeMessage;

/// How long before a subscription that ended or could not be made is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// A loop that ends with whoever holds this.
#[derive(Debug)]
pub(crate) struct Loop(AbortHandle);

impl Drop for Loop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> From<JoinHandle<T>> for Loop {
    fn from(handle: JoinHandle<T>) -> Self {
        Self(handle.abort_handle())
    }
}

/// Serves a subject: each request becomes a message.
pub(crate) async fn requests(
    bus: Bus,
    subject: String,
    limits: ServeLimits,
    node: ActorRef<NodeMessage>,
    message: fn(Request) -> NodeMessage,
) {
    loop {
        match bus.serve(&subject, None, limits).await {
            Ok(mut requests) => {
                while let Some(request) = requests.next().await {
                    if node.cast(message(request)).is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(subject, %error, "cannot serve, trying again"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Watches a subject of which only the arrival of a message matters.
pub(crate) async fn arrivals(
    bus: Bus,
    subject: String,
    node: ActorRef<NodeMessage>,
    message: fn() -> NodeMessage,
) {
    loop {
        match bus.subscribe(&subject).await {
            Ok(mut messages) => {
                while messages.next().await.is_some() {
                    if node.cast(message()).is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::debug!(subject, %error, "cannot subscribe, trying again"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Watches the connection.
pub(crate) async fn connection(bus: Bus, node: ActorRef<NodeMessage>) {
    let mut state = bus.state();
    loop {
        let connected = *state.borrow_and_update() == ConnectionState::Connected;
        if node.cast(NodeMessage::BusChanged { connected }).is_err()
            || state.changed().await.is_err()
        {
            return;
        }
    }
}

/// Casts a message now and then: first after `offset`, then every `period`.
pub(crate) async fn ticks(
    offset: Duration,
    period: Duration,
    node: ActorRef<NodeMessage>,
    message: fn() -> NodeMessage,
) {
    tokio::time::sleep(offset).await;
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if node.cast(message()).is_err() {
            return;
        }
    }
}
