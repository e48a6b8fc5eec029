//! One connection to the bus: connect with a version check, publish, subscribe.
//!
//! Every wait is bounded. A connection that was up once is kept up for ever: it reconnects by
//! itself and its subscriptions with it. What cannot be sent meanwhile is an error after the
//! connection's timeout, never a silent queue without end.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use loom_schemas::ids::Name;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::facts::ServerFacts;
use crate::header::{self, Headers};
use crate::inbox::Inbox;
use crate::serve::ServeCounters;

mod connect;
mod credentials;
mod target;
mod tls;
mod watched;

pub use connect::{ConnectError, FLOOR};
pub(crate) use credentials::NODE_TAG;
pub use tls::Tls;

pub(crate) use watched::Watched;

/// Messages that may wait in one subscription; beyond it they are dropped, and noticed.
pub const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// How to reach the bus, and as whom.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// One server or several, separated by commas: `tls://a:4222,tls://b:4222`.
    pub url: String,
    /// As whom; a user and password in the URL are taken if this is [`Login::None`].
    pub login: Login,
    /// Certificates, where the bus uses TLS.
    pub tls: Tls,
    /// Allows a bus off this machine without TLS or credentials.
    pub insecure: bool,
    /// What the connection is called in the server's lists.
    pub name: String,
    /// Refuse a server, or an account, without `JetStream`.
    pub require_jetstream: bool,
    /// The longest that connecting, and later one publish, may take.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            login: Login::None,
            tls: Tls::default(),
            insecure: false,
            name: "loom".to_owned(),
            require_jetstream: false,
            timeout: Duration::from_secs(5),
        }
    }
}

impl ConnectOptions {
    /// The address as it may be shown: without credentials.
    pub fn shown_url(&self) -> String {
        target::without_credentials(&self.url)
    }
}

/// As whom to connect.
#[derive(Clone, Default)]
pub enum Login {
    /// As whom the server takes anybody.
    #[default]
    None,
    /// By name and password.
    User {
        /// The user.
        name: String,
        /// Never shown or logged.
        password: String,
    },
    /// By a NATS credentials file.
    CredentialsFile(PathBuf),
}

impl ConnectOptions {
    /// The node whose credentials these are, as they say themselves; none if they are somebody else's or
    /// cannot be read, which connecting tells.
    pub fn node(&self) -> Option<Name> {
        let Login::CredentialsFile(path) = &self.login else {
            return None;
        };
        credentials::node_of(&std::fs::read_to_string(path).ok()?)
    }
}

/// Without the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::User { name, .. } => write!(f, "User({name})"),
            Self::CredentialsFile(path) => write!(f, "CredentialsFile({})", path.display()),
        }
    }
}

/// Whether the connection is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// It is.
    Connected,
    /// It was, and is being made again.
    Disconnected,
    /// It is over: every handle to it is gone.
    Closed,
}

/// Why something could not be sent or subscribed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The connection is down, and stayed down for as long as one waits.
    #[error("the bus is not connected")]
    Disconnected,
    /// The connection is up but takes nothing more.
    #[error("the bus took nothing for {0:?}")]
    Timeout(Duration),
    /// Not a subject.
    #[error("`{0}` is not a subject")]
    Subject(String),
    /// A header without a name, or with a line break or another control character.
    #[error("header `{name}` cannot be sent: it has no name, or a control character in it")]
    Header {
        /// Which.
        name: String,
    },
    /// More than the server takes.
    #[error("a message of {size} bytes is more than the bus takes ({limit})")]
    TooLarge {
        /// Bytes of payload.
        size: usize,
        /// The server's limit in bytes.
        limit: usize,
    },
    /// The connection is over.
    #[error("the connection to the bus is closed")]
    Closed,
}

