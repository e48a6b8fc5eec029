//! Laws of placing, against an oracle that looks at every node afresh and counts its own way.

use std::collections::BTreeMap;
use std::sync::Arc;

use loom_schemas::ids::Name;
use loom_schemas::record::{RunRecord, Score, SlotRecord};
use loom_schemas::spec::TaskSpec;
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::wire::{JobAddress, JobRequest};
use loom_schemas::words::{DriverKind, Kind, RunState, Strategy};
use proptest::prelude::{Just, Strategy as _, any, prop, prop_assert, prop_assert_eq, prop_oneof};
use proptest::proptest;

use super::{Cluster, Preferences, Request, Room, Siblings};
use crate::decide::{self, submit};
use crate::plan::{PlanOptions, plan_on};
use crate::state::fixture::{
    ANNA, at, cases, hello_of, info, job, name, report_of, run_id, submission, task, with_nodes,
};
use crate::state::{Draft, State, live_runs};

const GIB: u64 = 1 << 30;

const STRATEGIES: [Strategy; 5] = [
    Strategy::Epvm,
    Strategy::Binpack,
    Strategy::Spread,
    Strategy::Balanced,
    Strategy::RoundRobin,
];

fn strategies() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop::sample::select(&STRATEGIES[..])
}

/// A node of so many cores and GiB.
fn room(cores: u32, gib: u64) -> Room {
    Room {
        capacity: info(cores, gib).capacity,
        drivers: vec![DriverKind::Process],
        ..Room::of(&with_nodes(1, 1).nodes().next().unwrap().clone(), None)
    }
}

fn asking(millicores: u32, mib: u64) -> TaskSpec {
    let mut task = task(1);
    task.resources.cpu = MilliCores(millicores);
    task.resources.memory = Bytes::mib(mib);
    task
}

/// Capacity and use of a node by the oracle's own books: cpu, then memory.
#[derive(Clone, Debug)]
struct Book {
    all: [f64; 2],
    used: [f64; 2],
}

impl Book {
    fn has_room(&self, asked: [f64; 2]) -> bool {
        (0..2).all(|d| self.used[d] + asked[d] <= self.all[d])
    }

    /// What a strategy says in its words, with so many replicas of the task on the node.
    fn cost(&self, strategy: Strategy, nodes: f64, asked: [f64; 2], replicas: f64) -> f64 {
        let share = |used: [f64; 2], d: usize| used[d] / self.all[d];
        let after = [self.used[0] + asked[0], self.used[1] + asked[1]];
        let mean = f64::midpoint(share(after, 0), share(after, 1));
        let stranded = |used: [f64; 2]| (share(used, 0) - share(used, 1)).abs();
        match strategy {
            Strategy::Epvm => {
                let power =
                    |used: [f64; 2]| nodes.powf(share(used, 0)) + nodes.powf(share(used, 1));
                (power(after) - power(self.used)) * (1.0 + replicas)
            }
            Strategy::Binpack => 1.0 - mean + replicas * 1e-9,
            Strategy::Spread => mean + replicas * 2.0,
            Strategy::Balanced => {
                stranded(after) - stranded(self.used) + 1e-3 * (1.0 - mean) + replicas * 0.1
            }
            Strategy::RoundRobin => 0.0,
        }
    }
}

