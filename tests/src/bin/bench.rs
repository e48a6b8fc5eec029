//! Figures of the whole program, each beside the same work done without Loom in the same run.
//!
//! `bench process|signal|dev|chain|fleet`; started by `make bench`. `bench stamp FILE` is the task it measures.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loom_tests::cluster::Dev;
use loom_tests::figure::{Sample, figure};
use loom_tests::nats::Client;
use loom_tests::wait::until;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("stamp") => stamp(Path::new(&arguments[2])),
        Some("process") => process(),
        Some("signal") => signal(),
        Some("dev") => dev(),
        Some("chain") => chain(),
        Some("fleet") => fleet(),
        _ => panic!("bench process|signal|dev|chain|fleet"),
    }
}

/// The time of this program's first instructions, appended as a line.
fn stamp(path: &Path) {
    let now = now_us();
    let mut file = fs::File::options()
        .append(true)
        .create(true)
        .open(path)
        .expect("a file");
    writeln!(file, "{now}").expect("it is written");
}

fn now_us() -> f64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    since.as_secs_f64() * 1e6
}

/// 1,000 steps that wait for each other: ten jobs of a hundred tasks each, on a node that runs
/// nothing. A step is from the end of a run to that of the next, as the log has them.
fn chain() {
    const JOBS: usize = 10;
    const TASKS: usize = 100;
    let dev = Dev::start(&["--sim-nodes", "1"]);
    let mut nats = dev.nats();
    let job = |number: usize| format!("chain-{number}");
    for number in 0..JOBS {
        let mut text = format!("name: {}\nkind: batch\n", job(number));
        if number == 0 {
            // It begins once all of them are there.
            text += "depends_on: [gate]\n";
            let gate = "name: gate\nkind: batch\nexec: [x]\nsim: {run: 1s}\n";
            nats.request("orch.job.submit", gate.as_bytes())
                .expect("accepted");
        } else {
            let _ = writeln!(text, "depends_on: [{}]", job(number - 1));
        }
        text += "tasks:\n";
        for task in 0..TASKS {
            let _ = writeln!(text, "  t{task:02}:\n    exec: [x]\n    sim: {{run: 0ms}}");
            if task > 0 {
                let _ = writeln!(text, "    after: [t{:02}]", task - 1);
            }
        }
        nats.request("orch.job.submit", text.as_bytes())
            .expect("accepted");
    }
    wait_apart(&dev, &job(JOBS - 1), "completed");
    let mut ends: Vec<jiff::Timestamp> = Vec::new();
    for number in 0..JOBS {
        let job = dev.job(&job(number));
        let slots = job["slots"].as_array().expect("slots");
        ends.extend(slots.iter().map(|slot| {
            let end = slot["current"]["ended_at"].as_str();
            let end = end.and_then(|end| end.parse::<jiff::Timestamp>().ok());
            end.expect("a time")
        }));
    }
    ends.sort();
    let steps = ends
        .windows(2)
        .map(|pair| pair[1].duration_since(pair[0]).as_secs_f64() * 1e3);
    let steps = Sample(steps.collect());
    figure("step of a chain of 1,000", "ms", &steps, None, "<= 3");
}

