//! What a connection's events say: up or down, what was dropped, and whether its server will do.

use std::fmt;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_nats::{Event, ServerError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{ConnectionState, Shared, connect};

/// What the connection's events change.
pub(crate) struct Watched {
    state: watch::Sender<ConnectionState>,
    /// Messages dropped because a subscription was full, or an unknown number at once.
    dropped: AtomicU64,
    /// How often the connection was made or lost: what was found out about an earlier one is void.
    changes: AtomicU64,
    /// Whether it is up to a server that Loom does not work with: nothing is sent there.
    unfit: AtomicBool,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl Watched {
    pub(super) fn new() -> Self {
        Self {
            state: watch::Sender::new(ConnectionState::Connected),
            dropped: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            unfit: AtomicBool::new(false),
        }
    }

    pub(super) fn state(&self) -> ConnectionState {
        *self.state.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn is_unfit(&self) -> bool {
        self.unfit.load(Ordering::Relaxed)
    }

    /// Takes note of an event of the connection, which may be gone already; returns the number of
    /// a connection that was made again and whose server is yet to be looked at.
    pub(super) fn note(&self, event: &Event, shared: Option<&Weak<Shared>>) -> Option<u64> {
        match event {
            Event::Connected => {
                let change = self.changes.fetch_add(1, Ordering::Relaxed) + 1;
                if shared.is_some() {
                    return Some(change);
                }
                // Whoever makes the first connection looks at its server.
                self.set(ConnectionState::Connected);
            }
            Event::Disconnected => {
                self.changes.fetch_add(1, Ordering::Relaxed);
                self.set(ConnectionState::Disconnected);
            }
            Event::Closed => {
                self.changes.fetch_add(1, Ordering::Relaxed);
                self.set(ConnectionState::Closed);
            }
            Event::SlowConsumer(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Event::ServerError(ServerError::Other(text)) => {
                if let Some(subject) = connect::denied_subject(text)
                    && let Some(shared) = shared.and_then(Weak::upgrade)
                {
                    shared.inbox.denied(subject);
                }
                tracing::warn!("the bus says: {text}");
            }
            Event::LameDuckMode
            | Event::Draining
            | Event::ServerError(_)
            | Event::ClientError(_) => {}
        }
        None
    }

    fn set(&self, state: ConnectionState) {
        self.state
            .send_if_modified(|now| std::mem::replace(now, state) != state);
    }

    /// What was found out about a connection, unless it is over already.
    fn found(&self, connection: u64, fit: bool) {
        self.state.send_if_modified(|now| {
            if self.changes.load(Ordering::Relaxed) != connection {
                return false;
            }
            self.unfit.store(!fit, Ordering::Relaxed);
            fit && std::mem::replace(now, ConnectionState::Connected) != ConnectionState::Connected
        });
    }
}

/// Looks at the server that a connection came back to: another one, or the same one changed. One
/// that is too old is left again, and until then nothing is sent to it.
pub(super) async fn recheck(shared: Weak<Shared>, connection: u64) {
    let Some(now) = shared.upgrade() else { return };
    // What the server says of itself is there once the client has gone on to do something else.
    let settled = timeout(now.timeout, now.client.flush()).await;
    if !matches!(settled, Ok(Ok(()))) {
        tracing::debug!("the connection that came back is gone again");
    }
    let found = connect::check_version(&now.client, &now.shown);
    now.watched.found(connection, found.is_ok());
    let Err(error) = found else { return };
    tracing::error!("{error}; nothing is sent there, looking for another server");
    drop(now);
    sleep(connect::RECONNECT_MAX).await;
    if let Some(now) = shared.upgrade()
        && let Err(error) = now.client.force_reconnect().await
    {
        tracing::debug!("no other server is looked for: {error}");
    }
}
