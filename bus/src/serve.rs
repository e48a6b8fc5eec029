//! The other end of a request: who asks, what, until when; and one answer, whatever happens.
//!
//! Mailboxes behind it are unbounded, so the limits are here: what is too much, too large or too
//! late is answered at once and never seen by whoever serves. Everything is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Subscriber;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::wire::Caller;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::caller;
use crate::codec::{self, Form};
use crate::connection::{Bus, BusError};
use crate::header::{
    COMMAND_ID, CONTENT_TYPE, DEADLINE, ERROR, ERROR_CODE, Headers, RETRY_AFTER, one_line,
};

/// What is taken in before somebody serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeLimits {
    /// Requests handed out and not yet answered; beyond it they are answered `busy`.
    pub max_in_flight: usize,
    /// Bytes of payload; beyond it they are answered `too-large`.
    pub max_payload: usize,
    /// What `busy` says after how long to try again.
    pub retry_after: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            max_in_flight: 1024,
            max_payload: 1024 * 1024,
            retry_after: Duration::from_secs(1),
        }
    }
}

/// What became of the requests served on a connection, since it was made.
#[derive(Debug, Default)]
pub struct ServeCounters {
    /// All that came in.
    pub received: AtomicU64,
    /// Answered by whoever serves, errors among them.
    pub answered: AtomicU64,
    /// Answered `busy`.
    pub busy: AtomicU64,
    /// Answered `too-large`.
    pub too_large: AtomicU64,
    /// Answered `expired`.
    pub expired: AtomicU64,
    /// Payloads that could not be read.
    pub undecodable: AtomicU64,
    /// Dropped by whoever serves, and therefore answered `internal`.
    pub dropped: AtomicU64,
    /// Not answered because the requester wanted the answer on a subject of Loom or the server.
    pub misdirected: AtomicU64,
}

/// What became of the requests to one subject that is served.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Tallied>);

/// See [`Tally`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// All that came in.
    pub requests: u64,
    /// Answered, errors among them.
    pub answered: u64,
    /// Answered with an error.
    pub errors: u64,
    /// The last error in words; empty if there was none.
    pub last_error: String,
    /// From their arrival to their answers, all together.
    pub time: Duration,
}

impl Tally {
    /// What became of them so far.
    pub fn look(&self) -> Tallied {
        self.with(|tallied| tallied.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Tallied) -> T) -> T {
        // Every change is a few additions: a panic elsewhere leaves nothing half done.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Requests as they come. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Requests {
    tally: Arc<Tally>,
    subscriber: Subscriber,
    bus: Bus,
    limits: ServeLimits,
    room: Arc<Semaphore>,
    runtime: Handle,
}

/// One request; answer it with [`reply`](Self::reply) or [`refuse`](Self::refuse).
///
/// Dropped without either, it is answered `internal`, so that nobody waits in vain for an actor
/// that ended.
#[derive(Debug)]
pub struct Request {
    /// What it was sent to.
    pub subject: String,
    /// Who sent it, as the server knows them.
    pub caller: Caller,
    /// Its payload.
    pub payload: Bytes,
    /// What the payload is written in.
    pub form: Form,
    /// Its headers.
    pub headers: Headers,
    answer: Option<Answer>,
    bus: Bus,
    runtime: Handle,
    /// Its place among those in flight.
    place: Option<OwnedSemaphorePermit>,
    /// Whether it was dropped by whoever served it: then nobody else speaks for it.
    dropped: bool,
    arrived: Instant,
    tally: Arc<Tally>,
}

/// Where the answer goes.
#[derive(Debug)]
struct Answer {
    subject: Option<String>,
}

impl Bus {
    /// Serves a subject, wildcards allowed; with `queue`, one of the group gets each request.
    pub async fn serve(
        &self,
        subject: &str,
        queue: Option<&str>,
        limits: ServeLimits,
    ) -> Result<Requests, BusError> {
        let subscriber = self.subscriber(subject, queue).await?;
        Ok(Requests {
            tally: Arc::default(),
            subscriber,
            bus: self.clone(),
            limits,
            room: Arc::new(Semaphore::new(limits.max_in_flight)),
            runtime: Handle::current(),
        })
    }
}

impl Requests {
    /// What becomes of them, also once this is gone.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Takes no more; what the server has already sent still comes by [`next`](Self::next), then
    /// none. So nobody who asked in time is left without an answer.
    pub async fn drain(&mut self) {
        // A connection that is closed has nothing to drain.
        if let Err(error) = self.subscriber.drain().await {
            tracing::debug!(%error, "a subscription is not drained");
        }
    }