/// A handle to a connection; cheap to clone. The last one dropped closes it.
#[derive(Clone)]
pub struct Bus {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) inbox: Inbox,
    pub(crate) timeout: Duration,
    pub(crate) counters: Arc<ServeCounters>,
    watched: Arc<Watched>,
    api_level: Option<u32>,
    /// Where, without credentials: for messages.
    shown: String,
    /// Milliseconds to add to this host's clock to get the leader's.
    clock_offset: AtomicI64,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("state", &self.shared.watched.state())
            .finish_non_exhaustive()
    }
}

impl Bus {
    /// Connects once; every failure is one clear line. See [`Bus::connect_patiently`].
    pub async fn connect(options: ConnectOptions) -> Result<Self, ConnectError> {
        connect::connect(options).await
    }

    /// Connects, trying again for as long as `patience` lasts (for ever if none) while the bus is
    /// not there or not ready; a bus that is too old or refuses the credentials ends it at once.
    pub async fn connect_patiently(
        options: ConnectOptions,
        patience: Option<Duration>,
    ) -> Result<Self, ConnectError> {
        connect::connect_patiently(options, patience).await
    }

    /// Sends a message that nobody need answer.
    ///
    /// While the connection is down up to 2048 messages wait for it; then it fails after the
    /// connection's timeout.
    pub async fn publish(
        &self,
        subject: &str,
        payload: Bytes,
        headers: &[(&str, String)],
    ) -> Result<(), BusError> {
        let deadline = Instant::now() + self.shared.timeout;
        self.send(subject, None, payload, headers, deadline).await
    }

    pub(crate) async fn send(
        &self,
        subject: &str,
        reply: Option<&str>,
        payload: Bytes,
        headers: &[(&str, String)],
        deadline: Instant,
    ) -> Result<(), BusError> {
        let client = &self.shared.client;
        if self.shared.watched.is_unfit() {
            return Err(BusError::Disconnected);
        }
        let limit = client.max_payload();
        if payload.len() > limit {
            let size = payload.len();
            return Err(BusError::TooLarge { size, limit });
        }
        let size = payload.len();
        let headers = header::build(headers)?;
        let subject = subject.to_owned();
        let sent = timeout_at(deadline, async {
            match (reply.map(str::to_owned), headers.is_empty()) {
                (None, true) => client.publish(subject, payload).await,
                (None, false) => client.publish_with_headers(subject, headers, payload).await,
                (Some(reply), true) => client.publish_with_reply(subject, reply, payload).await,
                (Some(reply), false) => {
                    client
                        .publish_with_reply_and_headers(subject, reply, headers, payload)
                        .await
                }
            }
        });
        sent.await
            .map_err(|_| self.not_sent())?
            .map_err(|error| match error.kind() {
                async_nats::PublishErrorKind::MaxPayloadExceeded => {
                    BusError::TooLarge { size, limit }
                }
                async_nats::PublishErrorKind::InvalidSubject => {
                    BusError::Subject(error.to_string())
                }
                async_nats::PublishErrorKind::Send => BusError::Closed,
            })
    }

    fn not_sent(&self) -> BusError {
        if self.is_connected() {
            BusError::Timeout(self.shared.timeout)
        } else {
            BusError::Disconnected
        }
    }

    /// Receives what is published on a subject; wildcards are allowed.
    pub async fn subscribe(&self, subject: &str) -> Result<Messages, BusError> {
        let subscriber = self.subscriber(subject, None).await?;
        Ok(Messages {
            subscriber,
            watched: Arc::clone(&self.shared.watched),
            dropped_seen: self.dropped(),
        })
    }

    pub(crate) async fn subscriber(
        &self,
        subject: &str,
        queue: Option<&str>,
    ) -> Result<Subscriber, BusError> {
        let client = &self.shared.client;
        let name = subject.to_owned();
        let made = timeout(self.shared.timeout, async {
            match queue {
                Some(queue) => client.queue_subscribe(name, queue.to_owned()).await,
                None => client.subscribe(name).await,
            }
        });
        made.await
            .map_err(|_| self.not_sent())?
            .map_err(|error| match error.kind() {
                async_nats::SubscribeErrorKind::Other => BusError::Closed,
                async_nats::SubscribeErrorKind::InvalidSubject
                | async_nats::SubscribeErrorKind::InvalidQueueName => {
                    BusError::Subject(subject.to_owned())
                }
            })
    }

