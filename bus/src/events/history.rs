//! What was published, read back: events with their numbers, and task output.

use std::ops::ControlFlow;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use super::{EVENTS, HEADER_EVENT};
use crate::connection::Bus;
use crate::stream::{JetStream, StreamError};

mod newest;
mod output;

/// The most bytes of text in one answer: it has to fit into one message.
const BYTES_MAX: usize = 4_000_000;
/// How long one query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);

/// Reads the history. Cheap to clone.
#[derive(Clone)]
pub struct History {
    js: JetStream,
}

/// Why the history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The bus does not answer or refuses.
    #[error("the history cannot be read")]
    Stream(#[from] StreamError),
    /// The filter is not a subject.
    #[error("`{0}` is not a filter: tokens separated by dots, `*` for one, `>` for the rest")]
    Filter(String),
    /// No consumer can be made, or it stumbled.
    #[error("the history cannot be read: {0}")]
    Consumer(String),
    /// It took too long.
    #[error("the history was not read within {QUERY_TIMEOUT:?}: ask for less")]
    Timeout,
}

/// How long making a consumer may take.
const MAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a consumer may be silent before another one is made.
const SILENCE: Duration = Duration::from_secs(3);

/// The pause before another consumer.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the newest are looked for first, in messages from the end of the stream.
const WINDOW: u64 = 512;

/// How much further each time they are not all found.
const WINDOW_GROWTH: u64 = 8;

/// Where to begin reading.
#[derive(Clone, Copy)]
enum Start {
    All,
    Sequence(u64),
    Time(Timestamp),
}

/// What is read, and how.
struct Reading {
    stream: &'static str,
    filter: String,
    start: Start,
    /// Messages asked for at once: what is asked for and then not wanted was sent in vain.
    batch: usize,
}

/// How far something was read.
#[derive(Clone, Copy, Default)]
struct Reached {
    /// The sequence of the last message taken, or of the last one there was.
    last: u64,
    /// Whether it stopped before the end.
    more: bool,
}

impl History {
    /// The history as this connection may read it.
    pub fn new(bus: &Bus) -> Self {
        Self {
            js: JetStream::new(bus),
        }
    }

    /// The number of the last event in the history; 0 if there never was one.
    pub async fn last_event(&self) -> Result<u64, StreamError> {
        let info = self.js.info(EVENTS).await?;
        let last = info.state.last_seq;
        if info.state.messages == 0 {
            return Ok(last);
        }
        let message = self.js.message(EVENTS, last).await?;
        let number = message.and_then(|message| message.header(HEADER_EVENT)?.parse().ok());
        Ok(number.unwrap_or(last))
    }

    /// Gives every message there is now, from the start on, that matches, until one is not taken.
    ///
    /// A consumer may sit on a copy of the stream that lags behind, and then take that copy's end
    /// for the end; or on a server that has just died. So the stream's leader says first which
    /// message is the last one, and what a consumer does not yield the next one does.
    async fn read(
        &self,
        mut reading: Reading,
        mut keep: impl FnMut(Message) -> ControlFlow<()>,
    ) -> Result<Reached, HistoryError> {
        let last = self
            .js
            .last_message(reading.stream, &reading.filter)
            .await?;
        let Some(last) = last else {
            return Ok(Reached::default());
        };
        let all = Reached {
            last: last.sequence,
            more: false,
        };
        match reading.start {
            Start::Sequence(first) if last.sequence < first => return Ok(all),
            Start::Time(first) if last.at < first => return Ok(all),
            _ => {}
        }
        let read = async {
            let mut seen = 0;
            loop {
                let passed = self
                    .pass(&reading, last.sequence, |message| {
                        let sequence = message.info().map_or(seen, |info| info.stream_sequence);
                        let flow = keep(message);
                        if flow.is_continue() {
                            seen = sequence;
                        }
                        flow
                    })
                    .await;
                match passed {
                    Ok(ControlFlow::Continue(())) => return all,
                    Ok(ControlFlow::Break(())) => {
                        return Reached {
                            last: seen,
                            more: true,
                        };
                    }
                    Err(error) => {
                        let stream = reading.stream;
                        tracing::debug!(%error, stream, "a consumer of the history stumbled");
                    }
                }
                sleep(PAUSE).await;
                if seen > 0 {
                    reading.start = Start::Sequence(seen + 1);
                }
            }
        };
        timeout(QUERY_TIMEOUT, read)
            .await
            .map_err(|_| HistoryError::Timeout)
    }

