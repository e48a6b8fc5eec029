//! Laws over generated histories of a small cluster whose nodes obey, fail, fall silent, forget,
//! and report late, twice and in any order.

mod checks;
mod figures;
mod happens;
mod nodes;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use loom_schemas::words::{Kind, Strategy};
use proptest::prelude::{any, prop, proptest};

use super::{PlanOptions, plan};
use crate::decide;
use crate::state::Draft;
use crate::state::fixture::{ANNA, at, cases, job, name, submission, task};
use happens::Happens;
use world::World;

/// How many histories are tried in all; `LOOM_HISTORIES` says how many in each test, `LOOM_SEED`
/// which ones: a failing test prints the seed that finds the same again.
const HISTORIES: u32 = 20_000;

/// As many where `LOOM_LONG` is set.
const HISTORIES_LONG: u32 = 100_000;

fn histories() -> u32 {
    if std::env::var_os("LOOM_LONG").is_some() {
        HISTORIES_LONG
    } else {
        HISTORIES
    }
}

const STRATEGIES: [Strategy; 4] = [
    Strategy::Epvm,
    Strategy::Binpack,
    Strategy::Spread,
    Strategy::RoundRobin,
];

fn history(which: Strategy, story: &[u32]) {
    let mut world = World::new(which);
    for number in story {
        world.happen(Happens::of(*number));
        world.plan();
        world.check_planned();
    }
    world.check_told();
    world.settle();
    world.check_planned();
    world.check_told();
    world.check_settled();
    for job in [0, 1] {
        world.happen(Happens::Stop { job, index: None });
    }
    world.settle();
    assert!(
        world.state.loads().next().is_none(),
        "something is reserved after the end"
    );
    assert!(world.state.jobs().all(|job| job.status.is_terminal()));
}

proptest! {
    #![proptest_config(cases(histories() / 2))]

    /// Planning settles, a stopped job gets no run, a slot no two, capacity is kept, everything
    /// that can run runs in the end, and nothing is held once all is stopped.
    #[test]
    fn whatever_happens_the_cluster_comes_to_what_is_wanted(
        story in prop::collection::vec(any::<u32>(), 1..12),
    ) {
        history(Strategy::Epvm, &story);
    }

    /// The same, however nodes are ranked.
    #[test]
    fn it_does_so_with_every_strategy(
        which in 1..4usize,
        story in prop::collection::vec(any::<u32>(), 1..12),
    ) {
        history(STRATEGIES[which], &story);
    }
}

/// A version that is as an earlier one was, with canaries and more replicas.
#[test]
fn histories_that_once_failed() {
    let story = [
        3_147_609_792,
        503_316_480,
        1_660_944_384,
        125_210_186,
        3_134_332_912,
    ];
    history(Strategy::Epvm, &story);
    // Stop-first while one is down and nobody knows yet how healthy the others are.
    let story = [
        120_062_915,
        503_316_480,
        1_241_513_984,
        3_690_999_808,
        3_618_149_284,
    ];
    history(Strategy::Spread, &story);
}

#[test]
fn a_node_gone_for_long_is_replaced_and_one_that_said_bye_later() {
    let deadlines_of = |node: u8, bye: bool| {
        let mut world = World::new(Strategy::Epvm);
        let what = if bye {
            Happens::Bye { node }
        } else {
            Happens::Silent { node }
        };
        world.happen(what);
        super::deadlines(&world.state, Duration::from_secs(30))
    };
    assert_eq!(
        deadlines_of(0, false),
        BTreeMap::from([(name("node-1"), at(30))])
    );
    assert_eq!(
        deadlines_of(0, true),
        BTreeMap::from([(name("node-1"), at(60))])
    );
}

#[test]
fn many_silent_nodes_together_are_taken_for_the_bus() {
    let mut state = crate::state::fixture::with_nodes(10, 4);
    for number in 1..=5 {
        let node = name(&format!("node-{number}"));
        let seconds = if number == 5 { 500 } else { number };
        state = crate::state::fixture::decide(&state, |draft| {
            decide::node_down(draft, &node, "silent", at(seconds));
        })
        .state;
    }
    let deadlines = super::deadlines(&state, Duration::from_secs(30));
    let expected = [(1, 301), (2, 362), (3, 423), (4, 484), (5, 530)];
    let expected = expected.map(|(number, seconds)| (name(&format!("node-{number}")), at(seconds)));
    assert_eq!(deadlines, BTreeMap::from(expected));
}

/// Prints what planning one job of many slots takes: `LOOM_SLOTS`, in passes of 256.
#[test]
#[ignore = "prints a figure"]
fn planning_many_slots() {
    let slots = std::env::var("LOOM_SLOTS")
        .ok()
        .and_then(|text| text.parse().ok());
    let slots = slots.unwrap_or(20_000);
    let state = crate::state::fixture::with_nodes(200, 4 * slots / 200);
    let mut ids = crate::state::fixture::counter();
    let mut next = crate::state::fixture::decide(&state, |draft| {
        let spec = job("big", Kind::Service, task(slots));
        decide::submit(draft, submission(&spec), ANNA, at(0)).unwrap();
    });
    let options = PlanOptions {
        slots: 256,
        ..PlanOptions::default()
    };
    let (mut passes, begin) = (0, std::time::Instant::now());
    loop {
        let mut draft = Draft::new(next.state.clone());
        let planned = plan(&mut draft, at(1), &options, &mut ids);
        next = draft.finish().unwrap();
        passes += 1;
        if !planned.more {
            break;
        }
    }
    println!("{slots} slots, {passes} passes: {:?}", begin.elapsed());
}
