//! When a task is started again, how it is asked to end, and what its time is.

use loom_tests::cluster::Dev;
use loom_tests::wait::until;
use serde_json::Value;

use super::{millis, newest, only, runs, slot, time, wait_for, wait_for_output};

/// The announcements `restarts in ...` of a slot, in milliseconds.
fn announced(dev: &Dev, subject: &str) -> Vec<u64> {
    let reason = |event: &Value| event["reason"].as_str().map(str::to_owned);
    let events = super::events(dev, subject);
    let reasons = events.iter().filter_map(reason);
    let pauses = reasons.filter_map(|reason| Some(reason.strip_prefix("restarts in ")?.to_owned()));
    pauses
        .map(|pause| pause.strip_suffix("ms").unwrap().parse().unwrap())
        .collect()
}

/// Fails until it has been started so often, and goes on then; of each job its own.
fn fails(dev: &Dev, name: &str, times: u32, code: u32) -> String {
    let count = dev.path(name);
    let count = count.display();
    format!("echo >> {count}; [ $(wc -l < {count}) -gt {times} ] || exit {code}; exec sleep 1000")
}

#[test]
fn a_task_is_started_again_after_the_ends_it_says() {
    let dev = Dev::start(&[]);
    let job = |name: &str, restart: &str, times, code| {
        let script = fails(&dev, name, times, code);
        let job = format!("name: {name}\nrestart: {restart}\nbash: {script}\n");
        dev.run(&job, &["--detach"]).expect_code(0);
    };
    job("any-good", "{on: any, delay: 10ms}", 1, 0);
    job("any-bad", "{on: any, delay: 10ms}", 1, 3);
    job("failure-good", "{on: failure, delay: 10ms}", 1, 0);
    job("failure-bad", "{on: failure, delay: 10ms}", 1, 3);
    job("never-good", "{on: never, delay: 10ms}", 1, 0);
    job("never-bad", "{on: never, delay: 10ms}", 1, 3);
    job("short-form", "never", 1, 3);
    for again in ["any-good", "any-bad", "failure-bad"] {
        let view = wait_for(&dev, again, "started again, it goes on", |view| {
            let run = newest(&slot(view, "main", 0));
            run["state"] == "running" && run["restarts"] == 1
        });
        assert_eq!(runs(&slot(&view, "main", 0)).len(), 2, "{view}");
    }
    for (over, status) in [
        ("failure-good", "completed"),
        ("never-good", "completed"),
        ("never-bad", "failed"),
        ("short-form", "failed"),
    ] {
        let view = dev.wait_for_job(over, status);
        assert_eq!(runs(&slot(&view, "main", 0)).len(), 1, "{view}");
    }
}

#[test]
fn a_task_waits_before_it_is_started_again_and_its_old_starts_do_not_count() {
    let dev = Dev::start(&[]);
    // Four starts: with a quarter less by chance the pauses are 150 to 200 ms, then 300 and more,
    // but no longer than the longest.
    let script = fails(&dev, "grows", 3, 3);
    let job = format!(
        "name: grows\nrestart: {{delay: 200ms, max_delay: 350ms, attempts: 4}}\nbash: {script}\n"
    );
    dev.run(&job, &["--detach"]).expect_code(0);
    // Each run outlives the window: its attempts are never spent, and it stays on its node.
    let script = fails(&dev, "window", 3, 3);
    let job = format!(
        "name: window\nrestart: {{attempts: 2, delay: 10ms, window: 200ms}}\n\
         bash: sleep 0.3; {script}\n"
    );
    dev.run(&job, &["--detach"]).expect_code(0);
    let goes_on = |view: &Value| {
        let run = newest(&slot(view, "main", 0));
        run["state"] == "running" && run["restarts"] == 3
    };
    let view = wait_for(&dev, "grows", "it goes on", goes_on);
    let kept = runs(&slot(&view, "main", 0));
    let pauses: Vec<i64> = kept
        .windows(2)
        .map(|two| millis(&two[0]["ended_at"], &two[1]["started_at"]))
        .collect();
    assert_eq!(pauses.len(), 3, "{view}");
    assert!(pauses[0] >= 150, "{pauses:?}");
    assert!(pauses[1..].iter().all(|pause| *pause >= 262), "{pauses:?}");
    let said = announced(&dev, "task.grows.main.0.*");
    assert!(said.iter().all(|pause| *pause <= 350), "{said:?}");

    let view = wait_for(&dev, "window", "it goes on", goes_on);
    let kept = runs(&slot(&view, "main", 0));
    let same = |run: &Value| run["placement"] == kept[0]["placement"];
    assert!(kept.len() == 4 && kept.iter().all(same), "{view}");
    for job in ["grows", "window"] {
        dev.ctl(&["stop", job]).expect_code(0);
    }
}

#[test]
fn a_task_is_asked_to_end_as_it_says_and_killed_when_its_grace_is_over() {
    let dev = Dev::start(&[]);
    let job = |name: &str, stop: &str, traps: &str| {
        let job = format!(
            "name: {name}\nstop: {stop}\n\
             bash: |\n  {traps}\n  echo ready\n  while true; do sleep 0.02; done\n"
        );
        dev.run(&job, &["--detach"]).expect_code(0);
        wait_for_output(&dev, name, "ready\n");
    };
    job(
        "asked",
        "{signal: INT, grace: 20s}",
        "trap 'echo by INT; exit 4' INT; trap '' TERM",
    );
    job("deaf", "{grace: 300ms}", "trap 'echo no' TERM");
    dev.ctl(&["stop", "asked"]).expect_code(0);
    let run = only(&dev, "asked");
    assert_eq!(
        (&run["state"], &run["exit"]["code"]),
        (&"killed".into(), &4.into())
    );
    wait_for_output(&dev, "asked", "ready\nby INT\n");

    let told = jiff::Timestamp::now();
    dev.ctl(&["stop", "deaf"]).expect_code(0);
    let run = only(&dev, "deaf");
    assert_eq!(run["exit"]["signal"], 9, "{run}");
    wait_for_output(&dev, "deaf", "ready\nno\n");
    let took = time(&run["ended_at"]).as_millisecond() - told.as_millisecond();
    // Where it says nothing that would be ten seconds.
    assert!((300..9_000).contains(&took), "{took}");
}

#[test]
fn a_task_is_warned_before_its_time_is_over() {
    let dev = Dev::start(&[]);
    let job = "name: slow\nkind: batch\nrestart: never\n\
               timeout: {after: 4s, warn: {signal: USR1, before: 3500ms}}\n\
               bash: |\n  trap 'date +%s%3N' USR1\n  while true; do sleep 0.02; done\n";
    let said = dev.run(job, &[]).expect_code(1);
    assert!(said.err.contains("timed out after 4s"), "{}", said.err);
    let run = only(&dev, "slow");
    let lived = millis(&run["started_at"], &run["ended_at"]);
    assert!(lived >= 4_000, "{lived}");
    let warned = until("it wrote when it was warned", || {
        let said = dev.ctl(&["logs", "slow/0"]);
        said.out.trim().parse::<i64>().map_err(|_| said.out)
    });
    let after = warned - time(&run["started_at"]).as_millisecond();
    assert!((500..3_500).contains(&after), "{after}");
}
