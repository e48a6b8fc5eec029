//! Histories that once broke a law, each by the name of what went wrong.

use loom_schemas::words::Strategy;

use super::happens::Happens;
use super::laws::live;
use super::people::People;

/// A submission of the service in a variant, see `World::spec`.
fn submit(replicas: u8, variant: u8) -> Happens {
    Happens::Submit {
        job: 0,
        replicas,
        variant,
        limits: 0,
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

#[test]
fn one_that_waits_for_a_node_leaves_the_place_of_the_canary_to_one_on_its_way() {
    let story = [
        Happens::Bye { node: 1 },
        submit(1, 0b0111_1100),
        Happens::Bye { node: 0 },
        Happens::Silent { node: 2 },
        submit(0, 0b1111_1110),
        submit(3, 0b0100_1000),
    ];
    live(Strategy::Epvm, &story);
}

/// A pass changes four slots, so each of the two jobs has two of them.
#[test]
fn more_slots_wait_for_a_node_than_are_changed_in_one_pass() {
    let batch = Happens::Submit {
        job: 1,
        replicas: 3,
        variant: 0,
        limits: 0,
    };
    let story = [
        batch,
        submit(3, 0),
        Happens::Silent { node: 0 },
        Happens::Silent { node: 1 },
        Happens::Silent { node: 2 },
        Happens::Passes { seconds: 30 },
    ];
    live(Strategy::Epvm, &story);
}

#[test]
fn what_failed_under_the_old_version_is_not_given_up_by_the_new_one() {
    let ends = Happens::Ends {
        node: 0,
        which: 0,
        code: 0,
    };
    let story = [
        submit(3, 0b0101_1010),
        Happens::Work,
        ends,
        Happens::Work,
        Happens::Work,
        ends,
        Happens::Arrive {
            from: 7,
            count: 4,
            again: false,
        },
        submit(1, 0b1111_0000),
    ];
    live(Strategy::RoundRobin, &story);
}

#[test]
fn a_version_as_an_earlier_one_stops_no_run_that_serves_for_one_that_does_not() {
    let story = [
        submit(2, 0b0000_0110),
        Happens::Work,
        arrive(1),
        submit(1, 0b1111_1000),
        Happens::Ends {
            node: 0,
            which: 0,
            code: 0,
        },
        Happens::Work,
        Happens::Work,
        submit(3, 0b0100_1100),
        Happens::Arrive {
            from: 183,
            count: 2,
            again: false,
        },
        submit(3, 0b0010_1110),
    ];
    live(Strategy::Epvm, &story);
}

/// A submission of the batch in a variant.
fn batch(replicas: u8, variant: u8) -> Happens {
    Happens::Submit {
        job: 1,
        replicas,
        variant,
        limits: 0,
    }
}

#[test]
fn a_node_is_told_of_the_attempts_that_a_batch_has_left() {
    let story = [
        batch(3, 0),
        Happens::Work,
        Happens::Back { node: 2 },
        Happens::Forgets { node: 2 },
        Happens::Scale {
            job: 1,
            replicas: 0,
        },
        batch(3, 1),
    ];
    live(Strategy::Epvm, &story);
}

#[test]
fn what_a_batch_lost_with_a_node_gives_no_slot_up() {
    let story = [
        batch(2, 0b0111_1100),
        batch(3, 0b0111_0110),
        Happens::Bye { node: 2 },
        Happens::Passes { seconds: 46 },
        Happens::Passes { seconds: 14 },
    ];
    live(Strategy::RoundRobin, &story);
}

#[test]
fn a_slot_stopped_while_its_runs_hand_over_has_two_runs_until_they_end() {
    let story = [
        submit(2, 0b0101_0010),
        Happens::Work,
        arrive(2),
        submit(2, 0b0011_0000),
        Happens::Stop {
            job: 0,
            index: Some(0),
        },
    ];
    live(Strategy::Spread, &story);
}

#[test]
fn one_goes_on_under_a_version_without_checks_and_serves_from_then_on() {
    let story = [
        submit(1, 0b0000_0000),
        submit(3, 0b0011_1111),
        Happens::Work,
        Happens::Passes { seconds: 10 },
        arrive(3),
        submit(2, 0b0010_0110),
    ];
    live(Strategy::Spread, &story);
}

/// The service in a variant, with limits.
fn limited(replicas: u8, variant: u8, limits: u8) -> Happens {
    Happens::Submit {
        job: 0,
        replicas,
        variant,
        limits,
    }
}

/// Stop-first comes over an update that has begun a run beside one that serves, while two other
/// slots are down.
fn stop_first_over_two_runs(first: Happens, second: u8) {
    let story = [
        first,
        Happens::Work,
        arrive(1),
        submit(2, second),
        submit(1, 0b0001_1000),
        limited(3, 0b1010_1101, 3),
        Happens::Work,
        Happens::Work,
    ];
    live(Strategy::RoundRobin, &story);
}

#[test]
fn stop_first_over_an_update_that_began_one_beside_what_serves() {
    stop_first_over_two_runs(limited(1, 0b0000_0010, 2), 0);
}

#[test]
fn stop_first_over_an_update_that_began_one_beside_what_is_found_healthy_late() {
    stop_first_over_two_runs(submit(1, 0b0111_1010), 0b0001_1111);
}

#[test]
fn back_to_stop_first_while_two_hand_over() {
    let story = [
        submit(3, 0b0101_0110),
        Happens::Work,
        arrive(3),
        limited(3, 0b0001_1000, 1),
        Happens::Work,
        arrive(9),
        Happens::Passes { seconds: 10 },
        Happens::Rollback { job: 0 },
    ];
    live(Strategy::Binpack, &story);
}

#[test]
fn one_that_leaves_is_not_the_idle_one_beside_what_serves() {
    let with = |variant, limits| Happens::Submit {
        job: 0,
        replicas: 3,
        variant,
        limits,
    };
    let story = [
        with(0b0000_0100, 0),
        Happens::Work,
        Happens::Arrive {
            from: 1,
            count: 2,
            again: false,
        },
        Happens::Forgets { node: 0 },
        with(0b0101_0110, 0),
        Happens::Silent { node: 1 },
        with(0b1011_1110, 2),
    ];
    live(Strategy::Epvm, &story);
}

#[test]
fn other_words_for_why_one_waits_are_nothing_to_plan_again() {
    let with = |job, replicas, variant, limits| Happens::Submit {
        job,
        replicas,
        variant,
        limits,
    };
    let story = [
        with(1, 3, 0, 2),
        Happens::Silent { node: 1 },
        Happens::Silent { node: 2 },
        with(0, 0, 0b0001_0000, 0),
        with(0, 2, 0, 2),
        Happens::Passes { seconds: 30 },
        Happens::Back { node: 1 },
        Happens::Bye { node: 1 },
    ];
    live(Strategy::Spread, &story);
}

/// A drain that lets runs take as long as they need.
fn drain(node: u8) -> Happens {
    let deadline = 61;
    Happens::People(People::Drain { node, deadline })
}

#[test]
fn one_that_nobody_has_checked_yet_leaves_a_drained_node_in_its_turn() {
    let story = [
        submit(2, 0b0110_0110),
        Happens::Work,
        Happens::Ends {
            node: 0,
            which: 0,
            code: 0,
        },
        arrive(3),
        drain(1),
        submit(2, 0b0110_0111),
    ];
    live(Strategy::Epvm, &story);
    let story = [
        submit(1, 0),
        Happens::Work,
        arrive(1),
        submit(3, 0b0111_1110),
        drain(0),
        submit(2, 0b1000_0101),
    ];
    live(Strategy::Spread, &story);
}

#[test]
fn replicas_that_come_to_be_apart_while_one_of_them_is_scaled_away_and_back() {
    let story = [
        submit(2, 0),
        Happens::People(People::Submit {
            job: 0,
            replicas: 1,
            variant: 121,
        }),
        Happens::Scale {
            job: 0,
            replicas: 2,
        },
    ];
    live(Strategy::Binpack, &story);
}

#[test]
fn what_takes_over_from_a_run_on_a_drained_node_ends_as_well() {
    let story = [
        submit(1, 0b1000_0000),
        Happens::Work,
        arrive(1),
        drain(0),
        Happens::Work,
        Happens::People(People::Drain {
            node: 1,
            deadline: 0,
        }),
    ];
    live(Strategy::Binpack, &story);
    let story = [
        submit(1, 0),
        Happens::Work,
        Happens::Back { node: 0 },
        Happens::People(People::Drain {
            node: 0,
            deadline: 48,
        }),
        Happens::Silent { node: 1 },
        Happens::Passes { seconds: 12 },
    ];
    live(Strategy::Epvm, &story);
    let story = [
        submit(2, 0b1010_0000),
        Happens::Work,
        Happens::Arrive {
            from: 4,
            count: 2,
            again: false,
        },
        drain(1),
        Happens::Bye { node: 1 },
    ];
    live(Strategy::RoundRobin, &story);
}

#[test]
fn stop_first_to_a_version_that_no_node_is_for_while_one_more_is_wanted() {
    let story = [
        submit(1, 0b0001_0010),
        Happens::Work,
        arrive(1),
        Happens::People(People::Submit {
            job: 0,
            replicas: 2,
            variant: 0b0111_0110,
        }),
    ];
    live(Strategy::Spread, &story);
}

#[test]
fn a_node_is_drained_while_it_is_silent() {
    let story = [
        limited(1, 0b1000_0000, 2),
        Happens::Work,
        arrive(1),
        Happens::Silent { node: 2 },
        batch(3, 0),
        submit(3, 0b0100_0000),
        Happens::People(People::Drain {
            node: 2,
            deadline: 0,
        }),
    ];
    live(Strategy::Epvm, &story);
}

#[test]
fn one_that_the_checks_of_the_version_it_is_resized_to_find_sick_does_not_serve() {
    let story = [
        limited(2, 0b0011_1000, 3),
        Happens::Work,
        Happens::Work,
        submit(1, 0b0011_1101),
        submit(3, 0b1000_0010),
        Happens::Work,
        Happens::Sickens { node: 0, which: 0 },
    ];
    live(Strategy::Epvm, &story);
}

#[test]
fn what_has_room_at_the_new_version_alone_is_on_its_way_before_others_are_turned() {
    let story = [
        batch(3, 0),
        Happens::Silent { node: 1 },
        limited(3, 0b0100_0000, 2),
        Happens::Work,
        Happens::Arrive {
            from: 1,
            count: 3,
            again: false,
        },
        submit(3, 0b0000_1110),
    ];
    live(Strategy::Binpack, &story);
}
