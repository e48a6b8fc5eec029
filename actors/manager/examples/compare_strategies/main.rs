//! The strategies on one mixed trace of tasks, as a table and a plot in `docs/`.
//!
//! `cargo run --release -p loom-manager --example compare_strategies` from the root of the checkout
//! writes the table into `docs/scheduling.md`, between its marks, and the plot into
//! `docs/scheduling.svg`. The trace is made with a fixed seed, so that the same build writes the
//! same bytes.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod report;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use loom_manager::scheduler::{Cluster, Preferences, Request, Room};
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{Capacity, NodeInfo, NodeRecord, NodeStatus};
use loom_schemas::spec::{Syntax, TaskSpec, read};
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::words::{DriverKind, Strategy};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use report::{Outcome, plot, row, table};

/// Tasks of the trace.
const TASKS: usize = 120_000;
/// Nodes they run on.
const NODES: usize = 500;
/// The share of the cluster's scarcer resource that the trace asks for on the average.
const OFFERED: f64 = 0.9;
/// Fixed, so that everybody gets the same trace.
const SEED: u64 = 2000;
/// So many points of time in the plot.
const POINTS: u64 = 120;

/// One task of the trace.
struct Arrival {
    /// Milliseconds.
    at: u64,
    /// Milliseconds it runs where the node is not overloaded.
    lasts: u64,
    kind: usize,
    /// Thousandths of a core that it really uses.
    uses: u64,
}

fn main() {
    let kinds = kinds();
    let trace = trace(&kinds);
    let outcomes: Vec<Outcome> = Strategy::ALL
        .into_iter()
        .map(|strategy| {
            let outcome = run(strategy, &kinds, &trace);
            println!("{}", row(&outcome));
            outcome
        })
        .collect();
    let table = table(&outcomes);
    let path = "docs/scheduling.md";
    let text = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- compare_strategies -->\n", "<!-- end -->");
    let (before, rest) = text
        .split_once(begin)
        .expect("the mark where the table begins");
    let (_, after) = rest.split_once(end).expect("the mark where it ends");
    std::fs::write(path, format!("{before}{begin}{table}{end}{after}")).unwrap();
    std::fs::write("docs/scheduling.svg", plot(&outcomes)).unwrap();
}

/// What tasks ask for, each with how often it comes: small services, caches, workers, large ones.
fn kinds() -> Vec<(TaskSpec, f64)> {
    let kind = |cores: f64, mib: u32, often| {
        let text = format!("name: a\nexec: [x]\ncpu: {cores}\nmemory: {mib}MiB\n");
        let spec = read(text.as_bytes(), Syntax::Yaml, "trace.yaml").unwrap();
        (spec.tasks.into_values().next().unwrap(), often)
    };
    vec![
        kind(0.25, 512, 0.40),
        kind(0.5, 4096, 0.20),
        kind(2.0, 1024, 0.20),
        kind(1.0, 16_384, 0.10),
        kind(8.0, 8192, 0.08),
        kind(4.0, 65_536, 0.02),
    ]
}

/// Arrivals at random, so many that the scarcer resource is asked for as `OFFERED` says.
fn trace(kinds: &[(TaskSpec, f64)]) -> Vec<Arrival> {
    let mut random = SmallRng::seed_from_u64(SEED);
    let mut arrivals: Vec<Arrival> = (0..TASKS)
        .map(|_| {
            let mut left: f64 = random.random();
            let often = kinds.iter().position(|(_, often)| {
                left -= often;
                left < 0.0
            });
            let kind = often.unwrap_or(0);
            // From ten seconds to two and a half minutes, most of them short.
            let lasts = 10_000.0 * (1.0 / (1.0 - random.random::<f64>() * 0.95)).powf(0.9);
            let cpu = f64::from(kinds[kind].0.resources.cpu.0);
            // Most use less than they reserve, some twice as much.
            let uses = cpu * (0.2 + 1.8 * random.random::<f64>().powi(3));
            Arrival {
                at: 0,
                lasts: lasts as u64,
                kind,
                uses: uses as u64,
            }
        })
        .collect();
    let (cores, memory) = nodes()
        .iter()
        .fold((0.0, 0.0), |(cores, memory), (_, room)| {
            let capacity = &room.capacity;
            (
                cores + f64::from(capacity.cpu.0),
                memory + capacity.memory.0 as f64,
            )
        });
    let asked = |of: &dyn Fn(&TaskSpec) -> f64| -> f64 {
        let work = arrivals
            .iter()
            .map(|a| of(&kinds[a.kind].0) * a.lasts as f64);
        work.sum()
    };
    let by_cpu = asked(&|task| f64::from(task.resources.cpu.0)) / cores;
    let by_memory = asked(&|task| task.resources.memory.0 as f64) / memory;
    let span = by_cpu.max(by_memory) / OFFERED;
    for arrival in &mut arrivals {
        arrival.at = (random.random::<f64>() * span) as u64;
    }
    arrivals.sort_by_key(|arrival| arrival.at);
    arrivals
}

