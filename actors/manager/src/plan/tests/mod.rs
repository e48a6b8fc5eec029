//! Histories of a small cluster whose nodes obey, fail, fall silent, forget, and report late, twice
//! and in any order: laws over generated ones, and those that once broke a law.

mod checks;
mod choices;
mod dependants;
mod evict;
mod figures;
mod gang_laws;
mod gang_stories;
mod gang_waits;
mod gangs;
mod happens;
mod laws;
mod line;
mod nodes;
mod people;
mod preview;
mod queue;
mod replay;
mod stories;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use loom_schemas::words::{Kind, Strategy};

use super::{PlanOptions, plan};
use crate::decide;
use crate::state::Draft;
use crate::state::fixture::{ANNA, at, job, name, submission, task};
use happens::Happens;
use world::World;

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
