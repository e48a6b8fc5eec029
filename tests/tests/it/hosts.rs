//! Several hosts: a bus of three servers as `loomctl bus init` makes it, with everything on it.

use std::fs;
use std::process::Command;

use loom_tests::cluster::{Said, loomctl, run_alone};
use loom_tests::hosts::{Host, Hosts};
use loom_tests::wait::until;
use serde_json::{Value, json};

const SERVICE: &str = r"
name: web
replicas: 3
bash: while true; do sleep 0.1; done
";

fn batch(name: &str) -> String {
    format!("name: {name}\nkind: batch\nbash: 'true'\n")
}

/// Nodes that the running tasks of a job are on.
fn nodes_of(job: &Value) -> Vec<String> {
    let slots = job["slots"].as_array().into_iter().flatten();
    let mut nodes: Vec<String> = slots
        .filter(|slot| slot["current"]["state"] == "running")
        .filter_map(|slot| slot["current"]["node"].as_str().map(str::to_owned))
        .collect();
    nodes.sort();
    nodes
}

#[test]
fn a_cluster_on_three_servers_outlives_what_is_killed_of_it() {
    let mut hosts = Hosts::new((0..3).map(|_| Host::loopback()).collect());
    hosts.start_all();
    hosts
        .ctl_with_input("ada", &["run", "-"], SERVICE)
        .expect_code(0);
    assert_eq!(nodes_of(&hosts.job("web")).len(), 3);
    assert_eq!(hosts.job("web")["summary"]["job"]["owner"], "ada");

    let leader = hosts.leader();
    hosts.kill(&leader);
    assert_ne!(hosts.leader(), leader);
    hosts.kill("server-3");
    hosts
        .ctl_with_input("ada", &["run", "-"], &batch("after"))
        .expect_code(0);

    hosts.kill("node-2");
    until("what ran on the node that is gone runs elsewhere", || {
        let nodes = nodes_of(&hosts.job("web"));
        if nodes.len() == 3 && !nodes.contains(&"node-2".to_owned()) {
            Ok(())
        } else {
            Err(format!("{nodes:?}"))
        }
    });
    hosts.ctl("ada", &["signal", "web", "WINCH"]).expect_code(0);

    // What was killed comes back, and is told what became of its tasks.
    hosts.start_server(3);
    hosts.start_node(2);
    until("all nodes are up", || {
        let up = hosts.nodes_up();
        if up.len() == 3 {
            Ok(())
        } else {
            Err(format!("{up:?}"))
        }
    });
    hosts.ctl("ada", &["stop", "web"]).expect_code(0);
    for node in ["node-1", "node-2", "node-3"] {
        let log = hosts.log(node);
        assert!(!log.contains("ermissions"), "a node was denied: {log}");
    }
}

#[test]
fn users_are_told_apart_and_cannot_take_what_is_not_theirs() {
    let mut hosts = Hosts::new((0..3).map(|_| Host::loopback()).collect());
    hosts.start_all();
    for user in ["ada", "bob"] {
        let job = batch(&format!("of-{user}"));
        hosts
            .ctl_with_input(user, &["run", "-"], &job)
            .expect_code(0);
        let job = hosts.job(&format!("of-{user}"));
        assert_eq!(job["summary"]["job"]["owner"], user, "{job}");
    }
    let forged = format!("{}owner: ada\n", batch("forged"));
    let said = hosts
        .ctl_with_input("bob", &["run", "-"], &forged)
        .expect_code(5);
    assert!(said.err.contains("ada"), "{}", said.err);

    // A user added later needs no server to be told.
    let directory = hosts.path("bus");
    let said = run_alone(&["bus", "user", directory.to_str().unwrap(), "eve"]).expect_code(0);
    assert!(said.out.contains("eve.creds"), "{}", said.out);
    hosts
        .ctl_with_input("eve", &["run", "-"], &batch("of-eve"))
        .expect_code(0);
    assert_eq!(hosts.job("of-eve")["summary"]["job"]["owner"], "eve");
    run_alone(&["bus", "user", directory.to_str().unwrap(), "eve"]).expect_code(1);
    run_alone(&["bus", "user", directory.to_str().unwrap(), "loom"]).expect_code(1);
    taken_back(&hosts, "eve");

    // The doctor finds nothing to complain of but what this machine lacks.
    let said = hosts.ctl("ada", &["doctor", "-o", "json"]);
    let checks = said.json();
    let check = |name: &str| {
        let all = checks["items"].as_array().into_iter().flatten();
        all.clone()
            .find(|check| check["check"] == name)
            .unwrap_or_else(|| panic!("no {name} in {checks}"))
            .clone()
    };
    for name in [
        "bus", "tls", "login", "servers", "fsync", "managers", "nodes",
    ] {
        assert_eq!(check(name)["verdict"], "ok", "{}", check(name));
    }
    assert!(check("login")["says"].as_str().unwrap().contains("ada"));
    assert!(check("servers")["says"].as_str().unwrap().starts_with('3'));

    a_nodes_login_is_told_what_it_may_not_see(&hosts);

    // The NATS command line's selected context is enough.
    let config = hosts.path("config/nats");
    fs::create_dir_all(config.join("context")).unwrap();
    fs::write(config.join("context.txt"), "mine\n").unwrap();
    let context = json!({
        "description": "", "url": hosts.url(), "ca": hosts.client_file("ca.crt"),
        "creds": hosts.client_file("bob.creds"), "cert": "", "key": "", "user": "",
    });
    let context = serde_json::to_vec(&context).unwrap();
    fs::write(config.join("context/mine.json"), context).unwrap();
    let said: Said = Command::new(loomctl())
        .args(["status", "-o", "name"])
        .env("XDG_CONFIG_HOME", hosts.path("config"))
        .env_remove("LOOM_BUS")
        .output()
        .unwrap()
        .into();
    assert!(
        said.clone().expect_code(0).out.contains("of-ada"),
        "{said:?}"
    );
}

