//! The life of jobs, as a user sees it.

use std::io::{BufRead, BufReader};

use loom_tests::cluster::{Dev, is_alive};
use loom_tests::wait::{until, until_true};

const SERVICE: &str = r#"
name: web
replicas: 2
stop: {grace: 2s}
update: {healthy_for: 0s}
bash: |
  trap 'echo reloaded' HUP
  trap 'exit 0' TERM
  echo "listening as $LOOM_TASK_INDEX of version $LOOM_VERSION"
  while true; do sleep 0.05; done
"#;

fn pid_of(dev: &Dev, slot: &str) -> u32 {
    let said = dev.ctl(&["status", slot, "-o", "json"]).expect_code(0);
    let pid = said.json()["items"][0]["current"]["pid"]
        .as_u64()
        .expect("a pid");
    u32::try_from(pid).expect("a pid")
}

#[test]
fn a_batch_job_runs_to_its_end_and_its_output_is_kept() {
    let dev = Dev::start(&[]);
    let said = dev.run(
        "name: hello\nkind: batch\nbash: echo hello from $LOOM_JOB\n",
        &[],
    );
    let said = said.expect_code(0);
    assert!(
        said.err.contains("hello: accepted, version 1"),
        "{}",
        said.err
    );
    assert!(said.err.contains("hello completed"), "{}", said.err);
    let job = dev.job("hello");
    assert_eq!(job["summary"]["status"], "completed");
    assert_eq!(job["summary"]["job"]["exit_code"], 0);
    until("its output is there", || {
        let said = dev.ctl(&["logs", "hello/0"]).expect_code(0);
        if said.out == "hello from hello\n" {
            Ok(())
        } else {
            Err(said.out + &said.err)
        }
    });
}

#[test]
fn once_streams_the_output_and_ends_with_the_tasks_own_code() {
    let dev = Dev::start(&[]);
    let job = "name: once\nkind: batch\nrestart: {on: never}\n\
               bash: |\n  echo to out\n  echo to err >&2\n  exit 7\n";
    let said = dev.run(job, &["--once"]).expect_code(7);
    assert!(said.out.contains("to out"), "{said:?}");
    assert!(said.out.contains("to err"), "{said:?}");
    let many = "name: many\nkind: batch\nbash: 'seq 1 20000; exit 4'\nrestart: {on: never}\n";
    let said = dev.run(many, &["--once"]).expect_code(4);
    assert_eq!(said.out.lines().count(), 20_000);
    assert!(said.out.ends_with("\n19999\n20000\n"));
    let said = dev
        .ctl(&["logs", "once", "--stream", "stderr", "--tail", "1"])
        .expect_code(0);
    assert_eq!(said.out, "once/0 | to err\n");
    dev.ctl(&["logs", "no-such-job"]).expect_code(4);
    let said = dev.ctl(&["logs", "once/7"]).expect_code(4);
    assert!(said.err.contains("main (index 0)"), "{}", said.err);
    let missing = "name: missing\nkind: batch\nexec: [/no/such/program]\n";
    let said = dev.run(missing, &["--once"]).expect_code(125);
    assert!(said.err.contains("/no/such/program"), "{}", said.err);
}

#[test]
fn a_batch_job_that_fails_says_why_after_its_attempts() {
    let dev = Dev::start(&[]);
    let job = "name: bad\nkind: batch\nrestart: {attempts: 2, delay: 10ms}\nbash: exit 3\n";
    let said = dev.run(job, &[]).expect_code(1);
    assert!(said.err.contains("exit code 3"), "{}", said.err);
    let view = dev.job("bad");
    assert_eq!(view["summary"]["status"], "failed");
    assert_eq!(view["summary"]["job"]["exit_code"], 3);
    let slot = &view["slots"][0];
    let runs =
        slot["ended"].as_array().map_or(0, Vec::len) + usize::from(!slot["current"].is_null());
    assert_eq!(runs, 2, "two attempts, two runs: {slot}");
}

