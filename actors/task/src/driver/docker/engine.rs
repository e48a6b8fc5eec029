//! The connection to the Docker Engine: found, lost, found again.
//!
//! The engine is watched by a connection on which nothing is ever asked: it closes in the moment the
//! engine ends, which no call in flight and no time limit tells as soon. What becomes of containers
//! is heard on another one (`events`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::events::{self, Fates};
use super::trouble;
use crate::driver::DriverError;

/// Where the engine listens if nobody says otherwise.
pub(super) const SOCKET: &str = "/var/run/docker.sock";

/// How long the engine has to say that it is there.
const PING: Duration = Duration::from_secs(5);

/// How soon an engine that went away is looked for.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// How often one is looked for that stays away.
pub(super) const LOOK_MAX: Duration = Duration::from_secs(1);

/// How long one call may take until its answer begins, in seconds: a start on a loaded host.
const CALL_SECS: u64 = 120;

/// The oldest API that has all that is used here: that of Engine 20.10.
const OLDEST: (usize, usize) = (1, 41);

/// The longest answer to a ping, in bytes.
const ANSWER_MAX: u64 = 8 * 1024;

/// Whether the engine is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Nobody has looked.
    Unknown,
    There,
    Away,
}

/// The engine at one socket.
pub(super) struct Engine {
    socket: PathBuf,
    client: Mutex<Option<Docker>>,
    presence: watch::Sender<Presence>,
    /// How often it was found: after it was away, or after it hung up. Where something else keeps its
    /// socket open it is never away, and may still be another one.
    finds: watch::Sender<u64>,
    /// What it tells of containers.
    pub(super) fates: Fates,
    /// Containers that have died and with which the engine is not through: their ports are taken.
    closing: watch::Sender<usize>,
}

/// A container that has died and with which the engine is not through, while this is held.
pub(super) struct Closing(Arc<Engine>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closing.send_modify(|closing| *closing -= 1);
    }
}

impl Engine {
    pub(super) fn new(socket: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            socket,
            client: Mutex::default(),
            presence: watch::Sender::new(Presence::Unknown),
            finds: watch::Sender::new(0),
            fates: Fates::default(),
            closing: watch::Sender::new(0),
        })
    }

    /// Begins to watch whether it is there; to be called in a runtime, and again without harm.
    pub(super) fn watch(self: &Arc<Self>) {
        let first = self.presence.send_if_modified(|presence| {
            let first = *presence == Presence::Unknown;
            if first {
                *presence = Presence::There;
            }
            first
        });
        if first {
            tokio::spawn(watch(Arc::downgrade(self)));
            tokio::spawn(events::listen(Arc::downgrade(self)));
        }
    }

    /// A client that speaks its version of the API.
    pub(super) async fn docker(&self) -> Result<Docker, DriverError> {
        let known = self.lock().clone();
        if let Some(docker) = known {
            return Ok(docker);
        }
        let docker = self.connect().await?;
        *self.lock() = Some(docker.clone());
        Ok(docker)
    }

    async fn connect(&self) -> Result<Docker, DriverError> {
        let version = self
            .ping()
            .await
            .map_err(|error| trouble::away(&self.socket, &error))?;
        let older = (version.major_version, version.minor_version) < OLDEST;
        if older {
            return Err(DriverError::Unavailable(format!(
                "the Docker Engine at {} is too old: its API is {}.{}, Engine 20.10 (API 1.41) is \
                 the oldest that will do",
                self.socket.display(),
                version.major_version,
                version.minor_version
            )));
        }
        let version = if &version < API_DEFAULT_VERSION {
            version
        } else {
            *API_DEFAULT_VERSION
        };
        let path = self.socket.to_string_lossy();
        Docker::connect_with_unix(&path, CALL_SECS, &version)
            .map_err(|error| self.failed("connect to the Docker Engine", &error))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Docker>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of its API; an error if it does not answer.
    async fn ping(&self) -> io::Result<ClientVersion> {
        ping(&self.socket).await
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its `changed` fails once nobody uses the engine any more.
    pub(super) fn in_use(&self) -> watch::Receiver<usize> {
        self.closing.subscribe()
    }

    /// Says that a container has died, until what is returned is dropped.
    pub(super) fn closing(self: &Arc<Self>) -> Closing {
        self.closing.send_modify(|closing| *closing += 1);
        Closing(Arc::clone(self))
    }

    /// Resolves when the engine is through with every container that has died.
    pub(super) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // It cannot fail: the sender lives as long as `self`.
        let _ = closing.wait_for(|closing| *closing == 0).await;
    }

    /// Resolves when the engine is away, at once if it is now.
    pub(super) async fn lost(&self) {
        let mut presence = self.presence.subscribe();
        // It cannot fail: the sender lives as long as `self`.
        let _ = presence
            .wait_for(|presence| *presence == Presence::Away)
            .await;
    }

    /// Resolves when the engine is there.
    pub(super) async fn found(&self) {
        let mut presence = self.presence.subscribe();
        let _ = presence
            .wait_for(|presence| *presence != Presence::Away)
            .await;
    }

    /// How often it was found.
    pub(super) fn finds(&self) -> watch::Receiver<u64> {
        self.finds.subscribe()
    }

    /// What a call that failed means, where no more is known of it.
    pub(super) fn failed(&self, context: &str, error: &bollard::errors::Error) -> DriverError {
        trouble::of_call(&self.socket, context, error)
    }
}

