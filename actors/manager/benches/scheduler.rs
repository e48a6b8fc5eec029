//! One placement and one re-plan, by criterion: for comparing a change with what was before it.
//!
//! `cargo bench -p loom-manager --bench scheduler` compares with the run before. The fleets are those
//! of `make bench-scheduler`, which prints the figures that have bars.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

#[allow(dead_code, reason = "the figures need more of it")]
#[path = "../examples/bench_scheduler/fleet.rs"]
mod fleet;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use loom_manager::scheduler::{Affinities, Cluster, Preferences, Request, Siblings};
use loom_manager::state::State;
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::Strategy;

use fleet::{at, counter, different, fleet, settle, spreading, task, with_a_dead_node};

// The allocator of loomctl.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Placements before a fleet is taken anew: what they ask for fits it.
const AT_MOST: u64 = 100_000;
/// Tasks that are all different.
const DISTINCT: usize = 20_000;

fn placements(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("placement");
    group.throughput(Throughput::Elements(1));
    for nodes in [5000, 20_000] {
        let state = fleet(nodes);
        let same = [task(250, 512)];
        group.bench_function(BenchmarkId::new("identical", nodes), |bencher| {
            bencher.iter_custom(|count| place(&state, &same, count));
        });
    }
    let state = fleet(5000);
    let all: Vec<TaskSpec> = (0..DISTINCT).map(different).collect();
    group.bench_function(BenchmarkId::new("distinct", 5000), |bencher| {
        bencher.iter_custom(|count| place(&state, &all, count));
    });
    let spread = [spreading()];
    group.bench_function(BenchmarkId::new("spread", 5000), |bencher| {
        bencher.iter_custom(|count| place(&state, &spread, count));
    });
    group.finish();
}

/// How long it takes to place so many of these tasks, one after the other, over and over.
fn place(state: &State, tasks: &[TaskSpec], count: u64) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let now = left.min(AT_MOST);
        let mut cluster = Cluster::of(state, Strategy::Epvm);
        let mut siblings = Siblings::default();
        let mut ids = counter();
        let mut next = tasks.iter().cycle();
        let begun = Instant::now();
        for _ in 0..now {
            let task = next.next().unwrap();
            let request = Request::of(task);
            let mut preferences = Preferences {
                affinities: Affinities::of(task),
                siblings: (!task.spread.is_empty()).then_some(&mut siblings),
                spread: &task.spread,
                ..Preferences::default()
            };
            let placed = cluster.place(task, &request, ids(), &mut preferences);
            black_box(placed.unwrap());
        }
        took += begun.elapsed();
        left -= now;
    }
    took
}

fn replan(criterion: &mut Criterion) {
    let mut ids = counter();
    let dead = with_a_dead_node(&mut ids);
    criterion.bench_function("replan/node_death_5000", |bencher| {
        bencher.iter_batched(
            || dead.clone(),
            |(mut state, mut cluster)| settle(&mut state, &mut cluster, at(2), &mut ids),
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, placements, replan);
criterion_main!(benches);
