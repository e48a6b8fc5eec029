//! `loomctl doctor`.

use std::path::Path;
use std::time::Duration;

use anstyle::AnsiColor;
use loom_bus::server::find_binary;
use loom_schemas::record::NodeStatus;
use loom_schemas::subject;
use loom_schemas::wire::{ManagerRole, ManagerView, NodeList, NodeSummary};
use serde::Serialize;

use crate::cli::Global;
use crate::client;
use crate::commands::managers::managers;
use crate::commands::nodes::node_list;
use crate::exit::{Code, Failure, chain};
use crate::output::{self, table};

mod login;

/// A node's clock may be so far from the managers' before the doctor speaks of it: more than a
/// heartbeat needs on its way.
const CLOCK_TOLERANCE_MS: i64 = 1_000;

/// Check this machine and its bus: what is there, what is missing, and what to do.
///
/// Ends with 7 where the bus or a leader is missing, with 1 where anything else is bad.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl doctor --bus tls://10.0.0.7 --creds ada.creds --tls-ca ca.crt")]
pub(crate) struct Doctor {}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Bad,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    #[serde(rename = "check")]
    name: &'static str,
    verdict: Verdict,
    says: String,
}

fn check(name: &'static str, verdict: Verdict, says: impl Into<String>) -> Check {
    Check {
        name,
        verdict,
        says: says.into(),
    }
}

impl Doctor {
    /// Looks at everything and prints a row a check.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let Self {} = self;
        let mut checks = machine();
        checks.push(engine().await);
        checks.extend(self::login::files(&global.bus));
        checks.extend(bus(global).await);
        output::list(
            global.output,
            &checks,
            |check| check.name.to_owned(),
            |_| {
                let mut table = table::new(&["check", "verdict", "says"]);
                for check in &checks {
                    let (word, colour) = match check.verdict {
                        Verdict::Ok => ("ok", AnsiColor::Green),
                        Verdict::Warning => ("warning", AnsiColor::Yellow),
                        Verdict::Bad => ("bad", AnsiColor::Red),
                    };
                    table.add_row([
                        check.name.to_owned(),
                        table::painted(word, colour),
                        check.says.clone(),
                    ]);
                }
                table::render(table)
            },
        )?;
        verdict(&checks)
    }
}

/// 7 where the bus or a leader is missing, 1 where anything else is bad.
fn verdict(checks: &[Check]) -> Result<(), Failure> {
    let bad = |names: &[&str]| {
        let bad = |check: &Check| check.verdict == Verdict::Bad;
        let named = |check: &Check| names.is_empty() || names.contains(&check.name);
        checks.iter().any(|check| bad(check) && named(check))
    };
    if bad(&["bus", "managers"]) {
        Err(Failure::silent(Code::NoAnswer))
    } else if bad(&[]) {
        Err(Failure::silent(Code::Error))
    } else {
        Ok(())
    }
}

/// What this machine has for running tasks.
fn machine() -> Vec<Check> {
    let mut checks = vec![match find_binary(None) {
        Ok(path) => check("nats-server", Verdict::Ok, path.display().to_string()),
        Err(error) => check("nats-server", Verdict::Warning, chain(&error)),
    }];
    for (name, program, used) in [
        ("bash", "bash", "bash"),
        ("python", "python3", "python"),
        ("go", "go", "go"),
    ] {
        checks.push(match on_path(program) {
            Some(path) => check(name, Verdict::Ok, path),
            None => check(
                name,
                Verdict::Warning,
                format!("{program} is not on PATH: {used} tasks cannot run here"),
            ),
        });
    }
    let held = loom_task::driver::process::host_limits();
    checks.push(if held.missing.is_empty() {
        check("cgroups", Verdict::Ok, held.found)
    } else {
        check(
            "cgroups",
            Verdict::Warning,
            format!(
                "{}; tasks are not held to: {}",
                held.found,
                held.missing.join(", ")
            ),
        )
    });
    checks
}

/// The Docker Engine of this machine.
async fn engine() -> Check {
    match loom_task::driver::docker::host_engine().await {
        Ok(facts) if facts.live_restore => {
            let says = format!("{}, {}, live-restore", facts.version, facts.storage);
            check("docker", Verdict::Ok, says)
        }
        Ok(facts) => check(
            "docker",
            Verdict::Warning,
            format!(
                "{}: its restart ends every container; set \"live-restore\": true in \
                 /etc/docker/daemon.json",
                facts.version
            ),
        ),
        Err(error) => check(
            "docker",
            Verdict::Warning,
            format!("{}: tasks with an image cannot run here", chain(&error)),
        ),
    }
}

/// Where a program is found.
fn on_path(program: &str) -> Option<String> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| Path::new(path).is_file())
        .map(|path| path.display().to_string())
}

