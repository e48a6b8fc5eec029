//! Making a connection, and saying in one line why there is none.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_nats::Client;
use rand::RngExt;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::credentials::node_of;
use super::target::{Target, nearest_first};
use super::watched::{Watched, recheck};
use super::{Bus, ConnectOptions, Login, SUBSCRIPTION_CAPACITY, Shared, tls};
use crate::facts::{Version, parse_version};
use crate::inbox::Inbox;
use crate::serve::ServeCounters;

/// The oldest nats-server that Loom works with.
pub const FLOOR: Version = (2, 15, 1);

/// The `JetStream` API level of [`FLOOR`].
const API_LEVEL: u32 = 5;

/// A server that is silent is given up after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The least time that one of several servers has to answer.
const LEAST_SHARE: Duration = Duration::from_secs(1);

/// The longest pause between two attempts to connect again.
pub(super) const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// Why there is no connection: one line, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be read.
    #[error("`{url}` is not a bus address: expected nats://host:port, several by commas")]
    Url {
        /// As given, without credentials.
        url: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The credentials file cannot be read.
    #[error("credentials file {path} cannot be read", path = path.display())]
    Credentials {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An address that others can listen in on, without TLS.
    #[error(
        "{url} is not on this machine, and without TLS everyone on the way could read and change \
         everything: write tls://, name its authority with --tls-ca, or allow it with --insecure"
    )]
    NoTls {
        /// Where, without credentials.
        url: String,
    },
    /// An address that others can reach, without credentials.
    #[error(
        "{url} is not on this machine, and a bus that asks for no credentials takes orders from \
         everyone: give --creds or a client certificate, or allow it with --insecure"
    )]
    NoCredentials {
        /// Where, without credentials.
        url: String,
    },
    /// A file for TLS cannot be used.
    #[error("{path} cannot be used for TLS: {reason}", path = path.display())]
    TlsFile {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Nobody listens there, or it cannot be reached.
    #[error("no bus at {url} ({reason}); start one with `loomctl dev`, or name it with --bus")]
    Unreachable {
        /// Where, without credentials.
        url: String,
        /// What the network said.
        reason: String,
    },
    /// Somebody listens there and does not speak.
    #[error("{url} does not answer like a NATS server within {waited:?}")]
    NoAnswer {
        /// Where, without credentials.
        url: String,
        /// How long it was waited.
        waited: Duration,
    },
    /// The server does not know these credentials.
    #[error("the bus at {url} refuses the credentials ({login}); see --creds")]
    Denied {
        /// Where, without credentials.
        url: String,
        /// As whom, without the password.
        login: String,
    },
    /// The TLS handshake failed.
    #[error("no TLS connection to {url}: {reason}")]
    Tls {
        /// Where, without credentials.
        url: String,
        /// Why.
        reason: String,
    },
    /// An older server than Loom works with.
    #[error(
        "the bus at {url} is nats-server {found}, but Loom needs {needed} or newer: upgrade it, \
         or use the one that scripts/nats-server.sh fetches"
    )]
    TooOld {
        /// Where, without credentials.
        url: String,
        /// The version found.
        found: String,
        /// The version needed.
        needed: String,
    },
    /// A server or account without `JetStream`.
    #[error(
        "the bus at {url} has no JetStream for this account ({reason}); Loom keeps its log there"
    )]
    NoJetStream {
        /// Where, without credentials.
        url: String,
        /// What the server said.
        reason: String,
    },
    /// `JetStream` is on, but does not answer yet: it recovers, or has no quorum.
    #[error("JetStream of the bus at {url} is not ready ({reason})")]
    JetStreamNotReady {
        /// Where, without credentials.
        url: String,
        /// What the server said.
        reason: String,
    },
}

impl ConnectError {
    /// Whether it may go well later without anybody changing anything.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::JetStreamNotReady { .. }
        )
    }
}

