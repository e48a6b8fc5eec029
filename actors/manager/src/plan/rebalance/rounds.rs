//! Laws of looking for moves, carrying all of them out, and looking again: with replicas, taints,
//! affinities and every strategy.

use std::collections::BTreeMap;

use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{Relocation, SlotRecord};
use loom_schemas::spec::{Affinity, Predicate, Toleration};
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::wire::{LabelRequest, TaintRequest};
use loom_schemas::words::{Kind, RunState, Strategy};
use proptest::prelude::{any, prop, proptest};

use super::tests::{says, search};
use super::{Found, find};
use crate::decide;
use crate::plan::{PlanOptions, plan};
use crate::state::fixture::{
    ANNA, at, cases, counter, decide as decided, hello_of, info, job, name, run_id, submission,
    task,
};
use crate::state::{Draft, State, live_runs};

/// A node by what is drawn: its size, whether it is to be avoided, and a label.
pub(super) type Drawn = (u8, u8);

/// A job by what is drawn: cpu, memory, how many replicas and which strategy, what it prefers.
pub(super) type Job = (u8, u8, u8, u8);

fn edit(state: &State, edit: impl FnOnce(&mut Draft)) -> State {
    decided(state, edit).state
}

fn arrives(state: &State, number: usize, (size, kind): Drawn) -> State {
    let (cores, gib) = (u32::from(size % 4) * 2 + 2, u64::from(size / 4 % 4) * 4 + 4);
    let node = name(&format!("node-{number}"));
    let hello = hello_of(info(cores, gib), Vec::new());
    let label = LabelRequest {
        node: node.clone(),
        set: [(
            "disk".to_owned(),
            if kind & 4 == 0 { "hdd" } else { "ssd" }.to_owned(),
        )]
        .into(),
        remove: Vec::new(),
    };
    let taint = TaintRequest {
        node: node.clone(),
        set: vec!["spare:prefer-not".to_owned()],
        remove: Vec::new(),
        after_ms: None,
    };
    edit(state, |draft| {
        decide::hello(draft, &node, &hello, false, at(0));
        decide::label(draft, &label, ANNA, at(0)).unwrap();
        if kind % 4 == 0 {
            decide::taint(draft, &taint, ANNA, at(0)).unwrap();
        }
    })
}

/// Services on nodes that were packed before one more node came; those of `only`, or each by a strategy of its own.
pub(super) fn packed(nodes: &[Drawn], jobs: &[Job], only: Option<Strategy>) -> State {
    let mut state = State::default();
    for (number, node) in nodes.iter().enumerate().skip(1) {
        state = arrives(&state, number, *node);
    }
    let mut ids = counter();
    let options = PlanOptions {
        strategy: Strategy::Binpack,
        ..PlanOptions::default()
    };
    for (number, (cpu, memory, many, prefers)) in jobs.iter().enumerate() {
        let mut main = task(u32::from(many % 4) + 1);
        main.resources.cpu = MilliCores(u32::from(*cpu) * 10 + 10);
        main.resources.memory = Bytes::mib(u64::from(*memory) * 10 + 10);
        if prefers & 1 == 1 {
            let weight = if prefers & 2 == 0 { 50 } else { -50 };
            let predicate = "node.label.disk == ssd".parse::<Predicate>().unwrap();
            main.affinities.push(Affinity { predicate, weight });
        }
        if prefers % 8 == 4 {
            main.tolerations.push(Toleration::default());
        }
        let mut spec = job(&format!("job-{number}"), Kind::Service, main);
        let own = Strategy::ALL[usize::from(many / 4) % Strategy::ALL.len()];
        spec.strategy = only.is_none().then_some(own);
        state = edit(&state, |draft| {
            decide::submit(draft, submission(&spec), ANNA, at(1)).unwrap();
            plan(draft, at(1), &options, &mut ids);
        });
    }
    let state = says(&state, RunState::Running);
    arrives(&state, 0, nodes[0])
}

