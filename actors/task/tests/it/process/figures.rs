//! Figures, printed and not judged: `cargo test --release -p loom-task --test it -- figures
//! --ignored --nocapture`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use loom_task::driver::Driver;

use super::rig::{Rig, launch, pids, sh};

const STARTS: usize = 200;
const SPAWNS: usize = 500;

fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(figure: &str, value: f64, unit: &str, raw: Option<f64>) {
    let raw = raw.map_or(String::new(), |raw| {
        format!(",\"raw\":{raw:.3},\"ratio\":{:.2}", value / raw)
    });
    println!("{{\"figure\":\"{figure}\",\"value\":{value:.3},\"unit\":\"{unit}\"{raw}}}");
}

/// Milliseconds from the call to the first thing a shell does.
async fn latency(rig: &Rig) {
    let script = "echo $EPOCHREALTIME";
    let (mut call, mut first, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let begun = now();
        let output = Command::new("/bin/bash")
            .args(["-c", script])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        raw.push((text.trim().parse::<f64>().unwrap() - begun) * 1000.0);

        let wanted = launch(&["/bin/bash", "-c", script]);
        let begun = now();
        rig.start(&wanted).await;
        call.push((now() - begun) * 1000.0);
        rig.end(wanted.run).await;
        let text = rig.text(wanted.run).await.remove(0);
        first.push((text.parse::<f64>().unwrap() - begun) * 1000.0);
        rig.driver.remove(wanted.run, true).await.unwrap();
    }
    print(
        "process start, call to return, p50",
        median(call),
        "ms",
        None,
    );
    print(
        "process start, call to first line, p50",
        median(first),
        "ms",
        Some(median(raw)),
    );
}

/// Processor time of this process and of those it has waited for, in milliseconds.
fn used() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let of = |who| {
        let usage = getrusage(who).unwrap();
        let (user, system) = (usage.user_time(), usage.system_time());
        (user.tv_sec() + system.tv_sec()) as f64 * 1e3
            + (user.tv_usec() + system.tv_usec()) as f64 / 1e3
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}

/// Whole runs a second, with their clean-up.
async fn rate(rig: &Rig, parallel: usize) {
    let (begun, before) = (Instant::now(), used());
    let one = |_| async {
        tokio::task::spawn_blocking(|| {
            let mut child = Command::new("/bin/true")
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            child.wait().unwrap();
        })
        .await
        .unwrap();
    };
    futures::stream::iter(0..SPAWNS)
        .map(one)
        .buffer_unordered(parallel)
        .count()
        .await;
    let raw = SPAWNS as f64 / begun.elapsed().as_secs_f64();
    let raw_used = (used() - before) / SPAWNS as f64;
    let (begun, before) = (Instant::now(), used());
    let one = |_| async {
        let wanted = launch(&["/bin/true"]);
        rig.start(&wanted).await;
        rig.end(wanted.run).await;
        rig.driver.remove(wanted.run, true).await.unwrap();
    };
    futures::stream::iter(0..SPAWNS)
        .map(one)
        .buffer_unordered(parallel)
        .count()
        .await;
    let value = SPAWNS as f64 / begun.elapsed().as_secs_f64();
    print(
        &format!("runs a second, {parallel} at a time"),
        value,
        "1/s",
        Some(raw),
    );
    let each = (used() - before) / SPAWNS as f64;
    print(
        &format!("processor time a run, {parallel} at a time"),
        each,
        "ms",
        Some(raw_used),
    );
}

async fn shim(rig: &Rig) {
    let wanted = sh("echo x; sleep 300");
    rig.start(&wanted).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (pid, _) = pids(&rig.directory_of(wanted.run)).unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    for key in ["Pss:", "Private_Dirty:", "Private_Clean:", "Rss:"] {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        let value: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
        print(&format!("shim {key}"), value, "kB", None);
    }
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let before = ticks();
    tokio::time::sleep(Duration::from_secs(2)).await;
    print(
        "shim idle, processor time in 2 s",
        ticks() - before,
        "ns",
        None,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures, not a test"]
async fn figures() {
    let shim_path = std::env::var_os("LOOM_SHIM").map(PathBuf::from);
    for cgroups in [true, false] {
        println!("control groups: {cgroups}");
        let mut rig = Rig::with(cgroups);
        if let Some(path) = &shim_path {
            rig.use_shim(path, cgroups);
        }
        latency(&rig).await;
        for parallel in [1, 4, 8] {
            rate(&rig, parallel).await;
        }
        shim(&rig).await;
    }
}
