//! The relay: events of committed entries, published in order, none left out and none twice.
//!
//! How far it is stands in the stream itself: every message carries the number of its event, and
//! is appended only if the one before it is the stream's last. So it does not matter who relays,
//! how often it starts again, or whether two do at once: the history is the same. The position is
//! read again at every start, reconnect and refusal; a write that was acknowledged and lost again
//! with the server is simply published once more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishAckFuture;
use loom_schemas::ids::Revision;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::settled::Samples;
use super::{EVENTS, HEADER_EVENT};
use crate::connection::{Bus, ConnectionState};
use crate::header::REVISION;
use crate::log::entry::Entry;
use crate::log::{Committed, Log, LogError, Position};
use crate::stream::{EXPECTED_LAST_SEQUENCE, JetStream, StreamError};

/// Committed entries that wait in memory; beyond it they are read from the log again.
const WAITING_MAX: usize = 1024;
/// The pause before the position is read again after something went wrong.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the acknowledgement of one event may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// How events are relayed.
#[derive(Clone, Copy, Debug)]
pub struct RelayOptions {
    /// How many events may be under way at once.
    pub window: usize,
    /// After so long a published event counts as safe from the server's death: an acknowledged
    /// write may wait for the disk. The log is not purged before.
    pub settled_after: Duration,
}

impl RelayOptions {
    /// For streams of so many copies: with several of them an acknowledged write is safe at once.
    pub fn for_replicas(replicas: usize) -> Self {
        let settled_after = match replicas {
            0 | 1 => Self::default().settled_after,
            _ => Duration::ZERO,
        };
        Self {
            settled_after,
            ..Self::default()
        }
    }
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            window: 256,
            settled_after: Duration::from_secs(150),
        }
    }
}

/// A running relay, for as long as one leads. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    committed: mpsc::Sender<Committed>,
    target: watch::Sender<u64>,
    relayed: watch::Receiver<Revision>,
    samples: Arc<Mutex<Samples>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts relaying what the log holds beyond the history, up to `position` and then whatever
    /// is told by [`Relay::committed`]. Only the leader relays, on a connection of its choice.
    pub fn start(bus: &Bus, log: Log, position: &Position, options: RelayOptions) -> Self {
        let (committed, waiting) = mpsc::channel(WAITING_MAX);
        let (target, target_seen) = watch::channel(position.sequence);
        let (relayed_told, relayed) = watch::channel(Revision::default());
        let samples = Arc::new(Mutex::new(Samples::new(options.settled_after)));
        let js = JetStream::new(bus);
        let mut context = js.context();
        context.set_timeout(ACK_TIMEOUT);
        let relaying = Relaying {
            js,
            context,
            log,
            options,
            incarnation: position.incarnation,
            floor: position
                .restored
                .as_ref()
                .map_or(1, |(sequence, _)| *sequence),
            state: bus.state(),
            waiting,
            target: target_seen,
            relayed: relayed_told,
            samples: Arc::clone(&samples),
            under_way: VecDeque::new(),
        };
        let task = tokio::spawn(relaying.run());
        Self {
            committed,
            target,
            relayed,
            samples,
            task,
        }
    }

    /// Tells that an entry is committed: its events are published soon. Never waits.
    pub fn committed(&self, committed: &Committed) {
        // What does not fit in is read from the log again.
        let _ = self.committed.try_send(committed.clone());
        let raise = |target: &mut u64| {
            let higher = committed.sequence > *target;
            *target = committed.sequence.max(*target);
            higher
        };
        self.target.send_if_modified(raise);
    }

    /// The last entry whose events are all acknowledged, and how it moves on.
    pub fn relayed(&self) -> watch::Receiver<Revision> {
        self.relayed.clone()
    }

    /// The last entry whose events are safely in the history: what the log may be purged up to.
    /// For a while after the start that is none: purge again later.
    pub fn settled(&self) -> Revision {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.settled(Instant::now())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Relaying {
    js: JetStream,
    context: Context,
    log: Log,
    options: RelayOptions,
    incarnation: u64,
    /// The first entry whose events are numbered in one go with the last.
    floor: u64,
    state: watch::Receiver<ConnectionState>,
    waiting: mpsc::Receiver<Committed>,
    target: watch::Receiver<u64>,
    relayed: watch::Sender<Revision>,
    samples: Arc<Mutex<Samples>>,
    under_way: VecDeque<(Ack, u64)>,
}

/// The acknowledgement of one event.
type Ack = <PublishAckFuture as IntoFuture>::IntoFuture;

/// What comes next.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// The entry to relay next.
    sequence: u64,
    /// The number of the last event published.
    number: u64,
    /// The sequence of the last message of the history's stream.
    last: u64,
}

/// Why relaying starts over from the position in the stream.
#[derive(Debug, thiserror::Error)]
enum Stumble {
    #[error("the history cannot be read or written")]
    Stream(#[from] StreamError),
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    #[error("an event was not taken: {0}")]
    Publish(String),
    #[error("the connection was made anew")]
    Reconnected,
    #[error("entry {0} is gone from the log")]
    Purged(u64),
}

impl Relaying {
    async fn run(mut self) {
        loop {
            let Err(stumble) = self.relay().await;
            self.under_way.clear();
            self.samples
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .forget();
            tracing::debug!(
                error = &stumble as &dyn std::error::Error,
                "the relay starts over"
            );
            if !matches!(stumble, Stumble::Reconnected) {
                sleep(PAUSE).await;
            }
        }
    }

