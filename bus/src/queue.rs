//! The queue: submissions that any client may publish and go away.
//!
//! A message is acknowledged once it is on disk. The leader alone takes it in: the commit that
//! holds what became of it also moves the cursor, so it is taken in exactly once, whoever leads.
//! The cursor is a sequence together with the time the stream was created, because a stream that
//! was made anew counts from 1 again.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use bytes::Bytes;
use jiff::Timestamp;
use loom_schemas::subject;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::connection::Bus;
use crate::header::COMMAND_ID;
use crate::log::QueueCursor;
use crate::stream::{JetStream, StreamError, StreamInfo};

/// The stream of the queue.
pub const STREAM: &str = "ORCH_QUEUE";
/// Messages read ahead of the leader.
const READ_AHEAD: usize = 64;
/// How soon the stream is asked again for what was heard of.
const SOON: Duration = Duration::from_millis(100);

/// How the queue is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// How many copies.
    pub replicas: usize,
    /// The most messages that may wait; more are refused.
    pub max_messages: u64,
    /// The most bytes that may wait; more are refused.
    pub max_bytes: u64,
    /// How often the stream is asked when nothing tells that there is more.
    pub tick: Duration,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            replicas: 1,
            max_messages: 100_000,
            max_bytes: 256 << 20,
            tick: Duration::from_secs(5),
        }
    }
}

/// The queue. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    bus: Bus,
    js: JetStream,
    options: QueueOptions,
}

/// A submission as it was published.
#[derive(Clone, Debug)]
pub struct QueueMessage {
    /// What the commit that takes it in must say.
    pub cursor: QueueCursor,
    /// The submission.
    pub payload: Bytes,
    /// When it was acknowledged.
    pub at: Timestamp,
    headers: String,
}

impl QueueMessage {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        crate::stream::header(&self.headers, name)
    }

    /// What its outcome is told under: its `Nats-Msg-Id`, else its command id, else its sequence.
    pub fn id(&self) -> String {
        let given = self.header("Nats-Msg-Id").or(self.command_id());
        given.map_or_else(|| self.cursor.sequence.to_string(), str::to_owned)
    }

    /// Under which id it may be put again without being done again.
    pub fn command_id(&self) -> Option<&str> {
        self.header(COMMAND_ID)
    }
}

/// Messages of the queue in order, for one leader. Dropping it ends it.
#[derive(Debug)]
pub struct QueueReader {
    messages: mpsc::Receiver<QueueMessage>,
    task: JoinHandle<()>,
}

impl Queue {
    /// Opens the queue, making its stream if it is not there.
    pub async fn open(bus: &Bus, options: QueueOptions) -> Result<Self, StreamError> {
        let queue = Self {
            bus: bus.clone(),
            js: JetStream::new(bus),
            options,
        };
        queue.ensure().await?;
        Ok(queue)
    }

    /// Reads on from what was taken in: everything, if the stream is another one by now.
    ///
    /// What was read but not committed is read again by the next reader. A reader does not notice
    /// that its leader is deposed; the commit does.
    pub fn read(&self, cursor: Option<QueueCursor>) -> QueueReader {
        let (into, messages) = mpsc::channel(READ_AHEAD);
        let reading = Reading {
            queue: self.clone(),
            cursor,
            into,
        };
        let task = tokio::spawn(reading.run());
        QueueReader { messages, task }
    }

    /// Removes what was taken in, once the commit that says so has succeeded.
    pub async fn purge(&self, cursor: QueueCursor) -> Result<(), StreamError> {
        let info = self.js.info(STREAM).await?;
        if info.created == cursor.created && info.state.first_seq <= cursor.sequence {
            self.js.purge_below(STREAM, cursor.sequence + 1).await?;
        }
        Ok(())
    }

    /// How many messages wait.
    pub async fn waiting(&self) -> Result<u64, StreamError> {
        Ok(self.js.info(STREAM).await?.state.messages)
    }

    async fn ensure(&self) -> Result<StreamInfo, StreamError> {
        let config = Config {
            name: STREAM.to_owned(),
            subjects: vec![subject::QUEUE.to_owned()],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_messages: i64::try_from(self.options.max_messages).unwrap_or(i64::MAX),
            max_bytes: i64::try_from(self.options.max_bytes).unwrap_or(i64::MAX),
            num_replicas: self.options.replicas,
            ..Config::default()
        };
        self.js
            .ensure(&config, &["subjects", "retention", "storage", "discard"])
            .await
    }
}

impl QueueReader {
    /// The next message. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<QueueMessage> {
        self.messages.recv().await
    }
}

impl Drop for QueueReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Reading {
    queue: Queue,
    cursor: Option<QueueCursor>,
    into: mpsc::Sender<QueueMessage>,
}

impl Reading {
    /// Reads what there is, then waits until a publish is heard or the tick passes.
    ///
    /// The stream itself is read, message by message: the subscription only wakes the reader, so
    /// nothing is lost if it misses one.
    async fn run(mut self) {
        let tick = self.queue.options.tick;
        let mut bell = self.queue.bus.subscribe(subject::QUEUE).await.ok();
        // What was just heard of may not be stored yet: after a bell it is looked at soon again.
        let mut pause = SOON.min(tick);
        loop {
            match self.read_on().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(StreamError::NoStream(_)) => {
                    if let Err(error) = self.queue.ensure().await {
                        tracing::warn!(%error, "the queue is gone and cannot be made anew");
                    }
                }
                Err(error) => tracing::debug!(%error, "the queue does not answer"),
            }
            match &mut bell {
                Some(messages) => {
                    tokio::select! {
                        heard = messages.next() => {
                            pause = SOON.min(tick);
                            if heard.is_none() {
                                bell = None;
                            }
                        }
                        () = sleep(pause) => pause = (pause * 2).min(tick),
                    }
                }
                None => sleep(tick).await,
            }
        }
    }

    /// Reads up to the end; true if nobody listens any more.
    async fn read_on(&mut self) -> Result<bool, StreamError> {
        let js = self.queue.js.clone();
        let info = js.info(STREAM).await?;
        let created = info.created;
        let taken = self.cursor.filter(|cursor| cursor.created == created);
        let mut next = taken.map_or(1, |cursor| cursor.sequence + 1);
        while next <= info.state.last_seq {
            let Some(found) = js.next_message(STREAM, subject::QUEUE, next).await? else {
                break;
            };
            let cursor = QueueCursor {
                created,
                sequence: found.sequence,
            };
            next = found.sequence + 1;
            let message = QueueMessage {
                cursor,
                payload: found.payload,
                at: found.at,
                headers: found.headers,
            };
            if self.into.send(message).await.is_err() {
                return Ok(true);
            }
            self.cursor = Some(cursor);
        }
        Ok(false)
    }
}
