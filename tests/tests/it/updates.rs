//! Versions that take over from each other, and back, as a user sees it.

use loom_tests::cluster::{Dev, is_alive};
use loom_tests::wait::until;
use serde_json::Value;

/// A service of two, of a variant, updated as it says.
fn service(variant: &str, update: &str) -> String {
    format!(
        "name: web\nreplicas: 2\nstop: {{grace: 2s}}\nupdate: {{healthy_for: 300ms{update}}}\n\
         restart: {{attempts: 1}}\n\
         bash: |\n  trap 'exit 0' TERM\n  {variant}\n  while true; do sleep 0.05; done\n"
    )
}

fn pids(dev: &Dev) -> Vec<u32> {
    let job = dev.job("web");
    let slots = job["slots"].as_array().cloned().unwrap_or_default();
    let pid = |slot: &Value| {
        slot["current"]["pid"]
            .as_u64()
            .and_then(|pid| pid.try_into().ok())
    };
    slots.iter().filter_map(pid).collect()
}

fn versions(dev: &Dev) -> Vec<Value> {
    let said = dev.ctl(&["history", "web", "-o", "json"]).expect_code(0);
    said.json()["items"].as_array().cloned().unwrap_or_default()
}

/// Every slot runs this version and nothing else.
fn wait_for(dev: &Dev, version: u32) {
    until("all runs are of the version", || {
        let job = dev.job("web");
        let slots = job["slots"].as_array().cloned().unwrap_or_default();
        let settled = slots.iter().all(|slot| {
            let current = &slot["current"];
            current["version"] == version
                && current["state"] == "running"
                && slot["incoming"].is_null()
        });
        if settled && !slots.is_empty() {
            Ok(())
        } else {
            Err(job.to_string())
        }
    });
}

#[test]
fn a_new_version_takes_over_beside_the_old_one() {
    let dev = Dev::start(&[]);
    dev.run(&service("echo one", ""), &[]).expect_code(0);
    let old = pids(&dev);
    let said = dev.run(&service("echo two", ""), &[]).expect_code(0);
    assert!(said.err.contains("web: running, 2/2"), "{}", said.err);
    wait_for(&dev, 2);
    assert!(old.iter().all(|pid| !is_alive(*pid)), "{old:?}");
    // One slot after the other: its successor ran before a run was told to end.
    let said = dev
        .ctl(&["events", "task.web.main.*.*", "-o", "jsonl"])
        .expect_code(0);
    let events: Vec<Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("an event"))
        .collect();
    let at = |version: u32, index: u32, what: &str| {
        let place = events.iter().position(|row| {
            let event = &row["event"];
            event["version"] == version && event["index"] == index && event["what"] == what
        });
        place.unwrap_or_else(|| panic!("no {what} of version {version}: {}", said.out))
    };
    for index in [0, 1] {
        assert!(at(2, index, "running") < at(1, index, "killed"));
    }
    assert!(at(1, 0, "killed") < at(2, 1, "scheduled"));
}

#[test]
fn a_version_that_fails_is_rolled_back_and_the_old_runs_never_notice() {
    let dev = Dev::start(&[]);
    let good = service("echo good", "");
    dev.run(&good, &[]).expect_code(0);
    let before = pids(&dev);
    let said = dev.run(&service("exit 3", ""), &[]).expect_code(2);
    let why = "web: version 2 was rolled back, as version 3: version 2 failed: web/0 failed: exit \
               code 3";
    assert!(said.err.contains(why), "{}", said.err);
    wait_for(&dev, 3);
    assert_eq!(pids(&dev), before, "the same processes");
    let versions = versions(&dev);
    assert_eq!(versions.len(), 3, "{versions:?}");
    assert_eq!(versions[2]["wanted"], true);
    let reason = versions[2]["reason"].as_str().unwrap_or_default();
    assert!(
        reason.starts_with("rolled back to version 1: version 2 failed"),
        "{reason}"
    );
    for version in ["1", "3"] {
        let said = dev
            .ctl(&["export", "web", "--version", version])
            .expect_code(0);
        assert_eq!(said.out, good, "byte for byte");
    }
    let said = dev.ctl(&["export", "web", "--version", "9"]).expect_code(4);
    assert!(said.err.contains("version 9 is not kept"), "{}", said.err);
    dev.ctl(&["rollback", "web", "--to", "1"]).expect_code(6);
    dev.ctl(&["promote", "web"]).expect_code(6);
}