    /// One consumer's worth of messages, up to the one with this sequence or one not taken.
    async fn pass(
        &self,
        reading: &Reading,
        last: u64,
        mut keep: impl FnMut(Message) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, HistoryError> {
        let stumbled = |error: &dyn std::fmt::Display| HistoryError::Consumer(error.to_string());
        let made = timeout(MAKE_TIMEOUT, self.consumer(reading)).await;
        let consumer = made.map_err(|_| HistoryError::Consumer("no consumer in time".into()))??;
        let name = consumer.cached_info().name.clone();
        let messages = consumer.stream().max_messages_per_batch(reading.batch);
        let mut messages = messages.messages().await.map_err(|e| stumbled(&e))?;
        let mut flow = ControlFlow::Continue(());
        loop {
            let next = timeout(SILENCE, messages.next()).await;
            let next = next.map_err(|_| HistoryError::Consumer("it is silent".into()))?;
            let Some(message) = next else {
                return Err(HistoryError::Consumer("it ended".into()));
            };
            let message = message.map_err(|error| stumbled(&error))?;
            let sequence = message
                .info()
                .map_err(|error| stumbled(&error))?
                .stream_sequence;
            if sequence <= last {
                flow = keep(message);
            }
            if sequence >= last || flow.is_break() {
                break;
            }
        }
        let context = self.js.context();
        let _ = context
            .delete_consumer_from_stream(name, reading.stream)
            .await;
        Ok(flow)
    }

    async fn consumer(&self, reading: &Reading) -> Result<Consumer<pull::Config>, HistoryError> {
        let deliver_policy = match reading.start {
            Start::All => DeliverPolicy::All,
            Start::Sequence(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
            Start::Time(at) => {
                let start_time = async_nats::datetime::from_nanos(at.as_nanosecond())
                    .map_err(|error| HistoryError::Consumer(error.to_string()))?;
                DeliverPolicy::ByStartTime { start_time }
            }
        };
        let config = pull::Config {
            description: Some("reads the history".to_owned()),
            deliver_policy,
            filter_subject: reading.filter.clone(),
            ack_policy: AckPolicy::None,
            inactive_threshold: Duration::from_secs(30),
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let made = self
            .js
            .context()
            .create_consumer_on_stream(config, reading.stream)
            .await;
        made.map_err(|error| HistoryError::Consumer(error.to_string()))
    }
}

/// The whole filter: what a query says of it, behind the prefix of the stream's subjects.
fn filter(prefix: &str, relative: Option<&str>) -> Result<String, HistoryError> {
    let relative = relative.filter(|text| !text.is_empty()).unwrap_or(">");
    let relative = relative.strip_prefix(prefix).unwrap_or(relative);
    let tokens: Vec<&str> = relative.split('.').collect();
    let plain = |token: &str| {
        !token.is_empty()
            && token
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_*".contains(c))
    };
    let last = tokens.len() - 1;
    let good = tokens.iter().enumerate().all(|(n, token)| {
        plain(token) && (!token.contains('*') || *token == "*") || n == last && *token == ">"
    });
    if good && relative.len() <= 512 {
        Ok(format!("{prefix}{relative}"))
    } else {
        Err(HistoryError::Filter(relative.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_stays_behind_its_prefix() {
        let good = [
            (None, "orch.events.>"),
            (Some("job.>"), "orch.events.job.>"),
            (
                Some("task.web.*.0.running"),
                "orch.events.task.web.*.0.running",
            ),
            (Some("orch.events.job.web.*"), "orch.events.job.web.*"),
        ];
        for (given, whole) in good {
            assert_eq!(filter("orch.events.", given).unwrap(), whole);
        }
        for bad in ["a..b", ">.a", "a b", "a*", "\r\n", ".", "ä"] {
            assert!(filter("orch.events.", Some(bad)).is_err(), "{bad}");
        }
    }
}