/// Waits until a job has a status, and looks seldom, so that looking costs what is measured little.
fn wait_apart(dev: &Dev, name: &str, status: &str) -> serde_json::Value {
    let begin = Instant::now();
    loop {
        let job = dev.job(name);
        if job["summary"]["status"] == status {
            return job;
        }
        assert!(
            begin.elapsed() < Duration::from_mins(5),
            "{name} is never {status}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Nodes of three sizes take turns.
const SHAPES: [&str; 6] = [
    "--sim-shape",
    "cpu=16,memory=64GiB",
    "--sim-shape",
    "cpu=8,memory=128GiB",
    "--sim-shape",
    "cpu=32,memory=32GiB",
];

/// What the jobs ask of nodes, in turn.
const ASKS: [&str; 4] = [
    "",
    "constraints: [node.label.rack != r3]\n",
    "spread: [{over: node.label.rack, weight: 50}]\n",
    "tolerations: [spare]\n",
];

/// Puts a thousand nodes into twenty racks, and keeps one in ten for those that tolerate it.
fn label_nodes(nats: &mut Client) {
    let mut ask = |verb: &str, request: serde_json::Value| {
        let subject = format!("orch.admin.node.{verb}");
        let request = request.to_string();
        let begin = Instant::now();
        // A node may not have said hello yet.
        while nats
            .request(&subject, request.as_bytes())
            .expect("an answer")
            .json()["changed"]
            .is_null()
        {
            assert!(begin.elapsed() < Duration::from_secs(30), "{request}");
        }
    };
    for number in 1..=1000 {
        let node = format!("sim-{number}");
        let rack = format!("r{}", number % 20);
        ask(
            "label",
            serde_json::json!({"node": node, "set": {"rack": rack}}),
        );
        if number % 10 == 0 {
            let spare = ["spare:no-schedule"];
            ask("taint", serde_json::json!({"node": node, "set": spare}));
        }
    }
}

/// Ten jobs of a thousand replicas each, submitted at once to a thousand nodes that run nothing, of
/// several sizes, in racks, some tainted: from
/// before the first is sent until the last is placed, and until the last runs, as the log has them.
/// Everything is real but the tasks: server, log, scheduler, agents and their reports.
fn fleet() {
    const RUNS: usize = 5;
    const JOBS: usize = 10;
    const REPLICAS: usize = 1000;
    let (mut placed, mut running) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let nodes = ["--nodes", "0", "--sim-nodes", "1000"];
        let dev = Dev::start(&[&nodes[..], &SHAPES].concat());
        let mut nats = dev.nats();
        label_nodes(&mut nats);
        let began = jiff::Timestamp::now();
        for number in 0..JOBS {
            let text = format!(
                "name: wide-{number}\nexec: [x]\nreplicas: {REPLICAS}\ncpu: 0.25\nmemory: 64MiB\n\
                 sim: {{run: 1h}}\n{}",
                ASKS[number % ASKS.len()]
            );
            nats.request("orch.job.submit", text.as_bytes())
                .expect("accepted");
        }
        let (mut last_placed, mut last_started) = (began, began);
        for number in 0..JOBS {
            let job = wait_apart(&dev, &format!("wide-{number}"), "running");
            let slots = job["slots"].as_array().expect("slots");
            assert_eq!(slots.len(), REPLICAS, "all of them run");
            for slot in slots {
                let at = |field: &str| -> jiff::Timestamp {
                    let text = slot["current"][field].as_str().expect("a time");
                    text.parse().expect("a time")
                };
                last_placed = last_placed.max(at("placed_at"));
                last_started = last_started.max(at("started_at"));
            }
        }
        let rate = |until: jiff::Timestamp| {
            #[expect(clippy::cast_precision_loss, reason = "ten thousand")]
            let runs = (JOBS * REPLICAS) as f64;
            runs / until.duration_since(began).as_secs_f64()
        };
        placed.push(rate(last_placed));
        running.push(rate(last_started));
    }
    let name = "placements_end_to_end_1000";
    figure(name, "1/s", &Sample(placed), None, "-");
    figure(
        "running_end_to_end_1000",
        "1/s",
        &Sample(running),
        None,
        "-",
    );
}

fn process() {
    let dev = Dev::start(&[]);
    let program = std::env::current_exe().expect("a path");
    let program = program.display();
    let mut nats = dev.nats();
    first_instruction(&dev, &mut nats, &program.to_string());
    many_short(&dev, &mut nats);
}

/// Submit to the process's first instruction, beside spawning the same program bare.
fn first_instruction(dev: &Dev, nats: &mut Client, program: &str) {
    let mut through = Vec::new();
    let mut bare = Vec::new();
    for number in 0..60 {
        let path = dev.path(&format!("stamp-{number}"));
        let text = path.display();
        let job = format!(
            r#"{{"name":"stamp-{number}","kind":"batch","exec":["{program}","stamp","{text}"]}}"#
        );
        let start = now_us();
        nats.request("orch.job.submit", job.as_bytes())
            .expect("accepted");
        through.push((stamped(&path) - start) / 1e3);

        let path = dev.path(&format!("bare-{number}"));
        let start = now_us();
        let mut child = Command::new(program)
            .arg("stamp")
            .arg(&path)
            .spawn()
            .expect("it starts");
        child.wait().expect("it ends");
        bare.push((stamped(&path) - start) / 1e3);
    }
    let raw = Sample(bare).median();
    figure(
        "process_first_instruction",
        "ms",
        &Sample(through),
        Some(raw),
        "p50 8",
    );
}

fn stamped(path: &Path) -> f64 {
    until("the task has left its stamp", || {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        text.trim().parse().map_err(|_| text)
    })
}

/// Short batch tasks on one node to completion, beside bare spawns.
fn many_short(dev: &Dev, nats: &mut Client) {
    const TASKS: u32 = 500;
    let mut rates = Vec::new();
    for round in 0..5 {
        let mut events = dev.nats();
        events
            .subscribe(&format!("orch.events.job.short-{round}.>"))
            .expect("subscribed");
        events.flush_round_trip().expect("the bus answers");
        let job = format!(
            r#"{{"name":"short-{round}","kind":"batch","cpu":0.001,"memory":"1MiB","replicas":{TASKS},"exec":["/bin/true"]}}"#
        );
        let start = Instant::now();
        nats.request("orch.job.submit", job.as_bytes())
            .expect("accepted");
        loop {
            let event = events
                .next(Duration::from_mins(1))
                .expect("the bus")
                .expect("an event");
            if event.subject.ends_with(".completed") {
                break;
            }
            assert!(!event.subject.ends_with(".failed"), "{}", event.text());
        }
        rates.push(f64::from(TASKS) / start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    for _ in 0..TASKS {
        Command::new("/bin/true").status().expect("it runs");
    }
    let raw = f64::from(TASKS) / start.elapsed().as_secs_f64();
    figure(
        "process_short_tasks",
        "per s",
        &Sample(rates),
        Some(raw),
        "at least 400",
    );
}

/// A signal to a task, client to answer, beside a bare round trip over the same bus.
fn signal() {
    const ROUNDS: usize = 2000;
    let dev = Dev::start(&[]);
    let job = "name: web\nbash: |\n  trap : HUP\n  while true; do sleep 1; done\n";
    dev.run(job, &[]).expect_code(0);
    let (mut server, plain) = plain_server(&[]);
    let bus = plain.clone();
    std::thread::spawn(move || {
        let mut echo = Client::connect(&bus).expect("the bus answers");
        echo.subscribe("bench.echo").expect("subscribed");
        while let Ok(message) = echo.next(Duration::from_mins(1)) {
            if let Some(reply) = message.and_then(|message| message.reply) {
                echo.publish(&reply, b"ok").expect("the bus answers");
            }
        }
    });
    let mut bare_nats = Client::connect(&plain).expect("the bus answers");
    let mut nats = dev.nats();
    until("the echo is there", || {
        let answer = bare_nats
            .request("bench.echo", b"x")
            .map_err(|error| error.to_string())?;
        if answer.is_no_responders() {
            Err("not yet".to_owned())
        } else {
            Ok(())
        }
    });
    let mut through = Vec::new();
    let mut bare = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        bare_nats.request("bench.echo", b"HUP").expect("answered");
        bare.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        nats.request("orch.task.web.main.0.signal", b"WINCH")
            .expect("answered");
        through.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let raw = Sample(bare).median();
    figure(
        "signal_round_trip",
        "ms",
        &Sample(through),
        Some(raw),
        "p50 raw + 1",
    );
    server.kill().expect("it can be killed");
    server.wait().expect("it ends");
}

/// A nats-server with nothing of ours, for what the bare thing costs.
fn plain_server(arguments: &[&str]) -> (std::process::Child, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
        .to_string();
    let server = Command::new(loom_tests::cluster::checkout().join(".loom/bin/nats-server"))
        .args(["-a", "127.0.0.1", "-p", &port])
        .args(arguments)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("nats-server starts");
    let url = format!("nats://127.0.0.1:{port}");
    until("the plain server answers", || {
        Client::connect(&url).map_err(|error| error.to_string())
    });
    (server, url)
}

/// Start on an existing directory, and what it costs when nothing happens.
fn dev() {
    let mut dev = Dev::start(&[]);
    dev.run("name: idle\nexec: [sleep, '100000']\n", &[])
        .expect_code(0);
    let mut ready = Vec::new();
    for _ in 0..7 {
        dev.kill();
        let start = Instant::now();
        dev.start_again();
        ready.push(start.elapsed().as_secs_f64() * 1e3);
    }
    figure("dev_ready", "ms", &Sample(ready), None, "at most 1000");

    let (agent, bus, shim) = processes(&dev);
    let store = std::env::temp_dir().join(format!("loom-bench-{}", std::process::id()));
    let (mut plain, url) = plain_server(&["-js", "-sd", &store.display().to_string()]);
    // A server with a stream keeps a clock of its own running, as ours has to.
    Client::connect(&url)
        .and_then(|mut nats| nats.request("$JS.API.STREAM.CREATE.BARE", br#"{"name":"BARE"}"#))
        .expect("a stream");
    // What start-up has left to do is over after a while.
    std::thread::sleep(Duration::from_secs(5));
    let mut idle = Vec::new();
    let mut raw = Vec::new();
    for _ in 0..3 {
        let ours = || [agent, bus, shim].into_iter().map(cpu_ticks).sum::<f64>();
        let (before, raw_before, start) = (ours(), cpu_ticks(plain.id()), Instant::now());
        std::thread::sleep(Duration::from_secs(20));
        // Hundredths of a second by seconds: percent of a core.
        let seconds = start.elapsed().as_secs_f64();
        idle.push((ours() - before) / seconds);
        raw.push((cpu_ticks(plain.id()) - raw_before) / seconds);
    }
    plain.kill().expect("it can be killed");
    plain.wait().expect("it ends");
    drop(fs::remove_dir_all(store));
    let raw = Sample(raw).median();
    figure(
        "idle_cpu",
        "% core",
        &Sample(idle),
        Some(raw),
        "at most 0.5",
    );
    let memory = (rollup(agent, "Pss:") + rollup(bus, "Pss:")) / 1024.0;
    figure(
        "idle_memory",
        "MiB",
        &Sample(vec![memory]),
        None,
        "at most 100",
    );
    let private = (rollup(shim, "Private_Dirty:") + rollup(shim, "Private_Clean:")) / 1024.0;
    figure(
        "shim_memory",
        "MiB",
        &Sample(vec![private]),
        None,
        "about 1",
    );
}

/// The processes of a cluster: agent, nats-server, shim.
fn processes(dev: &Dev) -> (u32, u32, u32) {
    let agent = dev.pid();
    let data = dev.data_dir().display().to_string();
    let find = |what: &str| {
        fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .into_string()
                    .ok()?
                    .parse::<u32>()
                    .ok()
            })
            .find(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                *pid != agent && line.contains(&data) && line.contains(what)
            })
            .unwrap_or_else(|| panic!("no process of {what}"))
    };
    (agent, find("nats-server"), find("/runs/"))
}

/// User and system time in hundredths of a second.
fn cpu_ticks(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    ticks(12).unwrap_or_default() + ticks(13).unwrap_or_default()
}

/// A figure of `/proc/PID/smaps_rollup` in KiB.
fn rollup(pid: u32, name: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .trim()
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or_default()
}