/// One step of a law: a run of one of a few kinds is placed, or the one placed so long ago ends.
#[derive(Clone, Debug)]
enum Step {
    Place { kind: usize, failed: Option<usize> },
    End(prop::sample::Index),
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let place = (0..3usize, prop::option::weighted(0.2, 0..40usize));
    let place = place.prop_map(|(kind, failed)| Step::Place { kind, failed });
    let end = any::<prop::sample::Index>().prop_map(Step::End);
    prop::collection::vec(prop_oneof![4 => place, 1 => end], 1..80)
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn books(sizes: &[(u32, u64)]) -> BTreeMap<Name, Book> {
    let book = |(at, (cores, gib)): (usize, &(u32, u64))| {
        let all = [f64::from(*cores) * 1000.0, (gib * GIB) as f64];
        (
            name(&format!("n{at:02}")),
            Book {
                all,
                used: [0.0; 2],
            },
        )
    };
    sizes.iter().enumerate().map(book).collect()
}

proptest! {
    #![proptest_config(cases(256))]

    /// The pick fits; no node is better by the oracle; the runners-up are the next best; an error
    /// only if none fits, and its counts add up; shuffled nodes give the same pick. Whatever was
    /// placed and ended before, for every strategy, with replicas and failures.
    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn the_pick_is_the_best_that_fits(
        strategy in strategies(),
        sizes in prop::collection::vec((1..9u32, 1..17u64), 1..40),
        kinds in prop::collection::vec((1..3000u32, 1..4000u64), 3),
        replicas in any::<bool>(),
        steps in steps(),
        turn in any::<prop::sample::Index>(),
    ) {
        let mut books = books(&sizes);
        let rooms = sizes.iter().enumerate();
        let rooms = rooms.map(|(at, size)| (name(&format!("n{at:02}")), room(size.0, size.1)));
        let rooms: Vec<(Name, Room)> = rooms.collect();
        let mut turned = rooms.clone();
        turned.rotate_left(turn.index(rooms.len()));
        let mut cluster = Cluster::new(rooms, strategy, None);
        let mut shuffled = Cluster::new(turned, strategy, None);
        let (mut siblings, mut others) = (Siblings::default(), Siblings::default());
        let mut counts: BTreeMap<Name, f64> = BTreeMap::new();
        let mut live: Vec<(Name, usize)> = Vec::new();
        let mut number = 0;
        for step in steps {
            let (kind, failed) = match step {
                Step::Place { kind, failed } => (kind, failed),
                Step::End(at) => {
                    if !live.is_empty() {
                        let (node, kind) = live.swap_remove(at.index(live.len()));
                        let (cpu, mib) = kinds[kind];
                        let request = Request::of(&asking(cpu, mib));
                        for cluster in [&mut cluster, &mut shuffled] {
                            cluster.give_back(&node, &request, &BTreeMap::new());
                        }
                        let book = books.get_mut(&node).unwrap();
                        book.used[0] -= f64::from(cpu);
                        book.used[1] -= (mib << 20) as f64;
                    }
                    continue;
                }
            };
            let (cpu, mib) = kinds[kind];
            let task = asking(cpu, mib);
            let request = Request::of(&task);
            let failed: Vec<Name> = failed.map(|at| name(&format!("n{at:02}"))).into_iter().collect();
            number += 1;
            let place = |cluster: &mut Cluster, siblings: &mut Siblings| {
                let mut preferences = Preferences {
                    siblings: replicas.then_some(siblings),
                    failed: &failed,
                    ..Preferences::default()
                };
                cluster.place(&task, &request, run_id(number), &mut preferences)
            };
            let placed = place(&mut cluster, &mut siblings);
            prop_assert_eq!(&placed, &place(&mut shuffled, &mut others), "shuffled");

            let asked = [f64::from(cpu), (mib << 20) as f64];
            let nodes = (books.len() as f64).max(2.0);
            let mut order: Vec<(bool, f64, &Name)> = books
                .iter()
                .filter(|(_, book)| book.has_room(asked))
                .map(|(node, book)| {
                    let replicas = counts.get(node).copied().unwrap_or(0.0);
                    (failed.contains(node), book.cost(strategy, nodes, asked, replicas), node)
                })
                .collect();
            order.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(b.2)));
            let placed = match placed {
                Ok(placed) => placed,
                Err(why) => {
                    prop_assert!(order.is_empty(), "{} fit: {why}", order.len());
                    prop_assert_eq!(why.counts.values().sum::<usize>(), books.len());
                    continue;
                }
            };
            let chosen = std::iter::once(&placed.node);
            let chosen = chosen.chain(placed.runners_up.iter().map(|next| &next.node));
            let chosen: Vec<&Name> = chosen.collect();
            if strategy != Strategy::RoundRobin {
                prop_assert_eq!(chosen.len(), order.len().min(3), "all there are, up to three");
            }
            for (place, node) in chosen.iter().enumerate() {
                let found = order.iter().find(|(.., other)| other == node);
                let (was_failed, cost, _) = found.expect("it fits");
                let (best_failed, best, _) = &order[place];
                prop_assert_eq!(was_failed, best_failed);
                // The oracle counts its own way, so last digits differ.
                let near = best.abs() * 1e-9 + 1e-12;
                prop_assert!((cost - best).abs() <= near, "{node} {cost}, not {order:?}");
            }
            let scores = std::iter::once(placed.score);
            let scores: Vec<Score> = scores.chain(placed.runners_up.iter().map(|n| n.score)).collect();
            prop_assert!(scores.is_sorted_by(|a, b| a.0 <= b.0), "{scores:?}");
            let book = books.get_mut(&placed.node).unwrap();
            book.used[0] += asked[0];
            book.used[1] += asked[1];
            if replicas {
                *counts.entry(placed.node.clone()).or_default() += 1.0;
            }
            live.push((placed.node, kind));
        }
    }
}

