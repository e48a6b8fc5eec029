//! How `loomctl dev` ends: by a signal, by two, and before it was there.

use std::fs;

use loom_tests::cluster::{Dev, is_alive, signal};
use loom_tests::wait::{until, until_true};
use nix::sys::signal::Signal;

/// It takes no notice of being asked to end.
const STUBBORN: &str = "name: stubborn\nstop: {grace: 5m}\n\
                        bash: trap '' TERM; echo $$; while true; do sleep 0.1; done\n";

fn pid_of(dev: &Dev, slot: &str) -> u32 {
    let said = dev.ctl(&["status", slot, "-o", "json"]).expect_code(0);
    let pid = said.json()["items"][0]["current"]["pid"].as_u64().unwrap();
    u32::try_from(pid).unwrap()
}

#[test]
fn a_second_interrupt_ends_it_at_once_and_names_what_is_left() {
    let mut dev = Dev::start(&[]);
    dev.run(STUBBORN, &[]).expect_code(0);
    let task = pid_of(&dev, "stubborn/0");
    signal(dev.pid(), Signal::SIGINT);
    until_true("it is stopping", || dev.log().contains("stopping"));
    assert!(is_alive(dev.pid()) && is_alive(task));
    let code = dev.interrupt();
    assert_eq!(code, 1, "{}", dev.log());
    let log = dev.log();
    let left = format!("stubborn/0 on node-1 (pid {task})");
    assert!(log.contains(&left), "{log}");
    assert!(is_alive(task));
    signal(task, Signal::SIGKILL);
    until_true("it is dead", || !is_alive(task));
}

#[test]
fn an_interrupt_while_starting_stops_what_an_earlier_start_left() {
    let mut dev = Dev::start(&[]);
    let job = "name: web\nreplicas: 2\nbash: while true; do sleep 0.1; done\n";
    dev.run(job, &[]).expect_code(0);
    let tasks = [pid_of(&dev, "web/0"), pid_of(&dev, "web/1")];
    dev.kill();
    assert!(tasks.iter().all(|pid| is_alive(*pid)));
    dev.begin_again();
    until_true("its bus is there", || dev.bus_pid_now().is_some());
    assert_eq!(dev.interrupt(), 0, "{}", dev.log());
    assert!(tasks.iter().all(|pid| !is_alive(*pid)), "{}", dev.log());
}

/// The soft and the hard limit of open files of a process.
fn open_files(pid: &str) -> (String, String) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn an_agent_may_open_more_files_than_the_programs_it_runs() {
    let dev = Dev::start(&[]);
    let (soft, hard) = open_files("self");
    let raised = open_files(&dev.pid().to_string());
    assert_eq!(raised, (hard.clone(), hard));
    dev.run("name: limit\nkind: batch\nbash: ulimit -S -n\n", &[])
        .expect_code(0);
    until(
        "the program had the limit of whoever started the agent",
        || {
            let said = dev.ctl(&["logs", "limit/0"]);
            if said.out.trim() == soft {
                Ok(())
            } else {
                Err(format!("{} for {soft}", said.out))
            }
        },
    );
}
