//! When a job with a schedule fires, and what a firing does to the one before.

use jiff::{SignedDuration, Timestamp};
use loom_tests::cluster::Dev;
use loom_tests::wait::{until, until_true};
use serde_json::Value;

use super::{events, time, wait_for};

fn children(view: &Value) -> Vec<Value> {
    view["children"].as_array().cloned().unwrap_or_default()
}

fn in_status<'a>(children: &'a [Value], status: &str) -> Vec<&'a Value> {
    let of = children.iter().filter(|child| child["status"] == status);
    of.collect()
}

#[test]
fn a_schedule_is_in_the_time_zone_that_it_names() {
    let dev = Dev::start(&[]);
    // This hour and the next one of Nepal, which no zone of whole hours shares.
    let there = Timestamp::now() + SignedDuration::from_mins(5 * 60 + 45);
    let hour = there.as_second() / 3600 % 24;
    let job = |name: &str, zone: &str| {
        format!(
            "name: {name}\nbash: 'true'\n\
             schedule: {{cron: '* * {hour},{} * * *', timezone: {zone}}}\n",
            (hour + 1) % 24
        )
    };
    dev.run(&job("elsewhere", "UTC"), &["--detach"])
        .expect_code(0);
    dev.run(&job("there", "Asia/Kathmandu"), &["--detach"])
        .expect_code(0);
    wait_for(&dev, "there", "two firings completed", |view| {
        in_status(&children(view), "completed").len() >= 2
    });
    assert_eq!(children(&dev.job("elsewhere")).len(), 0);
}

#[test]
fn a_firing_runs_beside_waits_for_or_replaces_the_one_before() {
    let dev = Dev::start(&[]);
    for overlap in ["skip", "allow", "replace"] {
        let job = format!(
            "name: {overlap}\nschedule: {{cron: '* * * * * *', overlap: {overlap}}}\n\
             cpu: 0.01\nmemory: 16MiB\nbash: exec sleep 1000\n"
        );
        dev.run(&job, &["--detach"]).expect_code(0);
    }
    let passed_over = until("a firing is passed over", || {
        let told = events(&dev, "job.skip.skipped");
        told.first().cloned().ok_or(format!("{told:?}"))
    });
    let view = dev.job("skip");
    let only = children(&view);
    assert_eq!(in_status(&only, "running").len(), 1, "{view}");
    assert_eq!(only.len(), 1, "{view}");
    let why = format!("{} has not ended", only[0]["job"]["name"].as_str().unwrap());
    let reason = passed_over["reason"].as_str().unwrap();
    assert!(reason.ends_with(&why), "{reason}");

    wait_for(&dev, "allow", "two run at once", |view| {
        in_status(&children(view), "running").len() >= 2
    });

    let view = wait_for(&dev, "replace", "the second has taken the place", |view| {
        let all = children(view);
        all.len() >= 2 && all[0]["status"] == "killed" && all[1]["job"]["started_at"].is_string()
    });
    let (first, second) = (&view["children"][0]["job"], &view["children"][1]["job"]);
    let why = format!("{} takes its place", second["name"].as_str().unwrap());
    assert!(first["reason"].as_str().unwrap().ends_with(&why), "{view}");
    assert!(
        time(&second["started_at"]) >= time(&first["ended_at"]),
        "{view}"
    );
    // It is always the last one that runs.
    let running = |view: &Value| in_status(&children(view), "running").len();
    assert!(running(&dev.job("replace")) <= 1);
    for job in ["skip", "allow", "replace"] {
        dev.ctl(&["stop", job]).expect_code(0);
    }
}

#[test]
fn firings_missed_while_nobody_led_are_made_up_for_once() {
    let mut dev = Dev::start(&[]);
    let (name, last) = (1..)
        .find_map(|attempt| {
            let name = format!("late-{attempt}");
            let first = Timestamp::now().as_second() + 3;
            let cron = format!("{},{} * * * * *", first % 60, (first + 1) % 60);
            let job = format!("name: {name}\nschedule: '{cron}'\nbash: 'true'\n");
            dev.run(&job, &["--detach"]).expect_code(0);
            dev.kill();
            if Timestamp::now().as_second() < first {
                return Some((name, Timestamp::from_second(first + 1).unwrap()));
            }
            // Too slow: it may have fired before the cluster was gone.
            dev.start_again();
            None
        })
        .unwrap();
    until_true("both times have passed", || Timestamp::now() > last);
    dev.start_again();
    let view = wait_for(&dev, &name, "a firing completed", |view| {
        in_status(&children(view), "completed").len() == 1
    });
    assert_eq!(children(&view).len(), 1, "{view}");
    let expected = format!("{name}-{}", last.strftime("%Y%m%dt%H%M%Sz"));
    assert_eq!(
        view["children"][0]["job"]["name"], expected,
        "for the last of them"
    );
}
