//! What is reserved of a node, resource by resource: who has no room for want of which.

use loom_tests::cluster::Dev;
use loom_tests::parts::Server;
use serde_json::Value;

use super::{wait_for, wait_for_words};

#[test]
fn rates_and_processes_are_reserved_where_they_are_asked_for_and_counted() {
    let shape = "cpu=64,memory=64GiB,disk=10GiB,disk_rate=100MiB/s,pids=1000";
    let dev = Dev::start(&["--nodes", "0", "--sim-nodes", "1", "--sim-shape", shape]);
    let placed = |name: &str, more: &str, running: u32| {
        let job = format!("name: {name}\nsim: {{}}\nexec: [x]\nreplicas: 3\n{more}\n");
        dev.run(&job, &["--detach"]).expect_code(0);
        wait_for(&dev, name, "what has room runs", |view| {
            let summary = &view["summary"];
            summary["running"] == running && summary["waiting"] == 3 - running
        })
    };
    let waits = |name: &str, more: &str, why: &str| {
        placed(name, more, 2);
        let words = format!("no node fits: 1 not enough {why}");
        wait_for_words(&dev, &["status", name], &words);
    };
    waits("rates", "disk_rate: 40MiB/s", "disk rate");
    waits("many", "pids: 400", "pids");
    waits("large", "disk: 4GiB", "disk");
    // Whoever says nothing of them is held to 512 processes, and reserves none.
    placed("plain", "cpu: 0.1", 3);
    let status = dev.ctl(&["node", "status", "sim-1"]).expect_code(0).out;
    for line in [
        "8GiB/10GiB reserved",
        "80MiB/s of 100MiB/s reserved",
        "800/1000 reserved",
    ] {
        assert!(status.contains(line), "{line}\n{status}");
    }
    // What a run holds more of is taken where there is so much left, and else it moves or waits.
    let job = "name: many\nsim: {}\nexec: [x]\nreplicas: 2\npids: 500\n";
    dev.run(job, &["--detach"]).expect_code(0);
    wait_for_words(&dev, &["node", "status", "sim-1"], "1000/1000 reserved");
    for name in ["rates", "many", "large", "plain"] {
        dev.ctl(&["stop", name]).expect_code(0);
    }
    wait_for_words(&dev, &["node", "status", "sim-1"], "0/1000 reserved");
}

#[test]
fn a_node_gives_to_tasks_what_it_is_told_to() {
    let server = Server::start();
    let _manager = server.manager("m1");
    let told = [
        "--cpu", "1.5", "--memory", "512MiB", "--disk", "1GiB", "--pids", "300",
    ];
    let told = [told.as_slice(), &["--disk-rate", "20MiB/s"]].concat();
    let _node = server.node_with("n1", &told);
    let status = server.ctl(&["node", "status", "n1", "-o", "json"]).json();
    let capacity = &status["summary"]["node"]["info"]["capacity"];
    let numbers =
        ["cpu", "memory", "disk", "disk_rate", "pids"].map(|name| capacity[name].as_u64());
    let mib = |mib: u64| Some(mib << 20);
    let expected = [Some(1500), mib(512), mib(1024), mib(20), Some(300)];
    assert_eq!(numbers, expected, "{capacity}");
    for (flag, value, said) in [
        ("--cpu", "two", "not a number of cores"),
        ("--disk-rate", "20MiB", "write `20MiB/s`"),
        ("--pids", "0", "0 is not in 1..=4194304"),
    ] {
        let refused = server.ctl(&["node", "start", flag, value]).expect_code(64);
        assert!(refused.err.contains(said), "{refused:?}");
    }
}

#[test]
fn a_host_says_how_many_processes_it_lets_tasks_have() {
    let dev = Dev::start(&[]);
    let status = dev.ctl(&["node", "status", "node-1", "-o", "json"]).json();
    let capacity = &status["summary"]["node"]["info"]["capacity"];
    assert!(
        capacity["pids"].as_u64().is_some_and(|pids| pids > 500),
        "{capacity}"
    );
    assert_eq!(capacity["disk_rate"], Value::Null, "nobody measures it");
}
