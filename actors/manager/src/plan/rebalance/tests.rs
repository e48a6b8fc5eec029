//! Laws of the moves that are found, by an oracle of its own.

use std::collections::{BTreeMap, BTreeSet};

use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::UseRecord;
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::wire::{JobAddress, JobRequest, RunReport};
use loom_schemas::words::{Kind, RunState, Strategy};
use proptest::prelude::{any, prop, proptest};

use super::find::LOOKS;
use super::{Found, Search, find};
use crate::decide;
use crate::plan::{PlanOptions, plan};
use crate::state::fixture::{
    ANNA, at, cases, counter, decide as decided, hello_of, info, job, name, report_of, submission,
    task,
};
use crate::state::{State, live_runs};

/// A node as the oracle sees it: what it has, and what each run takes of it.
struct Seen {
    all: [f64; 2],
    runs: BTreeMap<Slot, [f64; 2]>,
}

/// The sum of `n^u` over nodes and resources.
fn total(nodes: &BTreeMap<Name, Seen>) -> f64 {
    let n = f64::from(u32::try_from(nodes.len()).unwrap()).max(2.0);
    let of = |node: &Seen| {
        let used = |d: usize| node.runs.values().map(|run| run[d]).sum::<f64>() / node.all[d];
        n.powf(used(0)) + n.powf(used(1))
    };
    nodes.values().map(of).sum()
}

fn seen(state: &State) -> BTreeMap<Name, Seen> {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let two = |cpu: u64, memory: u64| [cpu as f64, memory as f64];
    let mut nodes: BTreeMap<Name, Seen> = BTreeMap::new();
    for node in state.nodes() {
        let capacity = &node.info.capacity;
        let seen = Seen {
            all: two(u64::from(capacity.cpu.0), capacity.memory.0),
            runs: BTreeMap::new(),
        };
        nodes.insert(node.name.clone(), seen);
    }
    for record in state.slots() {
        for run in live_runs(record) {
            let node = nodes.get_mut(run.node.as_ref().unwrap()).unwrap();
            let (cpu, memory) = (run.reserved.cpu.0, run.reserved.memory.0);
            let held = two(u64::from(cpu), memory);
            node.runs.insert(record.slot.clone(), held);
        }
    }
    nodes
}

/// What all costs once a run is on another node; none if it does not fit there.
fn moved(nodes: &mut BTreeMap<Name, Seen>, slot: &Slot, from: &Name, to: &Name) -> Option<f64> {
    let run = nodes.get_mut(from).unwrap().runs.remove(slot).unwrap();
    let there = nodes.get_mut(to).unwrap();
    there.runs.insert(slot.clone(), run);
    let held = |d: usize| there.runs.values().map(|run| run[d]).sum::<f64>();
    let fits = (0..2).all(|d| held(d) <= there.all[d]);
    fits.then(|| total(nodes))
}

/// Looks at moves one after the other; each fits, gains enough and costs what is said of it, and in
/// the end nothing is left to gain.
fn check(state: &State, found: &Found, margin: f64) {
    const NEAR: f64 = 1e-6;
    let mut nodes = seen(state);
    let (before, mut now) = (total(&nodes), total(&nodes));
    let mut gone: BTreeSet<Slot> = BTreeSet::new();
    for (it, told) in found.moves.iter().zip(&found.view.moves) {
        assert_eq!(
            (&it.slot, &it.from, &it.to),
            (&told.slot, &told.from, &told.to)
        );
        assert!(gone.insert(it.slot.clone()), "{} moves twice", it.slot);
        let run = nodes[&it.from].runs[&it.slot];
        nodes.get_mut(&it.from).unwrap().runs.remove(&it.slot);
        let without = total(&nodes);
        nodes
            .get_mut(&it.from)
            .unwrap()
            .runs
            .insert(it.slot.clone(), run);
        let then = moved(&mut nodes, &it.slot, &it.from, &it.to).expect("it fits there");
        let (here, there) = (now - without, then - without);
        assert!((here - told.here.0).abs() < NEAR * here, "{told:?}: {here}");
        assert!(
            (there - told.there.0).abs() < NEAR * here,
            "{told:?}: {there}"
        );
        assert!(
            now - then >= margin * here - NEAR,
            "{told:?}: {now} to {then}"
        );
        now = then;
    }
    let told = found.view.cost_before.0 - found.view.cost_after.0;
    assert!((before - now - told).abs() < NEAR * before);
    assert!(!found.view.more);
    let names: Vec<Name> = nodes.keys().cloned().collect();
    for from in &names {
        let left = nodes[from].runs.clone().into_iter();
        for (slot, run) in left.filter(|(slot, _)| !gone.contains(slot)) {
            nodes.get_mut(from).unwrap().runs.remove(&slot);
            let here = now - total(&nodes);
            nodes.get_mut(from).unwrap().runs.insert(slot.clone(), run);
            for to in names.iter().filter(|to| *to != from) {
                let then = moved(&mut nodes, &slot, from, to);
                let gains = then.is_some_and(|then| now - then > margin * here + NEAR);
                assert!(
                    !gains,
                    "{slot} gains from {from} to {to}: {now} to {then:?}"
                );
                let back = nodes.get_mut(to).unwrap().runs.remove(&slot).unwrap();
                nodes.get_mut(from).unwrap().runs.insert(slot.clone(), back);
            }
        }
    }
}

