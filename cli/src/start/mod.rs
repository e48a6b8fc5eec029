//! Starting managers and nodes: the only place of the command line that names their crates.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loom_bus::facts::{UserFacts, user_facts};
use loom_bus::server::USERS_ACCOUNT;
use loom_bus::server::deploy::NODE;
use loom_bus::{Bus, ConnectError, ConnectOptions, ServerFacts};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::client::connect_code;
use crate::exit::{Code, Failure, chain};

mod capacity;
pub(crate) mod dev;
mod gpus;
pub(crate) mod manager;
pub(crate) mod node;
mod own_bus;

/// What a ready file says.
#[derive(Debug, Serialize)]
pub(crate) struct Ready<'a> {
    /// Address of the bus.
    pub(crate) bus: &'a str,
    /// This process.
    pub(crate) pid: u32,
    /// Names of the nodes in it.
    pub(crate) nodes: Vec<String>,
}

/// What agents log that are looked after by programs.
pub(crate) const AGENT_LOG: &str = "warn,loom=info";

/// Logs of the agents go to standard error; `LOOM_LOG` filters them as `RUST_LOG` would.
pub(crate) fn log_to_stderr(filter: &str) {
    let filter = EnvFilter::try_from_env("LOOM_LOG").unwrap_or_else(|_| EnvFilter::new(filter));
    // A second subscriber is refused; the first one stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .try_init();
}

/// Writes the ready file whole or not at all.
pub(crate) fn write_ready(path: &Path, ready: &Ready<'_>) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::error(format!("--ready-file {}: {error}", path.display()));
    let text = serde_json::to_vec(ready)
        .map_err(|error| Failure::error(format!("--ready-file: {error}")))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let mut file = std::fs::File::create(&fresh).map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)
}

/// SIGINT, SIGTERM and SIGHUP, none of them lost between two waits.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl StopSignals {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::error(format!("signals: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            hang_up: signal(SignalKind::hangup()).map_err(failed)?,
        })
    }

    /// Resolves at the next one. Cancelling loses none.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// How long an agent waits for a bus that is not there, or not ready, before it gives up.
const BUS_WAIT: Duration = Duration::from_secs(30);

/// How long the server may take to say as whom one is connected; one that does not say is asked
/// nothing more.
const USER_WAIT: Duration = Duration::from_secs(2);

/// Waits for the bus and says what it is; one that will not do ends the wait at once.
///
/// A bus and its clients often start together, and a bus of several servers takes some seconds to
/// agree with itself.
pub(crate) async fn wait_for_bus(connect: &ConnectOptions) -> Result<ServerFacts, Failure> {
    let connect = ConnectOptions {
        name: format!("{} start", connect.name),
        ..connect.clone()
    };
    let leads = connect.require_jetstream;
    let look = async {
        // Whoever may not ask for JetStream is told that it is not there.
        let plain = ConnectOptions {
            require_jetstream: false,
            ..connect.clone()
        };
        let mut bus = Bus::connect_patiently(plain, Some(BUS_WAIT)).await?;
        let user = user_facts(&bus, USER_WAIT).await;
        if leads && !is_users(user.as_ref()) && !is_node(user.as_ref()) {
            bus = Bus::connect_patiently(connect, Some(BUS_WAIT)).await?;
        }
        Ok::<_, ConnectError>((bus.server(), user))
    };
    tokio::select! {
        looked = look => match looked {
            Ok((_, user)) if is_users(user.as_ref()) => {
                let user = user.and_then(|facts| facts.user).unwrap_or_default();
                Err(Failure::new(Code::Denied, format!(
                    "the bus takes this login for user {user}, who may run jobs but be no manager \
                     or node: take theirs, the loom.creds of `loomctl bus init` or the file of \
                     `loomctl bus node`, or what the agents.env of a manager with --embedded-bus says"
                )))
            }
            Ok((_, user)) if leads && is_node(user.as_ref()) => {
                Err(Failure::new(
                    Code::Denied,
                    "the bus takes this login for a node, who may write no log: a manager needs the \
                     loom.creds of `loomctl bus init`",
                ))
            }
            Ok((server, _)) => Ok(server),
            Err(error) => Err(Failure::new(connect_code(&error), chain(&error))),
        },
        stopped = told_to_stop() => Err(match stopped {
            Ok(()) => Failure::silent(Code::Done),
            Err(failure) => failure,
        }),
    }
}

/// Whether the login is one of the account that users of a bus of our making have.
fn is_users(user: Option<&UserFacts>) -> bool {
    user.is_some_and(|facts| facts.account.as_deref() == Some(USERS_ACCOUNT))
}

/// Whether the login is one of those that nodes have.
fn is_node(user: Option<&UserFacts>) -> bool {
    user.is_some_and(|facts| facts.user.as_deref() == Some(NODE) && !is_users(Some(facts)))
}

/// Resolves at SIGINT, SIGTERM or SIGHUP.
pub(crate) async fn told_to_stop() -> Result<(), Failure> {
    StopSignals::listen()?.next().await;
    Ok(())
}

/// Lets an agent have as many files open as it may: a fleet of nodes takes two each.
pub(crate) fn raise_open_files() {
    if let Err(error) = loom_task::limits::raise_open_files() {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}

/// `~/.local/share/loom/<name>`, or under `XDG_DATA_HOME`.
pub(crate) fn data_dir(given: Option<&PathBuf>, name: &str) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return std::path::absolute(path)
            .map_err(|error| Failure::error(format!("--data-dir {}: {error}", path.display())));
    }
    let base = std::env::var_os("XDG_DATA_HOME").filter(|base| !base.is_empty());
    let base = base
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")));
    base.map(|base| base.join("loom").join(name))
        .ok_or_else(|| Failure::usage("HOME is not set; give --data-dir DIR"))
}

/// The host's name as a name of ours, for agents that were given none.
pub(crate) fn host_name() -> String {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let tidy: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(50)
        .collect();
    if tidy.starts_with(|c: char| c.is_ascii_lowercase()) {
        tidy
    } else {
        format!("host-{tidy}")
    }
}

/// Parses `30s` and the like; nothing at all is no time to wait.
pub(crate) fn parse_patience(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        Ok(_) => Err("expected a second or more".to_owned()),
        Err(error) => Err(format!("{error}: expected a time such as 30s")),
    }
}

/// Parses `20000-29999`.
pub(crate) fn parse_ports(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let wrong = || format!("`{text}`: expected FIRST-LAST, as in 20000-29999");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let (first, last) = (
        first.parse().map_err(|_| wrong())?,
        last.parse().map_err(|_| wrong())?,
    );
    if first == 0 || first > last {
        Err(wrong())
    } else {
        Ok(first..=last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_has_a_unit_and_is_not_nothing() {
        assert_eq!(parse_patience("30s"), Ok(Duration::from_secs(30)));
        for bad in ["", "30", "0s", "10ms", "-1s"] {
            assert!(parse_patience(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_range_is_first_to_last() {
        assert_eq!(parse_ports("20000-20001"), Ok(20_000..=20_001));
        for bad in ["", "1", "2-1", "0-5", "a-b", "1-70000"] {
            assert!(parse_ports(bad).is_err(), "{bad}");
        }
    }
}
