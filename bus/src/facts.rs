//! What a server says of itself.

use std::time::Duration;

use async_nats::ServerInfo;
use serde::Deserialize;

use crate::call::CallError;
use crate::connection::Bus;

/// Major, minor, patch.
pub type Version = (u32, u32, u32);

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version: `2.15.1`.
    pub version: String,
    /// Its name.
    pub name: String,
    /// The cluster it is part of, if any.
    pub cluster: Option<String>,
    /// How many servers a client can connect to, as this one knows.
    pub servers: usize,
    /// Whether it has `JetStream`.
    pub jetstream: bool,
    /// Level of its `JetStream` API, where it was asked.
    pub api_level: Option<u32>,
    /// The largest message it takes, in bytes.
    pub max_payload: usize,
    /// Whether it demands encrypted connections.
    pub tls: bool,
    /// Whether it wants credentials.
    pub auth_required: bool,
}

/// As whom one is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserFacts {
    /// By name, if the server knows one.
    pub user: Option<String>,
    /// Of which account.
    pub account: Option<String>,
}

/// What one server tells the system account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemFacts {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it keeps its streams, if it has `JetStream`.
    pub store_dir: Option<String>,
    /// Whether every write is on the disk before it is acknowledged.
    pub sync_always: bool,
    /// How long a write may wait for the disk otherwise.
    pub sync_interval: Option<Duration>,
    /// Memory it uses, in bytes.
    pub memory: u64,
    /// Messages dropped for clients that were too slow.
    pub slow_consumers: u64,
}

impl ServerFacts {
    pub(crate) fn of_info(info: &ServerInfo, api_level: Option<u32>) -> Self {
        Self {
            version: info.version.clone(),
            name: info.server_name.clone(),
            cluster: info.cluster.clone(),
            servers: info.connect_urls.len().max(1),
            jetstream: info.jetstream,
            api_level,
            max_payload: info.max_payload,
            tls: info.tls_required,
            auth_required: info.auth_required,
        }
    }

    /// Whether it lives inside a manager, and so ends with it.
    pub fn is_embedded(&self) -> bool {
        self.name == crate::server::config::SERVER_NAME
    }
}

/// Reads `2.15.1` or `v2.15.1-dev`; a preview of a version counts as the version before it.
pub(crate) fn parse_version(text: &str) -> Option<Version> {
    let text = text.trim().trim_start_matches('v');
    let (numbers, preview) = match text.split_once(['-', '+']) {
        Some((numbers, rest)) => (numbers, !rest.is_empty() && text.contains('-')),
        None => (text, false),
    };
    let mut parts = numbers.split('.').map(|part| part.parse::<u32>().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    Some(match (preview, version) {
        (true, (major, minor, 0)) => (major, minor.saturating_sub(1), u32::MAX),
        (true, (major, minor, patch)) => (major, minor, patch - 1),
        (false, version) => version,
    })
}

#[derive(Deserialize)]
struct Varz {
    #[serde(default)]
    server_name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    mem: u64,
    #[serde(default)]
    slow_consumers: u64,
    #[serde(default)]
    jetstream: JetStreamVarz,
}

#[derive(Default, Deserialize)]
struct JetStreamVarz {
    config: Option<JetStreamConfig>,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    store_dir: String,
    #[serde(default)]
    sync_interval: u64,
    #[serde(default)]
    sync_always: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UserInfo {
    user: String,
    user_name: String,
    account: String,
    account_name: String,
}

#[derive(Deserialize)]
struct UserReply {
    data: UserInfo,
}

/// Asks the server as whom this connection is taken; none if it does not say.
pub async fn user_facts(bus: &Bus, patience: Duration) -> Option<UserFacts> {
    const ASK: &str = "$SYS.REQ.USER.INFO";
    let answer = bus
        .call_bytes(ASK, bytes::Bytes::new(), &[], patience)
        .await;
    let UserReply { data } = serde_json::from_slice(&answer.ok()?.payload).ok()?;
    let first = |names: [String; 2]| names.into_iter().find(|name| !name.is_empty());
    Some(UserFacts {
        // With a credentials file the user and the account are public keys, and these their names.
        user: first([data.user_name, data.user]),
        account: first([data.account_name, data.account]),
    })
}

#[derive(Deserialize)]
struct SystemReply {
    data: Varz,
}

/// Asks every server of the cluster; `system` is a connection with the system account's login.
///
/// Returns what came within `patience`, by name.
pub async fn system_facts(system: &Bus, patience: Duration) -> Result<Vec<SystemFacts>, CallError> {
    const ASK: &str = "$SYS.REQ.SERVER.PING.VARZ";
    let payload = bytes::Bytes::from_static(b"{}");
    let mut replies = system
        .call_many_bytes::<serde_json::Value>(ASK, payload, &[], patience)
        .await?;
    let mut facts = Vec::new();
    while let Some(reply) = replies.next_reply().await {
        let Ok(SystemReply { data }) = serde_json::from_slice(&reply?.payload) else {
            continue;
        };
        let config = data.jetstream.config;
        facts.push(SystemFacts {
            name: data.server_name,
            version: data.version,
            store_dir: config.as_ref().map(|config| config.store_dir.clone()),
            sync_always: config.as_ref().is_some_and(|config| config.sync_always),
            sync_interval: config.map(|config| Duration::from_nanos(config.sync_interval)),
            memory: data.mem,
            slow_consumers: data.slow_consumers,
        });
    }
    facts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse_version("2.15.1"), Some((2, 15, 1)));
        assert_eq!(parse_version("v2.9.10"), Some((2, 9, 10)));
        assert_eq!(parse_version("2.15.1+build"), Some((2, 15, 1)));
        assert!(parse_version("2.9.10") < parse_version("2.15.1"));
        for bad in ["", "2.15", "two", "2.15.1.4", "2.15.x"] {
            assert_eq!(parse_version(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_preview_is_older_than_the_version_it_leads_to() {
        assert!(parse_version("2.15.1-RC.2") < parse_version("2.15.1"));
        assert!(parse_version("2.16.0-dev") > parse_version("2.15.1"));
        assert!(parse_version("2.16.0-dev") < parse_version("2.16.0"));
    }
}
