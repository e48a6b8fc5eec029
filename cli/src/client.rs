//! The way from the command line to the bus: which server, with which credentials.

use std::path::PathBuf;
use std::time::Duration;

use loom_bus::header::COMMAND_ID;
use loom_bus::{Bus, CallError, ConnectError, ConnectOptions, Login, Tls};
use loom_schemas::error::ErrorCode;
use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::{JobList, JobListQuery};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit::{Code, Failure, chain};

mod context;

use context::NatsContext;

/// The bus where nothing says otherwise.
pub(crate) const DEFAULT_BUS: &str = "nats://127.0.0.1:4222";

/// How long a request to a manager may take; a take-over lies within it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one attempt of a write may take: the leader answers sooner than that if it can.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a write is repeated while nobody says what became of it.
const WRITE_WAIT: Duration = Duration::from_secs(15);

/// How long a list of jobs may take that is only asked for to name one.
const HINT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a request waits for a leader to be there before it gives up.
const LEADER_WAIT: Duration = Duration::from_secs(8);

/// Which bus, with which credentials.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Bus")]
pub(crate) struct BusArgs {
    /// Address of the bus: tls://HOST:PORT or nats://HOST:PORT, several with commas between
    #[arg(
        long,
        global = true,
        env = "LOOM_BUS",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) bus: Option<String>,
    /// NATS credentials file
    #[arg(
        long,
        global = true,
        env = "LOOM_CREDS",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) creds: Option<PathBuf>,
    /// Certificates of the authority that signed the bus's, if it is none the system knows
    #[arg(
        long,
        global = true,
        env = "LOOM_TLS_CA",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) tls_ca: Option<PathBuf>,
    /// A certificate to show to the bus, where it asks for one
    #[arg(
        long,
        global = true,
        env = "LOOM_TLS_CERT",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(
        long,
        global = true,
        env = "LOOM_TLS_KEY",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// Allow a bus off this machine without TLS or credentials
    #[arg(
        long,
        global = true,
        env = "LOOM_INSECURE",
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub(crate) insecure: bool,
}

impl BusArgs {
    /// What to connect to: the flags, else the NATS command line's selected context, else the
    /// default address.
    pub(crate) fn options(&self, name: &str) -> Result<ConnectOptions, Failure> {
        let context = if self.bus.is_none() {
            context::selected()?
        } else {
            None
        };
        Ok(self.over(context.unwrap_or_default(), name))
    }

    /// The flags, and what a context says where they say nothing.
    fn over(&self, context: NatsContext, name: &str) -> ConnectOptions {
        let path = |flag: &Option<PathBuf>, field: &str| {
            let field = Some(field).filter(|field| !field.is_empty());
            flag.clone().or_else(|| field.map(PathBuf::from))
        };
        let login = match path(&self.creds, &context.creds) {
            Some(file) => Login::CredentialsFile(file),
            None if context.user.is_empty() => Login::None,
            None => Login::User {
                name: context.user,
                password: context.password,
            },
        };
        let default = || match context.url.as_str() {
            "" => DEFAULT_BUS.to_owned(),
            url => url.to_owned(),
        };
        ConnectOptions {
            url: self.bus.clone().unwrap_or_else(default),
            login,
            tls: Tls {
                ca: path(&self.tls_ca, &context.ca),
                cert: path(&self.tls_cert, &context.cert),
                key: path(&self.tls_key, &context.key),
            },
            insecure: self.insecure,
            name: name.to_owned(),
            require_jetstream: false,
            timeout: Duration::from_secs(5),
        }
    }

    /// Connects as a client.
    pub(crate) async fn connect(&self) -> Result<Bus, Failure> {
        Bus::connect(self.options("loomctl")?)
            .await
            .map_err(|error| Failure::new(connect_code(&error), chain(&error)))
    }
}

