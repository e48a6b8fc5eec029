//! Requests: one answer, or all that come within a time.
//!
//! A call never outlives its timeout. While the connection is down it waits for it within that
//! time; a connection lost after the request was sent ends the call at once as
//! [`CallError::Disconnected`], and whether the request was carried out is then not known.

use std::marker::PhantomData;
use std::time::Duration;

use async_nats::StatusCode;
use bytes::Bytes;
use loom_schemas::error::{ErrorCode, WireError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::codec::{self, DecodeError, EncodeError, Form};
use crate::connection::{Bus, BusError, ConnectionState};
use crate::header::{CONTENT_TYPE, ERROR, ERROR_CODE, Headers};
use crate::inbox::{Arrival, Waiting};

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody serves the subject; known at once.
    #[error("nobody answers there")]
    NoResponders,
    /// Somebody serves the subject but did not answer in time; it may have been carried out.
    #[error("no answer in time")]
    Timeout,
    /// The connection is down, or was lost before the answer; it may have been carried out.
    #[error("the bus is not connected")]
    Disconnected,
    /// It was answered with an error.
    #[error(transparent)]
    Refused(#[from] WireError),
    /// The answer cannot be read.
    #[error("the answer cannot be read")]
    Decode(#[source] DecodeError),
    /// The request cannot be written.
    #[error("the request cannot be written")]
    Encode(#[source] EncodeError),
    /// The request cannot be sent.
    #[error("the request cannot be sent")]
    Send(#[source] BusError),
}

impl From<BusError> for CallError {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Disconnected | BusError::Closed => Self::Disconnected,
            BusError::Timeout(_) => Self::Timeout,
            error
            @ (BusError::Subject(_) | BusError::Header { .. } | BusError::TooLarge { .. }) => {
                Self::Send(error)
            }
        }
    }
}

impl From<CallError> for WireError {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::Refused(error) => return error,
            CallError::NoResponders | CallError::Timeout | CallError::Disconnected => {
                ErrorCode::Unavailable
            }
            CallError::Decode(_) | CallError::Encode(_) => ErrorCode::Internal,
            CallError::Send(BusError::TooLarge { .. }) => ErrorCode::TooLarge,
            CallError::Send(_) => ErrorCode::Invalid,
        };
        Self::new(code, error.to_string())
    }
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

impl Reply {
    /// What it is written in.
    pub fn form(&self) -> Form {
        Form::of(self.headers.get(CONTENT_TYPE), &self.payload)
    }

    /// Reads it.
    pub fn decode<R: DeserializeOwned>(&self) -> Result<R, CallError> {
        codec::decode(self.form(), &self.payload).map_err(CallError::Decode)
    }
}

impl Bus {
    /// Asks in MessagePack and waits for one answer.
    pub async fn call<Q, R>(
        &self,
        subject: &str,
        request: &Q,
        timeout: Duration,
    ) -> Result<R, CallError>
    where
        Q: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call_with(subject, request, timeout, &[]).await
    }

    /// The same with headers.
    pub async fn call_with<Q, R>(
        &self,
        subject: &str,
        request: &Q,
        timeout: Duration,
        headers: &[(&str, String)],
    ) -> Result<R, CallError>
    where
        Q: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let payload = codec::encode_msgpack(request).map_err(CallError::Encode)?;
        let headers = with_form(&payload, headers);
        let reply = self.call_bytes(subject, payload, &headers, timeout).await?;
        reply.decode()
    }

    /// Asks with a payload as it is; the answer's form is up to the caller.
    pub async fn call_bytes(
        &self,
        subject: &str,
        payload: Bytes,
        headers: &[(&str, String)],
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        let deadline = Instant::now() + timeout;
        let waiting = self.shared.inbox.one(subject);
        let mut answers = self
            .ask(waiting, subject, payload, headers, deadline)
            .await?;
        match answers.next().await {
            Some(answer) => answer,
            None => Err(CallError::Timeout),
        }
    }

    /// Asks in MessagePack and takes every answer that comes until the timeout.
    ///
    /// Returns when the first has come, so that nobody being there is an error at once.
    pub async fn call_many<Q, R>(
        &self,
        subject: &str,
        request: &Q,
        timeout: Duration,
    ) -> Result<Replies<R>, CallError>
    where
        Q: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let payload = codec::encode_msgpack(request).map_err(CallError::Encode)?;
        let headers = with_form(&payload, &[]);
        self.call_many_bytes(subject, payload, &headers, timeout)
            .await
    }

    /// The same with a payload as it is, and headers.
    pub async fn call_many_bytes<R>(
        &self,
        subject: &str,
        payload: Bytes,
        headers: &[(&str, String)],
        timeout: Duration,
    ) -> Result<Replies<R>, CallError> {
        let deadline = Instant::now() + timeout;
        let waiting = self.shared.inbox.many(subject);
        let mut answers = self
            .ask(waiting, subject, payload, headers, deadline)
            .await?;
        let first = match answers.next().await {
            Some(Err(error @ (CallError::NoResponders | CallError::Disconnected))) => {
                return Err(error);
            }
            first => first,
        };
        Ok(Replies {
            first,
            answers,
            read_as: PhantomData,
        })
    }

    async fn ask(
        &self,
        waiting: Waiting,
        subject: &str,
        payload: Bytes,
        headers: &[(&str, String)],
        deadline: Instant,
    ) -> Result<Answers, CallError> {
        let mut state = self.state();
        let up = timeout_at(
            deadline,
            state.wait_for(|s| *s != ConnectionState::Disconnected),
        );
        match up.await.map(|up| up.map(|state| *state)) {
            Ok(Ok(ConnectionState::Connected)) => {}
            Ok(_) | Err(_) => return Err(CallError::Disconnected),
        }
        let reply = Some(waiting.subject());
        self.send(subject, reply, payload, headers, deadline)
            .await?;
        Ok(Answers {
            waiting,
            state,
            deadline,
            ended: false,
        })
    }
}

