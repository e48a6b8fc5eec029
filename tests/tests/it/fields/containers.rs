//! What a container is started as.

use std::fs;

use loom_tests::cluster::Dev;
use loom_tests::docker::{IMAGE, docker, is_there};

use super::{newest, only, slot, wait_for_output};

#[test]
fn a_container_has_the_network_words_user_and_place_of_its_task() {
    if !is_there() {
        return;
    }
    let dev = Dev::start(&[]);
    let nets = "[sh, -c, 'ls /sys/class/net; readlink /proc/self/ns/net']";
    let job = format!(
        "name: boxes\nkind: batch\ntasks:\n  \
         bridged: {{image: {IMAGE}, network: bridge, command: [ls, /sys/class/net]}}\n  \
         hosted: {{image: {IMAGE}, network: host, command: [readlink, /proc/self/ns/net]}}\n  \
         alone: {{image: {IMAGE}, network: none, command: {nets}}}\n  \
         someone: {{image: {{name: '{IMAGE}', pull: never}}, network: none, user: worker, \
         workdir: /bin, args: [sh, -c, 'id -un; pwd']}}\n  \
         leaves: {{image: {IMAGE}, network: none, result: true, \
         command: [sh, -c, 'echo 7 > $LOOM_RESULT']}}\n  \
         nothing: {{image: {IMAGE}, network: none, command: [sh, -c, 'echo [$LOOM_RESULT]']}}\n"
    );
    dev.run(&job, &[]).expect_code(0);
    wait_for_output(&dev, "boxes/bridged", "eth0\nlo\n");
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let own = own.display();
    wait_for_output(&dev, "boxes/hosted", &format!("{own}\n"));
    let said = dev.ctl(&["logs", "boxes/alone/0"]).out;
    assert!(
        said.starts_with("lo\nnet:") && !said.contains(&own.to_string()),
        "{said}"
    );
    wait_for_output(&dev, "boxes/someone", "worker\n/bin\n");
    let view = dev.job("boxes");
    assert_eq!(newest(&slot(&view, "leaves", 0))["result"], "7", "{view}");
    wait_for_output(&dev, "boxes/nothing", "[]\n");
}

#[test]
fn a_container_is_not_pulled_where_its_task_says_never() {
    if !is_there() {
        return;
    }
    let dev = Dev::start(&[]);
    // Nobody listens there: who tried to pull it would say that.
    let image = "127.0.0.1:1/nobody/has-this:1";
    let job = |pull: &str| {
        format!(
            "name: {pull}\nkind: batch\nrestart: never\nimage: {{name: '{image}', pull: {pull}}}\n"
        )
    };
    let said = dev.run(&job("never"), &[]).expect_code(1);
    let why = format!("image `{image}` is not on this node, and `pull: never`");
    assert!(said.err.contains(&why), "{}", said.err);
    let said = dev.run(&job("missing"), &[]).expect_code(1);
    assert!(said.err.contains("cannot be reached"), "{}", said.err);
    // What is there already is asked for anew by `always` alone.
    docker(&["tag", IMAGE, image]);
    let there = dev.run(&format!("{}command: ['true']\n", job("missing")), &[]);
    let anew = dev.run(&job("always"), &[]);
    docker(&["image", "rm", image]);
    there.expect_code(0);
    assert!(anew.err.contains("cannot be reached"), "{}", anew.err);
}

#[test]
fn a_port_of_a_container_is_published_as_its_task_says() {
    if !is_there() {
        return;
    }
    let dev = Dev::start(&[]);
    let free = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let host = free.local_addr().unwrap().port();
    drop(free);
    let job = format!(
        "name: dns\nimage: {IMAGE}\nstop: {{signal: KILL}}\n\
         ports: {{dns: {{port: 53, host: {host}, protocol: udp}}, web: 80}}\n\
         command: [sh, -c, 'echo $LOOM_PORT_DNS $${{LOOM_ADDR_DNS##*:}} $LOOM_PORT_WEB; sleep 1000']\n"
    );
    dev.run(&job, &[]).expect_code(0);
    wait_for_output(&dev, "dns", &format!("53 {host} 80\n"));
    let run = only(&dev, "dns");
    let container = format!("loom-{}", run["run"].as_str().unwrap());
    let published = docker(&["port", &container]);
    assert!(
        published.contains(&format!("53/udp -> 0.0.0.0:{host}")),
        "{published}"
    );
    let chosen = &run["ports"]["web"];
    assert!(
        published.contains(&format!("80/tcp -> 0.0.0.0:{chosen}")),
        "{published}"
    );
}
