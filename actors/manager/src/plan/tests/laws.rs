//! Laws over generated histories.

use loom_schemas::words::Strategy;
use proptest::prelude::{any, prop, proptest};

use super::happens::Happens;
use super::world::World;
use crate::state::fixture::cases;

/// How many histories each law tries; `LOOM_HISTORIES` says another number, `LOOM_SEED` which ones:
/// a failing test prints the seed that finds the same again.
const HISTORIES: u32 = 20_000;

/// As many where `LOOM_LONG` is set.
const HISTORIES_LONG: u32 = 200_000;

/// So much happens in one at most: it takes long ones for the rarer meetings.
const LONGEST: usize = 24;

/// The same where `LOOM_LONG` is set.
const LONGEST_LONG: usize = 40;

/// How many, and how long.
fn histories() -> (u32, usize) {
    if std::env::var_os("LOOM_LONG").is_some() {
        (HISTORIES_LONG, LONGEST_LONG)
    } else {
        (HISTORIES, LONGEST)
    }
}

fn history(which: Strategy, story: &[u32]) {
    let story: Vec<Happens> = story.iter().map(|number| Happens::of(*number)).collect();
    live(which, &story);
}

/// Lets a story happen to a small cluster, with all that has to hold on the way and in the end.
pub(super) fn live(which: Strategy, story: &[Happens]) {
    let mut world = World::new(which);
    for what in story {
        world.happen(*what);
        world.plan();
        world.check_planned();
    }
    world.check_told();
    world.settle();
    world.check_planned();
    world.check_told();
    world.check_settled();
    let cluster = world.state.cluster();
    let moves = cluster.and_then(|cluster| cluster.rebalance.as_ref());
    let is_done = moves.is_none_or(|moves| moves.done_at.is_some());
    assert!(is_done, "left to be moved: {moves:?}");
    let mut records = world.state.slots();
    let keeps = records.find(|record| record.claim.as_ref().is_some_and(|it| it.moves.is_some()));
    assert!(keeps.is_none(), "kept for a move that is over: {keeps:?}");
    drop(records);
    for job in [0, 1, 2] {
        world.happen(Happens::Stop { job, index: None });
    }
    world.settle();
    assert!(
        world.state.loads().next().is_none(),
        "something is reserved after the end"
    );
    assert!(world.state.jobs().all(|job| job.status.is_terminal()));
}

/// Planning settles, a stopped job gets no run, a slot no two, capacity is kept, as many serve
/// during an update as have to, everything that can run runs in the end, and nothing is held once
/// all is stopped: for any story, however nodes are ranked. A test a strategy, so that they run side
/// by side.
macro_rules! laws {
    ($($law:ident: $strategy:expr),+ $(,)?) => {
        proptest! {
            #![proptest_config(cases(histories().0))]
            $(
                #[test]
                fn $law(story in prop::collection::vec(any::<u32>(), 1..histories().1)) {
                    history($strategy, &story);
                }
            )+
        }
    };
}

laws! {
    with_epvm_whatever_happens_the_cluster_comes_to_what_is_wanted: Strategy::Epvm,
    with_binpack_whatever_happens_the_cluster_comes_to_what_is_wanted: Strategy::Binpack,
    with_spread_whatever_happens_the_cluster_comes_to_what_is_wanted: Strategy::Spread,
    with_balanced_whatever_happens_the_cluster_comes_to_what_is_wanted: Strategy::Balanced,
    with_round_robin_whatever_happens_the_cluster_comes_to_what_is_wanted: Strategy::RoundRobin,
}
