//! Managers and nodes as processes of their own, on a nats-server that is not ours.

use std::thread;

use loom_tests::cluster::{is_alive, run_alone, signal};
use loom_tests::parts::{Agent, Server};
use loom_tests::wait::{until, until_true};
use nix::sys::signal::Signal;
use serde_json::Value;

const SERVICE: &str = "name: web\nreplicas: 4\nstop: {grace: 1s}\n\
                       bash: trap 'echo got it' USR1; echo up; while true; do sleep 0.05; done\n";

fn job(server: &Server, name: &str) -> Value {
    let said = server.ctl(&["status", name, "-o", "json"]);
    serde_json::from_str(&said.out).unwrap_or_default()
}

/// Slot and pid of every running run of a job.
fn running(server: &Server, name: &str) -> Vec<(String, u32)> {
    let view = job(server, name);
    let slots = view["slots"].as_array().cloned().unwrap_or_default();
    let of_slot = |slot: &Value| {
        let run = &slot["current"];
        let pid = run["pid"].as_u64().filter(|_| run["state"] == "running")?;
        Some((slot["slot"].to_string(), u32::try_from(pid).ok()?))
    };
    slots.iter().filter_map(of_slot).collect()
}

fn pid_on(server: &Server, name: &str, node: &str) -> Vec<u32> {
    let view = job(server, name);
    let slots = view["slots"].as_array().cloned().unwrap_or_default();
    slots
        .iter()
        .filter(|slot| slot["current"]["node"] == node)
        .filter_map(|slot| u32::try_from(slot["current"]["pid"].as_u64()?).ok())
        .collect()
}

/// Who leads, as the managers say.
fn leader(server: &Server) -> Option<String> {
    let said = server.ctl(&["manager", "ls", "-o", "json"]);
    let list: Value = serde_json::from_str(&said.out).ok()?;
    let leader = list["items"]
        .as_array()?
        .iter()
        .find(|manager| manager["role"] == "leader")?;
    leader["name"].as_str().map(str::to_owned)
}