/// Who looks with a node's credentials is told so, not that nothing is there.
fn a_nodes_login_is_told_what_it_may_not_see(hosts: &Hosts) {
    let checks = hosts
        .ctl("nodes/node-1", &["doctor", "-o", "json"])
        .expect_code(0)
        .json();
    let all = checks["items"].as_array().into_iter().flatten();
    let managers = all.clone().find(|check| check["check"] == "managers");
    let managers = managers.unwrap_or_else(|| panic!("no managers in {checks}"));
    assert_eq!(managers["verdict"], "warning", "{managers}");
    let says = managers["says"].as_str().unwrap();
    assert!(says.contains("this login may not ask"), "{says}");
    let said = hosts.ctl("nodes/node-1", &["manager", "ls"]).expect_code(5);
    assert!(said.err.contains("does not let this user ask"), "{said:?}");
}

/// Somebody's credentials are taken back, and what they keep of them is of no use.
fn taken_back(hosts: &Hosts, user: &str) {
    let own = hosts.client_file(&format!("{user}.creds"));
    let kept = fs::read(&own).unwrap();
    let directory = hosts.path("bus");
    let said = run_alone(&["bus", "revoke", directory.to_str().unwrap(), user]).expect_code(0);
    assert_eq!(
        said.out.matches("nats-server.conf").count(),
        3,
        "{}",
        said.out
    );
    assert!(!own.exists());
    fs::write(&own, kept).unwrap();
    hosts.ctl(user, &["status"]).expect_code(0);
    hosts.reload_servers();
    until("they are not let in", || {
        let said = hosts.ctl(user, &["status"]);
        if said.code == 5 {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
    hosts.ctl("bob", &["status"]).expect_code(0);
    run_alone(&["bus", "revoke", directory.to_str().unwrap(), user]).expect_code(1);
}

#[test]
fn a_bus_off_this_machine_is_not_used_in_the_open() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let url = "nats://192.0.2.1:4222";
    for verb in [
        ["status"].as_slice(),
        &["manager", "start", "--name", "m", "--data-dir", data],
        &[
            "node",
            "start",
            "--allow-process",
            "--name",
            "n",
            "--data-dir",
            data,
        ],
    ] {
        let mut arguments = vec!["--bus", url];
        arguments.extend(verb);
        let said = run_alone(&arguments).expect_code(64);
        assert!(
            said.err.contains(url) && said.err.contains("--insecure"),
            "{}",
            said.err
        );
        assert!(said.err.contains("--tls-ca"), "{}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        let mut arguments = vec!["--bus", "tls://192.0.2.1"];
        arguments.extend(verb);
        let said = run_alone(&arguments).expect_code(64);
        assert!(said.err.contains("--creds"), "{}", said.err);
    }
    let said = run_alone(&["dev", "--listen", "0.0.0.0:0", "--data-dir", data]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("--insecure"), "{}", said.err);
}

#[test]
fn wrong_servers_are_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let bus = directory.path().join("bus");
    let bus = bus.to_str().unwrap();
    run_alone(&["bus", "init", bus]).expect_code(64);
    run_alone(&["bus", "init", bus, "--server", "n1"]).expect_code(64);
    run_alone(&["bus", "init", bus, "--server", "N1=h"]).expect_code(64);
    let twice = ["--server", "a=h", "--server", "b=h"];
    let said = run_alone(&[["bus", "init", bus].as_slice(), &twice].concat()).expect_code(1);
    assert!(said.err.contains("two servers"), "{}", said.err);
    run_alone(&["bus", "user", bus, "ada"]).expect_code(1);
    assert!(!fs::exists(bus).unwrap());
}