pub(super) async fn connect_patiently(
    options: ConnectOptions,
    patience: Option<Duration>,
) -> Result<Bus, ConnectError> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        let error = match connect(options.clone()).await {
            Ok(bus) => return Ok(bus),
            Err(error) => error,
        };
        let spent = patience.is_some_and(|patience| begun.elapsed() + pause >= patience);
        if spent || !error.may_pass() {
            return Err(error);
        }
        tracing::info!("{error}; trying again");
        sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

pub(super) async fn connect(options: ConnectOptions) -> Result<Bus, ConnectError> {
    let target = Target::read(&options)?;
    let watched = Arc::new(Watched::new());
    let shared: Arc<OnceLock<Weak<Shared>>> = Arc::new(OnceLock::new());
    let nats = nats_options(&options, &watched, &shared);
    let nats = login(nats, &target.login).await?;
    let nats = tls::apply(nats, &options, &target).await?;
    let nats = nats.connection_timeout(share(options.timeout, target.servers.len()));
    let (servers, ordered) = nearest_first(target.addresses()).await;
    let nats = if ordered {
        nats.retain_servers_order()
    } else {
        nats
    };

    let limit = options.timeout;
    let no_answer = || ConnectError::NoAnswer {
        url: target.shown.clone(),
        waited: limit,
    };
    let client = timeout(limit, nats.connect(servers.as_slice()))
        .await
        .map_err(|_| no_answer())?
        .map_err(|error| target.failed(&error, limit))?;
    check_version(&client, &target.shown)?;
    let api_level = if options.require_jetstream {
        Some(check_jetstream(&client, &target.shown, limit).await?)
    } else {
        None
    };
    let inbox = timeout(limit, Inbox::open(&client))
        .await
        .map_err(|_| no_answer())?
        .map_err(|error| ConnectError::Unreachable {
            url: target.shown.clone(),
            reason: error.to_string(),
        })?;
    let bus = Bus {
        shared: Arc::new(Shared {
            client,
            inbox,
            timeout: options.timeout,
            counters: Arc::new(ServeCounters::default()),
            watched,
            api_level,
            shown: target.shown,
            clock_offset: 0.into(),
        }),
    };
    // Cannot be set already: it was made above.
    let _ = shared.set(Arc::downgrade(&bus.shared));
    Ok(bus)
}

fn nats_options(
    options: &ConnectOptions,
    watched: &Arc<Watched>,
    shared: &Arc<OnceLock<Weak<Shared>>>,
) -> async_nats::ConnectOptions {
    let (watched, shared) = (Arc::clone(watched), Arc::clone(shared));
    async_nats::ConnectOptions::new()
        .name(&options.name)
        .request_timeout(Some(options.timeout))
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_pause)
        .event_callback(move |event| {
            if let Some(connection) = watched.note(&event, shared.get())
                && let Some(shared) = shared.get()
            {
                tokio::spawn(recheck(Weak::clone(shared), connection));
            }
            std::future::ready(())
        })
}

/// What one server of several may take of the time to connect: the first may be silent, and then
/// there has to be time for the others.
fn share(whole: Duration, servers: usize) -> Duration {
    let servers = u32::try_from(servers.max(1)).unwrap_or(u32::MAX);
    (whole / servers).max(LEAST_SHARE.min(whole))
}

/// At once first, then doubling from 20 ms to a second, with jitter so that a fleet spreads out.
fn reconnect_pause(attempt: usize) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempt - 2).unwrap_or(u32::MAX).min(6);
    let whole = (Duration::from_millis(20) * 2_u32.pow(doublings)).min(RECONNECT_MAX);
    whole.mul_f64(rand::rng().random_range(0.5..1.0))
}

async fn login(
    nats: async_nats::ConnectOptions,
    login: &Login,
) -> Result<async_nats::ConnectOptions, ConnectError> {
    match login {
        Login::None => Ok(nats),
        Login::User { name, password } => {
            Ok(nats.user_and_password(name.clone(), password.clone()))
        }
        Login::CredentialsFile(path) => {
            let failed = |source| ConnectError::Credentials {
                path: path.clone(),
                source,
            };
            let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
            let nats = nats.credentials(&text).map_err(failed)?;
            // A node hears its own answers alone.
            Ok(match node_of(&text) {
                Some(node) => nats.custom_inbox_prefix(format!("_INBOX.{node}")),
                None => nats,
            })
        }
    }
}