/// Tasks outlive their agents: they are stopped by the cluster before the test ends.
fn stop(server: &Server, name: &str) {
    let said = server.ctl(&["stop", name]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn a_standby_takes_over_and_commands_need_no_manager_at_all() {
    let server = Server::start();
    let mut managers = [server.manager("m1"), server.manager("m2")];
    let _nodes = [server.node("n1"), server.node("n2")];
    server.run(SERVICE, &[]).expect_code(0);
    let before = running(&server, "web");
    assert_eq!(before.len(), 4);
    let nodes = server.ctl(&["node", "ls", "-o", "name"]).expect_code(0);
    assert_eq!(nodes.out, "n1\nn2\n");

    let first = until("somebody leads", || leader(&server).ok_or_else(String::new));
    let of = |managers: &[Agent], name: &str| managers.iter().position(|m| m.name == name);
    let at = of(&managers, &first).unwrap();
    managers[at].kill();
    let second = until("the standby leads", || match leader(&server) {
        Some(name) if name != first => Ok(name),
        other => Err(format!("{other:?}")),
    });
    server
        .run("name: after\nkind: batch\nbash: 'true'\n", &[])
        .expect_code(0);
    assert_eq!(running(&server, "web"), before, "no task noticed anything");

    let at = of(&managers, &second).unwrap();
    managers[at].kill();
    // Straight to the task: nobody else is there.
    let said = server.ctl(&["signal", "web/0", "USR1"]).expect_code(0);
    assert!(said.out.contains("ok"), "{}", said.out);
    let said = server.ctl(&["pause", "web"]).expect_code(0);
    assert_eq!(said.out.lines().count(), 5, "{}", said.out);
    server.ctl(&["resume", "web"]).expect_code(0);
    until("the log is read from the files of the task", || {
        let said = server.ctl(&["logs", "web/0"]);
        if said.out == "up\ngot it\n" {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
    let said = server.ctl(&["status"]).expect_code(7);
    assert!(said.err.contains("no manager answers"), "{}", said.err);

    managers[at].start_again();
    until("the job goes on as it was", || {
        let now = running(&server, "web");
        if now == before {
            Ok(())
        } else {
            Err(format!("{now:?} for {before:?}"))
        }
    });
    stop(&server, "web");
    assert!(before.iter().all(|(_, pid)| !is_alive(*pid)));
}

#[test]
fn a_node_that_is_started_again_adopts_its_tasks() {
    let server = Server::start();
    let _manager = server.manager("m1");
    let mut node = server.node("n1");
    server.run(SERVICE, &[]).expect_code(0);
    let before = running(&server, "web");
    assert_eq!(before.len(), 4);
    for round in 0..2 {
        if round == 0 {
            node.kill();
        } else {
            assert_eq!(node.interrupt(), 0, "{}", node.log());
        }
        assert!(before.iter().all(|(_, pid)| is_alive(*pid)));
        node.start_again();
        until("the same processes are there", || {
            let now = running(&server, "web");
            if now == before {
                Ok(())
            } else {
                Err(format!("{now:?} for {before:?}"))
            }
        });
        server.ctl(&["signal", "web", "WINCH"]).expect_code(0);
    }
    // One that dies while no agent is there is replaced, the others stay.
    node.kill();
    signal(before[0].1, Signal::SIGKILL);
    until_true("it is dead", || !is_alive(before[0].1));
    node.start_again();
    until("it is replaced", || {
        let now = running(&server, "web");
        let kept = before[1..].iter().all(|one| now.contains(one));
        if kept && now.len() == 4 && now != before {
            Ok(())
        } else {
            Err(format!("{now:?} for {before:?}"))
        }
    });
    assert_eq!(pid_on(&server, "web", "n1").len(), 4);
    stop(&server, "web");
}

#[test]
fn an_agent_that_cannot_be_what_it_is_told_says_why() {
    let server = Server::start();
    let _manager = server.manager("m1");
    let mut node = server.node("n1");
    let directory = node.data_dir().to_str().unwrap().to_owned();
    let fresh = server.path("fresh").to_str().unwrap().to_owned();
    let start = |name: &str, directory: &str| {
        server.ctl(&[
            "node",
            "start",
            "--allow-process",
            "--name",
            name,
            "--data-dir",
            directory,
        ])
    };
    let one_line = |said: loom_tests::cluster::Said, words: &[&str]| {
        assert_ne!(said.code, 0, "{said:?}");
        let line = said.err.lines().find(|line| line.starts_with("loomctl: "));
        let line = line.unwrap_or_else(|| panic!("no clear line: {}", said.err));
        for word in words {
            assert!(line.contains(word), "{word}: {line}");
        }
    };
    one_line(start("n1", &fresh), &["n1", "already running"]);
    one_line(start("n2", &directory), &[&directory]);
    node.kill();
    one_line(start("n2", &directory), &[&directory, "n1"]);
    server
        .ctl(&["node", "start", "--name", "n3", "--driver", "process"])
        .expect_code(64);
    server
        .ctl(&["node", "start", "--name", "N3", "--allow-process"])
        .expect_code(64);
}

#[test]
fn a_node_announces_an_address_that_others_reach() {
    let server = Server::start();
    let _manager = server.manager("m1");
    let _node = server.node_with("n1", &["--address", "10.9.8.7"]);
    let node = server.ctl(&["node", "status", "n1", "-o", "json"]).json();
    let address = &node["summary"]["node"]["info"]["address"];
    assert_eq!(address, "10.9.8.7", "{node}");
    let wrong = server.ctl(&["node", "start", "--allow-process", "--address", "here"]);
    assert!(
        wrong.clone().expect_code(64).err.contains("--address"),
        "{wrong:?}"
    );
}

#[test]
fn an_agent_without_a_bus_gives_up_with_a_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap().to_owned();
    let kinds = [
        &["node", "start", "--allow-process", "--name", "x"] as &[&str],
        &["manager", "start", "--name", "x"],
    ];
    let agents = kinds.map(|words| {
        let data = data.clone();
        thread::spawn(move || {
            let mut arguments = words.to_vec();
            arguments.extend(["--bus", "nats://127.0.0.1:1", "--data-dir", &data]);
            run_alone(&arguments)
        })
    });
    for agent in agents {
        let said = agent.join().unwrap();
        assert_ne!(said.code, 0, "{said:?}");
        let last = said.err.lines().last().unwrap_or_default();
        assert!(last.starts_with("loomctl: "), "{}", said.err);
        assert!(last.contains("127.0.0.1:1"), "{}", said.err);
    }
}