/// Services of one replica on nodes of several sizes, packed, of which some were stopped again; a
/// node more came after them.
fn packed(nodes: &[u8], runs: &[(u8, u8, bool)]) -> State {
    let mut state = State::default();
    let arrives = |state: &State, number: usize, size: u8| {
        let (cores, gib) = (u32::from(size % 4) * 2 + 2, u64::from(size / 4 % 4) * 4 + 4);
        let hello = hello_of(info(cores, gib), Vec::new());
        let node = name(&format!("node-{number}"));
        let edit = decided(state, |draft| {
            decide::hello(draft, &node, &hello, false, at(0));
        });
        edit.state
    };
    for (number, size) in nodes.iter().enumerate().skip(1) {
        state = arrives(&state, number, *size);
    }
    let mut ids = counter();
    let options = PlanOptions {
        strategy: Strategy::Binpack,
        ..PlanOptions::default()
    };
    let label = |number: usize| name(&format!("job-{number}"));
    for (number, (cpu, memory, _)) in runs.iter().enumerate() {
        let mut main = task(1);
        main.resources.cpu = MilliCores(u32::from(*cpu) * 10 + 10);
        main.resources.memory = Bytes::mib(u64::from(*memory) * 10 + 10);
        let spec = job(label(number).as_str(), Kind::Service, main);
        let edit = decided(&state, |draft| {
            decide::submit(draft, submission(&spec), ANNA, at(1)).unwrap();
            plan(draft, at(1), &options, &mut ids);
        });
        state = edit.state;
    }
    state = says(&state, RunState::Running);
    for (number, _) in runs.iter().enumerate().filter(|(_, run)| run.2) {
        let address = JobAddress {
            job: label(number),
            task: None,
            index: None,
        };
        let request = JobRequest {
            address,
            reason: None,
        };
        let edit = decided(&state, |draft| {
            decide::stop(draft, &request, ANNA, at(1)).unwrap();
            plan(draft, at(2), &options, &mut ids);
        });
        state = edit.state;
    }
    state = says(&state, RunState::Killed);
    arrives(&state, 0, nodes[0])
}

/// All that run say so; or all that are to end say that they have.
pub(super) fn says(state: &State, what: RunState) -> State {
    let mut state = state.clone();
    let slots: Vec<Slot> = state.slots().map(|record| record.slot.clone()).collect();
    for slot in slots {
        let record = state.slot(&slot).unwrap();
        let Some(run) = record.current.clone() else {
            continue;
        };
        let goes_on = run.order == loom_schemas::record::Order::Run;
        if goes_on != (what == RunState::Running) {
            continue;
        }
        let said = RunReport {
            placement: run.placement,
            version: run.version,
            started_at: Some(at(1)),
            ended_at: what.is_terminal().then(|| at(2)),
            ..report_of(&slot, run.run, what)
        };
        let edit = decided(&state, |draft| {
            decide::report(draft, run.node.as_ref().unwrap(), &[said], false, at(2));
        });
        state = edit.state;
    }
    state
}