/// Nodes of mixed sizes: some have much memory for their cores, some little.
fn nodes() -> Vec<(Name, Room)> {
    (0..NODES)
        .map(|number| {
            let (cores, gib) = [(16, 64), (32, 64), (32, 256), (64, 128), (8, 64)][number % 5];
            let name = Name::new(&format!("node-{number:04}")).unwrap();
            let info = NodeInfo {
                hostname: name.to_string(),
                address: "127.0.0.1".to_owned(),
                arch: "amd64".to_owned(),
                os: "Debian GNU/Linux 12".to_owned(),
                kernel: "6.1".to_owned(),
                agent: "0.1.0".to_owned(),
                datacenter: None,
                labels: BTreeMap::new(),
                capacity: Capacity {
                    cpu: MilliCores(cores * 1000),
                    memory: Bytes::mib(gib * 1024),
                    ports_from: 20_000,
                    ports_to: 29_999,
                    gpus: Vec::new(),
                    ..Capacity::default()
                },
                drivers: vec![DriverKind::Process],
                log_dirs: Vec::new(),
                attributes: BTreeMap::new(),
                format: 1,
            };
            let record = NodeRecord {
                name: name.clone(),
                info,
                status: NodeStatus::Up,
                since: jiff::Timestamp::UNIX_EPOCH,
                reason: None,
                generation: 0,
                back_by: None,
                lost: false,
                labels: BTreeMap::new(),
                taints: Vec::new(),
                drain: None,
            };
            (name, Room::of(&Arc::new(record), None))
        })
        .collect()
}

/// The nodes while a trace runs on them.
struct Running<'a> {
    cluster: Cluster,
    requests: Vec<Request>,
    kinds: &'a [(TaskSpec, f64)],
    /// When each task ends, where, its kind and what it uses.
    ends: BinaryHeap<Reverse<(u64, Name, usize, u64)>>,
    /// Cores in use by node, in thousandths, against what it has.
    in_use: BTreeMap<Name, (u64, u64)>,
    ids: u128,
}

impl<'a> Running<'a> {
    fn new(strategy: Strategy, kinds: &'a [(TaskSpec, f64)]) -> Self {
        let nodes = nodes();
        let in_use = nodes.iter();
        let in_use = in_use.map(|(name, room)| (name.clone(), (0, u64::from(room.capacity.cpu.0))));
        Self {
            in_use: in_use.collect(),
            cluster: Cluster::new(nodes, strategy, None),
            requests: kinds.iter().map(|(task, _)| Request::of(task)).collect(),
            kinds,
            ends: BinaryHeap::new(),
            ids: 0,
        }
    }

    /// The node a task is placed on, and by how much its cores are asked too much of then.
    fn place(&mut self, arrival: &Arrival) -> Option<(Name, f64)> {
        self.ids += 1;
        let run = RunId(Uuid::from_u128(self.ids));
        let (task, request) = (&self.kinds[arrival.kind].0, &self.requests[arrival.kind]);
        let placed = self
            .cluster
            .place(task, request, run, &mut Preferences::default());
        let node = placed.ok()?.node;
        let (used, all) = self.in_use.get_mut(&node)?;
        *used += arrival.uses;
        let overload = (*used as f64 / *all as f64).max(1.0);
        Some((node, overload))
    }

