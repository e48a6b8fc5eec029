//! Figures of the log: one commit against a bare fenced append of the same bytes, and the tail of
//! commits while a snapshot of 100,000 records runs against that of an idle log.
//!
//! `cargo run --release -p loom-bus --example bench_log` prints a table and then JSON, one line a
//! figure. It starts a server of its own in a temporary directory, every write fsynced.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss)]

use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use bytes::Bytes;
use imbl::OrdMap;
use loom_bus::connection::{Bus, ConnectOptions};
use loom_bus::log::{Change, Commit, Fold, Log, LogOptions, Replica, Writer};
use loom_schemas::ids::Name;
use serde_json::json;

/// Commits in one measured block; blocks of the two sides take turns, so that both see the same
/// machine.
const BLOCK: usize = 250;
/// Blocks a side.
const BLOCKS: usize = 8;
/// Records under the snapshot.
const RECORDS: usize = 100_000;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A server that dies with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Clone, Default)]
struct Records(OrdMap<String, Bytes>);

impl Fold for Records {
    fn put(&mut self, key: &str, value: &[u8]) {
        self.0.insert(key.to_owned(), Bytes::copy_from_slice(value));
    }
    fn delete(&mut self, key: &str) {
        self.0.remove(key);
    }
    fn records(&self) -> Box<dyn Iterator<Item = (String, Bytes)> + '_> {
        Box::new(
            self.0
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        )
    }
}

struct Bench {
    log: Log,
    writer: Writer,
    replica: Replica<Records>,
    next: usize,
}

impl Bench {
    /// Commits one record and applies it; gives how long that took.
    async fn commit(&mut self, bytes: usize) -> Outcome<Duration> {
        self.next += 1;
        let commit = Commit {
            changes: vec![Change::put(
                format!("hot/{}", self.next % 100),
                noise(self.next, bytes),
            )],
            ..Commit::default()
        };
        let begun = Instant::now();
        let committed = self.writer.append(commit).await?;
        self.replica.apply_committed(&committed)?;
        Ok(begun.elapsed())
    }

    /// The bytes of the last entry.
    async fn last_raw(&self) -> Outcome<Bytes> {
        let raw = self.log.raw_entry(self.replica.position.sequence).await?;
        raw.ok_or_else(|| "the last entry is gone".into())
    }
}

/// A bare stream with the log's settings.
struct Bare {
    context: async_nats::jetstream::Context,
    last: u64,
}

impl Bare {
    async fn open(url: &str, like: &str) -> Outcome<Self> {
        let context = async_nats::jetstream::new(async_nats::connect(url).await?);
        let log = context.get_stream(like).await?.get_info().await?.config;
        let config = Config {
            name: "BARE".to_owned(),
            subjects: vec!["bare".to_owned()],
            discard: DiscardPolicy::New,
            ..log
        };
        context.create_stream(config).await?;
        Ok(Self { context, last: 0 })
    }

    async fn append(&mut self, raw: Bytes) -> Outcome<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Sequence", self.last.to_string());
        let begun = Instant::now();
        let ack = self
            .context
            .publish_with_headers("bare", headers, raw)
            .await?
            .await?;
        self.last = ack.sequence;
        Ok(begun.elapsed())
    }
}

/// One side of a figure: all samples, and the percentile of each block for the spread.
#[derive(Default)]
struct Side {
    all: Vec<Duration>,
    blocks: Vec<Vec<Duration>>,
}

impl Side {
    fn block(&mut self, samples: Vec<Duration>) {
        self.all.extend(&samples);
        self.blocks.push(samples);
    }

    fn percentile(&self, p: f64) -> f64 {
        percentile(&self.all, p)
    }

    /// Least and greatest of the blocks.
    fn spread(&self, p: f64) -> [f64; 2] {
        let each: Vec<f64> = self
            .blocks
            .iter()
            .map(|block| percentile(block, p))
            .collect();
        let least = each.iter().copied().fold(f64::INFINITY, f64::min);
        [least, each.iter().copied().fold(0.0, f64::max)]
    }
}

/// In milliseconds.
fn percentile(samples: &[Duration], p: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let place = ((sorted.len() - 1) as f64 * p).round() as usize;
    sorted[place].as_secs_f64() * 1e3
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: usize, bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut value);
    value
}

