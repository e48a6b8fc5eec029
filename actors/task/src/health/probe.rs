//! Making one health check.
//!
//! A process listens on its host port at an address of its own choice: loopback is tried first, then
//! the node's address. The published port of a container is asked at the node's address first: on
//! loopback a proxy takes every connection, whether anything listens behind it or not.

mod http;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use loom_schemas::ids::{Name, RunId};
use loom_schemas::spec::HealthCheck;
use loom_schemas::units::Millis;
use loom_schemas::wire::Assigned;
use loom_schemas::words::DriverKind;
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::Outcome;
use crate::driver::{Driver, DriverError, ExecOutcome};
use crate::operator::{self, Place};

/// A proxy whose other side does not listen closes what it took at once.
const CLOSES_WITHIN: Duration = Duration::from_millis(50);
/// A driver ends a program in time; how much later it is not waited for any longer.
const DRIVER_GRACE: Duration = Duration::from_secs(1);
/// The most characters of a program's last line that are told.
const LINE_MAX: usize = 200;

/// One check of a run, every reference filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    ask: Ask,
    limit: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ask {
    Http { path: String, target: Target },
    Tcp { target: Target },
    Exec { argv: Vec<String> },
}

/// Where a run listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    /// In the order they are tried.
    hosts: Vec<String>,
    port: u16,
    /// Whether something else may take connections in its place.
    proxied: bool,
}

/// Why the first host did not take a connection, while another is tried.
#[derive(Debug, Default)]
struct Refused(Mutex<Option<String>>);

impl Refused {
    fn note(&self, error: &io::Error) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get_or_insert_with(|| why(error));
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Probe {
    /// The check of a task's run at this place; why there is none, in words.
    pub fn new(
        assigned: &Assigned,
        place: Place<'_>,
        kind: DriverKind,
    ) -> Result<Option<Self>, String> {
        let Some(health) = &assigned.task.health else {
            return Ok(None);
        };
        let target = |name: &Name| {
            let port = assigned.ports.get(name).copied();
            let port = port.ok_or_else(|| format!("the run has no port `{name}`"))?;
            Ok::<_, String>(Target::new(port, place.address, kind))
        };
        let check = operator::health_check(assigned, &health.check, place);
        let ask = match check.map_err(|error| error.to_string())? {
            HealthCheck::Http { path, port } => Ask::Http {
                path,
                target: target(&port)?,
            },
            HealthCheck::Tcp { port } => Ask::Tcp {
                target: target(&port)?,
            },
            HealthCheck::Exec(argv) => Ask::Exec { argv },
        };
        let limit = health.timeout.into();
        Ok(Some(Self { ask, limit }))
    }

    /// Makes the check; ends within its time limit, and a little for a driver.
    pub async fn make(&self, driver: &dyn Driver, run: RunId) -> Outcome {
        if let Some(played) = driver.played_health(run) {
            return match played {
                Ok(()) => Outcome::Healthy,
                Err(reason) => Outcome::Failed(format!("{}: {reason}", self.ask)),
            };
        }
        match &self.ask {
            Ask::Http { path, target } => self.outcome(self.http(target, path).await),
            Ask::Tcp { target } => self.outcome(self.tcp(target).await),
            Ask::Exec { argv } => self.execute(driver, run, argv).await,
        }
    }

    async fn http(&self, target: &Target, path: &str) -> Result<(), String> {
        let refused = Refused::default();
        let got = http::get(target, path, &refused);
        let answer = self.in_time(got, &refused).await?;
        let status = answer.status();
        answer.end().await;
        if (200..400).contains(&status) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    }

    async fn tcp(&self, target: &Target) -> Result<(), String> {
        let refused = Refused::default();
        self.in_time(target.is_taken(&refused), &refused).await
    }

    async fn execute(&self, driver: &dyn Driver, run: RunId, argv: &[String]) -> Outcome {
        let executed = driver.exec(run, argv.to_vec(), self.limit);
        let grace = self.limit.saturating_add(DRIVER_GRACE);
        match tokio::time::timeout(grace, executed).await {
            Ok(Ok(outcome)) if outcome.succeeded() => Outcome::Healthy,
            Ok(Ok(outcome)) => self.outcome(Err(self.ending(&outcome))),
            // The run's own end is told by whoever waits for it.
            Ok(Err(error @ (DriverError::Rejected(_) | DriverError::Unsupported(_)))) => {
                self.outcome(Err(error.to_string()))
            }
            Ok(Err(error)) => Outcome::Unknown(error.to_string()),
            Err(_) => Outcome::Unknown("the driver does not answer".to_owned()),
        }
    }

    fn ending(&self, outcome: &ExecOutcome) -> String {
        if outcome.timed_out {
            return self.late();
        }
        let ending = match (outcome.signal.map(Signal::try_from), outcome.code) {
            (Some(Ok(signal)), _) => format!("ended by {signal}"),
            (Some(Err(_)), _) => "ended by a signal".to_owned(),
            (None, Some(code)) => format!("exit code {code}"),
            (None, None) => "ended".to_owned(),
        };
        match last_line(&outcome.output) {
            Some(line) => format!("{ending}: {line}"),
            None => ending,
        }
    }

    /// What was asked, unless it took too long; then why the first host refused, if another one was
    /// still tried.
    async fn in_time<T>(
        &self,
        asking: impl Future<Output = Result<T, String>>,
        refused: &Refused,
    ) -> Result<T, String> {
        match tokio::time::timeout(self.limit, asking).await {
            Ok(asked) => asked,
            Err(_) => Err(refused.take().unwrap_or_else(|| self.late())),
        }
    }

    fn late(&self) -> String {
        let limit = Millis(u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX));
        format!("no answer within {limit}")
    }