    /// Whether the connection is up at this moment.
    pub fn is_connected(&self) -> bool {
        self.shared.watched.state() == ConnectionState::Connected
    }

    /// The connection's state as it changes.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.shared.watched.subscribe()
    }

    /// Waits until what was published before is written to the server's socket, at most for the
    /// connection's timeout.
    pub async fn flush(&self) {
        let flushed = timeout(self.shared.timeout, self.shared.client.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::debug!("the bus was not flushed: {}", self.not_sent());
        }
    }

    /// What the server said of itself when the connection was last made.
    pub fn server(&self) -> ServerFacts {
        ServerFacts::of_info(&self.shared.client.server_info(), self.shared.api_level)
    }

    /// How long a request takes that the server itself answers.
    ///
    /// Subscriptions made before are known to this server afterwards.
    pub async fn round_trip(&self) -> Result<Duration, BusError> {
        // Every user may ask this, and nobody else's subscription can take it.
        const ASK: &str = "$SYS.REQ.USER.INFO";
        let begun = Instant::now();
        let deadline = begun + self.shared.timeout;
        let mut waiting = self.shared.inbox.one(ASK);
        let reply = waiting.subject().to_owned();
        self.send(ASK, Some(&reply), Bytes::new(), &[], deadline)
            .await?;
        match timeout_at(deadline, waiting.answer()).await {
            // A refusal has gone there and back as well.
            Ok(Some(_)) => Ok(begun.elapsed()),
            Ok(None) => Err(BusError::Closed),
            Err(_) => Err(self.not_sent()),
        }
    }

    /// How many messages this connection dropped because a subscription of it was full.
    pub fn dropped(&self) -> u64 {
        self.shared.watched.dropped()
    }

    /// What became of the requests served on this connection.
    pub fn counters(&self) -> Arc<ServeCounters> {
        Arc::clone(&self.shared.counters)
    }

    /// Says how far the leader's clock is ahead of this host's; deadlines are the leader's time.
    pub fn set_clock_offset(&self, ahead: SignedDuration) {
        let millis = i64::try_from(ahead.as_millis()).unwrap_or(0);
        self.shared.clock_offset.store(millis, Ordering::Relaxed);
    }

    /// How much is left until a deadline, by the leader's clock; zero once it has passed.
    pub fn time_left(&self, deadline: Timestamp) -> Duration {
        Duration::try_from(deadline.duration_since(self.now())).unwrap_or_default()
    }

    /// The leader's time as far as this host knows it.
    pub(crate) fn now(&self) -> Timestamp {
        let ahead = self.shared.clock_offset.load(Ordering::Relaxed);
        let now = Timestamp::now();
        now.checked_add(SignedDuration::from_millis(ahead))
            .unwrap_or(now)
    }
}

/// What is published on a subject. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Messages {
    subscriber: Subscriber,
    watched: Arc<Watched>,
    dropped_seen: u64,
}

impl Messages {
    /// The next message; none once the connection is closed.
    pub async fn next(&mut self) -> Option<Message> {
        self.subscriber.next().await.map(Message::new)
    }

    /// Whether the connection has dropped messages, of this subscription or of another one of
    /// it, since this was last asked: then read again what must not be missed.
    pub fn take_lagged(&mut self) -> bool {
        let dropped = self.watched.dropped();
        std::mem::replace(&mut self.dropped_seen, dropped) != dropped
    }
}

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// What it was published on.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

impl Message {
    fn new(message: async_nats::Message) -> Self {
        Self {
            subject: message.subject.into_string(),
            headers: Headers::new(message.headers),
            payload: message.payload,
        }
    }
}