/// The exit code for a bus that cannot be had.
pub(crate) fn connect_code(error: &ConnectError) -> Code {
    match error {
        ConnectError::Url { .. }
        | ConnectError::Credentials { .. }
        | ConnectError::NoTls { .. }
        | ConnectError::NoCredentials { .. }
        | ConnectError::TlsFile { .. } => Code::Usage,
        ConnectError::Denied { .. } => Code::Denied,
        ConnectError::Unreachable { .. }
        | ConnectError::NoAnswer { .. }
        | ConnectError::Tls { .. }
        | ConnectError::TooOld { .. }
        | ConnectError::NoJetStream { .. }
        | ConnectError::JetStreamNotReady { .. } => Code::NoAnswer,
    }
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

/// A request about a job that may not be there: names a job there is that is spelt nearly so.
pub(crate) async fn or_nearest<R>(
    bus: &Bus,
    job: &Name,
    asked: Result<R, Failure>,
) -> Result<R, Failure> {
    let missing = format!("no job {job}");
    match asked {
        Err(failure) if failure.message.as_ref() == Some(&missing) => {
            // The first page is enough for a hint, and a hint is not waited for.
            let list = JobListQuery::default();
            let subject = subject::api("job", "list");
            let list = bus.call::<_, JobList>(&subject, &list, HINT_TIMEOUT).await;
            let jobs = list.map(|list| list.jobs).unwrap_or_default();
            let names = jobs.iter().map(|line| line.job.name.as_str());
            let hint = nearest(job.as_str(), names);
            let hint = hint.map(|name| format!("; did you mean {name}?"));
            Err(Failure::new(
                failure.code,
                missing + &hint.unwrap_or_default(),
            ))
        }
        asked => asked,
    }
}

/// The name that differs least, if it is by a letter in three at most.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = names.map(|other| (strsim::damerau_levenshtein(name, other), other));
    let near = near.filter(|(distance, other)| *distance <= 1.max(other.len() / 3));
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
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
    let mut maybe_done = false;
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let unknown = matches!(error, CallError::Timeout | CallError::Disconnected);
        if unknown && has_id {
            // From here on even that nobody is there does not say that nothing was done.
            limit = WRITE_WAIT;
            maybe_done = true;
        }
        if has_id
            && matches!(&error, CallError::Refused(error) if error.code == ErrorCode::Unavailable)
        {
            // A log that does not answer is at an election, which takes longer than one of ours.
            limit = WRITE_WAIT;
        }
        let again = is_worth_repeating(&error) || unknown && has_id;
        if !again || start.elapsed() > limit {
            return Err(gave_up(error, maybe_done && again));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// What the user is told who waits no longer; `maybe_done`: an attempt was sent and never answered.
fn gave_up(error: CallError, maybe_done: bool) -> Failure {
    let mut failure = refused(error);
    if maybe_done {
        let message = failure.message.unwrap_or_default();
        failure.message = Some(format!(
            "{message}; it may have been carried out all the same: see `loomctl status`"
        ));
    }
    failure
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_nobody_answered_may_have_been_carried_out() {
        for error in [CallError::Timeout, CallError::NoResponders] {
            let failure = gave_up(error, true);
            assert_eq!(failure.code, Code::NoAnswer);
            let message = failure.message.unwrap();
            assert!(
                message.ends_with("may have been carried out all the same: see `loomctl status`")
            );
        }
        let message = gave_up(CallError::NoResponders, false).message.unwrap();
        assert!(!message.contains("carried out"), "{message}");
    }

    #[test]
    fn only_a_name_that_is_near_is_meant() {
        let of = |name| nearest(name, ["db", "web", "worker"].into_iter());
        assert_eq!(of("wbe"), Some("web"));
        assert_eq!(of("wrker"), Some("worker"));
        assert_eq!(of("cache"), None);
    }

    #[test]
    fn flags_come_before_the_context() {
        let context = || NatsContext {
            url: "tls://bus.example".to_owned(),
            user: "ada".to_owned(),
            password: "pw".to_owned(),
            ca: "/etc/ca.crt".to_owned(),
            ..NatsContext::default()
        };
        let none = BusArgs::default();
        let options = none.over(context(), "t");
        assert_eq!(options.url, "tls://bus.example");
        assert!(matches!(&options.login, Login::User { name, .. } if name == "ada"));
        assert_eq!(options.tls.ca, Some("/etc/ca.crt".into()));
        assert!(!options.insecure);
        let flags = BusArgs {
            creds: Some("bob.creds".into()),
            tls_ca: Some("other.crt".into()),
            ..BusArgs::default()
        };
        let options = flags.over(context(), "t");
        assert!(matches!(options.login, Login::CredentialsFile(_)));
        assert_eq!(options.tls.ca, Some("other.crt".into()));
        assert_eq!(none.over(NatsContext::default(), "t").url, DEFAULT_BUS);
    }
}
