//! Any NATS client takes part: a plain text-protocol client, sharing no code with Loom.

use std::time::Duration;

use loom_tests::cluster::Dev;
use loom_tests::wait::until;

const TRAP: &str = r"
name: web
bash: |
  trap 'echo reloaded' HUP
  while true; do sleep 0.05; done
";

#[test]
fn a_plain_client_submits_watches_and_signals() {
    let dev = Dev::start(&[]);
    let mut nats = dev.nats();
    nats.subscribe("orch.events.>").unwrap();
    nats.flush_round_trip().unwrap();

    let answer = nats
        .request(
            "orch.job.submit",
            br#"{"name":"hello","kind":"batch","bash":"echo hi"}"#,
        )
        .unwrap();
    assert_eq!(answer.json()["outcome"], "created", "{}", answer.text());
    let mut subjects = Vec::new();
    while subjects.last().map(String::as_str) != Some("orch.events.job.hello.completed") {
        let event = nats
            .next(Duration::from_secs(20))
            .unwrap()
            .unwrap_or_else(|| {
                panic!("no end of hello after {subjects:?}");
            });
        assert!(event.json()["at"].is_string(), "{}", event.text());
        subjects.push(event.subject);
    }
    assert!(
        subjects.contains(&"orch.events.task.hello.main.0.running".to_owned())
            || subjects.contains(&"orch.events.task.hello.main.0.completed".to_owned())
    );

    dev.run(TRAP, &[]).expect_code(0);
    let answer = nats.request("orch.task.web.main.0.signal", b"HUP").unwrap();
    assert!(
        answer.text().contains("web") && !answer.headers.contains("Error"),
        "{answer:?}"
    );
    until("the trap has run", || {
        let said = dev.ctl(&["logs", "web/0"]);
        if said.out.contains("reloaded") {
            Ok(())
        } else {
            Err(said.out)
        }
    });
}