#[test]
fn an_update_with_nothing_to_go_back_to_stays_failed_until_somebody_decides() {
    let dev = Dev::start(&[]);
    // It runs, and is never healthy.
    let never = format!("{}health: {{exec: [\"false\"]}}\n", service("echo one", ""));
    dev.run(&never, &["--detach"]).expect_code(0);
    let said = dev.run(&service("exit 4", ""), &[]).expect_code(2);
    // Which of the two is taken first depends on which was found unhealthy first.
    let one = |index: u8| {
        format!(
            "web: the update to version 2 failed: web/{index} failed: exit code 4; there is no \
             healthy version to go back to"
        )
    };
    let first = [0, 1]
        .into_iter()
        .find(|index| said.err.contains(&one(*index)));
    let first = first.unwrap_or_else(|| panic!("{}", said.err));
    let said = dev.ctl(&["status", "web"]).expect_code(0);
    let why = format!("failed: web/{first} failed");
    assert!(said.out.contains(&why), "{}", said.out);
    let said = dev.ctl(&["rollback", "web"]).expect_code(4);
    assert!(said.err.contains("say which to go back to"), "{}", said.err);
    dev.ctl(&["update", "continue", "web"]).expect_code(0);
}

#[test]
fn canaries_wait_to_be_promoted_and_an_update_can_be_paused() {
    let dev = Dev::start(&[]);
    dev.run(&service("echo one", ""), &[]).expect_code(0);
    let said = dev
        .run(&service("echo two", ", canary: 1"), &[])
        .expect_code(0);
    assert!(said.err.contains("loomctl promote web"), "{}", said.err);
    let job = dev.job("web");
    let of = |index: usize| job["slots"][index]["current"]["version"].clone();
    until("the canary has taken over", || {
        let job = dev.job("web");
        let slot = &job["slots"][0];
        let over = slot["current"]["version"] == 2 && slot["incoming"].is_null();
        if over { Ok(()) } else { Err(job.to_string()) }
    });
    assert_eq!(of(1), 1);
    let said = dev.ctl(&["status", "web"]).expect_code(0);
    assert!(said.out.contains("Update:"), "{}", said.out);
    dev.ctl(&["update", "pause", "web"]).expect_code(0);
    let said = dev.ctl(&["status", "web"]).expect_code(0);
    assert!(
        said.out.contains("paused, from version 1: paused by"),
        "{}",
        said.out
    );
    dev.ctl(&["update", "continue", "web"]).expect_code(0);
    dev.ctl(&["promote", "web"]).expect_code(0);
    wait_for(&dev, 2);
    let said = dev
        .ctl(&["rollback", "web", "--reason", "slow"])
        .expect_code(0);
    assert_eq!(said.out, "web: rolled back to version 1, as version 3\n");
    wait_for(&dev, 3);
    let said = dev.ctl(&["rollback", "web"]).expect_code(6);
    let why = "job web went back to version 1 already, as version 3: to go to another, say which";
    assert!(said.err.contains(why), "{}", said.err);
}

#[test]
fn a_plan_says_what_a_run_would_do_and_changes_nothing() {
    let dev = Dev::start(&[]);
    let plan = |job: &str, code| {
        std::fs::write(dev.path("plan.yaml"), job).expect("a file");
        let path = dev.path("plan.yaml");
        dev.ctl(&["plan", path.to_str().expect("a path")])
            .expect_code(code)
    };
    let said = plan(&service("echo one", ""), 1);
    assert!(
        said.out.contains("web would be new, at version 1"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("main  create  2         new"),
        "{}",
        said.out
    );
    dev.ctl(&["status", "web"]).expect_code(4);
    dev.run(&service("echo one", ""), &[]).expect_code(0);
    let said = plan(&service("echo one", ""), 0);
    assert!(said.out.contains("main  keep"), "{}", said.out);
    let more = service("echo one", "").replace("replicas: 2", "replicas: 3\ntimeout: 1h");
    let said = plan(&more, 1);
    let row = "main  in-place  3         replicas 2 to 3, timeout";
    assert!(said.out.contains(row), "{}", said.out);
    let said = plan(&service("echo two", ""), 1);
    assert!(
        said.out
            .contains("main  replace  2         operator.bash.text"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("~ tasks.main.operator.bash.text: "),
        "{}",
        said.out
    );
    let said = plan(
        &service("echo two", "").replace("replicas: 2", "replicas: 2\ncpu: 4000"),
        2,
    );
    assert!(
        said.out
            .contains("web/0 and 1 more: no node fits: 1 not enough cpu"),
        "{}",
        said.out
    );
    let said = plan(
        &service("echo one", "").replace("replicas: 2", "replicas: 2\npriority: 60"),
        1,
    );
    let whole = "of the whole job:\npriority: who goes first";
    assert!(said.out.contains(whole), "{}", said.out);
    let said = plan("name: web\nbsh: x\n", 255);
    assert!(said.err.contains("did you mean `bash`?"), "{}", said.err);
    assert_eq!(dev.job("web")["summary"]["job"]["version"], 1);
}
