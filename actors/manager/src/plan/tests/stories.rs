//! Histories that once broke a law, each by the name of what went wrong.

use loom_schemas::words::Strategy;

use super::happens::Happens;
use super::live;

/// A submission of the service in a variant, see `World::spec`.
fn submit(replicas: u8, variant: u8) -> Happens {
    Happens::Submit {
        job: 0,
        replicas,
        variant,
    }
}

/// The first reports arrive, so many.
fn arrive(count: u8) -> Happens {
    Happens::Arrive {
        from: 0,
        count,
        again: false,
    }
}

#[test]
fn a_version_as_an_earlier_one_with_canaries_and_more_replicas() {
    let story = [
        submit(2, 0b1100_0000),
        Happens::Work,
        arrive(1),
        submit(2, 0b0100_1010),
        submit(3, 0b1111_0000),
    ];
    live(Strategy::Epvm, &story);
}

#[test]
fn stop_first_while_one_is_down_and_nobody_knows_how_healthy_the_others_are() {
    let story = [
        submit(3, 0b1100_0011),
        Happens::Work,
        Happens::Ends {
            node: 0,
            which: 0,
            code: 0,
        },
        arrive(4),
        submit(3, 0b1010_0100),
    ];
    live(Strategy::Spread, &story);
}
