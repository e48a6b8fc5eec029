//! The way from the command line to the bus: which server, with which credentials.

use std::path::{Path, PathBuf};
use std::time::Duration;

use loom_bus::header::COMMAND_ID;
use loom_bus::{Bus, CallError, ConnectOptions, Login};
use loom_schemas::error::ErrorCode;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit::{Code, Failure, chain};

/// The bus where nothing says otherwise.
pub(crate) const DEFAULT_BUS: &str = "nats://127.0.0.1:4222";

/// How long a request to a manager may take; a take-over lies within it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one attempt of a write may take: the leader answers sooner than that if it can.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a write is repeated while nobody says what became of it.
const WRITE_WAIT: Duration = Duration::from_secs(15);

/// How long a request waits for a leader to be there before it gives up.
const LEADER_WAIT: Duration = Duration::from_secs(8);

/// Which bus, with which credentials.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct BusArgs {
    /// Address of the bus: nats://HOST:PORT, several with commas between
    #[arg(
        long,
        global = true,
        env = "LOOM_BUS",
        value_name = "URL",
        help_heading = "Bus"
    )]
    pub(crate) bus: Option<String>,
    /// NATS credentials file
    #[arg(
        long,
        global = true,
        env = "LOOM_CREDS",
        value_name = "FILE",
        help_heading = "Bus"
    )]
    pub(crate) creds: Option<PathBuf>,
}

/// A context of the NATS command line, as far as we use it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NatsContext {
    url: String,
    creds: String,
    user: String,
    password: String,
}

impl BusArgs {
    /// What to connect to: the flags, else the NATS command line's selected context, else the
    /// default address.
    pub(crate) fn options(&self, name: &str) -> Result<ConnectOptions, Failure> {
        let context = if self.bus.is_none() {
            selected_context()?
        } else {
            None
        };
        let context = context.unwrap_or_default();
        let url = match (&self.bus, context.url.as_str()) {
            (Some(url), _) => url.clone(),
            (None, "") => DEFAULT_BUS.to_owned(),
            (None, url) => url.to_owned(),
        };
        let login = match (&self.creds, context.creds.as_str(), context.user.as_str()) {
            (Some(path), ..) => Login::CredentialsFile(path.clone()),
            (None, "", "") => Login::None,
            (None, "", user) => Login::User {
                name: user.to_owned(),
                password: context.password.clone(),
            },
            (None, path, _) => Login::CredentialsFile(PathBuf::from(path)),
        };
        Ok(ConnectOptions {
            url,
            login,
            name: name.to_owned(),
            require_jetstream: false,
            timeout: Duration::from_secs(5),
        })
    }

    /// Connects as a client.
    pub(crate) async fn connect(&self) -> Result<Bus, Failure> {
        Bus::connect(self.options("loomctl")?)
            .await
            .map_err(|error| Failure::new(Code::NoAnswer, chain(&error)))
    }
}

/// The context `nats context select` chose, if there is one.
fn selected_context() -> Result<Option<NatsContext>, Failure> {
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let Some(directory) = config.map(|config| config.join("nats")) else {
        return Ok(None);
    };
    let Ok(name) = std::fs::read_to_string(directory.join("context.txt")) else {
        return Ok(None);
    };
    let name = name.trim();
    if name.is_empty() {
        return Ok(None);
    }
    let path = directory.join("context").join(format!("{name}.json"));
    let text = std::fs::read(&path).map_err(|error| {
        Failure::error(format!(
            "the selected NATS context {}: {error}",
            path.display()
        ))
    })?;
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        Failure::error(format!(
            "the selected NATS context {}: {error}",
            path.display()
        ))
    })
}

/// Asks the leader or a manager; waits a little for a leader where none is there.
pub(crate) async fn ask<Q: Serialize, R: DeserializeOwned>(
    bus: &Bus,
    subject: &str,
    request: &Q,
) -> Result<R, Failure> {
    ask_with(bus, subject, request, &[]).await
}

/// [`ask`] with headers.
pub(crate) async fn ask_with<Q: Serialize, R: DeserializeOwned>(
    bus: &Bus,
    subject: &str,
    request: &Q,
    headers: &[(&str, String)],
) -> Result<R, Failure> {
    retried(|| bus.call_with(subject, request, REQUEST_TIMEOUT, headers)).await
}

/// Has the leader change something, once: every attempt carries the same id, so that the leader
/// knows a repeat even if nobody heard what became of the first.
pub(crate) async fn tell<Q: Serialize, R: DeserializeOwned>(
    bus: &Bus,
    subject: &str,
    request: &Q,
) -> Result<R, Failure> {
    let headers = [command_id()];
    until_heard(|| bus.call_with(subject, request, WRITE_TIMEOUT, &headers)).await
}

/// The header with the id of one command of the user, the same on every attempt.
pub(crate) fn command_id() -> (&'static str, String) {
    (COMMAND_ID, uuid::Uuid::now_v7().to_string())
}

/// Repeats a call while no manager takes it, at most [`LEADER_WAIT`].
///
/// Only refusals that say nothing was done are repeated: no responders, and `unavailable`.
pub(crate) async fn retried<R, F>(call: impl FnMut() -> F) -> Result<R, Failure>
where
    F: Future<Output = Result<R, CallError>>,
{
    repeated(call, false).await
}

/// [`retried`] for calls that carry a [`command_id`]: also repeated, at most [`WRITE_WAIT`], when
/// it is not known whether the leader did it.
pub(crate) async fn until_heard<R, F>(call: impl FnMut() -> F) -> Result<R, Failure>
where
    F: Future<Output = Result<R, CallError>>,
{
    repeated(call, true).await
}

async fn repeated<R, F>(mut call: impl FnMut() -> F, has_id: bool) -> Result<R, Failure>
where
    F: Future<Output = Result<R, CallError>>,
{
    let start = tokio::time::Instant::now();
    let (mut limit, mut pause) = (LEADER_WAIT, Duration::from_millis(50));
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let unknown = matches!(error, CallError::Timeout | CallError::Disconnected);
        if unknown && has_id {
            // From here on even that nobody is there does not say that nothing was done.
            limit = WRITE_WAIT;
        }
        let again = is_worth_repeating(&error) || unknown && has_id;
        if !again || start.elapsed() > limit {
            return Err(refused(error));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

fn is_worth_repeating(error: &CallError) -> bool {
    match error {
        CallError::NoResponders => true,
        CallError::Refused(error) => {
            matches!(error.code, ErrorCode::Unavailable | ErrorCode::Busy)
        }
        _ => false,
    }
}

/// A failed call as the user is told it.
pub(crate) fn refused(error: CallError) -> Failure {
    match error {
        CallError::Refused(error) => error.into(),
        CallError::NoResponders => Failure::new(
            Code::NoAnswer,
            "no manager answers; is one running? (loomctl dev, or loomctl manager start)",
        ),
        other => Failure::new(Code::NoAnswer, chain(&other)),
    }
}
