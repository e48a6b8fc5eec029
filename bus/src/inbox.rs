//! Where answers to requests arrive: one subscription for all of a connection's requests.
//!
//! The client library has one as well, but it keeps an entry for ever for each request that was
//! never answered, and takes one answer only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Client, Message, SubscribeError, Subscriber};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Answers to one request to many that may wait to be read.
const MANY: usize = 4096;

type Pending = Arc<Mutex<HashMap<u64, Waiter>>>;

struct Waiter {
    /// What was asked, to tell whose request the server denied.
    asked: String,
    to: mpsc::Sender<Arrival>,
}

/// What comes back for a request.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A message.
    Message(Box<Message>),
    /// The server does not let this user ask there.
    Denied,
}

pub(crate) struct Inbox {
    prefix: String,
    pending: Pending,
    last: AtomicU64,
    reader: JoinHandle<()>,
}

/// A request that waits for its answers; dropping it forgets the request.
pub(crate) struct Waiting {
    token: u64,
    reply: String,
    arrivals: mpsc::Receiver<Arrival>,
    pending: Pending,
}

impl Inbox {
    pub(crate) async fn open(client: &Client) -> Result<Self, SubscribeError> {
        let prefix = client.new_inbox();
        let subscriber = client.subscribe(format!("{prefix}.*")).await?;
        let pending = Pending::default();
        let reader = tokio::spawn(read(subscriber, Arc::clone(&pending)));
        Ok(Self {
            prefix,
            pending,
            last: AtomicU64::new(0),
            reader,
        })
    }

    /// A place for one answer to what is asked on a subject.
    pub(crate) fn one(&self, asked: &str) -> Waiting {
        self.wait(asked, 1)
    }

    /// A place for many.
    pub(crate) fn many(&self, asked: &str) -> Waiting {
        self.wait(asked, MANY)
    }

    fn wait(&self, asked: &str, room: usize) -> Waiting {
        let token = self.last.fetch_add(1, Ordering::Relaxed);
        let (to, arrivals) = mpsc::channel(room);
        let asked = asked.to_owned();
        lock(&self.pending).insert(token, Waiter { asked, to });
        Waiting {
            token,
            reply: format!("{}.{token}", self.prefix),
            arrivals,
            pending: Arc::clone(&self.pending),
        }
    }

    /// Ends the requests on a subject that the server denies this user.
    pub(crate) fn denied(&self, subject: &str) {
        let pending = lock(&self.pending);
        for waiter in pending.values().filter(|waiter| waiter.asked == subject) {
            // A full channel has an answer already.
            let _ = waiter.to.try_send(Arrival::Denied);
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // The reader's subscription would keep the connection open.
        self.reader.abort();
    }
}

async fn read(mut subscriber: Subscriber, pending: Pending) {
    while let Some(message) = subscriber.next().await {
        let token = message.subject.rsplit('.').next();
        let Some(token) = token.and_then(|token| token.parse().ok()) else {
            continue;
        };
        let Some(to) = lock(&pending).get(&token).map(|waiter| waiter.to.clone()) else {
            continue;
        };
        if to.try_send(Arrival::Message(Box::new(message))).is_err() {
            tracing::debug!("an answer more than anybody waits for was dropped");
        }
    }
}

impl Waiting {
    /// The subject to answer on.
    pub(crate) fn subject(&self) -> &str {
        &self.reply
    }

    /// The next answer; none if the connection is over.
    pub(crate) async fn answer(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.pending).remove(&self.token);
    }
}

/// The map is whole after every statement, so a panic elsewhere does not spoil it.
fn lock(pending: &Pending) -> MutexGuard<'_, HashMap<u64, Waiter>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