    /// Ends what is over at a time; whether anything was.
    fn end_until(&mut self, now: u64) -> bool {
        let mut any = false;
        while self.ends.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((_, node, kind, uses))) = self.ends.pop() else {
                break;
            };
            self.cluster
                .give_back(&node, &self.requests[kind], &BTreeMap::new(), &[]);
            if let Some((used, _)) = self.in_use.get_mut(&node) {
                *used -= uses;
            }
            any = true;
        }
        any
    }

    fn overloaded(&self) -> f64 {
        let over = self.in_use.values().filter(|(used, all)| used > all);
        over.count() as f64 / self.in_use.len() as f64
    }
}

fn run(strategy: Strategy, kinds: &[(TaskSpec, f64)], trace: &[Arrival]) -> Outcome {
    let mut filling = Running::new(strategy, kinds);
    let placed = trace
        .iter()
        .take_while(|arrival| filling.place(arrival).is_some())
        .count();
    let (cpu, memory, stranded) = use_of(&filling);
    let (slowdowns, waited, overloaded) = play(strategy, kinds, trace);
    let mut sorted = slowdowns;
    sorted.sort_by(f64::total_cmp);
    Outcome {
        strategy,
        cpu,
        memory,
        stranded,
        placed,
        worst: sorted[sorted.len() - 1],
        p99: sorted[sorted.len() * 99 / 100],
        waited,
        overloaded,
    }
}

/// The shares of cpu and memory reserved, and the share stranded.
fn use_of(running: &Running<'_>) -> (f64, f64, f64) {
    let (mut cpu, mut memory, mut stranded) = (0.0, 0.0, 0.0);
    let (mut all_cpu, mut all_memory) = (0.0, 0.0);
    for name in running.in_use.keys() {
        let room = running.cluster.room(name).unwrap();
        let capacity = &room.capacity;
        let (cores, bytes) = (f64::from(capacity.cpu.0), capacity.memory.0 as f64);
        let free_cpu = 1.0 - room.held.cpu as f64 / cores;
        let free_memory = 1.0 - room.held.memory as f64 / bytes;
        stranded += (free_cpu - free_memory).abs();
        cpu += room.held.cpu as f64;
        memory += room.held.memory as f64;
        all_cpu += cores;
        all_memory += bytes;
    }
    let nodes = running.in_use.len() as f64;
    (cpu / all_cpu, memory / all_memory, stranded / nodes)
}

/// The whole trace, first come first served: the slowdown of each task, how many waited, and the
/// share of overloaded nodes over time.
fn play(
    strategy: Strategy,
    kinds: &[(TaskSpec, f64)],
    trace: &[Arrival],
) -> (Vec<f64>, usize, Vec<f64>) {
    let mut running = Running::new(strategy, kinds);
    let mut queue: VecDeque<&Arrival> = VecDeque::new();
    let mut slowdowns = Vec::with_capacity(trace.len());
    let mut overloaded = Vec::new();
    let span = trace[trace.len() - 1].at.max(1);
    let mut waited = 0;
    let mut arrivals = trace.iter().peekable();
    let mut now = 0;
    loop {
        let ended = running.end_until(now);
        let mut came = false;
        while let Some(arrival) = arrivals.next_if(|arrival| arrival.at <= now) {
            queue.push_back(arrival);
            came |= queue.len() == 1;
        }
        // What did not fit before fits only when something has ended.
        let mut may_fit = ended || came;
        while let Some(first) = queue.front().filter(|_| may_fit) {
            let Some((node, overload)) = running.place(first) else {
                may_fit = false;
                continue;
            };
            let lasts = (first.lasts as f64 * overload) as u64;
            waited += usize::from(now > first.at);
            slowdowns.push((now - first.at + lasts) as f64 / first.lasts as f64);
            let end = (now + lasts.max(1), node, first.kind, first.uses);
            running.ends.push(Reverse(end));
            queue.pop_front();
        }
        while now <= span && overloaded.len() as u64 <= now * POINTS / span {
            overloaded.push(running.overloaded());
        }
        let next_end = running.ends.peek().map(|Reverse((at, ..))| *at);
        let next = arrivals
            .peek()
            .map(|arrival| arrival.at)
            .into_iter()
            .chain(next_end)
            .min();
        match next {
            Some(at) => now = at,
            None => return (slowdowns, waited, overloaded),
        }
    }
}