/// Watches the engine until nobody uses it any more.
async fn watch(engine: Weak<Engine>) {
    let mut pause = LOOK;
    loop {
        let Some(known) = engine.upgrade() else {
            return;
        };
        // Before it is asked: that it is replaced by another as soon as it has answered shows here.
        let quiet = UnixStream::connect(&known.socket).await;
        let there = known.ping().await;
        let before = match &there {
            Ok(_) => known.presence.send_replace(Presence::There),
            Err(error) => {
                let before = known.presence.send_replace(Presence::Away);
                // One that never answered is not missed: whoever needs it is told so.
                let was_found = *known.finds.borrow() > 0 || known.lock().is_some();
                if before == Presence::There && was_found {
                    tracing::warn!(socket = %known.socket.display(), %error, "the Docker Engine is away");
                }
                before
            }
        };
        if there.is_ok() {
            // It may be another version.
            *known.lock() = None;
            known.finds.send_modify(|finds| *finds += 1);
        }
        if there.is_ok() && before == Presence::Away {
            tracing::info!(socket = %known.socket.display(), "the Docker Engine is back");
        }
        drop(known);
        if there.is_ok()
            && let Ok(mut quiet) = quiet
        {
            let mut byte = [0];
            // Ends with the engine, or when it tires of a caller that asks nothing.
            let _ = quiet.read(&mut byte).await;
            pause = LOOK;
        } else {
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }
}

/// Asks the engine for the version of its API, which no versioned call can be made without.
pub(super) async fn ping(socket: &Path) -> io::Result<ClientVersion> {
    let asked = timeout(PING, ask(socket)).await;
    asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask(socket: &Path) -> io::Result<ClientVersion> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    version(&answer).ok_or_else(|| {
        let text = String::from_utf8_lossy(&answer);
        let first = text.lines().next().unwrap_or("nothing").to_owned();
        io::Error::new(io::ErrorKind::InvalidData, format!("it answered: {first}"))
    })
}

/// The version in the head of an answer.
fn version(answer: &[u8]) -> Option<ClientVersion> {
    let text = String::from_utf8_lossy(answer);
    let mut lines = text.lines();
    if lines.next()?.split(' ').nth(1)? != "200" {
        return None;
    }
    let version = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("api-version").then_some(value)
    });
    let (major, minor) = version?.trim().split_once('.')?;
    Some(ClientVersion {
        major_version: major.parse().ok()?,
        minor_version: minor.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_head_of_the_answer() {
        let read = |text: &str| {
            version(text.as_bytes()).map(|version| (version.major_version, version.minor_version))
        };
        assert_eq!(
            read("HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n\r\nOK"),
            Some((1, 41))
        );
        assert_eq!(read("HTTP/1.1 500 No\r\nApi-Version: 1.41\r\n\r\n"), None);
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\n"), None);
        assert_eq!(read(""), None);
    }
}
