//! The calls themselves.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{EXPECTED_LAST_SEQUENCE, StoredMessage, StreamError, StreamInfo};
use crate::connection::{Bus, ConnectionState};

/// How long one call may take before it is given up.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// "No message found".
const NO_MESSAGE: u64 = 10037;
/// "Stream not found".
const NO_STREAM: u64 = 10059;
/// "Stream name already in use with a different configuration".
const STREAM_NAME_EXISTS: u64 = 10058;

/// The API over one connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct JetStream {
    client: Client,
    state: watch::Receiver<ConnectionState>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Refused { error: ApiError },
    Done(T),
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl From<ApiError> for StreamError {
    fn from(error: ApiError) -> Self {
        Self::Refused {
            code: if error.err_code == 0 {
                error.code
            } else {
                error.err_code
            },
            description: error.description,
        }
    }
}

#[derive(Deserialize)]
struct Appended {
    seq: u64,
}

#[derive(Deserialize)]
struct Got {
    message: RawMessage,
}

#[derive(Deserialize)]
struct RawMessage {
    seq: u64,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: String,
    time: Timestamp,
}

impl JetStream {
    pub(crate) fn new(bus: &Bus) -> Self {
        Self {
            client: bus.shared.client.clone(),
            state: bus.state(),
        }
    }

    /// The client, for consumers.
    pub(crate) fn context(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(self.client.clone())
    }

