//! What goes wrong, in a line for people: which image, registry or port it is about, and what to do.

use std::io;
use std::path::Path;

use bollard::errors::Error;
use loom_schemas::spec::image::ImageName;

use crate::driver::DriverError;
use crate::launch::Container;

/// The longest text of the engine that is passed on.
const TEXT_MAX: usize = 400;

/// The engine does not answer.
pub(super) fn away(socket: &Path, error: &io::Error) -> DriverError {
    let socket = socket.display();
    DriverError::Unavailable(match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "the Docker Engine at {socket} may not be used by this user: run the agent as root or in \
             the group `docker`"
        ),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "there is no Docker Engine at {socket}: install it (Debian: `apt-get install docker.io`) \
             or start it (`systemctl start docker`)"
        ),
        _ => format!("the Docker Engine at {socket} does not answer: {error}"),
    })
}

/// A call that failed, of which no more is known.
pub(super) fn of_call(socket: &Path, context: &str, error: &Error) -> DriverError {
    match (status(error), unreachable(error)) {
        (_, Some(error)) => away(socket, &error),
        (Some(_), None) => DriverError::Unavailable(format!("cannot {context}: {}", text(error))),
        (None, None) => DriverError::Failed {
            context: context.to_owned(),
            source: io::Error::other(text(error)),
        },
    }
}

/// The status of the engine's answer, if it answered.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the engine has no such container, image or program.
pub(super) fn is_missing(error: &Error) -> bool {
    status(error) == Some(404)
}

/// The engine's own words, in one line.
pub(super) fn text(error: &Error) -> String {
    let text = match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => chain(other),
    };
    one_line(&text)
}

pub(super) fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(TEXT_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Why the engine could not be reached, if that is it.
fn unreachable(error: &Error) -> Option<io::Error> {
    match error {
        Error::SocketNotFoundError(_) => return Some(io::ErrorKind::NotFound.into()),
        Error::RequestTimeoutError => return Some(io::ErrorKind::TimedOut.into()),
        _ => {}
    }
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(found) = cause {
        if let Some(io) = found.downcast_ref::<io::Error>() {
            return Some(io::Error::new(io.kind(), io.to_string()));
        }
        cause = found.source();
    }
    matches!(
        error,
        Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::IOError { .. }
    )
    .then(|| io::Error::new(io::ErrorKind::BrokenPipe, "the connection was closed"))
}

/// Why an image could not be pulled.
pub(super) fn of_pull(
    socket: &Path,
    image: &str,
    name: &ImageName<'_>,
    error: &Error,
) -> DriverError {
    if let Some(error) = unreachable(error) {
        return away(socket, &error);
    }
    pull(image, name, status(error), &text(error))
}

/// What is said of an image for other machines; the latter by engines with the store of containerd, as
/// of what is not there.
const OTHER_MACHINES: [&str; 2] = [
    "no matching manifest for",
    "no match for platform in manifest",
];

fn pull(image: &str, name: &ImageName<'_>, status: Option<u16>, said: &str) -> DriverError {
    let (registry, reference) = (name.registry(), name.reference());
    let lower = said.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    if has(&["no space left"]) {
        return DriverError::Unavailable(format!(
            "image `{image}`: no space left for it on this node: free some with `docker image prune` \
             or enlarge the engine's disk"
        ));
    }
    if has(&[
        "no basic auth credentials",
        "unauthorized",
        "authentication required",
        "incorrect username or password",
        "denied: requested access",
        "access forbidden",
        "403 forbidden",
    ]) {
        return DriverError::Rejected(format!(
            "image `{image}`: registry {registry} refuses it: it does not exist there, or needs a \
             login: run `docker login {registry}` on the node as the agent's user"
        ));
    }
    if has(&OTHER_MACHINES) {
        return DriverError::Rejected(format!(
            "image `{image}`: registry {registry} has it for other machines only: {said}"
        ));
    }
    if has(&["manifest unknown", "name unknown"]) || status == Some(404) {
        return DriverError::Rejected(format!(
            "image `{image}`: registry {registry} has no `{reference}` of `{name}`: check name and \
             tag"
        ));
    }
    if has(&[
        "connection refused",
        "no such host",
        "i/o timeout",
        "deadline exceeded",
        "network is unreachable",
        "no route to host",
        "server misbehaving",
        "client.timeout",
    ]) {
        return DriverError::Unavailable(format!(
            "image `{image}`: registry {registry} cannot be reached from this node ({}): check that \
             it runs and the node's network and DNS",
            last_part(said)
        ));
    }
    if has(&["server gave http response to https client"]) {
        return DriverError::Rejected(format!(
            "image `{image}`: registry {registry} speaks plain HTTP: give it TLS, or name it under \
             `insecure-registries` in the engine's daemon.json"
        ));
    }
    if has(&[
        "unexpected eof",
        "connection reset",
        "verification failed",
        "digest mismatch",
    ]) {
        return DriverError::Unavailable(format!(
            "image `{image}`: the pull from registry {registry} broke off ({}): it is tried again",
            last_part(said)
        ));
    }
    DriverError::Unavailable(format!(
        "image `{image}`: the pull from registry {registry} failed: {said}"
    ))
}

/// What stands after the last colon: the cause itself in what Go programs say.
fn last_part(said: &str) -> &str {
    said.rsplit(": ").next().unwrap_or(said)
}

/// Why a container could not be created or started.
pub(super) fn of_start(socket: &Path, container: &Container, error: &Error) -> DriverError {
    if let Some(error) = unreachable(error) {
        return away(socket, &error);
    }
    start(container, status(error), &text(error))
}

/// The same of a start alone: with an answer that broke off, or never came, it may be under way.
pub(super) fn of_begin(socket: &Path, container: &Container, error: &Error) -> DriverError {
    match unreachable(error) {
        Some(cause) if !is_refused(&cause) => {
            let why = away(socket, &cause);
            DriverError::Uncertain(format!("{why}, while a container was being started"))
        }
        _ => of_start(socket, container, error),
    }
}

/// Whether nothing was asked at all, because nobody was there to ask.
fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    matches!(
        error.kind(),
        ConnectionRefused | NotFound | PermissionDenied
    )
}

