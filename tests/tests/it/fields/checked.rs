//! How a task is checked.

use std::fs;
use std::path::Path;

use loom_tests::cluster::Dev;
use loom_tests::wait::until;
use serde_json::Value;

use super::{events, millis, newest, slot, wait_for};

fn health(view: &Value, task: &str) -> Value {
    newest(&slot(view, task, 0))["health"].clone()
}

/// Waits until a check has been made so often, each with a line in a file.
fn checks(place: &Path, count: usize) -> Vec<i64> {
    until("it was checked often enough", || {
        let text = fs::read_to_string(place).unwrap_or_default();
        let times: Vec<i64> = text.lines().flat_map(str::parse).collect();
        if times.len() >= count {
            Ok(times)
        } else {
            Err(text)
        }
    })
}

#[test]
fn a_check_asks_the_port_that_it_names_and_takes_no_longer_than_it_may() {
    let dev = Dev::start(&[]);
    let broken = dev.path("broken");
    // One port answers well for ever, the other until there is a file.
    let server = format!(
        "restart: never\n    cpu: 0.05\n    ports: {{firm: {{}}, frail: {{}}}}\n    python: |\n      \
         import http.server, os, threading\n      \
         def serve(name):\n          \
         class Answer(http.server.BaseHTTPRequestHandler):\n              \
         def do_GET(self):\n                  \
         bad = name == 'FRAIL' and os.path.exists('{}')\n                  \
         self.send_response(500 if bad else 200)\n                  \
         self.end_headers()\n              \
         def log_message(self, *_): pass\n          \
         port = int(os.environ['LOOM_PORT_' + name])\n          \
         http.server.ThreadingHTTPServer(('', port), Answer).serve_forever()\n      \
         threading.Thread(target=serve, args=('FIRM',)).start()\n      \
         serve('FRAIL')\n",
        broken.display()
    );
    let asked = |port: &str| {
        format!("  {port}:\n    health: {{http: /, port: {port}, interval: 100ms}}\n    {server}")
    };
    let check = "interval: 100ms, start_period: 0s, retries: 1, timeout";
    let slow = "restart: never, cpu: 0.05, exec: [sleep, '1000']";
    let job = format!(
        "name: web\ntasks:\n{}{}  \
         patient: {{{slow}, health: {{exec: [sleep, '0.5'], {check}: 1m}}}}\n  \
         hasty: {{{slow}, health: {{exec: [sleep, '0.5'], {check}: 100ms}}}}\n",
        asked("firm"),
        asked("frail"),
    );
    dev.run(&job, &["--detach"]).expect_code(0);
    let are = |expected: [(&str, &str); 4]| {
        wait_for(&dev, "web", &format!("{expected:?}"), |view| {
            let is = |(task, status): &(&str, &str)| health(view, task)["status"] == *status;
            expected.iter().all(is)
        })
    };
    let times = [("patient", "healthy"), ("hasty", "unhealthy")];
    let view = are([
        ("firm", "healthy"),
        ("frail", "healthy"),
        times[0],
        times[1],
    ]);
    let hasty = health(&view, "hasty")["reason"].clone();
    assert!(hasty.as_str().unwrap().contains("100ms"), "{hasty}");
    fs::write(broken, "").unwrap();
    let view = are([
        ("firm", "healthy"),
        ("frail", "unhealthy"),
        times[0],
        times[1],
    ]);
    let frail = health(&view, "frail")["reason"].clone();
    assert!(frail.as_str().unwrap().ends_with(": 500"), "{frail}");
}

#[test]
fn a_check_is_made_and_counted_as_often_as_it_says() {
    let dev = Dev::start(&[]);
    // Found well, twice not, and well from then on.
    let hiccup = |name: &str, retries: u8| {
        let count = dev.path(name);
        let count = count.display();
        format!(
            "  {name}:\n    restart: never\n    cpu: 0.05\n    exec: [sleep, '1000']\n    \
             health:\n      interval: 100ms\n      retries: {retries}\n      \
             exec: [sh, -c, 'date +%s%3N >> {count}; n=$(wc -l < {count}); \
             [ $n -ne 2 ] && [ $n -ne 3 ]']\n"
        )
    };
    let never = |name: &str, start_period: &str| {
        format!(
            "  {name}:\n    restart: never\n    cpu: 0.05\n    exec: [sleep, '1000']\n    \
             health:\n      interval: 100ms\n      retries: 1\n      \
             start_period: {start_period}\n      \
             exec: [sh, -c, 'date +%s%3N >> {}; false']\n",
            dev.path(name).display()
        )
    };
    let slow = hiccup("slow", 3).replace("interval: 100ms", "interval: 800ms");
    let job = format!(
        "name: web\ntasks:\n{}{}{}{}{slow}",
        hiccup("twice", 2),
        hiccup("thrice", 3),
        never("counts", "0s"),
        never("spared", "10m"),
    );
    dev.run(&job, &["--detach"]).expect_code(0);

    checks(&dev.path("thrice"), 6);
    checks(&dev.path("twice"), 6);
    let told = |task: &str| events(&dev, &format!("task.web.{task}.0.unhealthy")).len();
    until("it was unhealthy for a while", || {
        if told("twice") == 1 {
            Ok(())
        } else {
            Err("no event".to_owned())
        }
    });
    assert_eq!(told("thrice"), 0);

    let view = wait_for(&dev, "web", "one is unhealthy at once", |view| {
        health(view, "counts")["status"] == "unhealthy"
    });
    let run = newest(&slot(&view, "counts", 0));
    let after = millis(&run["started_at"], &run["health"]["since"]);
    // Where nothing is said failures count after ten seconds.
    assert!(after < 9_000, "{after}");
    checks(&dev.path("spared"), 5);
    assert_eq!(health(&dev.job("web"), "spared")["status"], "pending");

    let times = checks(&dev.path("slow"), 4);
    for two in times.windows(2) {
        // A quarter less by chance; where nothing is said it would be ten seconds.
        assert!((600..7_500).contains(&(two[1] - two[0])), "{times:?}");
    }
}