#[test]
fn a_service_is_followed_until_it_runs_then_signalled_paused_scaled_and_stopped() {
    let dev = Dev::start(&[]);
    let said = dev.run(SERVICE, &[]).expect_code(0);
    assert!(said.err.contains("web: running, 2/2"), "{}", said.err);

    let said = dev.ctl(&["signal", "web/0", "HUP"]).expect_code(0);
    assert!(
        said.out
            .starts_with("TASK   NODE    RESULT  TIME\nweb/0  node-1  ok"),
        "{}",
        said.out
    );
    until("the trap has run", || {
        let said = dev.ctl(&["logs", "web/0", "--tail", "1"]);
        if said.out == "reloaded\n" {
            Ok(())
        } else {
            Err(said.out)
        }
    });
    let rows = dev
        .ctl(&["signal", "web", "SIGHUP", "-o", "json"])
        .expect_code(0)
        .json();
    assert_eq!(rows["items"].as_array().map(Vec::len), Some(2), "{rows}");

    until("who told what is in the history", || {
        let said = dev.ctl(&["events", "command.web.>"]).expect_code(0);
        if said.out.contains("signal done  by dev") {
            Ok(())
        } else {
            Err(said.out)
        }
    });
    let said = dev.ctl(&["events", "web", "--limit", "3"]).expect_code(0);
    assert_eq!(said.out.lines().count(), 3, "{}", said.out);

    dev.ctl(&["pause", "web/1"]).expect_code(0);
    until("the pause is shown", || {
        let said = dev.ctl(&["status", "web"]);
        if said.out.contains("paused") {
            Ok(())
        } else {
            Err(said.out)
        }
    });
    dev.ctl(&["resume", "web/1"]).expect_code(0);

    dev.ctl(&["scale", "web=3"]).expect_code(0);
    until("three run", || {
        let job = dev.job("web");
        if job["summary"]["running"] == 3 {
            Ok(())
        } else {
            Err(job.to_string())
        }
    });
    dev.ctl(&["scale", "web=1"]).expect_code(0);
    until("one runs", || {
        let job = dev.job("web");
        let alone =
            job["summary"]["running"] == 1 && job["slots"].as_array().map(Vec::len) == Some(1);
        if alone { Ok(()) } else { Err(job.to_string()) }
    });

    let pid = pid_of(&dev, "web/0");
    let said = dev
        .ctl(&["stop", "web", "--reason", "lunch"])
        .expect_code(0);
    assert_eq!(said.out, "web is stopped\n");
    assert!(!is_alive(pid));
    let job = dev.wait_for_job("web", "killed");
    assert!(
        job["summary"]["job"]["reason"]
            .as_str()
            .unwrap()
            .contains("lunch"),
        "{job}"
    );
    let said = dev.ctl(&["signal", "web/0", "HUP"]).expect_code(4);
    assert!(
        said.err.contains("no running task answers at web/0"),
        "{}",
        said.err
    );
}

#[test]
fn the_same_spec_again_changes_nothing_and_another_one_replaces_the_runs() {
    let dev = Dev::start(&[]);
    dev.run(SERVICE, &[]).expect_code(0);
    let pid = pid_of(&dev, "web/0");
    let said = dev.run(SERVICE, &[]).expect_code(0);
    assert!(
        said.err.contains("web: unchanged, version 1"),
        "{}",
        said.err
    );
    assert_eq!(pid_of(&dev, "web/0"), pid);

    let said = dev.run(
        &SERVICE.replace("reloaded", "again"),
        &["--if-version", "7"],
    );
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.err.contains("version 1"), "{}", said.err);

    let said = dev
        .run(&SERVICE.replace("reloaded", "again"), &[])
        .expect_code(0);
    assert!(
        said.err.contains("web: updated to version 2"),
        "{}",
        said.err
    );
    until("all runs are of version 2", || {
        let job = dev.job("web");
        let slots = job["slots"].as_array().cloned().unwrap_or_default();
        let new = slots
            .iter()
            .all(|slot| slot["current"]["version"] == 2 && slot["current"]["state"] == "running");
        if new && slots.len() == 2 {
            Ok(())
        } else {
            Err(job.to_string())
        }
    });
    assert!(!is_alive(pid));

    dev.ctl(&["stop", "web"]).expect_code(0);
    let said = dev
        .run(&SERVICE.replace("reloaded", "again"), &["--detach"])
        .expect_code(0);
    assert!(said.err.contains("web: started again"), "{}", said.err);
}

#[test]
fn restart_gives_the_slot_a_new_process() {
    let dev = Dev::start(&[]);
    dev.run(SERVICE, &[]).expect_code(0);
    let (first, second) = (pid_of(&dev, "web/0"), pid_of(&dev, "web/1"));
    dev.ctl(&["restart", "web/0"]).expect_code(0);
    until_true("web/0 has another pid", || {
        let said = dev.ctl(&["status", "web/0", "-o", "json"]);
        let run = &said.json()["items"][0]["current"];
        run["state"] == "running" && run["pid"].as_u64().is_some_and(|p| p != u64::from(first))
    });
    assert_eq!(pid_of(&dev, "web/1"), second, "only the one addressed");
}