/// Carries a move out as if nothing could go wrong.
fn moved(state: &State, it: &Relocation, id: u64, by: Option<&str>) -> State {
    edit(state, |draft| {
        let mut record = SlotRecord::clone(draft.state().slot(&it.slot).unwrap());
        let run = record.current.as_mut().unwrap();
        assert_eq!(run.node.as_ref(), Some(&it.from));
        run.node = Some(it.to.clone());
        (run.run, run.placement) = (run_id(id), run_id(id));
        if let Some(by) = by {
            run.placed_at = at(3);
            run.decision.as_mut().unwrap().moved = Some(by.to_owned());
        }
        draft.put_slot(record);
    })
}

/// The share of cpu and memory in use on each node.
fn shares(state: &State) -> BTreeMap<Name, [f64; 2]> {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let two = |cpu: u32, memory: Bytes| [f64::from(cpu), memory.0 as f64];
    let nodes = state.nodes().map(|node| (node.name.clone(), [0.0; 2]));
    let mut shares: BTreeMap<Name, [f64; 2]> = nodes.collect();
    for run in state.slots().flat_map(|record| live_runs(record)) {
        let node = state.node(run.node.as_ref().unwrap()).unwrap();
        let all = two(node.info.capacity.cpu.0, node.info.capacity.memory);
        let held = two(run.reserved.cpu.0, run.reserved.memory);
        let share = shares.get_mut(&node.name).unwrap();
        *share = [0, 1].map(|d| share[d] + held[d] / all[d]);
    }
    shares
}

/// What all nodes cost together: the sum of `n^u`.
fn total(state: &State) -> f64 {
    let shares = shares(state);
    let n = f64::from(u32::try_from(shares.len()).unwrap()).max(2.0);
    shares.values().flatten().map(|share| n.powf(*share)).sum()
}

fn is_tainted(state: &State, node: &Name) -> bool {
    !state.node(node).unwrap().taints.is_empty()
}

fn tolerates(state: &State, slot: &Slot) -> bool {
    let spec = state.spec(state.job(&slot.job).unwrap()).unwrap();
    !spec.tasks[&slot.task].tolerations.is_empty()
}

/// Carries out what was found, with what has to hold of each move; the state that it comes to.
fn carried_out(mut state: State, found: &Found, ids: &mut u64, by: Option<&str>) -> State {
    for (it, told) in found.moves.iter().zip(&found.view.moves) {
        let tolerates = tolerates(&state, &it.slot);
        let is_avoided = |node| is_tainted(&state, node) && !tolerates;
        let (from, to) = (is_avoided(&it.from), is_avoided(&it.to));
        assert!(from || !to, "{told:?} goes where it is not to go");
        assert_eq!((it.avoids, told.avoids), (from && !to, from && !to));
        *ids += 1;
        let then = moved(&state, it, *ids, by);
        for (node, share) in shares(&then) {
            assert!(
                share.iter().all(|share| *share < 1.0 + 1e-9),
                "{node} {told:?}"
            );
        }
        let (before, after) = (total(&state), total(&then));
        let lowers = told.strategy != Strategy::Epvm || it.avoids || after < before;
        assert!(
            lowers,
            "{told:?}: all cost {before} before and {after} then"
        );
        assert_ne!(told.strategy, Strategy::RoundRobin);
        state = then;
    }
    state
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn each_move_lowers_what_all_nodes_cost_and_asked_again_and_again_it_ends(
        nodes in prop::collection::vec(any::<Drawn>(), 2..6),
        jobs in prop::collection::vec(any::<Job>(), 1..16),
        margin in 1_u8..50,
    ) {
        let mut state = packed(&nodes, &jobs, Some(Strategy::Epvm));
        let mut ids = 1_000_000;
        let ends = (0..50).any(|_| {
            let found = find(&state, &search(margin));
            state = carried_out(state.clone(), &found, &mut ids, None);
            found.moves.is_empty()
        });
        assert!(ends, "it goes on and on");
    }

    #[test]
    fn once_all_is_carried_out_nothing_is_found_by_any_strategy(
        nodes in prop::collection::vec(any::<Drawn>(), 2..6),
        jobs in prop::collection::vec(any::<Job>(), 1..16),
        margin in 1_u8..50,
    ) {
        let state = packed(&nodes, &jobs, None);
        let found = find(&state, &search(margin));
        let then = carried_out(state, &found, &mut 1_000_000, Some("anna"));
        let again = find(&then, &search(margin));
        assert_eq!(again.moves, [], "{:?}", found.moves);
    }
}
