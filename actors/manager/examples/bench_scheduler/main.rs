//! Figures of the scheduler on fleets of nodes of mixed sizes, labels, taints and datacenters.
//!
//! `cargo run --release -p loom-manager --example bench_scheduler [PART...]` prints a table and then
//! JSON, one line a figure; parts are memory, identical, distinct, spread, replan, use, evict,
//! waiting, gang, rebalance, binpack. It needs no server: everything measured is a function of what it is given.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod figure;
mod fleet;

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use imbl::OrdMap;
use loom_manager::decide;
use loom_manager::plan::{LOOKS, Search, find};
use loom_manager::scheduler::{
    Affinities, Cluster, Preferences, Request, Room, Siblings, Smoothed, fits, noticed,
};
use loom_manager::state::State;
use loom_schemas::ids::Name;
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::Strategy;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use figure::{figure, median, millis, p99};
use fleet::{
    at, completes, counter, different, edit, fleet, full, full_of_timed, half_empty, info,
    node_name, queued, quiet, said, service, settle, spreading, submit, task, with_a_dead_node,
};

// The allocator of loomctl.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measurements of one figure.
const RUNS: usize = 7;
/// The share of all cores that is reserved at the end.
const FILLED: f64 = 0.8;
/// Tasks that are all different.
const DISTINCT: usize = 20_000;
/// Replicas that are spread over racks.
const SPREAD: usize = 5_000;
/// Placements of the plain way, which looks at every node each time.
const PLAIN: usize = 300;
/// Placed tasks whose memory is counted: so many jobs of a hundred.
const JOBS_OF_A_HUNDRED: usize = 10_000;

fn main() {
    let parts: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    println!("the scheduler on one core; each placement compares all nodes that fit");
    // First, since the pages of what was measured before it would not count.
    if wanted("memory") {
        memory();
    }
    if wanted("identical") {
        identical();
    }
    if wanted("distinct") {
        distinct();
    }
    if wanted("spread") {
        spread();
    }
    if wanted("replan") {
        replan();
    }
    if wanted("use") {
        measured();
    }
    if wanted("evict") {
        evict();
    }
    if wanted("waiting") {
        waiting();
    }
    if wanted("gang") {
        gang();
    }
    if wanted("rebalance") {
        rebalance();
    }
    if wanted("binpack") {
        binpack();
    }
}

/// The same task again and again, on 5,000 and on 20,000 nodes.
fn identical() {
    let task = task(250, 512);
    let mut at_5000 = None;
    for (count, name, bar) in [
        (5000, "placements_identical_5000", "at least 100000"),
        (
            20_000,
            "placements_identical_20000",
            "half of that at 5,000",
        ),
    ] {
        let state = fleet(count);
        let rates: Vec<f64> = (0..RUNS).map(|_| fill(&state, &task, None).0).collect();
        let raw = at_5000.unwrap_or_else(|| plain(&state, &task));
        figure(name, "1/s", &rates, Some(raw), bar);
        at_5000 = Some(median(&rates));
    }
    let state = fleet(5000);
    let (mut rates, mut latencies) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (rate, took) = fill(&state, &task, Some(Siblings::default()));
        rates.push(rate);
        latencies.push(p99(took));
    }
    // All are replicas of one task, which keep apart.
    figure("placements_replicas_5000", "1/s", &rates, None, "-");
    figure("placement_p99_5000", "ms", &latencies, None, "at most 1");
}

/// Places a task until so much is reserved: placements a second, and how long each took.
fn fill(state: &State, task: &TaskSpec, mut siblings: Option<Siblings>) -> (f64, Vec<Duration>) {
    let mut cluster = Cluster::of(state, Strategy::Epvm);
    let request = Request::of(task);
    let cores = state
        .nodes()
        .map(|node| u64::from(node.info.capacity.cpu.0));
    let count = (cores.sum::<u64>() as f64 * FILLED) as u64 / request.amounts.cpu;
    let mut ids = counter();
    let mut took = Vec::with_capacity(count as usize);
    let begun = Instant::now();
    let mut last = begun;
    for _ in 0..count {
        let mut preferences = Preferences {
            siblings: siblings.as_mut(),
            ..Preferences::default()
        };
        let placed = cluster.place(task, &request, ids(), &mut preferences);
        black_box(placed.expect("there is room"));
        let now = Instant::now();
        took.push(now - last);
        last = now;
    }
    (count as f64 / begun.elapsed().as_secs_f64(), took)
}