fn start(container: &Container, status: Option<u16>, said: &str) -> DriverError {
    let image = &container.image.name;
    let lower = said.to_lowercase();
    if lower.contains("no space left") {
        return DriverError::Unavailable(format!(
            "image `{image}`: no space left on this node for a container of it: free some with \
             `docker system prune` or enlarge the engine's disk"
        ));
    }
    if let Some(port) = taken_port(container, &lower) {
        return DriverError::Unavailable(port);
    }
    if !container.gpus.is_empty() && is_about_gpus(&lower) {
        let gpus = container.gpus.join(", ");
        return DriverError::Rejected(format!(
            "gpus {gpus}: the Docker Engine of this node cannot put them into a container: install \
             the NVIDIA Container Toolkit there and restart the engine, or run the task as a \
             process: {said}"
        ));
    }
    if lower.contains("exec format error") {
        return DriverError::Rejected(exec_format(image));
    }
    if let Some(program) = quoted_program(said) {
        if lower.contains("not found") || lower.contains("no such file") {
            return DriverError::Rejected(format!(
                "program `{program}` was not found in image `{image}`: name one that is there with \
                 `command`"
            ));
        }
        if lower.contains("permission denied") || lower.contains("is a directory") {
            return DriverError::Rejected(format!(
                "program `{program}` of image `{image}` cannot be executed: it is a directory or has \
                 no `x` permission for the task's user"
            ));
        }
    }
    if let Some(at) = lower.find("unable to find ") {
        return DriverError::Rejected(format!(
            "image `{image}`: {}: name a user that is in its /etc/passwd, or a number",
            said.get(at..).unwrap_or(said)
        ));
    }
    if lower.contains("no command specified") {
        return DriverError::Rejected(format!(
            "image `{image}` says nothing to run: set `command`"
        ));
    }
    if lower.contains("minimum memory limit") {
        return DriverError::Rejected(format!(
            "a container needs more memory than this task's `memory`: {said}"
        ));
    }
    let message = format!("image `{image}`: its container could not be started: {said}");
    match status {
        Some(400) => DriverError::Rejected(message),
        _ => DriverError::Unavailable(message),
    }
}

/// Whether the engine speaks of the devices it was asked for.
fn is_about_gpus(lower: &str) -> bool {
    let words = [
        "could not select device driver",
        "nvidia-container",
        "unknown device",
    ];
    words.iter().any(|word| lower.contains(word))
}

/// The host port that somebody else has, if that is it.
fn taken_port(container: &Container, lower: &str) -> Option<String> {
    let taken =
        lower.contains("address already in use") || lower.contains("port is already allocated");
    if !taken {
        return None;
    }
    let named = container.ports.iter().find(|port| {
        let number = format!(":{}", port.host);
        lower.match_indices(&number).any(|(at, _)| {
            let next = lower[at + number.len()..].chars().next();
            !next.is_some_and(|c| c.is_ascii_digit())
        })
    });
    Some(match named {
        Some(port) => format!(
            "port `{}`: the node's port {} is taken by another program: stop that, or choose another \
             `host` port",
            port.name, port.host
        ),
        None => "a port of the node is taken by another program".to_owned(),
    })
}

/// The program of `exec: "/bin/x": ...`.
fn quoted_program(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("exec: \"")?;
    rest.split_once('"').map(|(program, _)| program)
}

/// What the last line of a program that ended at once tells: that it could not be executed, or what
/// it did not find.
pub(super) fn of_output(image: &str, code: Option<i32>, line: &str) -> Option<String> {
    if line.ends_with("exec format error") {
        return Some(exec_format(image));
    }
    let missing = line.strip_suffix(": not found");
    let missing = missing.or_else(|| line.strip_suffix(": command not found"));
    match (code, missing) {
        (Some(code @ 127), Some(before)) => {
            let program = before.rsplit(": ").next().unwrap_or(before);
            Some(format!(
                "exit code {code}: program `{program}` was not found in image `{image}`: choose an \
                 image that has it"
            ))
        }
        (Some(code @ (126 | 127)), None) => Some(format!("exit code {code}: {}", one_line(line))),
        _ => None,
    }
}

/// A program for another machine.
pub(super) fn exec_format(image: &str) -> String {
    format!(
        "image `{image}`: exec format error: its program is for another machine than this one ({}): \
         choose an image for it",
        std::env::consts::ARCH
    )
}

#[cfg(test)]
#[path = "trouble_tests.rs"]
mod tests;