/// What happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    Submit {
        job: u32,
        replicas: u32,
        cpu: u32,
        mib: u64,
    },
    Stop(u32),
    /// The runs of a node end as they were told to, or by themselves.
    Report(usize, bool),
    Down(usize),
    Up(usize, u32),
    /// A pass is made and thrown away, as when a leader is deposed.
    Dropped,
}

fn events() -> impl proptest::strategy::Strategy<Value = Vec<Event>> {
    let submit = (0..6u32, 1..6u32, 100..2500u32, 64..4000u64);
    let submit = submit.prop_map(|(job, replicas, cpu, mib)| Event::Submit {
        job,
        replicas,
        cpu,
        mib,
    });
    let event = prop_oneof![
        4 => submit,
        2 => (0..6u32).prop_map(Event::Stop),
        3 => (0..8usize, any::<bool>()).prop_map(|(node, ends)| Event::Report(node, ends)),
        1 => (0..8usize).prop_map(Event::Down),
        2 => (0..8usize, 1..5u32).prop_map(|(node, cores)| Event::Up(node, cores)),
        1 => Just(Event::Dropped),
    ];
    prop::collection::vec(event, 1..30)
}

fn node(number: usize) -> Name {
    name(&format!("node-{number}"))
}

/// The state after an event; each edits a draft as a leader does.
fn after(state: &State, event: &Event, seconds: i64) -> State {
    let mut draft = Draft::new(state.clone());
    let now = at(seconds);
    match event {
        Event::Submit {
            job: number,
            replicas,
            cpu,
            mib,
        } => {
            let mut task = asking(*cpu, *mib);
            task.replicas = *replicas;
            let spec = job(&format!("job-{number}"), Kind::Service, task);
            drop(submit(&mut draft, submission(&spec), ANNA, now));
        }
        Event::Stop(number) => {
            let address = JobAddress {
                job: name(&format!("job-{number}")),
                task: None,
                index: None,
            };
            let request = JobRequest {
                address,
                reason: None,
            };
            drop(decide::stop(&mut draft, &request, ANNA));
        }
        Event::Report(number, ends) => report(&mut draft, &node(*number), *ends, now),
        Event::Down(number) if draft.state().node(&node(*number)).is_some() => {
            drop(decide::node_lost(
                &mut draft,
                &node(*number),
                "anna",
                None,
                now,
            ));
        }
        Event::Up(number, cores) => {
            let hello = hello_of(info(*cores, u64::from(*cores) * 2), Vec::new());
            decide::hello(&mut draft, &node(*number), &hello, false, now);
        }
        Event::Down(_) | Event::Dropped => {}
    }
    draft.finish().unwrap().state
}

