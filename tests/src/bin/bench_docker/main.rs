//! Figures of containers, each beside bollard alone in the same run and network mode.
//!
//! `bench_docker [none|bridge|host] [one|many|rolling]`; started by `make bench-docker`. The engine must be idle.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod bare;
mod rolling;

use std::time::{Duration, Instant};

use loom_tests::cluster::Dev;
use loom_tests::docker::{IMAGE, is_there, remove_labelled};
use loom_tests::figure::{Sample, figure};
use loom_tests::nats::Client;
use loom_tests::wait::until;

use bare::Bare;

/// How many containers the figures of many have.
const MANY: usize = 30;
/// How often a figure of one container is measured.
const ROUNDS: usize = 15;
/// How often one of many containers is.
const ROUNDS_OF_MANY: usize = 3;
/// The label of bare containers.
const BARE: &str = "loom-bench-bare";
/// What every container runs: it ends at once when asked to.
const SCRIPT: &str = "trap 'exit 0' TERM; trap : HUP; while :; do sleep 0.2; done";
/// What is tried to find the best parallelism of bare starts.
const AT_ONCE: [usize; 3] = [2, 4, 8];

fn main() {
    if !is_there() {
        return;
    }
    let network = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "bridge".to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let bare = Bare::new(&network);
        println!("network: {network}");
        let part = std::env::args().nth(2);
        let is_asked = |name: &str| part.as_deref().is_none_or(|part| part == name);
        if is_asked("one") {
            one(&bare).await;
        }
        if is_asked("many") {
            many(&bare).await;
        }
        if is_asked("rolling") {
            rolling::rolling(&bare).await;
        }
        remove_labelled(BARE);
    });
}

/// The name of a job of this run of the benchmark: what one that was killed left is not counted.
fn own(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn job(name: &str, network: &str, replicas: usize) -> String {
    let script = SCRIPT.replace('\'', "''");
    format!(
        "name: {name}\nimage: {IMAGE}\ncommand: [sh, -c, '{script}']\nnetwork: {network}\n\
         replicas: {replicas}\nmemory: 32MiB\ncpu: 0.01\npids: 64\n\
         restart: {{on: any, delay: 0s, attempts: 1000}}\nstop: {{signal: KILL}}\n"
    )
}

/// Waits for so many events of a kind about a job; panics at one that says it failed for good.
fn await_events(events: &mut Client, ends: &str, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let event = events
            .next(Duration::from_mins(2))
            .expect("the bus")
            .expect("an event");
        assert!(!event.subject.ends_with(".rejected"), "{}", event.text());
        if event.subject.ends_with(ends) {
            seen.push(event.text());
        }
    }
    seen
}

fn listen(dev: &Dev, job: &str) -> Client {
    let mut events = dev.nats();
    events
        .subscribe(&format!("orch.events.task.{job}.>"))
        .expect("subscribed");
    events.flush_round_trip().expect("the bus answers");
    events
}

/// One container: submit to running, a signal, a killed one back; beside create and start alone.
async fn one(bare: &Bare) {
    let dev = Dev::start(&[]);
    let mut nats = dev.nats();
    let (mut through, mut raw) = (Vec::new(), Vec::new());
    for number in 0..ROUNDS {
        let name = own(&format!("one-{number}"));
        let mut events = listen(&dev, &name);
        let text = job(&name, &bare.network, 1);
        let begun = Instant::now();
        nats.request("orch.job.submit", text.as_bytes())
            .expect("accepted");
        await_events(&mut events, ".running", 1);
        through.push(ms(begun));
        stop(&mut nats, &name);
        until_gone(bare, &name).await;

        let begun = Instant::now();
        bare.start(&format!("{BARE}-one")).await;
        raw.push(ms(begun));
        bare.remove(&format!("{BARE}-one")).await;
    }
    let raw = Sample(raw);
    let overhead = through
        .iter()
        .map(|through| through - raw.median())
        .collect();
    figure(
        "docker_one_overhead_ms",
        "ms",
        &Sample(overhead),
        None,
        "at most 15",
    );
    figure(
        "docker_one_ms",
        "ms",
        &Sample(through),
        Some(raw.median()),
        "-",
    );

    back(bare, &dev, &raw).await;
}

