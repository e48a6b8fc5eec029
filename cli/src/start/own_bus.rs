//! A bus of one's own: a nats-server that lives and ends with this process.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loom_bus::server::{Embedded, EmbeddedOptions};
use loom_bus::{ConnectOptions, Login};
use loom_manager::StartError;
use tokio::sync::watch;

use crate::cli::Global;
use crate::exit::{Failure, chain};

/// How often the bus is started again within [`RESTART_WINDOW`] before its owner gives up.
const RESTARTS: usize = 5;

/// The time over which starts of the bus are counted.
const RESTART_WINDOW: Duration = Duration::from_mins(1);

/// How often it is looked whether the bus can write.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// With less room than this, in bytes, a person is told.
const LOW: u64 = 256 << 20;

/// So much room, in bytes, makes it worth starting a bus again that could not write.
const ENOUGH: u64 = 16 << 20;

/// How often it is started again for that.
const MEND_EVERY: Duration = Duration::from_secs(10);

/// The embedded bus, started again when it ends by itself, or cannot write any more.
pub(super) struct OwnBus {
    options: EmbeddedOptions,
    running: Embedded,
    /// When it ended by itself, of late.
    ended: Vec<Instant>,
    /// Why it cannot write, for the manager.
    trouble: watch::Sender<Option<String>>,
    /// Whether a person was told that there is little room.
    low: bool,
    /// When it was last started again because it could not write.
    mended: Option<Instant>,
    /// Whether it was ended for that.
    mends: bool,
}

impl OwnBus {
    /// Starts it on its directory and waits until it is ready.
    pub(super) async fn start(options: EmbeddedOptions) -> Result<Self, Failure> {
        Ok(Self {
            running: start(&options).await?,
            options,
            ended: Vec::new(),
            trouble: watch::channel(None).0,
            low: false,
            mended: None,
            mends: false,
        })
    }

    /// Why it cannot write, for as long as it cannot and is [kept](Self::keep).
    pub(super) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Where clients on this host connect.
    pub(super) fn url(&self) -> &str {
        self.running.url()
    }

    /// How a manager or a node connects.
    pub(super) fn orch(&self, name: &str) -> ConnectOptions {
        self.access(name, self.running.orch_login())
    }

    /// How one asks the server about itself.
    pub(super) fn system(&self, name: &str) -> ConnectOptions {
        self.access(name, self.running.system_login())
    }

    /// How everybody else connects.
    pub(super) fn user(&self, name: &str) -> ConnectOptions {
        self.access(name, self.running.user_login())
    }

    fn access(&self, name: &str, login: Login) -> ConnectOptions {
        ConnectOptions {
            url: self.running.url().to_owned(),
            login,
            // It is our own, and where it listens was allowed.
            insecure: true,
            name: name.to_owned(),
            require_jetstream: false,
            timeout: Duration::from_secs(10),
            ..ConnectOptions::default()
        }
    }

    /// The address by which managers and nodes on this host come in, with user and password.
    fn agents_url(&self) -> String {
        let url = self.running.url();
        match (self.running.orch_login(), url.strip_prefix("nats://")) {
            (Login::User { name, password }, Some(address)) => {
                format!("nats://{name}:{password}@{address}")
            }
            _ => url.to_owned(),
        }
    }

    /// Starts the bus again whenever it ends by itself or cannot write any more, on its directory,
    /// where nothing acknowledged is lost. Resolves when that is of no use any more.
    pub(super) async fn keep(&mut self) -> Failure {
        loop {
            let last_words = tokio::select! {
                last_words = self.running.died() => last_words,
                () = tokio::time::sleep(LOOK_EVERY) => {
                    if self.is_worth_a_start().await {
                        self.running.stop().await;
                    }
                    continue;
                }
            };
            let mends = std::mem::take(&mut self.mends);
            if !mends {
                self.ended.retain(|at| at.elapsed() < RESTART_WINDOW);
                self.ended.push(Instant::now());
                tracing::warn!("nats-server ended by itself and is started again: {last_words}");
            }
            if self.ended.len() > RESTARTS {
                return Failure::error(format!(
                    "nats-server ended {} times within a minute; the last time: {last_words}",
                    self.ended.len()
                ));
            }
            while self.running.room().is_some_and(|room| room < ENOUGH) {
                self.cannot_write("no space left on device");
                tokio::time::sleep(LOOK_EVERY).await;
            }
            match start(&self.options).await {
                Ok(running) => self.running = running,
                Err(failure) => return failure,
            }
        }
    }

