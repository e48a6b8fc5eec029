//! `docker-compose.yml` is brought up from what this machine has, and parts of it are killed.

use std::io::Write;
use std::process::Command;

use loom_tests::cluster::{Said, checkout, loomctl};
use loom_tests::skip::{run, skip, works};
use loom_tests::wait::until;
use serde_json::Value;

/// Says that this machine has an engine, so that it must run.
const MUST: &str = "LOOM_REQUIRE_DOCKER";

const SERVICE: &str = "name: web\nreplicas: 3\nbash: while true; do sleep 0.2; done\n";

/// The containers of `docker-compose.yml`; removed with all they kept when dropped.
struct Compose {
    program: &'static [&'static str],
    name: String,
}

/// Compose as a program of its own, or as the engine's plugin.
fn program() -> Option<&'static [&'static str]> {
    if works("docker-compose", &["version"]) {
        Some(&["docker-compose"])
    } else if works("docker", &["compose", "version"]) {
        Some(&["docker", "compose"])
    } else {
        None
    }
}

impl Compose {
    /// Builds the image and starts everything.
    fn up(program: &'static [&'static str]) -> Self {
        let compose = Self {
            program,
            name: format!("loomtest{}", std::process::id()),
        };
        let base = format!("{}-base", compose.name);
        run(Command::new("scripts/base-image.sh")
            .arg(&base)
            .arg(loomctl())
            .current_dir(checkout()));
        run(Command::new("scripts/image.sh")
            .env("LOOM_IMAGE", &compose.name)
            .env("LOOM_BASE", &base)
            .env("LOOM_LOOMCTL", loomctl())
            .current_dir(checkout()));
        run(&mut compose.command(&["up", "-d"]));
        // Making a container for each question takes longer than asking.
        let ada = [
            "run",
            "-d",
            "--name",
            &compose.ada(),
            "--entrypoint",
            "sleep",
            "cli",
        ];
        run(compose.command(&ada).arg("100000"));
        compose
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program[0]);
        command
            .args(&self.program[1..])
            .args(["--project-name", &self.name])
            .args(arguments)
            .current_dir(checkout())
            .env("LOOM_IMAGE", &self.name)
            .env("LOOM_DOWN_AFTER", "2s")
            .env("LOOM_LOST_AFTER", "3s");
        command
    }

    /// The container that ada sits in.
    fn ada(&self) -> String {
        format!("{}-ada", self.name)
    }

    /// `loomctl` as ada.
    fn ctl(&self, line: &str) -> Said {
        let line = format!("loomctl {line}");
        Command::new("docker")
            .args(["exec", &self.ada(), "sh", "-c", &line])
            .output()
            .unwrap()
            .into()
    }

    /// The credentials that a service's container can read.
    fn logins(&self, service: &str) -> String {
        let line = "ls /login; ls -R /bus 2>/dev/null; true";
        run(&mut self.command(&["exec", "-T", service, "sh", "-c", line]))
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ctl(&format!("{line} -o json")).out).unwrap_or_default()
    }

    /// Nodes that the running tasks of web are on.
    fn nodes(&self) -> Vec<String> {
        let job = self.json("status web");
        let slots = job["slots"].as_array().into_iter().flatten();
        slots
            .filter(|slot| slot["current"]["state"] == "running")
            .filter_map(|slot| slot["current"]["node"].as_str().map(str::to_owned))
            .collect()
    }

    fn leader(&self) -> Option<String> {
        let list = self.json("manager ls");
        let mut managers = list["items"].as_array()?.iter();
        let leader = managers.find(|manager| manager["role"] == "leader")?;
        leader["name"].as_str().map(str::to_owned)
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self
                .command(&["logs", "--no-color", "--tail", "60"])
                .output();
            let logs = logs.map(|logs| Said::from(logs).out).unwrap_or_default();
            let _ = writeln!(std::io::stderr().lock(), "{logs}");
        }
        works("docker", &["rm", "--force", &self.ada()]);
        let _ = self.command(&["down", "--volumes", "-t", "1"]).output();
        let base = format!("{}-base", self.name);
        works("docker", &["image", "rm", "--force", &self.name, &base]);
    }
}

#[test]
fn a_job_goes_on_when_the_leader_and_a_node_are_killed() {
    let what = "the cluster of docker-compose.yml";
    if !works("docker", &["info"]) {
        return skip(what, "no Docker engine answers", MUST);
    }
    let Some(program) = program() else {
        return skip(
            what,
            "no docker-compose (apt-get install docker-compose)",
            MUST,
        );
    };
    let compose = Compose::up(program);
    until("managers and nodes are there", || {
        let managers = compose.ctl("manager ls -o name");
        let nodes = compose.ctl("node ls -o name");
        let whole = managers.out.lines().count() == 2 && nodes.out.lines().count() == 3;
        if whole {
            Ok(())
        } else {
            Err(format!("{managers:?} {nodes:?}"))
        }
    });
    compose
        .ctl(&format!("run - <<'END'\n{SERVICE}END"))
        .expect_code(0);
    assert_eq!(compose.nodes().len(), 3);

    // What a node can read, its tasks can.
    for node in ["node-1", "node-2", "node-3"] {
        assert_eq!(compose.logins(node), "ca.crt\nown.creds\n", "{node}");
    }
    let own = "ca.crt\nown.creds\nsystem.creds\n";
    assert_eq!(compose.logins("manager-1"), own);

    let leader = compose.leader().expect("a leader");
    run(&mut compose.command(&["kill", &leader, "node-2"]));
    until("another manager leads", || {
        let now = compose.leader();
        if now.as_ref().is_some_and(|now| *now != leader) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    until("three tasks run, none on the node that was killed", || {
        let nodes = compose.nodes();
        if nodes.len() == 3 && !nodes.contains(&"node-2".to_owned()) {
            Ok(())
        } else {
            Err(format!("{nodes:?}"))
        }
    });
    compose
        .ctl("run - <<'END'\nname: after\nkind: batch\nbash: 'true'\nEND")
        .expect_code(0);

    // The service for users: its own credentials, and the examples.
    let said: Said = compose
        .command(&["run", "--rm", "-T", "cli", "run", "/examples/hello.yaml"])
        .output()
        .unwrap()
        .into();
    said.expect_code(0);
    let hello = compose.json("status hello");
    assert_eq!(hello["summary"]["job"]["owner"], "ada", "{hello}");
}
