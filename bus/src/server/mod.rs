//! The embedded nats-server: found, configured, supervised as a child.
//!
//! It keeps everything in one directory, which it locks, and goes on where it was when started
//! there again. It ends with its parent, also when that is killed: the kernel sends it `SIGKILL`
//! when the thread that started it ends, and that thread does nothing but wait for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use crate::connection::Login;

mod binary;
mod child;
pub(crate) mod config;
pub mod deploy;
mod lock;
mod ready;
mod secrets;

pub use binary::find_binary;
pub use child::exec_if_asked;

use child::Child;
use lock::Lock;
use secrets::Secrets;

/// The account of everybody who is neither a manager nor a node, on a bus of our making.
pub const USERS_ACCOUNT: &str = "USERS";

/// So much room, in bytes, the server needs to start.
const ROOM: u64 = 4 << 20;

/// How to run the embedded server.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Where clients connect. Port 0 picks a free one and remembers it in the directory.
    pub listen: SocketAddr,
    /// Everything the server keeps; made if it is not there.
    pub data_dir: PathBuf,
    /// The program, if not found by [`find_binary`].
    pub binary: Option<PathBuf>,
    /// Whether who gives no credentials is taken as the user `dev`.
    pub anonymous: bool,
    /// Allows a listener off loopback, which has no TLS.
    pub insecure: bool,
    /// How long the server may take to be ready.
    pub patience: Duration,
}

impl EmbeddedOptions {
    /// The usual options for a directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4222)),
            data_dir: data_dir.into(),
            binary: None,
            anonymous: true,
            insecure: false,
            patience: Duration::from_secs(30),
        }
    }
}

/// Why the embedded server does not run: one line, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No nats-server anywhere.
    #[error(
        "no nats-server found: run scripts/nats-server.sh in the checkout, put it on the PATH, or \
         name it with --nats-server or LOOM_NATS_SERVER"
    )]
    NotFound,
    /// The one that was named is not there or cannot be executed.
    #[error("{path} is no program: --nats-server and LOOM_NATS_SERVER name a nats-server",
            path = path.display())]
    NotAProgram {
        /// As named.
        path: PathBuf,
    },
    /// It does not say which version it is, or cannot be run.
    #[error("{path} does not run as a nats-server: {reason}", path = path.display())]
    NotAServer {
        /// The program.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// Older than Loom works with.
    #[error("{path} is nats-server {found}, but Loom needs {needed} or newer: run \
             scripts/nats-server.sh, or name another with --nats-server", path = path.display())]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest that will do.
        needed: String,
    },
    /// A directory or file of it cannot be made, read or written.
    #[error("{path} cannot be used for the bus's data: {reason}", path = path.display(),
            reason = reason(source))]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its disk is full: the server would wait for room without a word.
    #[error(
        "no room is left for the bus in {path}: it needs {} MiB and {} are free; make room and \
         start it again, nothing is lost",
        ROOM >> 20, free >> 20, path = path.display()
    )]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
    },
    /// A name in it cannot stand in the server's configuration.
    #[error("{path:?} cannot be the bus's directory: a control character or no UTF-8 in its name")]
    DirectoryName {
        /// Which.
        path: PathBuf,
    },
    /// The directory is in use.
    #[error("{path} is in use by process {pid}: stop that one, or take another --data-dir",
            path = path.display())]
    Locked {
        /// Which.
        path: PathBuf,
        /// Who holds it; 0 if it did not say.
        pid: u32,
    },
    /// The address is taken.
    #[error("{address} is in use by another program: stop that one, or take another --listen")]
    PortInUse {
        /// Which.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("the bus cannot listen on {address}: {reason}", reason = reason(source))]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An address others can reach, without TLS.
    #[error(
        "the bus has no TLS, so {address} would show everything to everyone on the network: \
         listen on 127.0.0.1, or allow it with --insecure"
    )]
    Exposed {
        /// Which.
        address: SocketAddr,
    },
    /// It ended while it started.
    #[error("nats-server ended while starting: {said} (all of it in {log})", log = log.display())]
    Ended {
        /// The last of what it said.
        said: String,
        /// Its log.
        log: PathBuf,
    },
    /// It did not get ready.
    #[error("nats-server was not ready within {waited:?}: {said} (all of it in {log})",
            log = log.display())]
    NotReady {
        /// How long it was waited.
        waited: Duration,
        /// The last of what it said.
        said: String,
        /// Its log.
        log: PathBuf,
    },
}

/// A running nats-server; dropping it ends the server, [`stop`](Self::stop) also waits for that.
#[derive(Debug)]
pub struct Embedded {
    child: Child,
    address: SocketAddr,
    url: String,
    monitoring: SocketAddr,
    secrets: Secrets,
    anonymous: bool,
    log: PathBuf,
}

