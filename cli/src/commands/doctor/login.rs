//! What the doctor says of the way to the bus: files, encryption, login, servers.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use loom_bus::Bus;
use loom_bus::facts::user_facts;

use super::{Check, Verdict, check};
use crate::client::BusArgs;

/// How long the server may take to say who we are.
const PATIENCE: Duration = Duration::from_secs(2);

/// Secrets that others on this machine can read.
pub(super) fn files(bus: &BusArgs) -> Vec<Check> {
    let open = |path: &Path| {
        let mode = std::fs::metadata(path).ok()?.permissions().mode();
        (mode & 0o077 != 0).then(|| path.display().to_string())
    };
    let secrets = [bus.creds.as_deref(), bus.tls_key.as_deref()];
    let readable: Vec<String> = secrets.into_iter().flatten().filter_map(open).collect();
    if readable.is_empty() {
        return Vec::new();
    }
    let says = format!(
        "others here can read {0}: chmod 600 {0}",
        readable.join(" ")
    );
    vec![check("secrets", Verdict::Warning, says)]
}

/// How the connection is protected, as whom we are taken, how many servers there are.
pub(super) async fn connection(bus: &Bus, url: &str) -> Vec<Check> {
    let server = bus.server();
    let local = url.split(',').all(|part| {
        let host = part.rsplit(['@', '/']).next().unwrap_or(part);
        host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]")
    });
    let mut checks = vec![if server.tls {
        check("tls", Verdict::Ok, "the bus demands it")
    } else if local {
        check("tls", Verdict::Ok, "none, and none needed on this machine")
    } else {
        check(
            "tls",
            Verdict::Bad,
            "the bus does not demand it, so others can read and change everything: add a tls \
             block to its configuration; `loomctl bus init` makes one",
        )
    }];
    let user = user_facts(bus, PATIENCE).await.unwrap_or_default();
    let name = user
        .user
        .unwrap_or_else(|| "nobody in particular".to_owned());
    let account = user.account.unwrap_or_else(|| "unknown".to_owned());
    checks.push(check(
        "login",
        Verdict::Ok,
        format!("{name}, of the account {account}"),
    ));
    checks.push(servers(server.servers, server.cluster.as_deref()));
    checks
}

/// Whether the bus survives the loss of a server.
fn servers(count: usize, cluster: Option<&str>) -> Check {
    match (count, cluster) {
        (3.., _) => check("servers", Verdict::Ok, format!("{count}, one may be lost")),
        (2, _) => check(
            "servers",
            Verdict::Warning,
            "2 of the bus are there: nothing is decided when another is lost; start the third",
        ),
        (_, Some(_)) => check(
            "servers",
            Verdict::Warning,
            "1 of the bus is there: start the others, see that they reach each other",
        ),
        (_, None) => check(
            "servers",
            Verdict::Ok,
            "1: the cluster lives and dies with it; `loomctl bus init` makes three",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_that_lost_servers_is_told_from_one_that_has_one() {
        let verdict = |count, cluster| servers(count, cluster).verdict;
        assert_eq!(verdict(3, Some("loom")), Verdict::Ok);
        assert_eq!(verdict(2, Some("loom")), Verdict::Warning);
        assert_eq!(verdict(1, Some("loom")), Verdict::Warning);
        assert_eq!(verdict(1, None), Verdict::Ok);
    }
}
