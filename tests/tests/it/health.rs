//! Health checks, as a user sees them.

use std::fs;
use std::path::Path;

use loom_tests::cluster::{Dev, signal};
use loom_tests::nats::Client;
use loom_tests::wait::{until, until_true};
use nix::sys::signal::Signal;

/// A service with one task for each kind of check; each is healthy while its file is there.
fn three_kinds(up: &Path) -> String {
    let up = up.display();
    format!(
        r#"
name: web
tasks:
  asked:
    ports: {{http: 80}}
    health: {{http: /up, interval: 200ms, retries: 2, start_period: 10m}}
    restart: never
    python: |
      import http.server, os
      class Answer(http.server.BaseHTTPRequestHandler):
          def do_GET(self):
              up = self.path == "/up" and os.path.exists("{up}/http")
              self.send_response(200 if up else 503)
              self.end_headers()
          def log_message(self, *_): pass
      port = int(os.environ["LOOM_PORT_HTTP"])
      http.server.ThreadingHTTPServer(("", port), Answer).serve_forever()
  listens:
    ports: {{line: 81}}
    health: {{tcp: line, interval: 200ms, retries: 2, start_period: 10m}}
    restart: never
    python: |
      import os, socket, time
      while True:
          while not os.path.exists("{up}/tcp"): time.sleep(0.05)
          port = int(os.environ["LOOM_PORT_LINE"])
          with socket.create_server(("", port)) as server:
              server.settimeout(0.05)
              while os.path.exists("{up}/tcp"):
                  try: server.accept()[0].close()
                  except TimeoutError: pass
  runs:
    health: {{exec: [sh, -c, "test -e {up}/exec || (echo no file; exit 3)"], interval: 200ms, retries: 2, start_period: 10m}}
    restart: never
    bash: while true; do sleep 0.1; done
"#
    )
}

fn healths(dev: &Dev, job: &str) -> Vec<String> {
    let view = dev.job(job);
    let slots = view["slots"].as_array().cloned().unwrap_or_default();
    slots
        .iter()
        .map(|slot| {
            slot["current"]["health"]["status"]
                .as_str()
                .unwrap_or("-")
                .to_owned()
        })
        .collect()
}