pub(super) fn check_version(client: &Client, url: &str) -> Result<(), ConnectError> {
    let found = client.server_info().version;
    match parse_version(&found) {
        Some(version) if version >= FLOOR => Ok(()),
        _ => Err(ConnectError::TooOld {
            url: url.to_owned(),
            found: if found.is_empty() {
                "of an unknown version".to_owned()
            } else {
                crate::header::one_line(&found)
            },
            needed: format!("{}.{}.{}", FLOOR.0, FLOOR.1, FLOOR.2),
        }),
    }
}

/// The part of the answer to `$JS.API.INFO` that is looked at.
#[derive(Deserialize)]
struct AccountInfo {
    #[serde(default)]
    api: ApiInfo,
    error: Option<ApiError>,
}

#[derive(Default, Deserialize)]
struct ApiInfo {
    #[serde(default)]
    level: u32,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// Not ready yet: no contact with the meta leader, or the server still starts.
const PASSING_API_ERRORS: [u32; 3] = [10_008, 10_009, 10_052];

/// Returns the API level.
async fn check_jetstream(client: &Client, url: &str, limit: Duration) -> Result<u32, ConnectError> {
    let off = |reason: &str| ConnectError::NoJetStream {
        url: url.to_owned(),
        reason: reason.to_owned(),
    };
    let not_ready = |reason: &str| ConnectError::JetStreamNotReady {
        url: url.to_owned(),
        reason: reason.to_owned(),
    };
    if !client.server_info().jetstream {
        return Err(off("it is off on this server"));
    }
    let asked = timeout(limit, client.request("$JS.API.INFO", "".into())).await;
    let answer = asked
        .map_err(|_| not_ready("no answer"))?
        .map_err(|error| match error.kind() {
            async_nats::RequestErrorKind::NoResponders => off("nobody answers for it"),
            _ => not_ready(&error.to_string()),
        })?;
    let info: AccountInfo = serde_json::from_slice(&answer.payload)
        .map_err(|_| not_ready("its answer cannot be read"))?;
    match info.error {
        Some(error) if PASSING_API_ERRORS.contains(&error.err_code) => {
            Err(not_ready(&error.description))
        }
        Some(error) => Err(off(&error.description)),
        None if info.api.level < API_LEVEL => Err(ConnectError::TooOld {
            url: url.to_owned(),
            found: format!("with JetStream API level {}", info.api.level),
            needed: format!("level {API_LEVEL}"),
        }),
        None => Ok(info.api.level),
    }
}

/// The subject in the server's `Permissions Violation for Publish to "<subject>"`.
pub(super) fn denied_subject(text: &str) -> Option<&str> {
    let (what, rest) = text.split_once('"')?;
    let publish = what.to_ascii_lowercase().contains("for publish to");
    publish.then(|| rest.split('"').next()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_gets_its_share_of_the_time() {
        let whole = Duration::from_secs(6);
        assert_eq!(share(whole, 1), whole);
        assert_eq!(share(whole, 3), Duration::from_secs(2));
        assert_eq!(share(whole, 60), LEAST_SHARE);
        let short = Duration::from_millis(200);
        assert_eq!(share(short, 3), short);
    }

    #[test]
    fn pauses_grow_to_a_second() {
        assert_eq!(reconnect_pause(1), Duration::ZERO);
        assert!(reconnect_pause(2) <= Duration::from_millis(20));
        assert!(reconnect_pause(usize::MAX) <= RECONNECT_MAX);
        assert!(reconnect_pause(usize::MAX) >= RECONNECT_MAX / 2);
    }

    #[test]
    fn a_denied_subject_is_read_from_the_servers_words() {
        let text = "Permissions Violation for Publish to \"orch.assign.n1\"";
        assert_eq!(denied_subject(text), Some("orch.assign.n1"));
        assert_eq!(
            denied_subject("Permissions Violation for Subscription to \"a\""),
            None
        );
        assert_eq!(denied_subject("maximum connections exceeded"), None);
    }
}