/// `bar` is the greatest ratio wanted, where there is one.
fn report(figure: &str, side: &Side, raw: &Side, p: f64, bar: Option<f64>) {
    let (value, base) = (side.percentile(p), raw.percentile(p));
    let ratio = value / base;
    let verdict = match bar {
        Some(bar) if ratio <= bar => format!("within {bar}"),
        Some(bar) => format!("OVER {bar}"),
        None => String::new(),
    };
    println!("{figure:<34} {value:>8.3} ms {base:>8.3} ms {ratio:>6.2}  {verdict}");
    let line = json!({
        "figure": figure, "value": value, "unit": "ms", "raw": base, "ratio": ratio,
        "runs": side.all.len(), "spread": side.spread(p),
    });
    println!("{line}");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let (_server, url) = start(dir.path())?;
    let bus = connect(&url).await?;
    let log = Log::open(&bus, LogOptions::default()).await?;
    let mut replica = Replica::<Records>::default();
    log.catch_up(&mut replica).await?;
    let own = connect(&url).await?;
    let (writer, led) = log
        .lead(&own, Name::new("bench")?, replica.position.clone())
        .await?;
    replica.apply_committed(&led)?;
    let mut bench = Bench {
        log,
        writer,
        replica,
        next: 0,
    };
    let mut bare = Bare::open(&url, "ORCH_LOG").await?;
    println!(
        "{:<34} {:>11} {:>11} {:>6}",
        "figure", "loom", "raw", "ratio"
    );
    commit_figures(&mut bench, &mut bare, 300).await?;
    commit_figures(&mut bench, &mut bare, 30_000).await?;
    snapshot_figure(&mut bench).await
}

/// One commit against a bare append of the same bytes.
async fn commit_figures(bench: &mut Bench, bare: &mut Bare, bytes: usize) -> Outcome<()> {
    let (mut loom, mut raw) = (Side::default(), Side::default());
    for block in 0..=BLOCKS {
        let mut samples = Vec::with_capacity(BLOCK);
        for _ in 0..BLOCK {
            samples.push(bench.commit(bytes).await?);
        }
        let same = bench.last_raw().await?;
        let mut bare_samples = Vec::with_capacity(BLOCK);
        for n in 0..BLOCK {
            // The other side makes its bytes between two commits: so does this one.
            std::hint::black_box(noise(n, bytes));
            bare_samples.push(bare.append(same.clone()).await?);
        }
        // The first block warms up.
        if block > 0 {
            loom.block(samples);
            raw.block(bare_samples);
        }
    }
    report(&format!("commit_{bytes}_p50"), &loom, &raw, 0.5, Some(1.3));
    report(&format!("commit_{bytes}_p99"), &loom, &raw, 0.99, None);
    Ok(())
}

/// The tail of commits while snapshots run against that of an idle log.
async fn snapshot_figure(bench: &mut Bench) -> Outcome<()> {
    let mut pending = Commit::default();
    for n in 0..RECORDS {
        let text = json!({ "slot": n, "node": format!("n{}", n % 50), "noise": noise(n, 40) });
        pending
            .changes
            .push(Change::put(format!("slot/{n:07}"), text.to_string()));
        if pending.changes.len() == 1000 {
            let committed = bench.writer.append(std::mem::take(&mut pending)).await?;
            bench.replica.apply_committed(&committed)?;
        }
    }
    let (mut idle, mut busy) = (Side::default(), Side::default());
    let mut took = Vec::new();
    for _ in 0..3 {
        let mut samples = Vec::new();
        for _ in 0..1000 {
            samples.push(bench.commit(300).await?);
        }
        idle.block(samples);
        let snapshots = bench.log.snapshots().clone();
        let clone = bench.replica.clone();
        let begun = Instant::now();
        let taking = tokio::spawn(async move { snapshots.take(clone).await });
        let mut samples = Vec::new();
        while !taking.is_finished() {
            samples.push(bench.commit(300).await?);
        }
        busy.block(samples);
        let mark = taking.await??;
        took.push(format!(
            "{} bytes in {:.1} s",
            mark.bytes,
            begun.elapsed().as_secs_f64()
        ));
    }
    report("commit_p99_during_snapshot", &busy, &idle, 0.99, Some(3.0));
    println!("snapshots of {RECORDS} records: {}", took.join(", "));
    Ok(())
}

async fn connect(url: &str) -> Outcome<Bus> {
    let options = ConnectOptions {
        url: url.to_owned(),
        name: "bench".to_owned(),
        require_jetstream: true,
        ..ConnectOptions::default()
    };
    let patience = Some(Duration::from_secs(10));
    Ok(Bus::connect_patiently(options, patience).await?)
}

fn start(directory: &Path) -> Outcome<(Server, String)> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let config = directory.join("server.conf");
    let store = directory.join("store");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\nmax_payload: 8MB\n\
         jetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
        store.display()
    );
    std::fs::write(&config, text)?;
    let child = Command::new(loom_bus::server::find_binary(None)?)
        .arg("-c")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((Server(child), format!("nats://127.0.0.1:{port}")))
}