    /// The next request within the limits; none once the connection is closed or all is drained.
    pub async fn next(&mut self) -> Option<Request> {
        loop {
            let message = self.subscriber.next().await?;
            count(&self.bus.shared.counters.received);
            self.tally.with(|tallied| tallied.requests += 1);
            let mut request = self.take(message);
            match self.admit(&mut request) {
                Ok(()) => return Some(request),
                Err(refusal) => request.send_refusal(refusal, &self.retry_after()).await,
            }
        }
    }

    fn take(&self, message: async_nats::Message) -> Request {
        let headers = Headers::new(message.headers);
        let reply = message.reply.map(async_nats::Subject::into_string);
        Request {
            subject: message.subject.into_string(),
            caller: caller::of_request(reply.as_deref(), &headers),
            form: Form::of(headers.get(CONTENT_TYPE), &message.payload),
            payload: message.payload,
            headers,
            answer: Some(Answer { subject: reply }),
            bus: self.bus.clone(),
            runtime: self.runtime.clone(),
            place: None,
            dropped: false,
            arrived: Instant::now(),
            tally: Arc::clone(&self.tally),
        }
    }

    fn admit(&self, request: &mut Request) -> Result<(), WireError> {
        let counters = &self.bus.shared.counters;
        let (size, limit) = (request.payload.len(), self.limits.max_payload);
        if size > limit {
            count(&counters.too_large);
            let message = format!("a request of {size} bytes is more than is taken here ({limit})");
            return Err(WireError::new(ErrorCode::TooLarge, message));
        }
        if let Some(deadline) = request.deadline()
            && deadline < self.bus.now()
        {
            count(&counters.expired);
            let message = format!("the deadline {deadline} of the request has passed");
            return Err(WireError::new(ErrorCode::Expired, message));
        }
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            count(&counters.busy);
            let message = format!(
                "{} requests wait here already; try again after {:?}",
                self.limits.max_in_flight, self.limits.retry_after
            );
            return Err(WireError::new(ErrorCode::Busy, message));
        };
        request.place = Some(place);
        Ok(())
    }

    /// Whole seconds, at least one: what the header can say.
    fn retry_after(&self) -> String {
        let seconds = self.limits.retry_after.as_secs_f64().ceil().max(1.0);
        format!("{seconds}")
    }
}