#[test]
fn yaml_and_refusals_go_over_the_wire_too() {
    let dev = Dev::start(&[]);
    let mut nats = dev.nats();
    let answer = nats
        .request_with(
            "orch.job.submit",
            "Content-Type: application/yaml\r\n",
            b"name: y\nkind: batch\nbash: 'true'\n",
        )
        .unwrap();
    assert!(answer.text().contains("created"), "{answer:?}");
    let answer = nats
        .request("orch.job.submit", br#"{"name":"x","bahs":"y"}"#)
        .unwrap();
    assert!(
        answer.headers.contains("Nats-Service-Error-Code: 400"),
        "{answer:?}"
    );
    assert!(
        answer.json()["message"].as_str().unwrap().contains("bash"),
        "{}",
        answer.text()
    );
}

#[test]
fn the_queue_takes_a_job_and_the_outcome_is_an_event() {
    let dev = Dev::start(&[]);
    let mut nats = dev.nats();
    nats.subscribe("orch.events.>").unwrap();
    let ack = nats
        .request(
            "orch.job.queue",
            br#"{"name":"queued","kind":"batch","bash":"echo hi"}"#,
        )
        .unwrap();
    assert_eq!(ack.json()["stream"], "ORCH_QUEUE", "{}", ack.text());
    dev.wait_for_job("queued", "completed");
    nats.request("orch.job.queue", b"garbage").unwrap();
    let mut seen = Vec::new();
    while !seen
        .iter()
        .any(|s: &String| s.contains("orch.events.queue.") && s.ends_with(".rejected"))
    {
        let event = nats.next(Duration::from_secs(20)).unwrap();
        seen.push(
            event
                .unwrap_or_else(|| panic!("no rejection in {seen:?}"))
                .subject,
        );
    }
}

#[test]
fn a_plain_client_cannot_forge_what_only_managers_and_nodes_say() {
    let dev = Dev::start(&[]);
    dev.run(TRAP, &[]).expect_code(0);
    let mut nats = dev.nats();
    let before = dev.ctl(&["events", "-o", "name"]).out;
    for subject in [
        "orch.events.job.web.killed",
        "orch.heartbeat.node-1",
        "orch.assign.node-1",
        "orch.log",
    ] {
        nats.publish(subject, b"{}").unwrap();
    }
    for subject in [
        "orch.ctl.node-1.hello",
        "orch.ctl.node-1.bye",
        "$JS.API.STREAM.LIST",
    ] {
        let answer = nats.request(subject, b"");
        let served = answer
            .as_ref()
            .is_ok_and(|answer| !answer.is_no_responders());
        let text = answer.map(|a| a.text()).unwrap_or_default();
        assert!(!served || text.contains("not enabled"), "{subject}: {text}");
    }
    let after = dev.ctl(&["events", "-o", "name"]).out;
    assert_eq!(before, after);
    assert_eq!(dev.job("web")["summary"]["running"], 1);
}

#[test]
fn garbage_on_every_subject_is_answered_and_harms_nothing() {
    let dev = Dev::start(&[]);
    dev.run(TRAP, &[]).expect_code(0);
    let run = dev.job("web")["slots"][0]["current"]["run"].clone();
    let of_run = format!("orch.run.{}.signal", run.as_str().expect("a run"));
    let mut nats = dev.nats();
    let deep = "[".repeat(100_000);
    // As large as the server lets through.
    let huge = vec![b'x'; 8_000_000];
    let payloads: [&[u8]; 7] = [
        b"",
        b"\xff\xfe\x00",
        b"{",
        deep.as_bytes(),
        &[0x81, 0xdf, 0xff, 0xff],
        &[b'x'; 300_000],
        &huge,
    ];
    let refused = [
        "orch.job.submit",
        "orch.job.stop",
        "orch.job.restart",
        "orch.job.scale",
        "orch.job.plan",
        "orch.job.rollback",
        "orch.job.update",
        "orch.job.dispatch",
        "orch.admin.node.drain",
        "orch.admin.node.undrain",
        "orch.admin.node.label",
        "orch.admin.node.taint",
        "orch.admin.node.rebalance",
        "orch.admin.node.lost",
        "orch.api.job.get",
        "orch.api.log.get",
        "orch.api.no.such",
        "orch.task.web.main.0.signal",
        "orch.task.web.main.0.nonsense",
        "orch.task.web.all.all.signal",
        &of_run,
        "orch.find.signal",
    ];
    for subject in refused {
        // Of this one nothing has to be said.
        let from = usize::from(subject == "orch.admin.node.rebalance");
        for payload in &payloads[from..] {
            let answer = nats.request(subject, payload).unwrap();
            // What several are asked is refused by each of them, in its row.
            let rows = answer.json()["rows"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let in_rows = !rows.is_empty() && rows.iter().all(|row| row["error"].is_object());
            assert!(
                in_rows || answer.headers.contains("Service-Error"),
                "{subject}, {} bytes: {} {}",
                payload.len(),
                answer.headers,
                answer.text()
            );
        }
    }
    // These have an answer to a question that says nothing, or keep what comes until it is read.
    for subject in ["orch.api.job.list", "orch.api.event.list", "orch.job.queue"] {
        for payload in payloads {
            let answer = nats.request(subject, payload).unwrap();
            assert!(!answer.is_no_responders(), "{subject}: {answer:?}");
        }
    }
    let answer = nats
        .request("orch.task.web.main.0.pause.extra", b"")
        .unwrap();
    assert!(answer.is_no_responders(), "nobody serves that: {answer:?}");
    assert_eq!(dev.job("web")["summary"]["running"], 1);
    dev.ctl(&["signal", "web/0", "HUP"]).expect_code(0);
}

#[test]
fn a_client_that_dies_half_way_disturbs_nobody() {
    let dev = Dev::start(&[]);
    let job = br#"{"name":"half","kind":"batch","bash":"true"}"#;
    for cut in 0..20 {
        let mut nats = dev.nats();
        let text = &job[..job.len() - 1 - cut];
        nats.publish("orch.job.submit", text).unwrap();
        // A frame that says how long it is and ends before.
        nats.write_raw(format!("PUB orch.job.submit {}\r\n", job.len()).as_bytes())
            .unwrap();
        nats.write_raw(text).unwrap();
        drop(nats);
    }
    dev.run("name: whole\nkind: batch\nbash: 'true'\n", &[])
        .expect_code(0);
    dev.ctl(&["status", "half"]).expect_code(4);
}

#[test]
fn verbs_with_one_argument_take_bare_text() {
    let dev = Dev::start(&[]);
    dev.run(&TRAP.replace("name: web", "name: web\nreplicas: 2"), &[])
        .expect_code(0);
    let mut nats = dev.nats();
    let answer = nats.request("orch.job.restart", b"web/main/1").unwrap();
    assert_eq!(answer.json()["changed"], true, "{}", answer.text());
    let answer = nats.request("orch.job.stop", b"web/1").unwrap();
    assert_eq!(answer.json()["changed"], true, "{}", answer.text());
    until("one runs", || {
        let job = dev.job("web");
        if job["summary"]["running"] == 1 {
            Ok(())
        } else {
            Err(job.to_string())
        }
    });
    let answer = nats.request("orch.job.stop", b"web\n").unwrap();
    assert_eq!(answer.json()["job"], "web", "{}", answer.text());
    dev.wait_for_job("web", "killed");
    for wrong in ["Web", "web/x/y", "web/main/0/1", "nobody"] {
        let answer = nats.request("orch.job.stop", wrong.as_bytes()).unwrap();
        assert!(
            answer.headers.contains("Service-Error"),
            "{wrong}: {answer:?}"
        );
    }
}