/// Placements a second where each looks at all nodes: whether it fits, and what it costs.
fn plain(state: &State, task: &TaskSpec) -> f64 {
    let rooms = state.nodes().map(|node| Room::of(node, None));
    let mut rooms: Vec<Room> = rooms.collect();
    let request = Request::of(task);
    let n = rooms.len() as f64;
    let grows = |used: u64, asked: u64, all: u64| {
        n.powf((used + asked) as f64 / all as f64) - n.powf(used as f64 / all as f64)
    };
    let cost = |room: &Room| {
        let capacity = &room.capacity;
        grows(
            room.held.cpu,
            request.amounts.cpu,
            u64::from(capacity.cpu.0),
        ) + grows(room.held.memory, request.amounts.memory, capacity.memory.0)
    };
    let begun = Instant::now();
    for _ in 0..PLAIN {
        let fitting = rooms.iter_mut().filter(|room| fits(room, &request).is_ok());
        let costs = fitting.map(|room| (cost(room), room));
        let (_, room) = costs.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        room.held.cpu += request.amounts.cpu;
        room.held.memory += request.amounts.memory;
    }
    PLAIN as f64 / begun.elapsed().as_secs_f64()
}

/// Every task has amounts, constraints and affinities of its own.
fn distinct() {
    let state = fleet(5000);
    let (mut rates, mut latencies) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let mut cluster = Cluster::of(&state, Strategy::Epvm);
        let tasks = (0..DISTINCT).map(|number| different(run * DISTINCT + number));
        let tasks: Vec<TaskSpec> = tasks.collect();
        let mut ids = counter();
        let mut took = Vec::with_capacity(DISTINCT);
        let begun = Instant::now();
        let mut last = begun;
        for task in &tasks {
            let request = Request::of(task);
            let mut preferences = Preferences {
                affinities: Affinities::of(task),
                ..Preferences::default()
            };
            let placed = cluster.place(task, &request, ids(), &mut preferences);
            black_box(placed.expect("there is room"));
            let now = Instant::now();
            took.push(now - last);
            last = now;
        }
        rates.push(DISTINCT as f64 / begun.elapsed().as_secs_f64());
        latencies.push(p99(took));
    }
    let raw = plain(&state, &task(250, 512));
    figure(
        "placements_distinct_5000",
        "1/s",
        &rates,
        Some(raw),
        "at least 15000",
    );
    figure(
        "placement_distinct_p99_5000",
        "ms",
        &latencies,
        None,
        "at most 1",
    );
}

/// Replicas that are spread over racks: what the others leave is counted for each.
fn spread() {
    let state = fleet(5000);
    let task = spreading();
    let request = Request::of(&task);
    let rates = (0..RUNS).map(|_| {
        let mut cluster = Cluster::of(&state, Strategy::Epvm);
        let mut siblings = Siblings::default();
        let mut ids = counter();
        let begun = Instant::now();
        for _ in 0..SPREAD {
            let mut preferences = Preferences {
                siblings: Some(&mut siblings),
                spread: &task.spread,
                ..Preferences::default()
            };
            let placed = cluster.place(&task, &request, ids(), &mut preferences);
            black_box(placed.expect("there is room"));
        }
        SPREAD as f64 / begun.elapsed().as_secs_f64()
    });
    let rates: Vec<f64> = rates.collect();
    figure("placements_spread_5000", "1/s", &rates, None, "-");
}

/// One node of 5,000 dies with the tasks of as many jobs.
fn replan() {
    let mut ids = counter();
    let (state, cluster) = with_a_dead_node(&mut ids);
    let (mut times, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (mut state, mut cluster) = (state.clone(), cluster.clone());
        let begun = Instant::now();
        times.push(millis(settle(&mut state, &mut cluster, at(2), &mut ids)));
        whole.push(millis(begun.elapsed()));
        assert!(state.load(&node_name(0)).is_none(), "nothing is left on it");
        assert!(state.waiting().next().is_none(), "nothing waits");
    }
    figure("replan_node_death_5000", "ms", &times, None, "at most 10");
    // With what is committed: records compared and encoded, assignments numbered.
    figure("replan_with_commit_5000", "ms", &whole, None, "-");
}

/// What all nodes use is looked at, as before the first placement of a pass.
fn measured() {
    let (state, ..) = full();
    let measured: OrdMap<Name, Smoothed> = state
        .nodes()
        .map(|node| (node.name.clone(), Smoothed::first(1500)))
        .collect();
    let times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            black_box(noticed(&state, &measured));
            millis(begun.elapsed())
        })
        .collect();
    figure("notice_use_5000", "ms", &times, None, "-");
}

/// A hundred replicas that fit nowhere until one of lower priority has gone for each, on nodes that are
/// full of those.
fn evict() {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let (mut state, mut cluster, mut ids) = full();
        let mut high = service("high", 100, 4000, 64);
        high.priority = 70;
        submit(&mut state, &high);
        times.push(millis(settle(&mut state, &mut cluster, at(3), &mut ids)));
        let gone = state.slots().filter(|slot| slot.claim.is_some());
        assert_eq!(gone.count(), 100, "room is made for each");
    }
    figure("evict_for_100_5000", "ms", &times, None, "-");
}

