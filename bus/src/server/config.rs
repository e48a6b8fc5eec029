//! The server's configuration: its accounts, and what each may say to the other.
//!
//! The orchestrator's account exports what users need, subject by subject: with `orch.>` a user
//! could forge heartbeats, reports and events. Imports carry `share: true`, so that the server
//! says who calls. No import overlaps another, or the message would come twice.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::secrets::{Secrets, write_private};
use super::{EmbeddedOptions, ServerError};

/// The user of managers and nodes.
pub(super) const ORCH_USER: &str = "loom";
/// The user of the system account.
pub(super) const SYSTEM_USER: &str = "system";
/// The user everybody else is.
pub(super) const USERS_USER: &str = "dev";

/// Requests with one answer. `orch.job.*` has the queue in it: the answer is the stream's ack.
pub(super) const SERVICES: &[&str] = &["orch.job.*", "orch.admin.*.*", "orch.session.*.in"];

/// Requests that several may answer.
pub(super) const SERVICES_OF_MANY: &[&str] = &[
    "orch.task.>",
    "orch.run.>",
    "orch.find.>",
    "orch.api.>",
    "$SRV.>",
];

/// How long a request to many may be answered. Without it the server keeps about 600 bytes for
/// each such request until the requester's connection ends (seen with 2.15.1).
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_mins(2);

/// What users may listen to.
pub(super) const STREAMS: &[&str] = &[
    "orch.events.>",
    "orch.logs.>",
    "orch.metrics.>",
    "orch.session.*.out",
];

/// What a user may ask the server about itself.
pub(super) const WHO_AM_I: &str = "$SYS.REQ.USER.INFO";

/// What a node says of its own accord, in its own name: the server puts that of its credentials where
/// the tag stands. It writes no log and no event of a job, task or node, gives no orders, and asks
/// nothing of `JetStream`; what it is asked it may answer.
pub(super) const NODE_SAYS: &[&str] = &[
    "orch.ctl.{{tag(node)}}.*",
    "orch.heartbeat.{{tag(node)}}",
    // Whether another agent of its name is there.
    "orch.inventory.{{tag(node)}}",
    "orch.events.command.>",
    "orch.logs.*.*.*.{{tag(node)}}.*",
    "orch.metrics.node.{{tag(node)}}",
    "orch.metrics.task.*.*.*.{{tag(node)}}",
    WHO_AM_I,
];

/// What a node listens to: what it is told, and what tasks are, wherever they run.
pub(super) const NODE_HEARS: &[&str] = &[
    "orch.assign.{{tag(node)}}",
    "orch.inventory.{{tag(node)}}",
    "orch.find.*",
    "orch.task.>",
    "orch.run.>",
    "orch.events.manager.*.elected",
    // Not the answers that managers and other nodes get.
    "_INBOX.{{tag(node)}}.>",
];

/// Where answers arrive.
pub(super) const INBOX: &str = "_INBOX.>";

/// The name of a server that lives inside a manager.
pub(crate) const SERVER_NAME: &str = "loom-embedded";

/// What is the same on every server.
pub(super) const SETTINGS: &str = "max_payload: 8MB\nping_interval: \"10s\"";

/// The block that keeps streams in a directory, given quoted, and every write on the disk before
/// it is acknowledged.
///
/// Each stream has a limit of its own. The server's, which is three quarters of what is free when
/// it starts unless something is said, would keep it from its streams on a disk that has filled up.
pub(super) fn jetstream(store: &str) -> String {
    format!(
        "jetstream {{\n  store_dir: {store}\n  max_file_store: 1TB\n  sync_interval: always\n  \
         limits {{ default_max_consumers: 20000 }}\n}}"
    )
}

pub(super) fn log_path(dir: &Path) -> PathBuf {
    dir.join("nats-server.log")
}

fn config_path(dir: &Path) -> PathBuf {
    dir.join("nats-server.conf")
}

/// A directory's name must fit between quotes in the configuration.
pub(super) fn check_name(dir: &Path) -> Result<(), ServerError> {
    match dir.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(()),
        _ => Err(ServerError::DirectoryName {
            path: dir.to_owned(),
        }),
    }
}

/// Writes the configuration and returns where it is.
pub(super) fn write(
    options: &EmbeddedOptions,
    port: u16,
    secrets: &Secrets,
) -> Result<PathBuf, ServerError> {
    let path = config_path(&options.data_dir);
    write_private(&path, text(options, port, secrets).as_bytes())?;
    Ok(path)
}

fn text(options: &EmbeddedOptions, port: u16, secrets: &Secrets) -> String {
    let dir = &options.data_dir;
    let host = match options.listen.ip() {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    };
    // The server takes -1 for any free port.
    let port = if port == 0 {
        "-1".to_owned()
    } else {
        port.to_string()
    };
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line("# Written by Loom at every start; changes are lost.");
    line(&format!("listen: {}", quoted(&format!("{host}:{port}"))));
    line("http: \"127.0.0.1:-1\"");
    line(&format!("server_name: {SERVER_NAME}"));
    line(SETTINGS);
    line(&format!("ports_file_dir: {}", quoted_path(dir)));
    line(&format!("log_file: {}", quoted_path(&log_path(dir))));
    line("logfile_size_limit: 10MB");
    line("logfile_max_num: 3");
    line(&jetstream(&quoted_path(&dir.join("store"))));
    line(&accounts(secrets));
    line("system_account: SYS");
    if options.anonymous {
        line(&format!("no_auth_user: {USERS_USER}"));
    }
    text
}

