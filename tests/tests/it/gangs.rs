//! Gangs, as a user sees them: whole or not at all, also when everything is killed in between.

use loom_tests::cluster::Dev;
use loom_tests::nats::Client;
use loom_tests::wait::until;
use serde_json::Value;

/// A job on simulated nodes.
fn job(name: &str, cpu: f32, replicas: u32, more: &str) -> String {
    format!(
        "name: {name}\nreplicas: {replicas}\ncpu: {cpu}\nmemory: 16MiB\nbash: sleep 1000\nsim: {{}}\n{more}"
    )
}

fn says(dev: &Dev, arguments: &[&str], expected: &str) {
    until(expected, || {
        let said = dev.ctl(arguments);
        if said.out.contains(expected) {
            Ok(())
        } else {
            Err(said.out)
        }
    });
}

/// How many runs of a job are in a state.
fn count(dev: &Dev, job: &str, state: &str) -> usize {
    let view = dev.job(job);
    let slots = view["slots"].as_array().cloned().unwrap_or_default();
    let is_so = |slot: &&Value| slot["current"]["state"] == state;
    slots.iter().filter(is_so).count()
}

#[test]
fn a_gang_waits_whole_and_shorter_runs_fill_in_before_it() {
    let dev = Dev::start(&[
        "--nodes",
        "0",
        "--sim-nodes",
        "2",
        "--sim-shape",
        "cpu=4,memory=4GiB",
    ]);
    let timed = "kind: batch\nrestart: never\ntimeout: 1h\n";
    dev.run(&job("there", 3.0, 1, timed), &["--detach"])
        .expect_code(0);
    dev.wait_for_job("there", "running");
    let gang = job("ranks", 4.0, 2, "gang: true\n");
    let file = dev.path("ranks.yaml");
    std::fs::write(&file, &gang).unwrap();
    let planned = dev.ctl(&["plan", file.to_str().unwrap()]).expect_code(2);
    assert!(planned.out.contains("1 of 2 fit now"), "{}", planned.out);
    dev.run(&gang, &["--detach"]).expect_code(0);
    says(&dev, &["status", "ranks"], "1 of 2 fit now");
    says(
        &dev,
        &["status", "ranks"],
        "room is kept for all of it to start by",
    );
    assert_eq!(count(&dev, "ranks", "running"), 0);
    // One without a limit waits for the gang; one that ends before it goes first.
    dev.run(&job("open", 4.0, 1, ""), &["--detach"])
        .expect_code(0);
    says(
        &dev,
        &["status", "open"],
        "is kept for gang ranks/main to start by",
    );
    let short = "kind: batch\nrestart: never\ntimeout: 1m\n";
    dev.run(&job("short", 4.0, 1, short), &["--detach"])
        .expect_code(0);
    dev.wait_for_job("short", "running");
    dev.ctl(&["stop", "short"]).expect_code(0);
    dev.ctl(&["stop", "there"]).expect_code(0);
    dev.wait_for_job("ranks", "running");
    until("both run", || match count(&dev, "ranks", "running") {
        2 => Ok(()),
        other => Err(other.to_string()),
    });
    says(
        &dev,
        &["events", "job.ranks.gang-released"],
        "all of task main",
    );
    assert_eq!(count(&dev, "open", "running"), 0);
}

#[test]
fn a_gang_larger_than_a_commit_starts_whole_although_its_leader_is_killed() {
    let shape = ["--sim-shape", "cpu=32,memory=64GiB"];
    let mut dev = Dev::start(&[&["--nodes", "0", "--sim-nodes", "4"], shape.as_slice()].concat());
    // Placed in three commits: killed once the first has been answered for.
    let gang = job("large", 0.1, 700, "gang: true\n");
    let mut nats = Client::connect(&dev.bus).unwrap();
    let answer = nats.request("orch.job.submit", gang.as_bytes()).unwrap();
    assert_eq!(answer.json()["outcome"], "created");
    dev.kill();
    dev.start_again();
    until("all of it run", || match count(&dev, "large", "running") {
        700 => Ok(()),
        other => Err(other.to_string()),
    });
    let said = dev
        .ctl(&["events", "-o", "jsonl", "--limit", "10000"])
        .expect_code(0);
    let events: Vec<Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].take())
        .collect();
    let places = |is: &dyn Fn(&Value) -> bool| -> Vec<usize> {
        let events = events.iter().enumerate();
        let found = events.filter(|(_, event)| is(event));
        found.map(|(at, _)| at).collect()
    };
    let elected = places(&|event| event["what"] == "elected");
    let released = places(&|event| event["what"] == "gang-released");
    // The next leader released it, once, and nothing of it ran before.
    assert!(
        released.len() == 1 && elected.len() == 2,
        "{elected:?} {released:?}"
    );
    assert!(elected[1] < released[0], "the leader was killed too late");
    let held = places(&|event| event["what"] == "scheduled");
    assert!(
        held.iter().filter(|at| **at < elected[1]).count() >= 200,
        "{held:?}"
    );
    assert!(
        held.iter().all(|at| *at < released[0]),
        "each has a place by then"
    );
    let runs = places(&|event| event["job"] == "large" && event["what"] == "running");
    assert!(
        runs.iter().all(|at| *at > released[0]),
        "one ran before all could"
    );
}
