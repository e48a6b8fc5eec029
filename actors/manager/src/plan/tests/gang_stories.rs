//! Histories with gangs that once broke a law, each by the name of what went wrong.

use loom_schemas::words::Strategy;

use super::happens::Happens;
use super::laws::live;
use super::people::People;

/// So many replicas, a gang if `limits` is 4 or more; see `World::happen`.
fn submit(job: u8, replicas: u8, limits: u8) -> Happens {
    Happens::Submit {
        job,
        replicas,
        variant: 0,
        limits,
    }
}

#[test]
fn it_is_known_when_a_gang_fits_once_those_in_its_way_are_told_to_end() {
    let story = [
        Happens::Silent { node: 0 },
        submit(0, 3, 2),
        submit(1, 3, 4),
        submit(0, 0, 0),
    ];
    live(Strategy::Epvm, &story);
}

#[test]
fn it_is_known_as_well_when_somebody_ends_one_of_them() {
    let story = [
        Happens::Silent { node: 2 },
        Happens::People(People::Drain {
            node: 0,
            deadline: 0,
        }),
        submit(1, 3, 1),
        submit(0, 3, 4),
        Happens::Stop {
            job: 1,
            index: Some(0),
        },
    ];
    live(Strategy::Epvm, &story);
}

#[test]
fn of_a_gang_of_two_versions_that_waits_nothing_is_told_again() {
    let asks_for_ssd = Happens::People(People::Submit {
        job: 0,
        replicas: 2,
        variant: 0b0011_0100,
    });
    let canary = Happens::Submit {
        job: 0,
        replicas: 2,
        variant: 0b0100_0000,
        limits: 4,
    };
    let story = [submit(0, 2, 3), submit(0, 0, 0), asks_for_ssd, canary];
    live(Strategy::Epvm, &story);
}

#[test]
fn what_is_kept_for_a_gang_goes_with_a_node_of_it() {
    let story = [
        submit(0, 2, 0),
        Happens::People(People::Drain {
            node: 1,
            deadline: 0,
        }),
        Happens::Silent { node: 2 },
        Happens::Stop {
            job: 0,
            index: Some(0),
        },
        submit(1, 3, 4),
        Happens::Bye { node: 0 },
    ];
    live(Strategy::Binpack, &story);
}

#[test]
fn an_update_of_a_gang_that_waits_is_done_when_it_waits_at_its_version_too() {
    let version = |variant| Happens::Submit {
        job: 0,
        replicas: 2,
        variant,
        limits: 4,
    };
    let story = [
        Happens::People(People::Drain {
            node: 1,
            deadline: 0,
        }),
        Happens::Silent { node: 0 },
        submit(1, 3, 0),
        version(0b0011_0100),
        version(0b0010_0010),
    ];
    live(Strategy::Epvm, &story);
}