#[test]
fn stopping_one_index_leaves_the_others() {
    let dev = Dev::start(&[]);
    dev.run(SERVICE, &[]).expect_code(0);
    dev.ctl(&["stop", "web/1"]).expect_code(0);
    until("one runs", || {
        let job = dev.job("web");
        if job["summary"]["running"] == 1 {
            Ok(())
        } else {
            Err(job.to_string())
        }
    });
    assert_eq!(dev.job("web")["summary"]["status"], "running");
}

#[test]
fn logs_are_followed_and_events_tell_the_story_in_order() {
    let dev = Dev::start(&[]);
    dev.run(SERVICE, &["--detach"]).expect_code(0);
    let mut follow = dev.spawn(&["logs", "-f", "web"]);
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("| listening as"), "{first}");
    follow.kill().unwrap();
    follow.wait().unwrap();

    dev.wait_for_job("web", "running");
    dev.ctl(&["stop", "web"]).expect_code(0);
    dev.wait_for_job("web", "killed");
    let subjects = until("the events are there", || {
        let said = dev.ctl(&["events", "web", "-o", "name"]).expect_code(0);
        let subjects: Vec<String> = said.out.lines().map(str::to_owned).collect();
        let ended = subjects
            .iter()
            .any(|subject| subject == "orch.events.job.web.killed");
        if ended { Ok(subjects) } else { Err(said.out) }
    });
    let at = |subject: &str| {
        subjects
            .iter()
            .position(|s| s == subject)
            .unwrap_or_else(|| panic!("no {subject} in {subjects:#?}"))
    };
    assert!(at("orch.events.job.web.accepted") < at("orch.events.task.web.main.0.running"));
    assert!(at("orch.events.task.web.main.0.running") < at("orch.events.task.web.main.0.killed"));
    assert!(at("orch.events.task.web.main.1.killed") < at("orch.events.job.web.killed"));
}

#[test]
fn what_cannot_be_placed_waits_and_says_why_counted() {
    let dev = Dev::start(&[]);
    let job = "name: huge\ncpu: 4000\nbash: sleep 1\n";
    let said = dev.run(job, &["--deadline", "1s"]).expect_code(2);
    assert!(
        said.err.contains("no node fits: 1 not enough cpu"),
        "{}",
        said.err
    );
    let said = dev.ctl(&["status", "huge"]).expect_code(0);
    assert!(
        said.out.contains("no node fits: 1 not enough cpu"),
        "{}",
        said.out
    );
    let said = dev
        .run(&job.replace("huge", "huge2"), &["--timeout", "1s"])
        .expect_code(124);
    assert!(said.err.contains("goes on"), "{}", said.err);
    let said = dev
        .run(
            &job.replace("huge", "huge3"),
            &["--once", "--timeout", "1s"],
        )
        .expect_code(124);
    assert!(
        said.err.contains("huge3: waiting: no node fits"),
        "{}",
        said.err
    );
}

#[test]
fn a_time_limit_ends_a_run_as_failed() {
    let dev = Dev::start(&[]);
    let job = "name: slow\nkind: batch\ntimeout: 300ms\nrestart: {on: never}\n\
               stop: {grace: 200ms}\nexec: [sleep, '100']\n";
    let said = dev.run(job, &[]).expect_code(1);
    assert!(said.err.contains("timed out after 300ms"), "{}", said.err);
}

#[test]
fn several_tasks_and_interpreters_run_side_by_side() {
    let dev = Dev::start(&[]);
    let job = r#"
name: mix
kind: batch
tasks:
  shell: {bash: 'echo shell $GREETING', env: {GREETING: hi}}
  snake: {python: 'import os; print("python", os.environ["LOOM_TASK"])'}
  plain: {exec: [echo, "${task.name}", "${task.index}", "$HOME stays"]}
"#;
    dev.run(job, &[]).expect_code(0);
    until("all have said it", || {
        let said = dev.ctl(&["logs", "mix"]).expect_code(0);
        let all = ["| shell hi", "| python snake", "| plain 0 $HOME stays"];
        if all.iter().all(|line| said.out.contains(line)) {
            Ok(())
        } else {
            Err(said.out)
        }
    });
}

#[test]
fn a_sim_fleet_takes_sim_tasks() {
    let dev = Dev::start(&["--nodes", "0", "--sim-nodes", "20"]);
    let job = "name: fleet\nkind: batch\nreplicas: 200\nbash: 'true'\nsim: {run: 50ms}\n";
    dev.run(job, &[]).expect_code(0);
    let nodes = dev.ctl(&["node", "ls", "-o", "json"]).expect_code(0).json();
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(20));
}
