//! The configuration of one server of several.

use std::fmt::Write as _;

use super::identity::{Keys, Revoked};
use super::{AUTHORITY, DeployError, Member};
use crate::server::config::{SETTINGS, jetstream};

/// The file with the configuration.
pub(super) const CONFIG: &str = "nats-server.conf";
/// The file with the server's certificate.
pub(super) const CERTIFICATE: &str = "server.crt";
/// The file with its key.
pub(super) const KEY: &str = "server.key";

/// What a server needs to know, with every path relative to where it is started.
pub(super) fn config(
    member: &Member,
    members: &[Member],
    keys: &Keys,
    revoked: &Revoked,
) -> Result<String, DeployError> {
    let Member { name, port, .. } = member;
    let (listen, host) = (member.listens_on(), member.shown_host());
    let tls = format!("cert_file: \"{CERTIFICATE}\", key_file: \"{KEY}\"");
    let mut text = format!(
        "# Made by `loomctl bus init`. Start the server in this directory:\n\
         #   nats-server -c {CONFIG}\n\
         server_name: \"{name}\"\n\
         listen: \"{listen}:{port}\"\n\
         client_advertise: \"{host}:{port}\"\n\
         {SETTINGS}\n\
         tls {{ {tls}, timeout: 5 }}\n\
         {}\n",
        jetstream("\"store\"")
    );
    // Writing to a string cannot fail.
    if members.len() > 1 {
        let port = member.route_port;
        let _ = writeln!(
            text,
            "cluster {{\n  name: loom\n  listen: \"{listen}:{port}\"\n  \
             cluster_advertise: \"{host}:{port}\"\n  \
             tls {{ {tls}, ca_file: \"{AUTHORITY}\", verify: true, timeout: 5 }}\n  routes: ["
        );
        for other in members.iter().filter(|other| *other != member) {
            let (host, port) = (other.shown_host(), other.route_port);
            let _ = writeln!(text, "    \"nats-route://{host}:{port}\"");
        }
        text.push_str("  ]\n}\n");
    }
    let tokens = keys.tokens(revoked)?;
    let _ = writeln!(
        text,
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{",
        tokens.operator, tokens.system_account
    );
    for (account, token) in tokens.accounts {
        let _ = writeln!(text, "{}", preloaded(&account, &token));
    }
    text.push_str("}\n");
    Ok(text)
}

/// The same configuration with other tokens of the accounts, and all else as it was.
pub(super) fn with_accounts(config: &str, accounts: &[(String, String)]) -> String {
    let renewed = |line: &str| {
        let of = |(account, _): &&(String, String)| line.starts_with(&format!("  {account}: "));
        match accounts.iter().find(of) {
            Some((account, token)) => preloaded(account, token),
            None => line.to_owned(),
        }
    };
    let lines: Vec<String> = config.lines().map(renewed).collect();
    lines.join("\n") + "\n"
}

fn preloaded(account: &str, token: &str) -> String {
    format!("  {account}: {token}")
}