/// Every run of a node is running, or has ended: as killed if that was the order.
fn report(draft: &mut Draft, node: &Name, ends: bool, now: jiff::Timestamp) {
    let state = draft.state().clone();
    let held = state
        .load(node)
        .into_iter()
        .flat_map(|load| load.placements.values());
    let runs = held.filter_map(|slot| state.slot(slot)).flat_map(|record| {
        let here = live_runs(record).filter(|run| run.node.as_ref() == Some(node));
        here.map(|run| (record.slot.clone(), run.clone()))
    });
    for (slot, run) in runs {
        let told = run.order != loom_schemas::record::Order::Run;
        let to = match (told, ends) {
            (true, _) => RunState::Killed,
            (false, true) => RunState::Failed,
            (false, false) => RunState::Running,
        };
        let mut said = report_of(&slot, run.run, to);
        said.version = run.version;
        said.started_at = Some(now);
        said.ended_at = to.is_terminal().then_some(now);
        decide::report(draft, node, &[said], false, now);
    }
}

/// What of the slots does not hang on how often something was tried: ids are minted with each try.
fn essence(state: &State) -> Vec<String> {
    let of_run = |run: &RunRecord| {
        let RunRecord { version, state, .. } = run;
        format!("{:?} {version} {state} {:?}", run.node, run.order)
    };
    let of_slot = |record: &Arc<SlotRecord>| {
        let runs = record.current.iter().chain(&record.incoming);
        let runs: Vec<String> = runs.chain(&record.ended).map(of_run).collect();
        let waits = record.waiting.is_some();
        format!("{} {runs:?} {waits}", record.slot)
    };
    let jobs = state.jobs();
    let jobs = jobs.map(|job| format!("{} {} {:?}", job.name, job.status, job.update));
    state.slots().map(of_slot).chain(jobs).collect()
}

/// Plans until nothing is left, or for long enough.
fn planned(cluster: &mut Cluster, state: &State, seconds: i64, ids: &mut u64) -> State {
    let mut state = state.clone();
    let options = PlanOptions {
        slots: 20,
        ..PlanOptions::default()
    };
    for _ in 0..20 {
        let mut draft = Draft::new(state);
        let mut next = || {
            *ids += 1;
            run_id(*ids)
        };
        let left = plan_on(cluster, &mut draft, at(seconds), &options, &mut next);
        state = draft.finish().unwrap().state;
        if !left.more {
            break;
        }
    }
    state
}

proptest! {
    #![proptest_config(cases(12))]

    /// Nodes that are kept from pass to pass place as if they were looked at afresh, also after
    /// passes that never came to be; no history reserves more than a node has; and when everything
    /// has stopped, nothing is reserved.
    #[test]
    fn kept_nodes_are_as_good_as_new_ones(events in events()) {
        let mut state = with_nodes(3, 4);
        let mut kept = Cluster::empty(Strategy::Epvm);
        let mut ids = 0;
        let mut seconds = 0;
        let everything = (0..6).map(Event::Stop);
        let ends = (0..8).map(|number| Event::Report(number, true));
        let events: Vec<Event> = events.into_iter().chain(everything).chain(ends).collect();
        for event in events {
            seconds += 61;
            let next = after(&state, &event, seconds);
            if matches!(event, Event::Dropped) {
                let mut others = ids + 1_000_000;
                planned(&mut kept, &next, seconds, &mut others);
                continue;
            }
            let mut others = ids;
            let by_kept = planned(&mut kept, &next, seconds, &mut ids);
            let mut fresh = Cluster::empty(Strategy::Epvm);
            let by_fresh = planned(&mut fresh, &next, seconds, &mut others);
            prop_assert_eq!(essence(&by_kept), essence(&by_fresh), "{:?}", event);
            for record in by_kept.nodes() {
                let Some(load) = by_kept.load(&record.name) else { continue };
                let capacity = &record.info.capacity;
                // A node that came back smaller keeps what it had.
                let shrunk = matches!(&event, Event::Up(..));
                let before = state.load(&record.name).map_or((0, 0), |load| (load.cpu, load.memory));
                let cpu = load.cpu <= before.0.max(u64::from(capacity.cpu.0));
                let memory = load.memory <= before.1.max(capacity.memory.0);
                prop_assert!(shrunk || (cpu && memory), "{} {load:?}", record.name);
            }
            state = by_kept;
        }
        prop_assert_eq!(state.loads().count(), 0, "something is still reserved");
    }
}
