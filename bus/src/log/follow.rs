//! Following the log: its entries one after the other, as they are appended.
//!
//! A consumer may fall silent, lose messages or vanish with a server. So whatever it yields beside
//! the next entry, and whenever it is silent for a while, the follower asks the stream itself what
//! there is, reads what is missing and makes a new consumer. It never stops by itself before it
//! has said why.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::store::Log;
use crate::stream::StreamError;

/// How long a consumer may be silent before the stream is asked.
const SILENCE: Duration = Duration::from_secs(3);
/// How long making a consumer may take.
const MAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before the next try while the bus is away.
const PAUSE: Duration = Duration::from_millis(250);
/// Entries that may wait to be taken.
const WAITING_MAX: usize = 256;

/// Entries, and bytes of them, that are asked for at once.
const BATCH: (usize, usize) = (64, 16 << 20);

/// What a follower sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The next entry.
    Entry {
        /// Its sequence: always one more than the one before.
        sequence: u64,
        /// Its bytes.
        raw: Bytes,
    },
    /// The log was purged beyond what was followed: catch up from a snapshot, then follow anew.
    /// It is the last thing a follower sees.
    Behind {
        /// The first entry there is.
        first: u64,
    },
    /// The log ends before what was followed: it was rewound. The last thing a follower sees.
    Rewound {
        /// The last entry there is.
        last: u64,
    },
}

/// Entries of the log as they come. Dropping it ends it.
#[derive(Debug)]
pub struct Follower {
    entries: mpsc::Receiver<Followed>,
    task: JoinHandle<()>,
}

impl Follower {
    pub(super) fn start(log: Log, name: &str, after: u64) -> Self {
        let (into, entries) = mpsc::channel(WAITING_MAX);
        let mut following = Following {
            log,
            name: name.to_owned(),
            next: after + 1,
            into,
            short_since: None,
        };
        let task = tokio::spawn(async move { following.run().await });
        Self { entries, task }
    }

    /// The next thing seen; none once it has said that it is behind or that the log was rewound.
    /// Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Followed> {
        self.entries.recv().await
    }

    /// The next thing if it is there already.
    pub fn try_next(&mut self) -> Option<Followed> {
        self.entries.try_recv().ok()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Following {
    log: Log,
    name: String,
    next: u64,
    into: mpsc::Sender<Followed>,
    /// Since when the log looks shorter than it was.
    short_since: Option<Instant>,
}

/// Why a round of following ended.
enum Round {
    /// Ask the stream again.
    Again,
    /// Make a new consumer of what comes after, or ask the stream once that one stumbled.
    Resync,
    /// It has said why, or nobody listens.
    Over,
}

impl Following {
    async fn run(&mut self) {
        loop {
            match self.read_missing().await {
                Ok(Round::Over) => return,
                Ok(Round::Again) => continue,
                Ok(Round::Resync) => {}
                Err(error) => {
                    tracing::debug!(%error, "the log does not answer its follower");
                    sleep(PAUSE).await;
                    continue;
                }
            }
            match self.consume().await {
                Ok(Round::Over) => return,
                Ok(Round::Resync | Round::Again) => {}
                Err(error) => {
                    tracing::debug!(%error, "no consumer of the log");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Reads from the stream itself what there is beyond the last entry seen.
    async fn read_missing(&mut self) -> Result<Round, StreamError> {
        let extent = self.log.extent().await?;
        if extent.last + 1 < self.next {
            let since = *self.short_since.get_or_insert_with(Instant::now);
            if since.elapsed() < self.log.options.rewound_after() {
                sleep(PAUSE).await;
                return Ok(Round::Again);
            }
            return Ok(self
                .last_word(Followed::Rewound { last: extent.last })
                .await);
        }
        self.short_since = None;
        if extent.first > self.next {
            return Ok(self
                .last_word(Followed::Behind {
                    first: extent.first,
                })
                .await);
        }
        let mut entries = Box::pin(self.log.raw_entries(self.next, extent.last));
        while let Some(read) = entries.next().await {
            let (sequence, Some(raw)) = read? else {
                // Purged just now: the next round says from where on there is something.
                return Ok(Round::Resync);
            };
            if let Round::Over = self.entry(sequence, raw).await {
                return Ok(Round::Over);
            }
        }
        Ok(Round::Resync)
    }

    /// Takes entries from a consumer of our own until something else than the next one comes.
    async fn consume(&mut self) -> Result<Round, String> {
        let made = timeout(
            MAKE_TIMEOUT,
            self.log.consumer(&self.name, self.next, BATCH),
        )
        .await;
        let mut messages = made.map_err(|_| "no consumer in time".to_owned())??;
        loop {
            let message = match timeout(SILENCE, messages.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "the consumer of the log stumbled");
                    return Ok(Round::Resync);
                }
                Err(_) if self.is_at_end().await => continue,
                Ok(None) | Err(_) => return Ok(Round::Resync),
            };
            let sequence = message
                .info()
                .map_err(|error| error.to_string())?
                .stream_sequence;
            if sequence > self.next {
                return Ok(Round::Resync);
            }
            if sequence < self.next {
                continue;
            }
            if let Round::Over = self.entry(sequence, message.payload.clone()).await {
                return Ok(Round::Over);
            }
        }
    }

    /// Whether silence is right: there is nothing that was not seen.
    async fn is_at_end(&self) -> bool {
        let last = self.log.last_sequence().await;
        last.is_ok_and(|last| last + 1 == self.next)
    }

    async fn entry(&mut self, sequence: u64, raw: Bytes) -> Round {
        self.next = sequence + 1;
        match self.into.send(Followed::Entry { sequence, raw }).await {
            Ok(()) => Round::Resync,
            Err(_) => Round::Over,
        }
    }

    async fn last_word(&self, word: Followed) -> Round {
        let _ = self.into.send(word).await;
        Round::Over
    }
}
