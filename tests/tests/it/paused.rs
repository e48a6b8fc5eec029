//! A leader whose process stands still for a while, and goes on as if no time had passed.

use std::thread;
use std::time::Duration;

use loom_tests::cluster::signal;
use loom_tests::nats::Client;
use loom_tests::parts::Server;
use loom_tests::wait::until;
use nix::sys::signal::Signal;
use serde_json::Value;

/// How long it stands still at least: until another leads, with `LOOM_LONG=1` for minutes.
fn pause() -> Duration {
    let long = std::env::var_os("LOOM_LONG").is_some();
    Duration::from_secs(if long { 180 } else { 0 })
}

fn role(server: &Server, manager: &str) -> String {
    let said = server.ctl(&["manager", "ls", "-o", "json"]);
    let list: Value = serde_json::from_str(&said.out).unwrap_or_default();
    let all = list["items"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|one| one["name"] == manager);
    found.map_or(String::new(), |one| {
        one["role"].as_str().unwrap_or_default().to_owned()
    })
}

fn wait_for_role(server: &Server, manager: &str, wanted: &str) {
    until(&format!("{manager} is {wanted}"), || {
        let role = role(server, manager);
        (role == wanted).then_some(()).ok_or(role)
    });
}

/// Wakes it also when the test fails.
struct Paused(u32);

impl Paused {
    fn new(pid: u32) -> Self {
        signal(pid, Signal::SIGSTOP);
        Self(pid)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        signal(self.0, Signal::SIGCONT);
    }
}

#[test]
fn a_leader_that_is_woken_answers_nothing_from_the_past() {
    let server = Server::start();
    let first = server.manager("m1");
    wait_for_role(&server, "m1", "leader");
    let _second = server.manager("m2");
    let _node = server.node("n1");
    server
        .run("name: web\nreplicas: 2\nbash: sleep 1000\n", &[])
        .expect_code(0);

    let paused = Paused::new(first.pid());
    // They lie in its connection until it is woken: what was meant for the leader of then.
    let mut client = Client::connect(&server.url).unwrap();
    client.subscribe("_INBOX.late.*").unwrap();
    let asked = [
        (
            "orch.job.submit",
            "name: late\nreplicas: 3\nbash: sleep 1000\n",
        ),
        (
            "orch.job.scale",
            r#"{"address":{"job":"web"},"replicas":9}"#,
        ),
        ("orch.job.stop", r#"{"address":{"job":"web"}}"#),
    ];
    for (number, (subject, text)) in asked.iter().enumerate() {
        let line = format!(
            "PUB {subject} _INBOX.late.{number} {}\r\n{text}\r\n",
            text.len()
        );
        client.write_raw(line.as_bytes()).unwrap();
    }
    wait_for_role(&server, "m2", "leader");
    thread::sleep(pause());
    // Meanwhile people went on with the one that leads now.
    server
        .run("name: late\nbash: sleep 1000\n", &["--detach"])
        .expect_code(0);
    server.ctl(&["scale", "web=3"]).expect_code(0);
    let scaled = until("web has three", || {
        let job: Value = server.ctl(&["status", "web", "-o", "json"]).json();
        (job["summary"]["running"] == 3)
            .then(|| job["summary"].clone())
            .ok_or(job.to_string())
    });

    drop(paused);
    wait_for_role(&server, "m1", "standby");
    assert_eq!(role(&server, "m2"), "leader");
    // It is a standby after it has looked at all that lay there: whatever it says has come by now, or is
    // refused by the one that leads.
    while let Some(answer) = client.next(Duration::from_secs(2)).unwrap() {
        assert!(
            answer.headers.contains("Service-Error"),
            "an answer from the past: {} {}",
            answer.headers,
            answer.text()
        );
    }
    let web = server.ctl(&["status", "web", "-o", "json"]).json();
    assert_eq!(web["summary"], scaled, "nothing of the past was done");
    let late = server.ctl(&["status", "late", "-o", "json"]).json();
    assert_eq!(late["slots"][0]["current"]["version"], 1, "{late}");
    assert_eq!(late["slots"].as_array().map(Vec::len), Some(1), "{late}");
    for name in ["web", "late"] {
        server.ctl(&["stop", name]).expect_code(0);
    }
}
