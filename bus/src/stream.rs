//! The few calls of the `JetStream` API that the log, the events and the queue are built on.
//!
//! Every call is one request with a bounded wait, answered by the stream's leader. The API's own
//! JSON is used as it stands: what is written down here is what goes over the wire.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

mod api;

pub(crate) use api::JetStream;

/// The header that fences an append: the sequence the stream's last message must have.
pub(crate) const EXPECTED_LAST_SEQUENCE: &str = "Nats-Expected-Last-Sequence";

/// Why a call of the `JetStream` API failed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// There is no such stream.
    #[error("the stream {0} does not exist")]
    NoStream(String),
    /// Nobody answers: the connection is down, or the stream has no leader.
    #[error("no answer from the bus within {0:?}")]
    Timeout(Duration),
    /// The connection broke off before the answer came.
    #[error("the connection to the bus broke off")]
    Disconnected,
    /// The server says that nobody serves the call: `JetStream` is off or is only just starting.
    #[error("JetStream does not answer")]
    NoResponders,
    /// The connection is over.
    #[error("the connection to the bus is closed")]
    Closed,
    /// More bytes than the server takes in a message.
    #[error("a message of {0} bytes is more than the bus takes")]
    TooLarge(usize),
    /// The server refuses.
    #[error("the bus refuses: {description} ({code}){}", hint(*code))]
    Refused {
        /// The server's error code: 10071 and the like.
        code: u64,
        /// In its words.
        description: String,
    },
    /// The answer is not what it should be.
    #[error("the answer of the bus cannot be read")]
    Answer(#[source] serde_json::Error),
    /// The stream is there, but not as it must be.
    #[error("the stream {stream} has {field} {found}, it must be {wanted}")]
    Configuration {
        /// Which stream.
        stream: String,
        /// What is wrong.
        field: &'static str,
        /// What it must be.
        wanted: String,
        /// What it is.
        found: String,
    },
}

/// What to do about what a server says in too few words.
fn hint(code: u64) -> &'static str {
    match code {
        INSUFFICIENT_STORAGE => {
            ": the streams reserve 5 GB in all; set `max_file_store` in the jetstream block of the \
             servers, which else take three quarters of what is free when they start"
        }
        _ => "",
    }
}

/// "Insufficient storage resources available", to make a stream.
const INSUFFICIENT_STORAGE: u64 = 10047;
/// The server's code for "the last sequence is another one".
pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;
/// "Message size exceeds maximum allowed".
pub(crate) const MESSAGE_TOO_LARGE: u64 = 10054;
/// Codes that mean there is no room: account resources, insufficient resources, memory or storage
/// exceeded, maximum messages or bytes of the stream.
const NO_SPACE: [u64; 5] = [10002, 10023, 10028, INSUFFICIENT_STORAGE, 10077];

impl StreamError {
    /// The server's error code, if it is the server that refuses.
    pub(crate) fn code(&self) -> Option<u64> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether there is no room for more.
    pub fn is_no_space(&self) -> bool {
        self.code().is_some_and(|code| NO_SPACE.contains(&code))
    }
}

/// What a stream says of itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StreamInfo {
    pub(crate) created: Timestamp,
    pub(crate) state: StreamState,
    pub(crate) config: Value,
}

/// The extent of a stream.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StreamState {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    #[serde(default)]
    pub(crate) subjects: std::collections::BTreeMap<String, u64>,
}

/// A message as it lies in a stream.
#[derive(Clone, Debug)]
pub(crate) struct StoredMessage {
    pub(crate) sequence: u64,
    pub(crate) headers: String,
    pub(crate) payload: Bytes,
    pub(crate) at: Timestamp,
}

impl StoredMessage {
    /// The value of a header; names are compared as they are.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// The value of a header in the text the server stores.
pub(crate) fn header<'h>(headers: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = headers.split("\r\n").skip(1);
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// How many copies of a stream to keep on a bus of so many servers: three if there are three.
pub fn replicas_for(servers: usize) -> usize {
    if servers >= 3 { 3 } else { 1 }
}
