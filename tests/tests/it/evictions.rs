//! Who is evicted for whom, as a user sees it.

use loom_tests::cluster::Dev;
use loom_tests::wait::until;

/// A service of two cores a slot on simulated nodes.
fn service(name: &str, priority: u8, replicas: u8) -> String {
    format!(
        "name: {name}\npriority: {priority}\nreplicas: {replicas}\ncpu: 2\nmemory: 64MiB\n\
         bash: sleep 1000\nsim: {{}}\n"
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

#[test]
fn a_higher_priority_takes_the_room_of_a_lower_one_and_gives_it_back() {
    let dev = Dev::start(&[
        "--nodes",
        "0",
        "--sim-nodes",
        "1",
        "--sim-shape",
        "cpu=4,memory=4GiB",
    ]);
    dev.run(&service("low", 10, 2), &[]).expect_code(0);
    let file = dev.path("high.yaml");
    std::fs::write(&file, service("high", 80, 1)).unwrap();
    let file = file.to_str().unwrap();
    let planned = dev.ctl(&["plan", file]).expect_code(1);
    let evicts = "evicts to make room, by its priority:\nlow/1 on sim-1, for high/0";
    assert!(planned.out.contains(evicts), "{}", planned.out);
    dev.ctl(&["run", file]).expect_code(0);
    // Both sides say so.
    let why = "evicted for high/0";
    says(&dev, &["status", "low"], why);
    let job = dev.job("low");
    let gone = &job["slots"][1]["ended"][0];
    assert_eq!(
        gone["reason"],
        "evicted for high/0 (priority 80, its own is 10)"
    );
    assert_eq!(job["slots"][0]["current"]["state"], "running");
    let high = dev.job("high");
    let run = high["slots"][0]["current"]["run"].as_str().unwrap();
    says(&dev, &["status", run], "evicted for it: low/1");
    says(&dev, &["events", "task.low.main.1.evicted"], why);
    // What is free again is given back to the one that waits.
    dev.ctl(&["stop", "high"]).expect_code(0);
    says(&dev, &["status", "low"], "2/2");
}
