//! Nothing is lost when anything is killed.

use std::fs;
use std::thread;
use std::time::Duration;

use loom_tests::cluster::{Dev, is_alive, signal};
use loom_tests::nats::Client;
use loom_tests::wait::{until, until_true};
use nix::sys::signal::Signal;

const SERVICE: &str = r"
name: web
replicas: 3
bash: |
  echo up
  while true; do sleep 0.1; done
";

fn pids(dev: &Dev, job: &str) -> Vec<u32> {
    let view = dev.job(job);
    let mut pids: Vec<u32> = view["slots"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|slot| slot["current"]["state"] == "running")
        .filter_map(|slot| slot["current"]["pid"].as_u64())
        .map(|pid| u32::try_from(pid).unwrap())
        .collect();
    pids.sort_unstable();
    pids
}

#[test]
fn tasks_survive_kill_9_of_everything_else_and_keep_their_pids() {
    let mut dev = Dev::start(&[]);
    dev.run(SERVICE, &[]).expect_code(0);
    let before = pids(&dev, "web");
    assert_eq!(before.len(), 3);
    dev.kill();
    assert!(
        before.iter().all(|pid| is_alive(*pid)),
        "tasks go on without their agent"
    );
    dev.start_again();
    until("all are adopted", || {
        let now = pids(&dev, "web");
        if now == before {
            Ok(())
        } else {
            Err(format!("{now:?} for {before:?}"))
        }
    });
    dev.ctl(&["signal", "web", "WINCH"]).expect_code(0);
    // A task that ends while no agent is there is found out and replaced.
    dev.kill();
    signal(before[0], Signal::SIGKILL);
    until_true("it is dead", || !is_alive(before[0]));
    dev.start_again();
    until("it is replaced, the others are not", || {
        let now = pids(&dev, "web");
        let kept = before[1..].iter().all(|pid| now.contains(pid));
        if kept && now.len() == 3 {
            Ok(())
        } else {
            Err(format!("{now:?} for {before:?}"))
        }
    });
}

#[test]
fn what_was_acknowledged_is_there_after_kill_9_at_any_moment() {
    let mut dev = Dev::start(&[]);
    let mut acknowledged = Vec::new();
    for round in 0..5_u64 {
        let bus = dev.bus.clone();
        let submitting = thread::spawn(move || {
            let mut done = Vec::new();
            let Ok(mut nats) = Client::connect(&bus) else {
                return done;
            };
            for number in 0..200 {
                let name = format!("j{round}-{number}");
                let job = format!(r#"{{"name":"{name}","kind":"batch","bash":"true"}}"#);
                match nats.request("orch.job.submit", job.as_bytes()) {
                    Ok(answer) if answer.json()["outcome"] == "created" => done.push(name),
                    _ => break,
                }
            }
            done
        });
        // Another moment each round: the point is that it does not matter which.
        thread::sleep(Duration::from_millis(40 + 70 * round));
        dev.kill();
        acknowledged.extend(submitting.join().unwrap());
        dev.start_again();
    }
    assert!(!acknowledged.is_empty());
    until("every acknowledged job completed", || {
        let said = dev.ctl(&["status", "-o", "json"]).expect_code(0).json();
        let open: Vec<&String> = acknowledged
            .iter()
            .filter(|name| {
                !said["items"].as_array().is_some_and(|jobs| {
                    jobs.iter()
                        .any(|job| job["job"]["name"] == ***name && job["status"] == "completed")
                })
            })
            .collect();
        if open.is_empty() {
            Ok(())
        } else {
            Err(format!("{} open: {open:?}", open.len()))
        }
    });
}

#[test]
fn ctrl_c_leaves_nothing_running_and_keep_tasks_leaves_the_tasks() {
    let mut dev = Dev::start(&[]);
    dev.run(SERVICE, &[]).expect_code(0);
    let running = pids(&dev, "web");
    assert_eq!(dev.interrupt(), 0, "{}", dev.log());
    assert!(running.iter().all(|pid| !is_alive(*pid)));
    let data = dev.data_dir().display().to_string();
    for entry in fs::read_dir("/proc").unwrap() {
        let line = fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.contains(&data), "left behind: {line}");
    }
    dev.start_again();
    until("the service is back where it was", || {
        let now = pids(&dev, "web");
        if now.len() == 3 {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });

    let mut keeping = Dev::start(&["--keep-tasks"]);
    keeping.run(SERVICE, &[]).expect_code(0);
    let before = pids(&keeping, "web");
    assert_eq!(keeping.interrupt(), 0);
    assert!(before.iter().all(|pid| is_alive(*pid)));
    keeping.start_again();
    until("they are adopted", || {
        let now = pids(&keeping, "web");
        if now == before {
            Ok(())
        } else {
            Err(format!("{now:?} for {before:?}"))
        }
    });
    keeping.ctl(&["stop", "web"]).expect_code(0);
}

#[test]
fn the_bus_is_started_again_and_nothing_acknowledged_is_lost() {
    let dev = Dev::start(&[]);
    dev.run(SERVICE, &[]).expect_code(0);
    let count = "name: count\nbash: for i in $(seq 300); do echo $i; sleep 0.01; done; sleep 100\n";
    dev.run(count, &["--detach"]).expect_code(0);
    dev.wait_for_job("count", "running");
    let before = pids(&dev, "web");
    let server = dev.bus_pid();
    signal(server, Signal::SIGKILL);
    until_true("another server serves", || {
        dev.bus_pid_now().is_some_and(|pid| pid != server) && Client::connect(&dev.bus).is_ok()
    });
    // A request that waits out the gap is answered; no task noticed anything.
    dev.run("name: after\nkind: batch\nbash: 'true'\n", &[])
        .expect_code(0);
    assert_eq!(pids(&dev, "web"), before);
    dev.ctl(&["signal", "web", "WINCH"]).expect_code(0);
    until("what was written meanwhile is kept, without a gap", || {
        let said = dev.ctl(&["logs", "count/0"]);
        let whole = said.out.lines().eq((1..=300).map(|line| line.to_string()));
        if whole { Ok(()) } else { Err(said.out) }
    });
}