fn wait_for_healths(dev: &Dev, job: &str, expected: &[&str]) {
    until(&format!("{job} is {expected:?}"), || {
        let now = healths(dev, job);
        if now == expected {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
}

fn touch(up: &Path, names: &[&str]) {
    for name in names {
        fs::write(up.join(name), "").unwrap();
    }
}

#[test]
fn a_service_is_followed_until_all_kinds_of_checks_succeed() {
    let dev = Dev::start(&[]);
    let up = dev.path("up");
    fs::create_dir(&up).unwrap();
    touch(&up, &["http", "tcp"]);
    let job = three_kinds(&up);
    // Its deadline passes while one of them is not healthy.
    let said = dev.run(&job, &["--deadline", "4s"]).expect_code(2);
    let reason = "web/runs/0 exec sh: exit code 3: no file";
    let waits = format!("waiting for 1 of 3 to become healthy: {reason}");
    assert!(said.err.contains(&waits), "{}", said.err);
    let late = format!("web is accepted, but 2/3 are healthy by the deadline: {reason}");
    assert!(said.err.contains(&late), "{}", said.err);

    let said = dev.ctl(&["status"]).expect_code(0);
    assert!(said.out.contains("2/3 healthy"), "{}", said.out);
    let said = dev.ctl(&["status", "web"]).expect_code(0);
    assert!(said.out.contains("running, 2/3 healthy"), "{}", said.out);
    assert!(said.out.contains("HEALTH"), "{}", said.out);
    let said = dev.ctl(&["status", "web/runs/0"]).expect_code(0);
    assert!(
        said.out.contains("pending: exec sh: exit code 3: no file"),
        "{}",
        said.out
    );

    touch(&up, &["exec"]);
    let said = dev.run(&job, &[]).expect_code(0);
    assert!(
        said.err.contains("web: running, 3/3 healthy"),
        "{}",
        said.err
    );

    let said = dev.ctl(&["inspect", "web"]).expect_code(0);
    assert_eq!(said.out.matches("  healthy  ").count(), 3, "{}", said.out);

    for name in ["http", "tcp", "exec"] {
        fs::remove_file(up.join(name)).unwrap();
    }
    wait_for_healths(&dev, "web", &["unhealthy"; 3]);
    let said = dev.ctl(&["status", "web"]).expect_code(0);
    for reason in [": 503", "connection refused", "exit code 3: no file"] {
        assert!(said.out.contains(reason), "{reason}: {}", said.out);
    }
    assert!(said.out.contains("running, 0/3 healthy"), "{}", said.out);
    touch(&up, &["http", "tcp", "exec"]);
    wait_for_healths(&dev, "web", &["healthy"; 3]);
    let events = dev.ctl(&["events", "task.web.>"]).expect_code(0).out;
    for task in ["asked", "listens", "runs"] {
        let word = |word: &str| format!("task.web.{task}.0.{word} ");
        assert_eq!(events.matches(&word("healthy")).count(), 2, "{events}");
        assert_eq!(events.matches(&word("unhealthy")).count(), 1, "{events}");
    }
    let line = events
        .lines()
        .find(|line| line.contains("web.asked.0.unhealthy"));
    assert!(
        line.is_some_and(|line| line.contains("http GET /up on port")),
        "{events}"
    );
}

#[test]
fn an_unhealthy_run_is_restarted_and_says_why() {
    let dev = Dev::start(&[]);
    let up = dev.path("up");
    let job = format!(
        "name: web\nhealth: {{exec: [test, -e, '{}'], interval: 100ms}}\n\
         restart: {{delay: 10ms}}\nstop: {{grace: 1s}}\nexec: [sleep, '1000']\n",
        up.display()
    );
    fs::write(&up, "").unwrap();
    dev.run(&job, &[]).expect_code(0);
    let first = dev.job("web")["slots"][0]["current"]["run"].clone();
    fs::remove_file(&up).unwrap();
    until("it has failed", || {
        let events = dev.ctl(&["events", "task.web.>"]).expect_code(0).out;
        let why = "unhealthy: exec test: exit code 1";
        let failed = events.lines().find(|line| line.contains("main.0.failed"));
        if failed.is_some_and(|line| line.contains(why)) {
            Ok(())
        } else {
            Err(events)
        }
    });
    fs::write(&up, "").unwrap();
    wait_for_healths(&dev, "web", &["healthy"]);
    let view = dev.job("web");
    assert_ne!(view["slots"][0]["current"]["run"], first);
    assert_eq!(view["summary"]["healthy"], 1);
}

#[test]
fn a_check_changes_in_place() {
    let dev = Dev::start(&[]);
    let job =
        |health: &str| format!("name: web\nexec: [sleep, '1000']\n{health}\nrestart: never\n");
    dev.run(&job(""), &[]).expect_code(0);
    let pid = || dev.job("web")["slots"][0]["current"]["pid"].clone();
    let before = pid();
    let health =
        |program| format!("health: {{exec: [{program}], interval: 100ms, start_period: 0s}}");
    dev.run(&job(&health("'true'")), &[]).expect_code(0);
    assert_eq!(
        (pid(), healths(&dev, "web")),
        (before.clone(), vec!["healthy".to_owned()])
    );
    dev.run(&job(&health("'false'")), &["--detach"])
        .expect_code(0);
    wait_for_healths(&dev, "web", &["unhealthy"]);
    dev.run(&job(""), &[]).expect_code(0);
    assert_eq!(
        (pid(), healths(&dev, "web")),
        (before, vec!["-".to_owned()])
    );
}

#[test]
fn checks_go_on_under_another_agent_and_while_the_bus_is_away() {
    let mut dev = Dev::start(&[]);
    let up = dev.path("up");
    fs::create_dir(&up).unwrap();
    touch(&up, &["http", "tcp", "exec"]);
    dev.run(&three_kinds(&up), &[]).expect_code(0);
    let since = |dev: &Dev| {
        let view = dev.job("web");
        let slots = view["slots"].as_array().cloned().unwrap_or_default();
        let since = |slot: &serde_json::Value| slot["current"]["health"]["since"].clone();
        slots.iter().map(since).collect::<Vec<_>>()
    };
    let before = since(&dev);
    dev.kill();
    dev.start_again();
    wait_for_healths(&dev, "web", &["healthy"; 3]);
    assert_eq!(since(&dev), before, "nobody was told anything else");
    fs::remove_file(up.join("http")).unwrap();
    wait_for_healths(&dev, "web", &["unhealthy", "healthy", "healthy"]);

    // What is found while the bus is away is told when it is back.
    let server = dev.bus_pid();
    fs::remove_file(up.join("exec")).unwrap();
    signal(server, Signal::SIGKILL);
    until_true("another server serves", || {
        dev.bus_pid_now().is_some_and(|pid| pid != server) && Client::connect(&dev.bus).is_ok()
    });
    wait_for_healths(&dev, "web", &["unhealthy", "healthy", "unhealthy"]);
    let events = dev
        .ctl(&["events", "task.web.listens.>"])
        .expect_code(0)
        .out;
    assert_eq!(events.matches("0.healthy ").count(), 1, "{events}");
    assert_eq!(events.matches("0.running ").count(), 1, "{events}");
}

#[test]
fn a_sim_fleet_plays_its_health() {
    let dev = Dev::start(&["--nodes", "0", "--sim-nodes", "10"]);
    let job = "name: fleet\nreplicas: 100\nbash: 'true'\nports: {http: 80}\n\
               health: {http: /, interval: 500ms}\nsim: {healthy_after: 1s}\n";
    let said = dev.run(job, &[]).expect_code(0);
    assert!(
        said.err.contains("fleet: running, 100/100 healthy"),
        "{}",
        said.err
    );
}