    fn outcome(&self, asked: Result<(), String>) -> Outcome {
        match asked {
            Ok(()) => Outcome::Healthy,
            Err(reason) => Outcome::Failed(format!("{}: {reason}", self.ask)),
        }
    }
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { path, target } => write!(f, "http GET {path} on port {}", target.port),
            Self::Tcp { target } => write!(f, "tcp on port {}", target.port),
            Self::Exec { argv } => {
                write!(f, "exec {}", argv.first().map_or("", String::as_str))
            }
        }
    }
}

impl Target {
    fn new(port: u16, address: &str, kind: DriverKind) -> Self {
        let proxied = !matches!(kind, DriverKind::Process | DriverKind::Sim);
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let mut hosts = vec!["127.0.0.1".to_owned(), address.to_owned(), "::1".to_owned()];
        if proxied {
            hosts.swap(0, 1);
        }
        let mut seen = std::collections::BTreeSet::new();
        hosts.retain(|host| seen.insert(host.clone()));
        Self {
            hosts,
            port,
            proxied,
        }
    }

    /// Connects to the first host that takes it.
    async fn connect(&self, refused: &Refused) -> Result<(TcpStream, &str), String> {
        for host in &self.hosts {
            let error = match TcpStream::connect((host.as_str(), self.port)).await {
                Ok(stream) if is_itself(&stream) => io::ErrorKind::ConnectionRefused.into(),
                Ok(stream) => {
                    refused.take();
                    return Ok((stream, host));
                }
                Err(error) => error,
            };
            refused.note(&error);
        }
        Err(refused.take().unwrap_or_default())
    }

    async fn is_taken(&self, refused: &Refused) -> Result<(), String> {
        let (mut stream, _) = self.connect(refused).await?;
        if self.proxied {
            let mut byte = [0; 1];
            let read = tokio::time::timeout(CLOSES_WITHIN, stream.read(&mut byte)).await;
            if let Ok(Ok(0) | Err(_)) = read {
                return Err("closed at once: nothing listens behind it".to_owned());
            }
        }
        Ok(())
    }
}

/// A connection to a port nobody listens on can meet itself, where the kernel gives it that port.
fn is_itself(stream: &TcpStream) -> bool {
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(local), Ok(peer)) => local == peer,
        _ => false,
    }
}

/// An error of the network in words.
fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            text.to_lowercase()
        }
    }
}

/// The last line with something on it, as it can be shown.
fn last_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    Some(line.trim().chars().map(shown).take(LINE_MAX).collect())
}