pub(super) fn search(margin_percent: u8) -> Search {
    Search {
        strategy: Strategy::Epvm,
        margin_percent,
        most: 500,
        looks: LOOKS,
        now: at(3),
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn each_move_gains_by_the_margin_and_in_the_end_none_is_left(
        nodes in prop::collection::vec(any::<u8>(), 2..6),
        runs in prop::collection::vec(any::<(u8, u8, bool)>(), 1..40),
        margin in 1_u8..50,
    ) {
        let state = packed(&nodes, &runs);
        let found = find(&state, &search(margin));
        check(&state, &found, f64::from(margin) / 100.0);
    }
}

/// What a run is seen to use goes with it: where it runs alone it is not moved to a node like its own,
/// to be moved back from there.
#[test]
fn a_run_that_is_busier_than_it_reserves_is_not_moved_to_and_fro() {
    let busy = |state: &State, cores: [u32; 2]| {
        let edit = decided(state, |draft| {
            for (number, cores) in cores.into_iter().enumerate() {
                let record = UseRecord {
                    cpu: MilliCores(cores * 1000),
                };
                draft.put_use(&name(&format!("node-{number}")), record);
            }
        });
        edit.state
    };
    // One run, of 1 core, on the second of two nodes with 4.
    let state = packed(&[1, 1], &[(99, 99, false)]);
    let found = find(&busy(&state, [0, 4]), &search(10));
    assert_eq!(found.moves, []);
    // Beside another, also busy, it is better off alone.
    let state = packed(&[1, 1], &[(99, 99, false), (99, 99, false)]);
    let found = find(&busy(&state, [0, 4]), &search(10));
    assert_eq!(found.moves.len(), 1);
    // What else is busy on the other node keeps it where it is.
    let found = find(&busy(&state, [4, 2]), &search(10));
    assert_eq!(found.moves, []);
}

#[test]
fn at_most_so_many_are_found_and_it_is_said_that_there_may_be_more() {
    let runs = [(20, 20, false); 12];
    let state = packed(&[1, 1], &runs);
    let few = Search {
        most: 2,
        ..search(10)
    };
    let found = find(&state, &few);
    assert_eq!((found.moves.len(), found.view.more), (2, true));
}

/// Nodes that are all alike, on each of which are as many runs of jobs of their own.
fn even(nodes: usize, each: usize) -> State {
    let mut state = State::default();
    for number in 0..nodes {
        let hello = hello_of(info(4, 8), Vec::new());
        let node = name(&format!("node-{number}"));
        let edit = decided(&state, |draft| {
            decide::hello(draft, &node, &hello, false, at(0));
        });
        state = edit.state;
    }
    let mut ids = counter();
    for number in 0..nodes * each {
        let mut main = task(1);
        main.resources.cpu = MilliCores(500);
        main.resources.memory = Bytes::mib(1024);
        let spec = job(&format!("job-{number}"), Kind::Service, main);
        let edit = decided(&state, |draft| {
            decide::submit(draft, submission(&spec), ANNA, at(1)).unwrap();
            plan(draft, at(1), &PlanOptions::default(), &mut ids);
        });
        state = edit.state;
    }
    says(&state, RunState::Running)
}

#[test]
fn with_little_to_look_at_each_node_is_looked_at_and_it_is_said_how_much_that_was() {
    let state = even(6, 4);
    let found = find(&state, &search(10));
    assert_eq!(found.moves, []);
    assert_eq!((found.view.looked, found.view.movable), (24, 24));
    assert!(!found.view.more);
    // For two runs of each.
    let few = |seconds| Search {
        looks: 6 * 12,
        now: at(seconds),
        ..search(10)
    };
    let found = find(&state, &few(3));
    assert_eq!((found.view.looked, found.view.movable), (12, 24));
    assert!(found.view.more, "it is not said that this is all");
}

#[test]
fn what_was_not_looked_at_is_so_when_it_is_asked_again() {
    // The one that gains is the last of its node, and what is looked at are one of each.
    let state = even(2, 4);
    let hello = hello_of(info(4, 8), Vec::new());
    let state = decided(&state, |draft| {
        decide::hello(draft, &name("node-2"), &hello, false, at(0));
    });
    let pinned = |seconds| Search {
        looks: 2 * 3,
        now: at(seconds),
        ..search(10)
    };
    let moved: BTreeSet<Slot> = (0..8)
        .flat_map(|second| find(&state.state, &pinned(second)).moves)
        .map(|it| it.slot)
        .collect();
    assert!(moved.len() > 2, "always the same: {moved:?}");
}