fn accounts(secrets: &Secrets) -> String {
    let services = || SERVICES.iter().chain(SERVICES_OF_MANY);
    let mut text = String::from("accounts {\n  SYS {\n");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "    users: [{}]", user(SYSTEM_USER, &secrets.system));
    text.push_str("  }\n  ORCH {\n    jetstream: enabled\n");
    let _ = writeln!(text, "    users: [{}]", user(ORCH_USER, &secrets.orch));
    text.push_str("    exports: [\n");
    for subject in SERVICES {
        let _ = writeln!(text, "      {{service: \"{subject}\"}}");
    }
    for subject in SERVICES_OF_MANY {
        let _ = writeln!(
            text,
            "      {{service: \"{subject}\", response_type: stream, threshold: \"{}s\"}}",
            ANSWERED_WITHIN.as_secs()
        );
    }
    for subject in STREAMS {
        let _ = writeln!(text, "      {{stream: \"{subject}\"}}");
    }
    text.push_str("    ]\n  }\n  USERS {\n    users: [{");
    let _ = write!(text, "user: {USERS_USER}, password: \"{}\"", secrets.user);
    let publish: Vec<&str> = services().copied().chain([WHO_AM_I]).collect();
    let subscribe: Vec<&str> = STREAMS.iter().copied().chain([INBOX]).collect();
    let _ = writeln!(
        text,
        ", permissions: {{publish: {publish:?}, subscribe: {subscribe:?}}}}}]"
    );
    text.push_str("    imports: [\n");
    for subject in services() {
        let _ = writeln!(
            text,
            "      {{service: {{account: ORCH, subject: \"{subject}\"}}, share: true}}"
        );
    }
    for subject in STREAMS {
        let _ = writeln!(
            text,
            "      {{stream: {{account: ORCH, subject: \"{subject}\"}}}}"
        );
    }
    text.push_str("    ]\n  }\n}");
    text
}

fn user(name: &str, password: &str) -> String {
    format!("{{user: {name}, password: \"{password}\"}}")
}

fn quoted_path(path: &Path) -> String {
    // `check_name` has seen the directory.
    quoted(&path.to_string_lossy())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets {
            orch: "o".into(),
            system: "s".into(),
            user: "u".into(),
        }
    }

    #[test]
    fn nothing_that_a_user_could_forge_is_a_service() {
        let exported: Vec<_> = SERVICES.iter().chain(SERVICES_OF_MANY).collect();
        for inner in [
            "orch.ctl",
            "orch.heartbeat",
            "orch.assign",
            "orch.log",
            "orch.events",
        ] {
            assert!(
                !exported.iter().any(|subject| subject.starts_with(inner)),
                "{inner}"
            );
        }
        assert!(!exported.iter().any(|subject| **subject == "orch.>"));
        assert!(!exported.iter().any(|subject| subject.starts_with("$JS")));
    }

    /// Whether there is a subject that is of both.
    fn overlap(one: &str, other: &str) -> bool {
        let (mut one, mut other) = (one.split('.'), other.split('.'));
        loop {
            match (one.next(), other.next()) {
                (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
                (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn a_node_may_not_say_what_only_a_manager_says() {
        for subject in [
            "orch.log",
            "orch.log.>",
            "orch.assign.*",
            "orch.events.job.>",
            "orch.events.task.>",
            "orch.events.node.>",
            "orch.logs.sys.*",
            "$JS.>",
        ] {
            let says = NODE_SAYS.iter().find(|said| overlap(said, subject));
            assert_eq!(says, None, "{subject}");
        }
        let of_its_own = "orch.logs.web.main.0.{{tag(node)}}.out";
        assert!(NODE_SAYS.iter().any(|said| overlap(said, of_its_own)));
        let of_another = "orch.logs.web.main.0.other.out";
        assert!(!NODE_SAYS.iter().any(|said| overlap(said, of_another)));
    }

    #[test]
    fn no_two_imports_cover_the_same_subject() {
        let first = |subject: &str| subject.split('.').take(2).collect::<Vec<_>>().join(".");
        let mut heads: Vec<_> = SERVICES
            .iter()
            .chain(SERVICES_OF_MANY)
            .map(|subject| first(subject))
            .collect();
        let all = heads.len();
        heads.sort();
        heads.dedup();
        assert_eq!(heads.len(), all);
    }

    #[test]
    fn a_directory_is_quoted() {
        let options = EmbeddedOptions::new("/tmp/a \"b\" \\c");
        let text = text(&options, 0, &secrets());
        assert!(
            text.contains(r#"ports_file_dir: "/tmp/a \"b\" \\c""#),
            "{text}"
        );
        assert!(text.contains("listen: \"127.0.0.1:-1\""));
        assert!(text.contains("no_auth_user: dev"));
        assert!(check_name(Path::new("/tmp/a\nb")).is_err());
    }
}