/// One run of a batch of 10,000 replicas ends, most of which wait for room, and the next begins.
fn waiting() {
    let (mut state, mut cluster, mut ids) = queued();
    let waits = state.waiting().count();
    assert!(waits > 5000, "most of them wait");
    let mut times = Vec::new();
    for index in 0..RUNS as u32 {
        let now = at(4 + i64::from(index));
        completes(&mut state, "many", index, now);
        times.push(millis(settle(&mut state, &mut cluster, now, &mut ids)));
        assert_eq!(
            state.waiting().count(),
            waits - 1 - index as usize,
            "one begins"
        );
    }
    figure("replan_waiting_replicas_10000", "ms", &times, None, "-");
}

/// A gang of 500 waits on nodes that are full of runs which end within an hour, and one of these ends.
fn gang() {
    let (mut state, mut cluster, mut ids) = full_of_timed();
    assert!(state.waiting().next().is_none(), "all the others run");
    let mut gang = service("gang", 500, 4000, 64);
    gang.tasks.get_mut(&Name::main()).unwrap().gang = true;
    submit(&mut state, &gang);
    let first = millis(settle(&mut state, &mut cluster, at(3), &mut ids));
    figure("gang_reserved_5000", "ms", &[first], None, "-");
    let mut times = Vec::new();
    for index in 0..RUNS as u32 {
        let now = at(4 + i64::from(index));
        completes(&mut state, "low-0", index, now);
        times.push(millis(settle(&mut state, &mut cluster, now, &mut ids)));
        assert!(state.waiting().next().is_some(), "it waits");
    }
    figure("replan_with_gang_waiting_5000", "ms", &times, None, "-");
}

/// What half of 5,000 nodes held when the others came: 20,000 runs of 2,000 jobs; and the same where
/// all nodes were there before.
fn rebalance() {
    let search = Search {
        strategy: Strategy::Epvm,
        margin_percent: 10,
        most: 500,
        looks: LOOKS,
        now: at(3),
    };
    let state = half_empty();
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        let found = find(&state, &search);
        times.push(millis(begun.elapsed()));
        assert_eq!(found.moves.len(), 500, "there is more to gain than that");
    }
    figure("rebalance_500_moves_5000", "ms", &times, None, "-");
    let state = quiet();
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        let found = find(&state, &search);
        times.push(millis(begun.elapsed()));
        assert_eq!(found.moves.len(), 0, "each is where it costs the least");
        assert_eq!(found.view.movable, 20_000);
    }
    figure("rebalance_nothing_5000", "ms", &times, None, "-");
}

/// Nodes that `binpack` needs over those that suffice, where tasks come one by one: instances are
/// made by cutting full nodes into pieces, so that the optimum is known.
fn binpack() {
    const FULL: usize = 200;
    const CORES: usize = 16_000;
    let mut over = Vec::new();
    for seed in 0..RUNS as u64 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut pieces: Vec<usize> = Vec::new();
        for _ in 0..FULL {
            let mut left = CORES;
            while left > 0 {
                let piece = random.random_range(500..=8000).min(left);
                pieces.push(piece);
                left -= piece;
            }
        }
        pieces.shuffle(&mut random);
        let mut state = State::default();
        edit(&mut state, |draft| {
            for number in 0..2 * FULL {
                // All of the same size, with 16 cores and more memory than is asked for.
                let hello = said(info(4 * number));
                decide::hello(draft, &node_name(number), &hello, false, at(0));
            }
        });
        let mut cluster = Cluster::of(&state, Strategy::Binpack);
        let mut ids = counter();
        let mut used = BTreeSet::new();
        for piece in pieces {
            let task = task(piece, 1);
            let request = Request::of(&task);
            let placed = cluster.place(&task, &request, ids(), &mut Preferences::default());
            used.insert(placed.expect("there is room").node);
        }
        over.push(used.len() as f64 / FULL as f64);
    }
    figure("binpack_over_optimum", "", &over, None, "-");
}

/// What 5,000 nodes and a million placed tasks keep resident: the state, and the nodes in order.
fn memory() {
    let before = resident();
    let mut ids = counter();
    let mut cluster = Cluster::empty(Strategy::Epvm);
    let mut state = fleet(5000);
    for number in 0..JOBS_OF_A_HUNDRED {
        submit(&mut state, &service(&format!("job-{number}"), 100, 50, 64));
        settle(&mut state, &mut cluster, at(1), &mut ids);
    }
    let placed: usize = state.loads().map(|(_, load)| load.placements.len()).sum();
    assert_eq!(placed, JOBS_OF_A_HUNDRED * 100);
    let bytes = resident() - before;
    black_box((&state, &cluster));
    figure("memory_1m_tasks", "bytes", &[bytes], None, "at most 1.5e9");
}

/// Bytes of this process in memory.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .unwrap();
    kib.trim().parse::<f64>().unwrap() * 1024.0
}
