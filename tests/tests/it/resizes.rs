//! New versions that change nothing but limits: the process and the container go on.

use std::collections::BTreeSet;

use loom_tests::cgroup::{Limits, has, limits};
use loom_tests::cluster::{Dev, is_alive};
use loom_tests::docker;
use loom_tests::wait::until;
use serde_json::Value;

/// Runs of one index, in whatever `runs` says, with these limits.
fn job(name: &str, runs: &str, limits: &str) -> String {
    format!(
        "name: {name}\nstop: {{grace: 1s}}\nupdate: {{healthy_for: 100ms, deadline: 2m}}\n\
         {limits}\n{runs}"
    )
}

const SMALL: &str = "cpu: 0.1\nmemory: 64MiB\npids: 20";
const LARGE: &str = "cpu: 0.5\ncpu_limit: 1.5\nmemory: 256MiB\npids: 40\ndisk_rate: 3MiB/s\n\
                     labels: {tier: front}\nrestart: {attempts: 9}";

fn current(dev: &Dev, name: &str) -> Value {
    dev.job(name)["slots"][0]["current"].clone()
}

fn pid(run: &Value) -> u32 {
    let pid = run["pid"].as_u64().expect("a process");
    pid.try_into().expect("a number of a process")
}

fn held_to_large(now: &Limits, before: &Limits) {
    assert_eq!((now.cpu, now.cpu_limit), (Some(500), Some(1500)));
    assert_eq!(now.memory, Some(256 << 20));
    // Of processes the shim may count.
    assert_eq!(
        now.pids.zip(before.pids).map(|(now, before)| now - before),
        Some(20)
    );
    if has("blkio") {
        assert_eq!(now.write_rate, BTreeSet::from([3 << 20]));
    }
}

/// One job through a larger version, seen by `plan`, and back.
fn goes_on(dev: &Dev, name: &str, runs: &str) {
    dev.run(&job(name, runs, SMALL), &[]).expect_code(0);
    let first = current(dev, name);
    let before = limits(pid(&first));
    assert_eq!(before.memory, Some(64 << 20));
    let file = dev.path(&format!("{name}-large.yaml"));
    std::fs::write(&file, job(name, runs, LARGE)).expect("a file");
    let said = dev.ctl(&["plan", file.to_str().expect("a path")]);
    let said = said.expect_code(1);
    let row = said.out.lines().find(|line| line.contains("in-place"));
    let row = row.unwrap_or_else(|| panic!("{}", said.out));
    for field in [
        "cpu",
        "cpu_limit",
        "memory",
        "pids",
        "disk_rate",
        "restart.attempts",
    ] {
        assert!(row.contains(field), "{field}: {row}");
    }
    dev.run(&job(name, runs, LARGE), &[]).expect_code(0);
    let second = current(dev, name);
    assert_eq!((&second["run"], pid(&second)), (&first["run"], pid(&first)));
    assert_eq!(second["version"], 2);
    held_to_large(&limits(pid(&second)), &before);
    let said = dev.ctl(&[
        "events",
        &format!("task.{name}.main.0.resized"),
        "-o",
        "jsonl",
    ]);
    assert_eq!(said.expect_code(0).out.lines().count(), 1);
    dev.run(&job(name, runs, SMALL), &[]).expect_code(0);
    let third = current(dev, name);
    assert_eq!((&third["run"], pid(&third)), (&first["run"], pid(&first)));
    assert_eq!(limits(pid(&third)), before);
}

#[test]
fn a_process_is_held_to_other_limits_and_goes_on() {
    if !(has("cpu") && has("memory") && has("pids")) {
        eprintln!("SKIPPED: no control groups");
        return;
    }
    let dev = Dev::start(&[]);
    goes_on(&dev, "web", "exec: [sleep, '1000']\n");
}

#[test]
fn a_container_is_held_to_other_limits_and_goes_on() {
    if !docker::is_there() {
        return;
    }
    let dev = Dev::start(&[]);
    let runs = format!(
        "image: {}\ncommand: [sleep, '1000']\nnetwork: none\n",
        docker::IMAGE
    );
    goes_on(&dev, "box", &runs);
}

#[test]
fn what_the_kernel_refuses_is_said_and_undone() {
    if !has("memory") {
        eprintln!("SKIPPED: no control groups");
        return;
    }
    let dev = Dev::start(&[]);
    let holds =
        "bash: |\n  x=$(head -c 50000000 /dev/zero | tr '\\0' x)\n  echo held\n  sleep 1000\n";
    dev.run(&job("fat", holds, "memory: 256MiB"), &[])
        .expect_code(0);
    until("it holds memory", || {
        let said = dev.ctl(&["logs", "fat/0"]);
        said.out.contains("held").then_some(()).ok_or(said.out)
    });
    let first = current(&dev, "fat");
    let less = job("fat", holds, "memory: 16MiB").replace("deadline: 2m", "deadline: 3s");
    dev.run(&less, &["--detach"]).expect_code(0);
    until("status says why", || {
        let said = dev.ctl(&["status", "fat"]);
        let why = "is not held to the limits of version 2: memory limit: it holds";
        said.out.contains(why).then_some(()).ok_or(said.out)
    });
    until("it went back", || {
        let run = current(&dev, "fat");
        (run["version"] == 3).then_some(()).ok_or(run.to_string())
    });
    let last = current(&dev, "fat");
    assert_eq!((&last["run"], pid(&last)), (&first["run"], pid(&first)));
    assert_eq!(limits(pid(&last)).memory, Some(256 << 20));
    let said = dev.ctl(&["history", "fat"]).expect_code(0);
    assert!(
        said.out.contains("rolled back to version 1"),
        "{}",
        said.out
    );
    let said = dev.ctl(&["events", "task.fat.main.0.resize-refused", "-o", "jsonl"]);
    let said = said.expect_code(0);
    assert!(said.out.contains("memory limit: it holds"), "{}", said.out);
}

#[test]
fn an_agent_killed_between_order_and_effect_goes_on_with_it() {
    if !has("memory") {
        eprintln!("SKIPPED: no control groups");
        return;
    }
    let mut dev = Dev::start(&[]);
    let runs = "exec: [sleep, '1000']\n";
    dev.run(&job("web", runs, SMALL), &[]).expect_code(0);
    let first = current(&dev, "web");
    // Killed at moments that differ: before the order, within it, after it.
    for (round, memory) in [(1_u32, 80_u64), (2, 96), (3, 112), (4, 128), (5, 144)] {
        let text = job("web", runs, &format!("memory: {memory}MiB\npids: 20"));
        dev.run(&text, &["--detach"]).expect_code(0);
        if round % 2 == 0 {
            until("the order was decided", || {
                let run = current(&dev, "web");
                let decided = run["version"] == round + 1 || !run["resize"]["pending"].is_null();
                decided.then_some(()).ok_or(run.to_string())
            });
        }
        dev.kill();
        dev.start_again();
        until("the limits of the version hold", || {
            let run = current(&dev, "web");
            let reached = run["version"] == round + 1 && run["state"] == "running";
            reached.then_some(()).ok_or(run.to_string())
        });
        let now = current(&dev, "web");
        assert_eq!((&now["run"], pid(&now)), (&first["run"], pid(&first)));
        assert!(is_alive(pid(&now)));
        assert_eq!(limits(pid(&now)).memory, Some(memory << 20));
    }
}