impl Request {
    /// A token of the subject, from 0.
    pub fn token(&self, n: usize) -> Option<&str> {
        self.subject.split('.').nth(n)
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// Reads the payload; the error is ready to be sent back. An empty payload is the empty map.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        codec::decode(self.form, &self.payload).map_err(|error| {
            count(&self.bus.shared.counters.undecodable);
            error.into()
        })
    }

    /// The payload if it is bare text, without white space around it; none if it is empty.
    pub fn text(&self) -> Option<&str> {
        if self.form != Form::Text {
            return None;
        }
        let text = std::str::from_utf8(&self.payload).ok()?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// When it is of no more use to the requester, in the leader's time.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.header(DEADLINE)?.parse().ok()
    }

    /// The id under which a repeat of it is known.
    pub fn command_id(&self) -> Option<&str> {
        self.header(COMMAND_ID)
    }

    /// Whether anybody waits for an answer; a plain publish has none.
    pub fn wants_reply(&self) -> bool {
        self.answer.as_ref().is_some_and(|a| a.subject.is_some())
    }

    /// Answers in the request's form; what cannot be sent is logged.
    pub async fn reply<T: Serialize + ?Sized>(self, value: &T) {
        self.reply_with(value, &[]).await;
    }

    /// The same with headers.
    pub async fn reply_with<T>(mut self, value: &T, headers: &[(&str, String)])
    where
        T: Serialize + ?Sized,
    {
        let form = self.form.of_reply();
        match codec::encode(form, value) {
            Ok(payload) => {
                count(&self.bus.shared.counters.answered);
                self.send(payload, form, headers).await;
            }
            Err(error) => {
                tracing::error!(subject = self.subject, "an answer was not written: {error}");
                let error = WireError::new(ErrorCode::Internal, "the answer could not be written");
                self.refuse(error).await;
            }
        }
    }

    /// Answers with bytes as they are.
    pub async fn reply_bytes(mut self, payload: Bytes, form: Form, headers: &[(&str, String)]) {
        count(&self.bus.shared.counters.answered);
        self.send(payload, form, headers).await;
    }

    /// Answers with an error, in the request's form.
    pub async fn refuse(mut self, error: WireError) {
        count(&self.bus.shared.counters.answered);
        self.send_refusal(error, "1").await;
    }

    async fn send_refusal(&mut self, error: WireError, retry_after: &str) {
        let form = self.form.of_reply();
        let mut headers = vec![
            (ERROR, one_line(&error.message)),
            (ERROR_CODE, error.code.status().to_string()),
        ];
        if error.code == ErrorCode::Busy {
            headers.push((RETRY_AFTER, retry_after.to_owned()));
        }
        self.tally.with(|tallied| {
            tallied.errors += 1;
            tallied.last_error = one_line(&error.message);
        });
        // An enum's name and a string always encode.
        let payload = codec::encode(form, &error).unwrap_or_default();
        self.send(payload, form, &headers).await;
    }

    /// Sends the answer once; an answer that is too large becomes an error that says so.
    async fn send(&mut self, payload: Bytes, form: Form, headers: &[(&str, String)]) {
        let Some(Answer { subject: Some(to) }) = self.answer.take() else {
            return;
        };
        if is_ours(&to) {
            count(&self.bus.shared.counters.misdirected);
            tracing::warn!(
                subject = self.subject,
                to,
                "an answer was asked on a forbidden subject"
            );
            return;
        }
        let took = self.arrived.elapsed();
        self.tally.with(|tallied| {
            tallied.answered += 1;
            tallied.time += took;
        });
        let deadline = Instant::now() + self.bus.shared.timeout;
        let mut all = vec![(CONTENT_TYPE, form.content_type().to_owned())];
        all.extend_from_slice(headers);
        match self.bus.send(&to, None, payload, &all, deadline).await {
            Ok(()) => {}
            Err(BusError::TooLarge { size, limit }) => {
                let message = format!(
                    "the answer has {size} bytes, more than the bus takes ({limit}): ask for less"
                );
                let error = WireError::new(ErrorCode::TooLarge, message);
                self.answer = Some(Answer { subject: Some(to) });
                Box::pin(self.send_refusal(error, "1")).await;
            }
            Err(error) => {
                tracing::warn!(subject = self.subject, "an answer was not sent: {error}");
            }
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // A runtime that shuts down drops what it is given at once: this must not give it again.
        if self.dropped {
            return;
        }
        let Some(answer) = self.answer.take() else {
            return;
        };
        count(&self.bus.shared.counters.dropped);
        if answer.subject.is_none() {
            return;
        }
        let request = Self {
            subject: std::mem::take(&mut self.subject),
            caller: self.caller.clone(),
            payload: Bytes::new(),
            form: self.form,
            headers: Headers::default(),
            answer: Some(answer),
            bus: self.bus.clone(),
            runtime: self.runtime.clone(),
            place: None,
            dropped: true,
            arrived: self.arrived,
            tally: Arc::clone(&self.tally),
        };
        self.runtime.spawn(answer_dropped(request));
    }
}

/// Whoever had the request is gone.
async fn answer_dropped(mut request: Request) {
    let message = "the part of Loom that had the request ended before it answered";
    let error = WireError::new(ErrorCode::Internal, message);
    request.send_refusal(error, "1").await;
    // Whatever came of it, it was tried once.
    request.answer = None;
}

/// An answer there would be taken for something Loom or the server says.
fn is_ours(subject: &str) -> bool {
    subject.starts_with("orch.") || subject.starts_with('$')
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