    /// Relays from the position in the stream until something goes wrong.
    async fn relay(&mut self) -> Result<std::convert::Infallible, Stumble> {
        self.state.mark_unchanged();
        self.js.connected(ACK_TIMEOUT).await?;
        self.state.mark_unchanged();
        let mut cursor = self.position().await?;
        self.told(cursor.sequence.saturating_sub(1));
        loop {
            while cursor.sequence <= *self.target.borrow_and_update() {
                let entry = self.entry(cursor.sequence).await?;
                self.publish(&mut cursor, &entry).await?;
            }
            tokio::select! {
                done = acknowledged(self.under_way.front_mut()) => {
                    self.acknowledge(done, &cursor)?;
                }
                changed = self.target.changed() => {
                    if changed.is_err() {
                        // The handle is gone, and with it this task at its next wait.
                        std::future::pending::<()>().await;
                    }
                }
                _ = self.state.changed() => return Err(Stumble::Reconnected),
            }
        }
    }

    /// Publishes the events of an entry that the history lacks, then moves on to the next entry.
    async fn publish(&mut self, cursor: &mut Cursor, entry: &Entry) -> Result<(), Stumble> {
        let revision = Revision {
            incarnation: entry.incarnation,
            sequence: cursor.sequence,
        };
        for (number, event) in (entry.events_before + 1..).zip(&entry.events) {
            if number <= cursor.number {
                continue;
            }
            while self.under_way.len() >= self.options.window {
                let done = acknowledged(self.under_way.front_mut()).await;
                self.acknowledge(done, cursor)?;
            }
            let mut headers = HeaderMap::new();
            headers.insert(EXPECTED_LAST_SEQUENCE, cursor.last.to_string());
            headers.insert(REVISION, revision.to_string());
            headers.insert(HEADER_EVENT, number.to_string());
            let subject = event.subject.clone();
            let sent = self
                .context
                .publish_with_headers(subject, headers, event.body.clone());
            let ack = sent
                .await
                .map_err(|error| Stumble::Publish(error.to_string()))?;
            let is_last = number == entry.events_after();
            let relayed = if is_last {
                cursor.sequence
            } else {
                cursor.sequence - 1
            };
            self.under_way.push_back((ack.into_future(), relayed));
            cursor.last += 1;
            cursor.number = number;
        }
        if self.under_way.is_empty() {
            self.told(cursor.sequence);
        }
        cursor.sequence += 1;
        Ok(())
    }

    fn acknowledge(&mut self, done: Result<(), String>, cursor: &Cursor) -> Result<(), Stumble> {
        done.map_err(Stumble::Publish)?;
        let relayed = self.under_way.pop_front().map(|(_, sequence)| sequence);
        // Entries without events follow the last one that has some.
        let all = self.under_way.is_empty().then_some(cursor.sequence - 1);
        if let Some(sequence) = all.or(relayed) {
            self.told(sequence);
        }
        Ok(())
    }

    /// Tells how far the history is.
    fn told(&self, sequence: u64) {
        let incarnation = self.incarnation;
        let revision = Revision {
            incarnation,
            sequence,
        };
        self.relayed.send_replace(revision);
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.note(Instant::now(), revision);
    }

    /// The committed entry with this sequence: as it was handed over, else from the log.
    async fn entry(&mut self, sequence: u64) -> Result<Arc<Entry>, Stumble> {
        while let Ok(committed) = self.waiting.try_recv() {
            if committed.sequence == sequence {
                return Ok(committed.entry);
            }
            if committed.sequence > sequence {
                break;
            }
        }
        let entry = self.log.entry(sequence).await?;
        entry.map(Arc::new).ok_or(Stumble::Purged(sequence))
    }

    /// Where to go on, from what the history holds.
    async fn position(&mut self) -> Result<Cursor, Stumble> {
        let info = self.js.info(EVENTS).await?;
        let last = info.state.last_seq;
        let message = match info.state.messages {
            0 => None,
            _ => self.js.message(EVENTS, last).await?,
        };
        let said = message.and_then(|message| message.header(HEADER_EVENT)?.parse().ok());
        // A history that aged away still tells by its sequence, which is the number as well.
        let number = said.unwrap_or(last);
        self.find(Cursor {
            sequence: 0,
            number,
            last,
        })
        .await
    }

    /// The first entry with an event beyond the cursor's number, by halving the log.
    async fn find(&mut self, mut cursor: Cursor) -> Result<Cursor, Stumble> {
        let target = *self.target.borrow();
        let first = self.log.extent().await?.first.max(self.floor);
        let (mut low, mut high) = (first, target + 1);
        while low < high {
            let middle = low.midpoint(high);
            let entry = self
                .log
                .entry(middle)
                .await?
                .ok_or(Stumble::Purged(middle))?;
            if entry.events_after() > cursor.number {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        cursor.sequence = low;
        if low > target {
            return Ok(cursor);
        }
        let before = self
            .log
            .entry(low)
            .await?
            .ok_or(Stumble::Purged(low))?
            .events_before;
        if before > cursor.number {
            tracing::warn!(
                from = cursor.number + 1,
                to = before,
                "events are lost to the history"
            );
            if cursor.last == 0 {
                // A history that begins anew keeps its sequence in step with the numbers.
                self.js.purge_below(EVENTS, before + 1).await?;
                cursor.last = self.js.info(EVENTS).await?.state.last_seq;
            }
            cursor.number = before;
        }
        Ok(cursor)
    }
}

/// Waits for the oldest event under way to be acknowledged; for ever if there is none.
async fn acknowledged(oldest: Option<&mut (Ack, u64)>) -> Result<(), String> {
    match oldest {
        Some((ack, _)) => ack.await.map(drop).map_err(|error| error.to_string()),
        None => std::future::pending().await,
    }
}