    /// Makes the stream if it is not there, then checks that it is as it must be.
    ///
    /// `must` names the fields of the configuration that are compared: an older server takes
    /// settings it does not know in silence, and a person may have made the stream otherwise.
    /// Sizes and replicas may have been changed on purpose, so they are not among them.
    pub(crate) async fn ensure(
        &self,
        config: &Config,
        must: &[&'static str],
    ) -> Result<StreamInfo, StreamError> {
        let name = &config.name;
        let wanted = serde_json::to_value(config).map_err(StreamError::Answer)?;
        let made = self
            .api(&format!("STREAM.CREATE.{name}"), &wanted, CALL_TIMEOUT)
            .await;
        let info: StreamInfo = match made {
            Err(error) if error.code() == Some(STREAM_NAME_EXISTS) => {
                let info = self.info(name).await?;
                self.widen(config, info).await?
            }
            made => made?,
        };
        for &field in must {
            let absent = Value::Null;
            let wanted = wanted.get(field).unwrap_or(&absent);
            let found = info.config.get(field).unwrap_or(&absent);
            // A later build may have had it take more.
            if field == "subjects" && includes(found, wanted) {
                continue;
            }
            if is_set(wanted) != is_set(found) || is_set(wanted) && wanted != found {
                return Err(StreamError::Configuration {
                    stream: name.clone(),
                    field,
                    wanted: wanted.to_string(),
                    found: found.to_string(),
                });
            }
        }
        Ok(info)
    }

    /// Has a stream of an earlier build take the subjects as well that have come since; one that takes
    /// others stays as it is.
    async fn widen(&self, wanted: &Config, info: StreamInfo) -> Result<StreamInfo, StreamError> {
        let subjects = json!(wanted.subjects);
        let found = info.config.get("subjects").unwrap_or(&Value::Null);
        if *found == subjects || !is_set(found) || !includes(&subjects, found) {
            return Ok(info);
        }
        let mut config = info.config;
        config["subjects"] = subjects;
        let call = format!("STREAM.UPDATE.{}", wanted.name);
        self.api(&call, &config, CALL_TIMEOUT).await
    }

    pub(crate) async fn info(&self, stream: &str) -> Result<StreamInfo, StreamError> {
        let call = format!("STREAM.INFO.{stream}");
        named(stream, self.api(&call, &json!({}), CALL_TIMEOUT).await)
    }

    /// The information with the number of messages of each subject that matches.
    pub(crate) async fn info_of_subjects(
        &self,
        stream: &str,
        filter: &str,
    ) -> Result<StreamInfo, StreamError> {
        let call = format!("STREAM.INFO.{stream}");
        let asked = json!({ "subjects_filter": filter });
        named(stream, self.api(&call, &asked, CALL_TIMEOUT).await)
    }

    /// The message with this sequence; none if there is none (yet, or any more).
    pub(crate) async fn message(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<StoredMessage>, StreamError> {
        if sequence == 0 {
            // Sequences begin at 1; the server calls this a bad request.
            return Ok(None);
        }
        self.get(stream, &json!({ "seq": sequence })).await
    }

    /// The last message on a subject, wildcards allowed.
    pub(crate) async fn last_message(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StoredMessage>, StreamError> {
        self.get(stream, &json!({ "last_by_subj": subject })).await
    }

    /// The first message on a subject with at least this sequence.
    pub(crate) async fn next_message(
        &self,
        stream: &str,
        subject: &str,
        sequence: u64,
    ) -> Result<Option<StoredMessage>, StreamError> {
        self.get(stream, &json!({ "next_by_subj": subject, "seq": sequence }))
            .await
    }

    /// Removes every message below this sequence.
    pub(crate) async fn purge_below(&self, stream: &str, sequence: u64) -> Result<(), StreamError> {
        self.purge(stream, &json!({ "seq": sequence })).await
    }

    /// Removes every message on a subject.
    pub(crate) async fn purge_subject(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<(), StreamError> {
        self.purge(stream, &json!({ "filter": subject })).await
    }

    /// Appends a message and gives its sequence; `expected` fences it.
    pub(crate) async fn append(
        &self,
        subject: &str,
        mut headers: HeaderMap,
        payload: Bytes,
        expected: Option<u64>,
        wait: Duration,
    ) -> Result<u64, StreamError> {
        if let Some(expected) = expected {
            headers.insert(EXPECTED_LAST_SEQUENCE, expected.to_string());
        }
        let request = Request::new().payload(payload);
        let request = if headers.is_empty() {
            request
        } else {
            request.headers(headers)
        };
        let answer = self.request(subject.to_owned(), request, wait).await?;
        let answer: Answer<Appended> = read(&answer)?;
        match answer {
            Answer::Done(appended) => Ok(appended.seq),
            Answer::Refused { error } => Err(error.into()),
        }
    }

    /// Waits until the connection is up, but not longer than this.
    pub(crate) async fn connected(&self, wait: Duration) -> Result<(), StreamError> {
        let mut state = self.state.clone();
        let up = state.wait_for(|state| *state == ConnectionState::Connected);
        match timeout(wait, up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StreamError::Closed),
            Err(_) => Err(StreamError::Timeout(wait)),
        }
    }

    async fn get(&self, stream: &str, asked: &Value) -> Result<Option<StoredMessage>, StreamError> {
        let call = format!("STREAM.MSG.GET.{stream}");
        let got: Result<Got, _> = self.api(&call, asked, CALL_TIMEOUT).await;
        match got {
            Ok(got) => stored(got.message).map(Some),
            Err(error) if error.code() == Some(NO_MESSAGE) => Ok(None),
            Err(error) => named(stream, Err(error)),
        }
    }

    async fn purge(&self, stream: &str, what: &Value) -> Result<(), StreamError> {
        let call = format!("STREAM.PURGE.{stream}");
        let done: Result<Value, _> = self.api(&call, what, CALL_TIMEOUT).await;
        named(stream, done.map(drop))
    }

    async fn api<T: DeserializeOwned>(
        &self,
        call: &str,
        asked: &impl Serialize,
        wait: Duration,
    ) -> Result<T, StreamError> {
        let asked = serde_json::to_vec(asked).map_err(StreamError::Answer)?;
        let request = Request::new().payload(asked.into());
        let answer = self
            .request(format!("$JS.API.{call}"), request, wait)
            .await?;
        match read(&answer)? {
            Answer::Done(done) => Ok(done),
            Answer::Refused { error } => Err(error.into()),
        }
    }

    /// One request. Without a connection nothing is sent: it would pile up in the client and
    /// arrive long after anybody waits for it.
    async fn request(
        &self,
        subject: String,
        request: Request,
        wait: Duration,
    ) -> Result<Message, StreamError> {
        let deadline = Instant::now() + wait;
        self.connected(wait).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let request = request.timeout(Some(left));
        let mut state = self.state.clone();
        state.mark_unchanged();
        let answered = tokio::select! {
            answered = timeout(left, self.client.send_request(subject, request)) => answered,
            // Nobody answers over a connection that is no more: no need to sit the wait out.
            _ = state.changed() => return Err(StreamError::Disconnected),
        };
        let answered = answered.map_err(|_| StreamError::Timeout(wait))?;
        answered.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => StreamError::Timeout(wait),
            RequestErrorKind::NoResponders => StreamError::NoResponders,
            RequestErrorKind::MaxPayloadExceeded => {
                StreamError::TooLarge(self.client.max_payload())
            }
            _ => StreamError::Closed,
        })
    }
}

/// Whether a list has all that is in another.
fn includes(list: &Value, other: &Value) -> bool {
    let lists = list.as_array().zip(other.as_array());
    lists.is_some_and(|(list, other)| other.iter().all(|it| list.contains(it)))
}

/// Whether a setting says anything: absent, null, false, 0 and "" are the server's way of not.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn named<T>(stream: &str, done: Result<T, StreamError>) -> Result<T, StreamError> {
    match done {
        Err(error) if error.code() == Some(NO_STREAM) => {
            Err(StreamError::NoStream(stream.to_owned()))
        }
        done => done,
    }
}

fn read<T: DeserializeOwned>(answer: &Message) -> Result<T, StreamError> {
    serde_json::from_slice(&answer.payload).map_err(StreamError::Answer)
}

fn stored(raw: RawMessage) -> Result<StoredMessage, StreamError> {
    let decode = |text: String| {
        STANDARD.decode(text).map_err(|error| {
            StreamError::Answer(<serde_json::Error as serde::de::Error>::custom(error))
        })
    };
    Ok(StoredMessage {
        sequence: raw.seq,
        headers: String::from_utf8_lossy(&decode(raw.hdrs)?).into_owned(),
        payload: decode(raw.data)?.into(),
        at: raw.time,
    })
}
