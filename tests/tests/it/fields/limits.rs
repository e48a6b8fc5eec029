//! What single replicas have otherwise than the others, and ports of the node.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};

use loom_tests::cgroup::{has, limits};
use loom_tests::cluster::Dev;
use loom_tests::wait::until_true;

use super::{newest, slot, wait_for, wait_for_output, wait_for_words};

#[test]
fn one_replica_is_started_and_held_otherwise_than_the_others() {
    let dev = Dev::start(&[]);
    let job = r#"
name: web
replicas: 2
cpu: 0.05
memory: 64MiB
pids: 20
args: [follower]
env: {COLOUR: red, SIZE: small}
bash: echo "$1 $COLOUR $SIZE"; exec sleep 1000
per_index:
  1:
    args: [leader]
    env: {COLOUR: blue}
    cpu: 0.2
    cpu_limit: 0.5
    memory: 96MiB
    pids: 30
    disk_rate: 3MiB/s
"#;
    dev.run(job, &[]).expect_code(0);
    wait_for_output(&dev, "web", "follower red small\n");
    wait_for_words(&dev, &["logs", "web/1"], "leader blue small\n");
    if !(has("cpu") && has("memory") && has("pids")) {
        eprintln!("SKIPPED: no control groups");
        return;
    }
    let view = dev.job("web");
    let of = |index| {
        let pid = newest(&slot(&view, "main", index))["pid"].as_u64().unwrap();
        limits(pid.try_into().unwrap())
    };
    let (plain, own) = (of(0), of(1));
    assert_eq!((plain.cpu, plain.cpu_limit), (Some(50), None));
    assert_eq!((own.cpu, own.cpu_limit), (Some(200), Some(500)));
    assert_eq!((plain.memory, own.memory), (Some(64 << 20), Some(96 << 20)));
    assert_eq!(
        own.pids.zip(plain.pids).map(|(own, plain)| own - plain),
        Some(10)
    );
    if has("blkio") {
        assert!(plain.write_rate.is_empty(), "{plain:?}");
        let rate = BTreeSet::from([3 << 20]);
        assert_eq!((&own.read_rate, &own.write_rate), (&rate, &rate));
    }
}

#[test]
fn one_replica_may_have_less_disk_than_the_others() {
    let dev = Dev::start(&[]);
    let job = "name: big\nreplicas: 2\nrestart: never\nstop: {grace: 1s}\n\
               per_index: {1: {disk: 4MiB}}\n\
               bash: head -c 8M /dev/zero > big; exec sleep 1000\n";
    dev.run(job, &["--detach"]).expect_code(0);
    let view = wait_for(&dev, "big", "its second replica alone is ended", |view| {
        let state = |index| newest(&slot(view, "main", index))["state"].clone();
        state(1) == "failed" && state(0) == "running"
    });
    let reason = newest(&slot(&view, "main", 1))["reason"].clone();
    assert!(reason.as_str().unwrap().starts_with("disk: "), "{view}");
}

#[test]
fn a_port_of_the_node_is_one_tasks_at_a_time() {
    let dev = Dev::start(&[]);
    let free = TcpListener::bind("0.0.0.0:0").unwrap();
    let host = free.local_addr().unwrap().port();
    drop(free);
    let job = |name: &str| {
        format!(
            "name: {name}\nports: {{web: {{host: {host}}}}}\nstop: {{grace: 1s}}\n\
             python: |\n  import os, socket, time\n  port = int(os.environ['LOOM_PORT_WEB'])\n  \
             print(port, os.environ['LOOM_ADDR_WEB'].split(':')[1], flush=True)\n  \
             with socket.create_server(('', port)): time.sleep(1000)\n"
        )
    };
    dev.run(&job("first"), &[]).expect_code(0);
    wait_for_output(&dev, "first", &format!("{host} {host}\n"));
    until_true("it listens there", || {
        TcpStream::connect(("127.0.0.1", host)).is_ok()
    });
    dev.run(&job("second"), &["--detach"]).expect_code(0);
    let why = format!("no node fits: 1 port {host} taken");
    wait_for_words(&dev, &["status", "second"], &why);
    dev.ctl(&["stop", "first"]).expect_code(0);
    wait_for_output(&dev, "second", &format!("{host} {host}\n"));
}
