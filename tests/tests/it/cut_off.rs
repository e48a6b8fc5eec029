//! Three hosts for real: network namespaces, a NATS server on each, and a network that is cut.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use loom_tests::cluster::is_alive;
use loom_tests::hosts::{Host, Hosts};
use loom_tests::skip::{run, skip, works};
use loom_tests::wait::until;
use serde_json::Value;

/// Says that this machine must be able to run it.
const MUST: &str = "LOOM_REQUIRE_NETNS";

const SERVICE: &str = r"
name: web
replicas: 3
bash: while true; do sleep 0.1; done
";

/// A switch and hosts at it, each a network namespace; removed when dropped. The switch has one of
/// its own because the machine's firewall may have its say on what goes through a bridge.
struct Network {
    name: String,
    prefix: String,
    hosts: usize,
}

impl Network {
    fn new(hosts: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            name: format!(
                "lm{pid}{}",
                char::from(b'a' + u8::try_from(number).unwrap())
            ),
            // Of the range for benchmarks of networks: nobody has it at home.
            prefix: format!("198.18.{}", pid % 250),
            hosts,
        };
        let switch = network.space(0);
        ip(&["netns", "add", &switch]);
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        for host in 1..=hosts {
            let (space, port) = (network.space(host), format!("port{host}"));
            ip(&["netns", "add", &space]);
            ip(&[
                "-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0",
                "netns", &space,
            ]);
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
            let address = format!("{}/24", network.address(host));
            ip(&["-n", &space, "addr", "add", &address, "dev", "eth0"]);
            ip(&["-n", &space, "link", "set", "eth0", "up"]);
            ip(&["-n", &space, "link", "set", "lo", "up"]);
        }
        network
    }

    fn space(&self, host: usize) -> String {
        format!("{}{host}", self.name)
    }

    fn address(&self, host: usize) -> String {
        format!("{}.{host}", self.prefix)
    }

    /// A host of it. Only the network is another one: `ip netns exec` would hide the cgroups.
    fn host(&self, host: usize) -> Host {
        let space = format!("--net=/run/netns/{}", self.space(host));
        Host::at(&self.address(host), &["nsenter", &space])
    }

    /// From now on everything to and from a host is dropped in silence, as a broken switch does.
    fn cut(&self, host: usize) {
        self.rules(host, "-A");
    }

    fn heal(&self, host: usize) {
        self.rules(host, "-D");
    }

    fn rules(&self, host: usize, what: &str) {
        let space = format!("--net=/run/netns/{}", self.space(host));
        for chain in [["INPUT", "-i"], ["OUTPUT", "-o"]] {
            run(Command::new("nsenter")
                .args([&space, "iptables", "-w", what])
                .args(chain)
                .args(["eth0", "-j", "DROP"]));
        }
    }
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..=self.hosts {
            works("ip", &["netns", "delete", &self.space(host)]);
        }
    }
}

/// Node, run and process of each task of a job that runs.
fn running(job: &Value) -> Vec<(String, String, u32)> {
    let slots = job["slots"].as_array().into_iter().flatten();
    slots
        .map(|slot| &slot["current"])
        .filter(|run| run["state"] == "running" && run["marks"]["unknown"] != true)
        .filter_map(|run| {
            let text = |name: &str| run[name].as_str().map(str::to_owned);
            let pid = u32::try_from(run["pid"].as_u64()?).ok()?;
            Some((text("node")?, text("run")?, pid))
        })
        .collect()
}

#[test]
fn a_host_that_is_cut_off_is_replaced_and_ends_what_was_replaced_when_it_is_back() {
    let root = nix::unistd::geteuid().is_root();
    let tools = works("ip", &["netns"]) && works("iptables", &["-w", "-S"]);
    if !root || !tools || !works("nsenter", &["--version"]) {
        let why = "needs root, ip, iptables and nsenter, and a kernel that lets them";
        return skip("three hosts in network namespaces", why, MUST);
    }
    let network = Network::new(3);
    let mut hosts = Hosts::new((1..=3).map(|host| network.host(host)).collect());
    hosts.start_all();
    let spread = format!("{SERVICE}cpu: 0.1\n");
    hosts
        .ctl_with_input("ada", &["run", "-"], &spread)
        .expect_code(0);
    let before = running(&hosts.job("web"));
    assert_eq!(before.len(), 3, "{before:?}");
    let (cut, old): (Vec<_>, Vec<_>) = before.into_iter().partition(|run| run.0 == "node-3");
    assert!(!cut.is_empty(), "nothing ran on the third host: {old:?}");

    network.cut(3);
    // The bus takes some seconds to notice: until then whoever asks is told to ask again.
    for number in 0..3 {
        let job = format!("name: during-{number}\nkind: batch\nbash: 'true'\n");
        until("what is asked for meanwhile is taken", || {
            let said = hosts.ctl_with_input("ada", &["run", "--detach", "-"], &job);
            match said.code {
                0 => Ok(()),
                7 => Err(said.err),
                _ => panic!("{said:?}"),
            }
        });
    }
    until(
        "what ran on the host that is cut off runs elsewhere",
        || {
            let now = running(&hosts.job("web"));
            let elsewhere = now.iter().all(|run| run.0 != "node-3");
            let kept = old.iter().all(|run| now.contains(run));
            if now.len() == 3 && elsewhere && kept {
                Ok(())
            } else {
                Err(format!(
                    "{now:?} in {:?}",
                    hosts.ctl("ada", &["status", "web"])
                ))
            }
        },
    );
    // Cut off, the host cannot know it, and goes on.
    assert!(cut.iter().all(|run| is_alive(run.2)), "{cut:?}");
    for number in 0..3 {
        until("what was asked for meanwhile is done", || {
            let job = hosts.job(&format!("during-{number}"));
            if job["summary"]["status"] == "completed" {
                Ok(())
            } else {
                Err(job.to_string())
            }
        });
    }

    let after = running(&hosts.job("web"));
    network.heal(3);
    until("back again, the host ends what was replaced", || {
        let alive: Vec<_> = cut.iter().filter(|run| is_alive(run.2)).collect();
        if alive.is_empty() && hosts.nodes_up().len() == 3 {
            Ok(())
        } else {
            Err(format!("{alive:?}"))
        }
    });
    // Any manager answers, also the one that was cut off and has not yet caught up.
    until("nothing else has changed", || {
        let now = running(&hosts.job("web"));
        if now == after {
            Ok(())
        } else {
            Err(format!("{now:?} and not {after:?}"))
        }
    });
    hosts.ctl("ada", &["stop", "web"]).expect_code(0);
}
