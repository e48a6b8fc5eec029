//! What a task or a job waits for, and until when.

use std::fs;

use loom_tests::cluster::Dev;
use serde_json::Value;

use super::{slot, wait_for};

fn is(view: &Value, task: &str, state: &str) -> bool {
    slot(view, task, 0)["current"]["state"] == state
}

fn stands(view: &Value, task: &str) -> String {
    let tasks = view["graph"].as_array().into_iter().flatten();
    let mut tasks = tasks.filter(|standing| standing["task"] == task);
    let standing = tasks.next().cloned().unwrap_or_default();
    format!("{} {}", standing["standing"], standing["reason"])
}

/// The server runs, is healthy, and completes when the test says so.
#[test]
fn what_waits_starts_once_the_other_runs_is_healthy_or_completed() {
    let dev = Dev::start(&[]);
    let (up, go) = (dev.path("up"), dev.path("go"));
    let shop = format!(
        "name: shop\nkind: batch\ntasks:\n  \
         server:\n    bash: 'until [ -e {} ]; do sleep 0.02; done'\n    \
         health: {{exec: [test, -e, '{}'], interval: 100ms, start_period: 10m}}\n  \
         early: {{bash: 'true', after: [{{task: server, on: running}}]}}\n  \
         ready: {{bash: 'true', after: [{{task: server, on: healthy}}]}}\n  \
         last: {{bash: 'true', after: [{{task: server, on: completed}}]}}\n",
        go.display(),
        up.display()
    );
    dev.run(&shop, &["--detach"]).expect_code(0);
    let follower = |name: &str, depends_on: &str| {
        let job = format!("name: {name}\nkind: batch\ndepends_on: [{depends_on}]\nbash: 'true'\n");
        dev.run(&job, &["--detach"]).expect_code(0);
    };
    follower("j-early", "{job: shop, task: server, on: running}");
    follower("j-ready", "{job: shop, task: server, on: healthy}");
    follower("j-server", "{job: shop, task: server, on: completed}");
    follower("j-whole", "shop");

    let view = wait_for(&dev, "shop", "what waits for the start has run", |view| {
        is(view, "early", "completed")
    });
    assert!(is(&view, "server", "running"), "{view}");
    dev.wait_for_job("j-early", "completed");
    let waits = |view: &Value, task: &str, why: &str| {
        assert!(slot(view, task, 0).is_null(), "{view}");
        assert!(stands(view, task).contains(why), "{view}");
    };
    waits(&view, "ready", "to be healthy");
    waits(&view, "last", "to complete");
    for (job, why) in [
        ("j-ready", "task server of job shop to be healthy"),
        ("j-server", "task server of job shop to complete"),
        ("j-whole", "job shop to complete"),
    ] {
        let view = dev.job(job);
        assert_eq!(view["summary"]["status"], "pending", "{view}");
        let said = dev.ctl(&["status", job]).expect_code(0);
        assert!(said.out.contains(why), "{}", said.out);
    }

    fs::write(&up, "").unwrap();
    dev.wait_for_job("j-ready", "completed");
    let view = wait_for(&dev, "shop", "what waits for the health has run", |view| {
        is(view, "ready", "completed")
    });
    assert!(is(&view, "server", "running"), "{view}");
    waits(&view, "last", "to complete");
    for job in ["j-server", "j-whole"] {
        let view = dev.job(job);
        assert_eq!(view["summary"]["status"], "pending", "{view}");
    }

    fs::write(&go, "").unwrap();
    for job in ["shop", "j-server", "j-whole"] {
        dev.wait_for_job(job, "completed");
    }
    let ended = |job: &str, key: &str| super::time(&dev.job(job)["summary"]["job"][key]);
    let whole = slot(&dev.job("j-whole"), "main", 0);
    let made = super::time(&whole["current"]["created_at"]);
    assert!(made >= ended("shop", "ended_at"), "all of it, not one task");
}
