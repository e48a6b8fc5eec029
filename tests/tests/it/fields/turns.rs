//! How a new version takes the place of the one before.

use std::fs;

use loom_tests::cluster::Dev;
use loom_tests::wait::until;
use serde_json::Value;

use super::{events, millis, runs, slot, time, wait_for};

/// A service whose runs are healthy while there is a file called after their version.
fn service(dev: &Dev, name: &str, replicas: u32, version: &str, update: &str) -> String {
    format!(
        "name: {name}\nreplicas: {replicas}\ncpu: 0.02\nmemory: 16MiB\nstop: {{grace: 1s}}\n\
         update: {{{update}}}\nrestart: never\nenv: {{VERSION: {version}}}\n\
         health: {{exec: [test, -e, '{}/{name}-{version}'], interval: 100ms, start_period: 10m}}\n\
         exec: [sleep, '1000']\n",
        dev.path("").display()
    )
}

fn let_be_healthy(dev: &Dev, name: &str, version: &str) {
    fs::write(dev.path(&format!("{name}-{version}")), "").unwrap();
}

/// The indexes with a live run of a version.
fn with(view: &Value, replicas: u32, version: u32) -> Vec<u32> {
    let has = |index: &u32| {
        let slot = slot(view, "main", *index);
        let live = ["current", "incoming"].map(|key| slot[key].clone());
        live.iter()
            .any(|run| run["version"] == version && run["state"] == "running")
    };
    (0..replicas).filter(has).collect()
}

#[test]
fn so_many_are_replaced_at_once_and_in_the_order_the_job_says() {
    let dev = Dev::start(&[]);
    let update = "parallel: 2, order: stop-first, healthy_for: 0s";
    let job = |version: &str| service(&dev, "web", 5, version, update);
    let_be_healthy(&dev, "web", "one");
    dev.run(&job("one"), &[]).expect_code(0);
    dev.run(&job("two"), &["--detach"]).expect_code(0);
    let view = wait_for(&dev, "web", "two are replaced", |view| {
        with(view, 5, 2).len() == 2
    });
    assert_eq!(
        (with(&view, 5, 1), with(&view, 5, 2)),
        (vec![2, 3, 4], vec![0, 1])
    );
    let_be_healthy(&dev, "web", "two");
    let view = wait_for(&dev, "web", "all are replaced", |view| {
        with(view, 5, 2).len() == 5
    });
    for index in 0..5 {
        let slot = slot(&view, "main", index);
        let kept = runs(&slot);
        let [old, new] = kept.as_slice() else {
            panic!("{slot}")
        };
        assert!(time(&old["ended_at"]) <= time(&new["started_at"]), "{slot}");
    }
}

#[test]
fn a_new_run_counts_once_it_was_healthy_for_as_long_as_the_job_says() {
    let dev = Dev::start(&[]);
    let job = |version: &str| service(&dev, "web", 1, version, "healthy_for: 1500ms");
    for version in ["one", "two"] {
        let_be_healthy(&dev, "web", version);
        dev.run(&job(version), &[]).expect_code(0);
    }
    let view = wait_for(&dev, "web", "the second has taken over", |view| {
        let slot = slot(view, "main", 0);
        slot["current"]["version"] == 2 && slot["incoming"].is_null() && runs(&slot).len() == 2
    });
    let kept = runs(&slot(&view, "main", 0));
    let shared = millis(&kept[1]["started_at"], &kept[0]["ended_at"]);
    // Where nothing is said it would be ten seconds.
    assert!((1_500..9_000).contains(&shared), "{view}");
}

#[test]
fn an_update_that_is_late_is_paused_or_goes_on_as_the_job_says() {
    let dev = Dev::start(&[]);
    let job = |name: &str, version: &str| {
        let update = format!("healthy_for: 100ms, deadline: 1s, on_failure: {name}");
        service(&dev, name, 2, version, &update)
    };
    for name in ["pause", "continue"] {
        let_be_healthy(&dev, name, "one");
        dev.run(&job(name, "one"), &[]).expect_code(0);
        dev.run(&job(name, "two"), &["--detach"]).expect_code(0);
    }
    // Neither is ever healthy.
    let view = wait_for(&dev, "continue", "both were tried", |view| {
        with(view, 2, 2).len() == 2
    });
    let placed = |index| {
        let slot = slot(&view, "main", index);
        let new = runs(&slot).into_iter().find(|run| run["version"] == 2);
        new.unwrap()["placed_at"].clone()
    };
    assert!(millis(&placed(0), &placed(1)) >= 1_000, "{view}");

    until("the update is paused", || {
        let told = events(&dev, "job.pause.update-paused");
        if told.is_empty() {
            Err(dev.job("pause").to_string())
        } else {
            Ok(())
        }
    });
    let view = dev.job("pause");
    assert_eq!(
        (with(&view, 2, 1), with(&view, 2, 2)),
        (vec![0, 1], vec![0]),
        "{view}"
    );
    let_be_healthy(&dev, "pause", "two");
    dev.ctl(&["update", "continue", "pause"]).expect_code(0);
    wait_for(&dev, "pause", "somebody decided", |view| {
        with(view, 2, 2).len() == 2 && with(view, 2, 1).is_empty()
    });
}