/// The answers to one request as they come.
struct Answers {
    waiting: Waiting,
    /// Unchanged since the request was sent.
    state: watch::Receiver<ConnectionState>,
    deadline: Instant,
    ended: bool,
}

impl Answers {
    /// The next answer; none once the time is up. Cancelling loses none.
    async fn next(&mut self) -> Option<Result<Reply, CallError>> {
        if self.ended {
            return None;
        }
        let answer = tokio::select! {
            biased;
            arrival = self.waiting.answer() => match arrival {
                Some(Arrival::Message(message)) => read(*message),
                Some(Arrival::Denied) => Err(CallError::Refused(WireError::new(
                    ErrorCode::Denied,
                    "the bus does not let this user ask there",
                ))),
                None => Err(CallError::Disconnected),
            },
            _ = self.state.changed() => Err(CallError::Disconnected),
            () = sleep_until(self.deadline) => {
                self.ended = true;
                return None;
            }
        };
        self.ended = matches!(
            answer,
            Err(CallError::Disconnected | CallError::NoResponders)
        );
        Some(answer)
    }
}

/// Answers to a request to many; ends at the timeout.
pub struct Replies<R> {
    first: Option<Result<Reply, CallError>>,
    answers: Answers,
    read_as: PhantomData<fn() -> R>,
}

impl<R> Replies<R> {
    /// The next answer as it came; none once the time is up.
    pub async fn next_reply(&mut self) -> Option<Result<Reply, CallError>> {
        match self.first.take() {
            Some(first) => Some(first),
            None => self.answers.next().await,
        }
    }
}

impl<R: DeserializeOwned> Replies<R> {
    /// The next answer; none once the time is up.
    pub async fn next(&mut self) -> Option<Result<R, CallError>> {
        let reply = self.next_reply().await?;
        Some(reply.and_then(|reply| reply.decode()))
    }
}

/// Adds the `Content-Type` where the first byte does not tell that it is MessagePack: no map.
fn with_form<'a>(payload: &[u8], headers: &[(&'a str, String)]) -> Vec<(&'a str, String)> {
    let mut all = headers.to_vec();
    if Form::of(None, payload) != Form::MessagePack {
        all.push((CONTENT_TYPE, Form::MessagePack.content_type().to_owned()));
    }
    all
}

/// Tells an answer from an error, and from the server's word that nobody is there.
fn read(message: async_nats::Message) -> Result<Reply, CallError> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(CallError::NoResponders);
    }
    let reply = Reply {
        headers: Headers::new(message.headers),
        payload: message.payload,
    };
    if reply.headers.get(ERROR_CODE).is_none() {
        return Ok(reply);
    }
    let said = reply.headers.get(ERROR).unwrap_or("an error without words");
    let error = codec::decode(reply.form(), &reply.payload)
        .unwrap_or_else(|_| WireError::new(ErrorCode::Unknown, said));
    Err(CallError::Refused(error))
}
