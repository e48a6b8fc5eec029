//! A manager that brings its own bus.

use std::fs;
use std::path::Path;

use loom_tests::cluster::{Said, run_alone, signal};
use loom_tests::parts::Agent;
use loom_tests::wait::{until, until_true};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const SERVICE: &str = "name: web\nstop: {grace: 1s}\nbash: while true; do sleep 0.05; done\n";

fn ctl(bus: &str, arguments: &[&str]) -> Said {
    let mut all = vec!["--bus", bus];
    all.extend(arguments);
    run_alone(&all)
}

/// The pid of the service's only task, once it runs.
fn running(bus: &str) -> u64 {
    until("the service runs", || {
        let said = ctl(bus, &["status", "web", "-o", "json"]);
        let view: Value = serde_json::from_str(&said.out).unwrap_or_default();
        let run = &view["slots"][0]["current"];
        let up = run["state"] == "running" && run["marks"]["unknown"] != true;
        let pid = run["pid"].as_u64().filter(|_| up);
        pid.ok_or_else(|| format!("{said:?}"))
    })
}

fn manager(directory: &Path) -> Agent {
    let flags = ["--embedded-bus", "--listen", "127.0.0.1:0"];
    Agent::on("", "manager", "m1", directory.join("m1"), &flags)
}

/// How agents on this machine come in, as the manager wrote it down.
fn agents_url(manager: &Agent) -> String {
    let file = manager.data_dir().join("agents.env");
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().next().unwrap();
    line.strip_prefix("LOOM_BUS=").unwrap().to_owned()
}

/// The process of the bus in a directory.
fn bus_pid(manager: &Agent) -> u32 {
    let lock = manager.data_dir().join("bus/lock");
    until("the bus runs", || {
        let text = fs::read(&lock).map_err(|error| error.to_string())?;
        let lock: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let pid = lock["server"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        pid.filter(|pid| *pid > 0).ok_or_else(|| lock.to_string())
    })
}

#[test]
fn a_manager_with_its_own_bus_goes_on_where_it_was() {
    let directory = TempDir::new().unwrap();
    let mut manager = manager(directory.path());
    let bus = manager.bus();
    let agents = agents_url(&manager);
    let flags = ["--allow-process", "--stop-tasks"];
    let mut node = Agent::on(&agents, "node", "n1", directory.path().join("n1"), &flags);
    let file = directory.path().join("web.yaml");
    fs::write(&file, SERVICE).unwrap();
    ctl(&bus, &["run", file.to_str().unwrap()]).expect_code(0);
    let pid = running(&bus);

    // The bus ends by itself, then the manager by kill -9, then as told.
    let first = bus_pid(&manager);
    signal(first, Signal::SIGKILL);
    until_true("the bus is started again", || bus_pid(&manager) != first);
    assert_eq!(running(&bus), pid);
    manager.kill();
    manager.start_again();
    assert_eq!((manager.bus(), running(&bus)), (bus.clone(), pid));
    let last = bus_pid(&manager);
    assert_eq!(manager.interrupt(), 0, "{}", manager.log());
    assert!(!Path::new(&format!("/proc/{last}")).exists());
    ctl(&bus, &["status"]).expect_code(7);
    manager.start_again();
    assert_eq!((manager.bus(), running(&bus)), (bus.clone(), pid));

    // Users are not taken for agents.
    for kind in ["node", "manager"] {
        let data = directory.path().join("nobody");
        let data = data.to_str().unwrap();
        let mut arguments = vec![kind, "start", "--name", "x1", "--data-dir", data];
        arguments.extend((kind == "node").then_some("--allow-process"));
        let said = ctl(&bus, &arguments).expect_code(5);
        assert!(said.err.contains("agents.env"), "{}", said.err);
    }

    // Another one is told what it cannot do.
    assert!(!manager.log().contains("lives inside"), "{}", manager.log());
    let other = Agent::on(&agents, "manager", "m2", directory.path().join("m2"), &[]);
    assert!(
        other.log().contains("lives inside another manager"),
        "{}",
        other.log()
    );
    assert!(!other.log().contains(agents.split('@').next().unwrap()));
    assert_eq!(node.interrupt(), 0, "{}", node.log());
}

#[test]
fn flags_of_another_bus_are_refused_beside_ones_own() {
    let cases: [(&[&str], &str); 8] = [
        (
            &["--embedded-bus", "--bus", "nats://127.0.0.1:1"],
            "--listen in place of --bus",
        ),
        (
            &["--embedded-bus", "--creds", "a.creds"],
            "no use for --creds",
        ),
        (
            &["--embedded-bus", "--tls-ca", "ca.crt"],
            "no use for --tls-ca",
        ),
        (
            &["--embedded-bus", "--system-creds", "s.creds"],
            "leave out --system-creds",
        ),
        (
            &["--embedded-bus", "--replicas", "3"],
            "leave out --replicas",
        ),
        (&["--embedded-bus", "--listen", "0.0.0.0:0"], "--insecure"),
        (&["--listen", "127.0.0.1:0"], "--embedded-bus"),
        (&["--nats-server", "/bin/true"], "add --embedded-bus"),
    ];
    let directory = TempDir::new().unwrap();
    for (flags, words) in cases {
        let mut all = vec!["manager", "start", "--name", "m1", "--data-dir"];
        all.push(directory.path().to_str().unwrap());
        all.extend(flags);
        let said = run_alone(&all);
        assert!(said.err.contains(words), "{flags:?}: {said:?}");
        let code = if words == "--insecure" { 1 } else { 64 };
        assert_eq!(said.code, code, "{flags:?}: {said:?}");
    }
}

#[test]
fn a_second_manager_on_the_directory_is_told_who_holds_it() {
    let directory = TempDir::new().unwrap();
    let manager = manager(directory.path());
    let data = manager.data_dir().to_str().unwrap();
    let flags = [
        "--embedded-bus",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data,
    ];
    let mut all = vec!["manager", "start", "--name", "m1"];
    all.extend(flags);
    let said = run_alone(&all).expect_code(1);
    let holder = format!("in use by process {}", manager.pid());
    assert!(said.err.contains(&holder), "{}", said.err);
}