    /// Looks whether it can write, tells whoever has to know, and says whether to start it again:
    /// the server never writes a stream again that met a full disk.
    async fn is_worth_a_start(&mut self) -> bool {
        let dir = self.options.data_dir.display();
        let room = self.running.room();
        let low = room.is_some_and(|room| room < LOW);
        if low && !self.low {
            let mib = room.unwrap_or_default() >> 20;
            tracing::warn!("only {mib} MiB are left for {dir}: with none left nothing is taken in");
        }
        self.low = low;
        let Some(why) = self.running.write_error().await else {
            if self.trouble.send_replace(None).is_some() {
                tracing::warn!("the bus can write again");
            }
            return false;
        };
        self.cannot_write(&why);
        let lately = |at: Instant| at.elapsed() < MEND_EVERY;
        if room.is_some_and(|room| room < ENOUGH) || self.mended.is_some_and(lately) {
            return false;
        }
        tracing::warn!("there is room for the bus: nats-server is started again");
        self.mended = Some(Instant::now());
        self.mends = true;
        true
    }

    fn cannot_write(&self, why: &str) {
        let why = format!("{why}, in {}", self.options.data_dir.display());
        if self.trouble.send_replace(Some(why.clone())).is_none() {
            tracing::error!(
                "the bus cannot write: {why}; tasks go on, but nothing is taken in before there is \
                 room"
            );
        }
    }

    /// Ends it and waits for that.
    pub(super) async fn stop(self) {
        self.running.stop().await;
    }
}

async fn start(options: &EmbeddedOptions) -> Result<Embedded, Failure> {
    let started = Embedded::start(options.clone()).await;
    started.map_err(|error| Failure::error(chain(&error)))
}

/// Why a manager does not start, with what to do; `data_dir` is its own where the bus is.
pub(super) fn not_started(error: &StartError, data_dir: Option<&Path>) -> Failure {
    let StartError::Unreadable(why) = error else {
        return Failure::error(chain(error));
    };
    let (place, elsewhere) = match data_dir {
        Some(path) => (format!(" in {}", path.display()), ", or another --data-dir"),
        None => (" on the bus".to_owned(), ""),
    };
    let what_to_do = if why.newer {
        "use the loomctl that wrote it"
    } else {
        "put a copy of the store back"
    };
    Failure::error(format!(
        "the log{place} cannot be read: {why}; {what_to_do}{elsewhere}"
    ))
}

/// Writes what managers and nodes need in their environment to come in, for its owner's eyes only.
pub(super) fn write_agents_file(path: &Path, bus: &OwnBus) -> Result<(), Failure> {
    let text = format!("LOOM_BUS={}\n", bus.agents_url());
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&fresh)?.write_all(text.as_bytes())?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(|error| Failure::error(format!("{}: {error}", path.display())))
}

/// Refuses what says which bus to connect to, of one who brings the bus: `verb` and `instead` are
/// for the message. What the environment says is for the clients in that terminal.
pub(super) fn refuse_other_bus(global: &Global, verb: &str, instead: &str) -> Result<(), Failure> {
    let args = &global.bus;
    let path = |path: &Option<PathBuf>| path.as_deref().map(Path::as_os_str).map(Into::into);
    let said: [(&str, &str, Option<OsString>); 5] = [
        ("--bus", "LOOM_BUS", args.bus.clone().map(Into::into)),
        ("--creds", "LOOM_CREDS", path(&args.creds)),
        ("--tls-ca", "LOOM_TLS_CA", path(&args.tls_ca)),
        ("--tls-cert", "LOOM_TLS_CERT", path(&args.tls_cert)),
        ("--tls-key", "LOOM_TLS_KEY", path(&args.tls_key)),
    ];
    for (flag, variable, value) in said {
        if value.is_some() && value != std::env::var_os(variable) {
            return Err(Failure::usage(match flag {
                "--bus" => format!("{verb} starts its own bus; use {instead} in place of --bus"),
                _ => format!("{verb} starts its own bus, which has no use for {flag}"),
            }));
        }
    }
    Ok(())
}