/// A killed container until its next run runs.
async fn back(bare: &Bare, dev: &Dev, raw: &Sample) {
    let mut nats = dev.nats();
    let name = own("back");
    let mut events = listen(dev, &name);
    nats.request("orch.job.submit", job(&name, &bare.network, 1).as_bytes())
        .expect("accepted");
    let mut last = await_events(&mut events, ".running", 1);
    signal(dev, &name);
    let (mut back, mut bare_back) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let event: serde_json::Value = serde_json::from_str(&last[0]).expect("an event");
        let container = format!("loom-{}", event["run"].as_str().expect("a run"));
        let begun = Instant::now();
        let killed = bare.docker.kill_container(&container, None).await;
        killed.expect("killed");
        last = await_events(&mut events, ".running", 1);
        back.push(ms(begun));
        bare_back.push(bare.back().await);
        // What is left of the former is removed before the next round, and a node holds back what
        // starts more than five times in ten seconds.
        tokio::time::sleep(Duration::from_millis(2100)).await;
    }
    let of_one = |all: &[f64]| Sample(all.iter().map(|back| back / raw.median()).collect());
    figure(
        "docker_replace_ratio",
        "x",
        &of_one(&back),
        None,
        "at most 1.3",
    );
    // The same by hand: what no orchestrator can go below.
    figure(
        "docker_replace_bare_ratio",
        "x",
        &of_one(&bare_back),
        None,
        "-",
    );
    figure(
        "docker_replace_ms",
        "ms",
        &Sample(back),
        Some(raw.median()),
        "-",
    );
    // A client that was quiet for so long is not connected any more.
    stop(&mut dev.nats(), &name);
    until_gone(bare, &name).await;
}

/// A signal to a container, client to answer, beside a bare round trip to the same server.
fn signal(dev: &Dev, job: &str) {
    let mut nats = dev.nats();
    let subject = format!("orch.task.{job}.main.0.signal");
    let (mut through, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        let begun = Instant::now();
        nats.request(&subject, b"WINCH").expect("answered");
        through.push(ms(begun));
        let begun = Instant::now();
        nats.flush_round_trip().expect("the bus answers");
        raw.push(ms(begun));
    }
    let raw = Sample(raw).median();
    figure(
        "docker_signal_ms",
        "ms",
        &Sample(through),
        Some(raw),
        "raw + 1",
    );
}

/// Thirty containers: to running, adopted by the next agent, removed.
async fn many(bare: &Bare) {
    let mut best = (f64::INFINITY, 0);
    for at_once in AT_ONCE {
        let time = bare.start_many(at_once).await;
        if time < best.0 {
            best = (time, at_once);
        }
        bare.remove_many(at_once).await;
    }
    let (mut up, mut down, mut adopted) = (Vec::new(), Vec::new(), Vec::new());
    let (mut raw_up, mut raw_down) = (vec![best.0], Vec::new());
    let mut dev = Dev::start(&["--keep-tasks"]);
    for round in 0..ROUNDS_OF_MANY {
        let name = own(&format!("many-{round}"));
        let mut nats = dev.nats();
        let mut events = listen(&dev, &name);
        let begun = Instant::now();
        let text = job(&name, &bare.network, MANY);
        nats.request("orch.job.submit", text.as_bytes())
            .expect("accepted");
        await_events(&mut events, ".running", MANY);
        up.push(ms(begun));

        dev.kill();
        adopted.push(adoption(&mut dev));
        let mut nats = dev.nats();
        let begun = Instant::now();
        stop(&mut nats, &name);
        until_gone(bare, &name).await;
        down.push(ms(begun));

        raw_up.push(bare.start_many(best.1).await);
        raw_down.push(bare.remove_many(best.1).await);
    }
    let (raw_up, raw_down) = (Sample(raw_up), Sample(raw_down));
    let ratios =
        |all: &[f64], raw: &Sample| Sample(all.iter().map(|time| time / raw.median()).collect());
    println!("bare starts are fastest {} at once", best.1);
    figure(
        "docker_30_ratio",
        "x",
        &ratios(&up, &raw_up),
        None,
        "at most 1.10",
    );
    figure(
        "docker_30_ms",
        "ms",
        &Sample(up),
        Some(raw_up.median()),
        "-",
    );
    figure(
        "docker_remove_30_ratio",
        "x",
        &ratios(&down, &raw_down),
        None,
        "at most 1.2",
    );
    figure(
        "docker_remove_30_ms",
        "ms",
        &Sample(down),
        Some(raw_down.median()),
        "-",
    );
    figure("docker_adopt_ms", "ms", &Sample(adopted), None, "500");
}

/// From the start of the program, its bus and manager included, to the last container taken over, by
/// its own log.
fn adoption(dev: &mut Dev) -> f64 {
    let before = dev.log().len();
    let begun = jiff::Timestamp::now();
    dev.start_again();
    until("all are adopted", || {
        let log = dev.log();
        let over = log[before..]
            .lines()
            .filter(|line| line.contains("taken over"));
        let over = over.filter_map(|line| line.split_whitespace().next()?.parse().ok());
        let over: Vec<jiff::Timestamp> = over.collect();
        match over.last() {
            Some(last) if over.len() >= MANY => Ok(last.duration_since(begun).as_secs_f64() * 1e3),
            _ => Err(format!("{} taken over", over.len())),
        }
    })
}

fn stop(nats: &mut Client, job: &str) {
    let request = format!(r#"{{"address":{{"job":"{job}"}}}}"#);
    nats.request("orch.job.stop", request.as_bytes())
        .expect("stopped");
}

async fn until_gone(bare: &Bare, job: &str) {
    let begun = Instant::now();
    while bare.left(job).await > 0 {
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "{job} is not removed"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