/// The bus, the managers and the nodes' clocks.
async fn bus(global: &Global) -> Vec<Check> {
    let bus = match global.bus.connect().await {
        Ok(bus) => bus,
        Err(failure) => {
            return vec![check(
                "bus",
                Verdict::Bad,
                failure.message.unwrap_or_default(),
            )];
        }
    };
    let url = global.bus.options("loomctl").map(|options| options.url);
    let server = bus.server();
    let trip = bus.round_trip().await.unwrap_or(Duration::MAX);
    let mut checks = vec![check(
        "bus",
        Verdict::Ok,
        format!(
            "nats-server {}, round trip {} us",
            server.version,
            trip.as_micros()
        ),
    )];
    checks.extend(self::login::connection(&bus, &url.unwrap_or_default()).await);
    checks.push(
        match client::ask(&bus, &subject::api("bus", "get"), &()).await {
            Ok(facts) => fsync(&facts),
            Err(failure) => check(
                "fsync",
                Verdict::Warning,
                failure.message.unwrap_or_default(),
            ),
        },
    );
    checks.push(match managers(&bus).await {
        Ok(managers) => leading(&managers),
        Err(failure) if failure.code == Code::Denied => check(
            "managers",
            Verdict::Warning,
            "this login may not ask who they are, as that of a node: ask with a user's to see \
             managers, nodes and clocks",
        ),
        Err(failure) => check(
            "managers",
            Verdict::Bad,
            failure.message.unwrap_or_default(),
        ),
    });
    if let Ok(list) = node_list(&bus).await {
        checks.push(clocks(&list));
        checks.push(nodes(&list));
    }
    checks
}

/// Whether one of the managers leads.
fn leading(managers: &[ManagerView]) -> Check {
    let leader = managers
        .iter()
        .find(|manager| manager.role == ManagerRole::Leader);
    match leader {
        Some(leader) => check(
            "managers",
            Verdict::Ok,
            format!("{} leads, {} in all", leader.name, managers.len()),
        ),
        None if managers.is_empty() => check(
            "managers",
            Verdict::Bad,
            "none answers: start one with `loomctl manager start`, on two hosts to survive a loss",
        ),
        None => check(
            "managers",
            Verdict::Bad,
            format!(
                "none of the {} that answer leads yet: if that stays so, the bus has no quorum; \
                 see that most of its servers run",
                managers.len()
            ),
        ),
    }
}

/// Whether a commit is on the disk when it is acknowledged.
fn fsync(facts: &loom_schemas::wire::BusView) -> Check {
    match (facts.sync_always, facts.sync_interval_ms) {
        (Some(true), _) => check(
            "fsync",
            Verdict::Ok,
            "every write, before it is acknowledged",
        ),
        (Some(false), interval) => check(
            "fsync",
            Verdict::Bad,
            format!(
                "up to {} s after a write is acknowledged: set `sync_interval: always` in the \
                 server's jetstream block",
                interval.unwrap_or_default() / 1000
            ),
        ),
        (None, _) => check(
            "fsync",
            Verdict::Warning,
            "unknown: the managers have no login of the system account (manager start \
             --system-creds); see that the servers' jetstream blocks say `sync_interval: always`",
        ),
    }
}

/// Managers know each node's clock from its heartbeats; one that is off makes deadlines wrong.
fn clocks(list: &NodeList) -> Check {
    let known = list.nodes.iter().filter_map(|view| {
        let ahead = view.ahead_ms?;
        Some((view.node.name.as_str(), ahead))
    });
    told_clocks(&known.collect::<Vec<_>>())
}

/// The same of nodes with by how many milliseconds a manager is ahead of each.
fn told_clocks(known: &[(&str, i64)]) -> Check {
    let off: Vec<String> = known
        .iter()
        .filter(|(_, ahead)| ahead.abs() > CLOCK_TOLERANCE_MS)
        .map(|(node, ahead)| {
            let side = if *ahead > 0 { "behind" } else { "ahead" };
            format!("{node} is {} ms {side}", ahead.abs())
        })
        .collect();
    let tolerance = Duration::from_millis(CLOCK_TOLERANCE_MS.unsigned_abs());
    match (known.len(), off.as_slice()) {
        (0, _) => check("clocks", Verdict::Ok, "no node has said its time yet"),
        (1, []) => check(
            "clocks",
            Verdict::Ok,
            format!("1 node agrees with the managers to {tolerance:?}"),
        ),
        (count, []) => check(
            "clocks",
            Verdict::Ok,
            format!("{count} nodes agree with the managers to {tolerance:?}"),
        ),
        (_, off) => check(
            "clocks",
            Verdict::Warning,
            format!(
                "off from the managers': {}: let ntpd or chrony keep the time there, or deadlines \
                 pass too soon or too late",
                off.join(", ")
            ),
        ),
    }
}

/// Whether there is anything to run tasks on.
fn nodes(list: &NodeList) -> Check {
    let up = |view: &&NodeSummary| view.node.status == NodeStatus::Up;
    let (up, down): (Vec<_>, Vec<_>) = list.nodes.iter().partition(up);
    let names: Vec<&str> = down.iter().map(|view| view.node.name.as_str()).collect();
    match (up.len(), names.as_slice()) {
        (0, _) => check(
            "nodes",
            Verdict::Bad,
            "none is up: start one with `loomctl node start --allow-process`",
        ),
        (count, []) => check("nodes", Verdict::Ok, format!("{count} up")),
        (count, down) => check(
            "nodes",
            Verdict::Warning,
            format!(
                "{count} up, down: {}; see that `loomctl node start` runs there and reaches the bus",
                down.join(", ")
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_whichever_way() {
        let said = |known: &[(&str, i64)]| told_clocks(known).says;
        assert_eq!(
            said(&[("n1", 900), ("n2", -900)]),
            "2 nodes agree with the managers to 1s"
        );
        let off = said(&[("n1", 3000), ("n2", 5), ("n3", -1001)]);
        assert!(
            off.contains("n1 is 3000 ms behind, n3 is 1001 ms ahead"),
            "{off}"
        );
        assert!(!off.contains("n2"), "{off}");
        assert_eq!(said(&[]), "no node has said its time yet");
    }
}