impl Embedded {
    /// Starts the server and waits until it is ready for connections and `JetStream` is on.
    pub async fn start(options: EmbeddedOptions) -> Result<Self, ServerError> {
        let prepared = tokio::task::spawn_blocking(move || Prepared::new(options));
        let prepared = prepared.await.unwrap_or_else(|error| {
            let source = std::io::Error::other(error);
            Err(ServerError::Directory {
                path: PathBuf::new(),
                source,
            })
        })?;
        prepared.start().await
    }

    /// Where clients on this host connect: `nats://127.0.0.1:4222`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `/healthz` and the server's other pages are, on loopback only.
    pub fn monitoring(&self) -> SocketAddr {
        self.monitoring
    }

    /// As whom managers and nodes connect.
    pub fn orch_login(&self) -> Login {
        login(config::ORCH_USER, &self.secrets.orch)
    }

    /// As whom one may ask the server about itself.
    pub fn system_login(&self) -> Login {
        login(config::SYSTEM_USER, &self.secrets.system)
    }

    /// As whom everybody else connects: nobody in particular, if that is allowed.
    pub fn user_login(&self) -> Login {
        if self.anonymous {
            Login::None
        } else {
            login(config::USERS_USER, &self.secrets.user)
        }
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// What the server writes about itself.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits for the server's end and says how it ended; at once if it is over already.
    ///
    /// It may then be started again in the same directory, where it finds its port and passwords.
    pub fn died(&self) -> impl Future<Output = String> + Send + use<> {
        died(self.child.ended())
    }

    /// Why it cannot write a stream, if it cannot. A stream that met a full disk is not written
    /// again before the server is started again, however much room there is by then.
    pub async fn write_error(&self) -> Option<String> {
        ready::write_error(self.monitoring).await
    }

    /// Bytes that are free where it keeps its streams; none if that cannot be told.
    pub fn room(&self) -> Option<u64> {
        free_bytes(self.log.parent()?)
    }

    /// Ends the server and waits for that: `SIGTERM`, and `SIGKILL` ten seconds later.
    pub async fn stop(&self) {
        self.child.stop().await;
    }
}

async fn died(mut ended: watch::Receiver<Option<String>>) -> String {
    match ended.wait_for(Option::is_some).await {
        Ok(how) => how.clone().unwrap_or_default(),
        Err(_) => "nobody waits for it any more".to_owned(),
    }
}

fn login(name: &str, password: &str) -> Login {
    Login::User {
        name: name.to_owned(),
        password: password.to_owned(),
    }
}

/// Everything that is done before the server is started; blocking.
struct Prepared {
    options: EmbeddedOptions,
    binary: PathBuf,
    lock: Lock,
    secrets: Secrets,
    /// The port to try, 0 for any.
    port: u16,
}

impl Prepared {
    fn new(options: EmbeddedOptions) -> Result<Self, ServerError> {
        let address = options.listen;
        if !address.ip().is_loopback() && !options.insecure {
            return Err(ServerError::Exposed { address });
        }
        let binary = find_binary(options.binary.as_deref())?;
        binary::check_version(&binary)?;
        let dir = &options.data_dir;
        config::check_name(dir)?;
        make_private_dir(dir)?;
        if let Some(free) = free_bytes(dir).filter(|free| *free < ROOM) {
            let path = dir.clone();
            return Err(ServerError::NoRoom { path, free });
        }
        let lock = Lock::take(dir)?;
        ready::sweep(dir);
        let secrets = Secrets::load_or_make(dir)?;
        let port = ready::choose_port(address, dir)?;
        Ok(Self {
            options,
            binary,
            lock,
            secrets,
            port,
        })
    }

    async fn start(self) -> Result<Embedded, ServerError> {
        let Self {
            options,
            binary,
            lock,
            secrets,
            port,
        } = self;
        let dir = &options.data_dir;
        let config = config::write(&options, port, &secrets)?;
        let child = Child::spawn(&binary, &config, dir, lock).await?;
        let ports = ready::wait(&child, dir, options.patience).await?;
        let address = SocketAddr::new(options.listen.ip(), ports.clients);
        if options.listen.port() == 0 {
            ready::remember_port(dir, ports.clients)?;
        }
        let host = if address.ip().is_unspecified() {
            "127.0.0.1".to_owned()
        } else if address.is_ipv6() {
            format!("[{}]", address.ip())
        } else {
            address.ip().to_string()
        };
        Ok(Embedded {
            url: format!("nats://{host}:{}", address.port()),
            child,
            address,
            monitoring: ports.monitoring,
            secrets,
            anonymous: options.anonymous,
            log: config::log_path(dir),
        })
    }
}

/// Makes a directory that only its owner may enter.
fn make_private_dir(path: &Path) -> Result<(), ServerError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(|source| failed(path, source))
}

/// Bytes that are free where a directory is; none if that cannot be told.
fn free_bytes(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn failed(path: &Path, source: std::io::Error) -> ServerError {
    ServerError::Directory {
        path: path.to_owned(),
        source,
    }
}

/// An I/O error without its number, for a line that people read.
fn reason(source: &std::io::Error) -> String {
    let text = source.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}
