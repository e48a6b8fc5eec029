//! What is followed is whole: no line and no event is missing or comes twice, whatever the bus does.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use loom_tests::cluster::{Dev, signal};
use loom_tests::nats::Client;
use loom_tests::wait::{PATIENCE, until, until_true};
use nix::sys::signal::Signal;

/// Lines of a program that goes on, as they come.
struct Lines {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Lines {
    fn of(mut child: Child) -> Self {
        let stdout: ChildStdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("another line")
    }

    fn none_within(&self, time: Duration) {
        let line = self.lines.recv_timeout(time);
        assert!(line.is_err(), "one more line: {line:?}");
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill_the_bus(dev: &Dev) {
    let server = dev.bus_pid();
    signal(server, Signal::SIGKILL);
    until_true("another server serves", || {
        dev.bus_pid_now().is_some_and(|pid| pid != server) && Client::connect(&dev.bus).is_ok()
    });
}

/// A line every 5 ms: some are written before, some while and some after the bus is gone.
const COUNT: &str =
    "name: count\nbash: for i in $(seq 1000); do echo $i; sleep 0.005; done; sleep 300\n";

#[test]
fn followed_output_has_no_gap_and_no_line_twice_when_the_bus_is_killed() {
    let dev = Dev::start(&[]);
    dev.run(COUNT, &["--detach"]).expect_code(0);
    let lines = Lines::of(dev.spawn(&["logs", "-f", "count/0"]));
    for number in 1..=1000 {
        if number == 200 || number == 500 {
            kill_the_bus(&dev);
        }
        assert_eq!(lines.next(), number.to_string());
    }
    lines.none_within(Duration::from_millis(500));
}

#[test]
fn output_that_is_only_heard_from_somewhere_on_is_whole_from_there() {
    let dev = Dev::start(&[]);
    dev.run(COUNT, &["--detach"]).expect_code(0);
    until("some was written", || {
        let said = dev.ctl(&["logs", "count/0"]);
        if said.out.lines().count() > 50 {
            Ok(())
        } else {
            Err(said.out)
        }
    });
    let lines = Lines::of(dev.spawn(&["logs", "-f", "--tail", "5", "count/0"]));
    let first: u32 = lines.next().parse().unwrap();
    assert!(first > 40, "a tail of 5 began at {first}");
    kill_the_bus(&dev);
    for number in first + 1..=1000 {
        assert_eq!(lines.next(), number.to_string());
    }
}

#[test]
fn a_job_that_is_streamed_to_its_end_is_whole_when_the_bus_is_killed() {
    let dev = Dev::start(&[]);
    let job = "name: once\nkind: batch\nrestart: {on: never}\n\
               bash: for i in $(seq 400); do echo $i; sleep 0.005; done; exit 9\n";
    let file = dev.path("once.yaml");
    std::fs::write(&file, job).unwrap();
    let mut child = dev.spawn(&["run", "--once", file.to_str().unwrap()]);
    let stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let lines = BufReader::new(stdout).lines();
        lines.map(Result::unwrap).collect::<Vec<_>>()
    });
    dev.wait_for_job("once", "running");
    kill_the_bus(&dev);
    let code = child.wait().unwrap().code();
    let lines = reader.join().unwrap();
    let wanted: Vec<String> = (1..=400).map(|number| number.to_string()).collect();
    assert_eq!(lines, wanted);
    assert_eq!(code, Some(9));
}

#[test]
fn followed_events_have_no_gap_and_none_twice_when_the_bus_is_killed() {
    let dev = Dev::start(&[]);
    let lines = Lines::of(dev.spawn(&["events", "-f", "-o", "jsonl"]));
    let batch = |name: &str| format!("name: {name}\nkind: batch\nbash: 'true'\n");
    dev.run(&batch("before"), &[]).expect_code(0);
    kill_the_bus(&dev);
    // Decided while the one who follows may not be back yet.
    for number in 0..5 {
        dev.run(&batch(&format!("after-{number}")), &[])
            .expect_code(0);
    }
    let mut numbers = Vec::new();
    loop {
        let row: serde_json::Value = serde_json::from_str(&lines.next()).unwrap();
        numbers.extend(row["number"].as_u64().filter(|number| *number > 0));
        if row["subject"] == "orch.events.job.after-4.completed" {
            break;
        }
    }
    let wanted: Vec<u64> = (1..=*numbers.last().unwrap()).collect();
    assert_eq!(numbers, wanted);
}

#[test]
fn commands_given_while_nobody_could_hear_are_among_the_followed_events() {
    let dev = Dev::start(&[]);
    dev.run(
        "name: web\nbash: trap true HUP; while true; do sleep 0.1; done\n",
        &[],
    )
    .expect_code(0);
    let lines = Lines::of(dev.spawn(&["events", "-f", "-o", "jsonl", "command.web.>"]));
    dev.ctl(&["signal", "web/0", "HUP"]).expect_code(0);
    let first = lines.next();
    kill_the_bus(&dev);
    until("a signal gets through", || {
        let said = dev.ctl(&["signal", "web/0", "WINCH"]);
        if said.code == 0 {
            Ok(())
        } else {
            Err(said.err)
        }
    });
    let second = lines.next();
    assert_ne!(first, second);
    lines.none_within(Duration::from_millis(500));
}

/// Some 9 MB of lines, of which one answer holds less than a half.
#[test]
fn output_larger_than_an_answer_is_shown_whole() {
    let dev = Dev::start(&[]);
    let job = "name: much\nkind: batch\nbash: seq -f '%09.0f-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
               xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' 80000\n";
    dev.run(job, &[]).expect_code(0);
    let last = until("the last line is kept", || {
        let said = dev.ctl(&["logs", "much/0", "--tail", "1"]);
        if said.out.starts_with("000080000-") {
            Ok(said.out)
        } else {
            Err(said.out + &said.err)
        }
    });
    let whole = dev.ctl(&["logs", "much/0"]).expect_code(0);
    assert_eq!(whole.err, "");
    let numbers = whole
        .out
        .lines()
        .map(|line| line[..9].parse::<u32>().unwrap());
    assert!(
        numbers.eq(1..=80_000_u32),
        "{} lines",
        whole.out.lines().count()
    );
    let most = dev
        .ctl(&["logs", "much/0", "--tail", "70000"])
        .expect_code(0);
    assert_eq!(most.out.lines().count(), 70_000);
    assert!(most.out.ends_with(&last));
    let followed = Lines::of(dev.spawn(&["logs", "much/0", "-f"]));
    for number in 1..=80_000_u32 {
        assert_eq!(followed.next()[..9].parse(), Ok(number));
    }
}

#[test]
fn output_that_is_not_shipped_is_spoken_of() {
    let dev = Dev::start(&[]);
    let job = "name: quiet\nkind: batch\nlogs: {ship: false}\nbash: echo nothing to see\n";
    dev.run(job, &[]).expect_code(0);
    let said = until("the task is gone", || {
        let said = dev.ctl(&["logs", "quiet"]);
        if said.code == 4 {
            Ok(said)
        } else {
            Err(format!("{said:?}"))
        }
    });
    assert!(
        said.err.contains("quiet/main is not shipped") && said.err.contains("node-1"),
        "{}",
        said.err
    );

    let file = dev.data_dir().join("logs/kept.log");
    let job = format!(
        "name: kept\nlogs: {{ship: false, to: {}}}\nbash: echo at hand; sleep 300\n",
        file.display()
    );
    dev.run(&job, &[]).expect_code(0);
    until("a running task is read from its files", || {
        let said = dev.ctl(&["logs", "kept/0"]);
        if said.out == "at hand\n" {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
    dev.ctl(&["stop", "kept"]).expect_code(0);
    let said = until("the task is gone", || {
        let said = dev.ctl(&["logs", "kept"]);
        if said.code == 4 {
            Ok(said)
        } else {
            Err(format!("{said:?}"))
        }
    });
    let place = format!("its files are {} on node-1", file.display());
    assert!(said.err.contains(&place), "{}", said.err);
}
