//! The configuration of one server of several.

use std::fmt::Write as _;

use super::identity::Keys;
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
    let tokens = keys.tokens()?;
    let _ = writeln!(
        text,
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{",
        tokens.operator, tokens.system_account
    );
    for (account, token) in tokens.accounts {
        let _ = writeln!(text, "  {account}: {token}");
    }
    text.push_str("}\n");
    Ok(text)
}
