use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testing::{assign, assigned, epoch, run};

fn taken(assignments: &[Assign]) -> Assignment {
    let mut assignment = Assignment::default();
    for assign in assignments {
        assignment.apply(assign);
    }
    assignment
}

#[test]
fn a_lower_epoch_is_refused_whatever_its_generation() {
    let held = taken(&[assign(epoch(1, 9), None, 3, &[1], &[])]);
    for stale in [epoch(1, 8), epoch(0, 900)] {
        let assign = assign(stale, None, 99, &[2], &[]);
        assert_eq!(held.judge(&assign), Verdict::Stale);
        assert_eq!(
            held.reply(Verdict::Stale),
            AssignReply::Stale { epoch: epoch(1, 9) }
        );
    }
}

#[test]
fn a_higher_incarnation_beats_any_sequence_and_generation() {
    let mut held = taken(&[assign(epoch(1, 900), None, 50, &[1], &[])]);
    let new = assign(epoch(2, 1), None, 1, &[2], &[]);
    assert_eq!(held.judge(&new), Verdict::Take);
    held.apply(&new);
    assert_eq!(
        held.placements.keys().copied().collect::<Vec<_>>(),
        [run(2)]
    );
    assert_eq!((held.epoch, held.generation), (epoch(2, 1), 1));
}

#[test]
fn a_delta_is_taken_only_on_the_generation_it_was_made_for() {
    let mut held = taken(&[assign(epoch(1, 1), None, 4, &[1, 2], &[])]);
    let delta = |base, generation| assign(epoch(1, 1), Some(base), generation, &[3], &[1]);
    assert_eq!(held.judge(&delta(3, 5)), Verdict::Resync);
    assert_eq!(held.judge(&delta(5, 6)), Verdict::Resync);
    assert_eq!(held.judge(&delta(4, 5)), Verdict::Take);
    let touched = held.apply(&delta(4, 5));
    assert_eq!(touched, BTreeSet::from([run(1), run(3)]));
    assert_eq!(
        held.placements.keys().copied().collect::<Vec<_>>(),
        [run(2), run(3)]
    );
}

#[test]
fn a_delta_of_the_next_leader_of_the_same_log_is_taken() {
    let held = taken(&[assign(epoch(1, 1), None, 4, &[1], &[])]);
    assert_eq!(
        held.judge(&assign(epoch(1, 7), Some(4), 5, &[2], &[])),
        Verdict::Take
    );
    assert_eq!(
        held.judge(&assign(epoch(2, 1), Some(4), 5, &[2], &[])),
        Verdict::Resync
    );
}

#[test]
fn an_earlier_word_of_the_same_leader_is_known() {
    let held = taken(&[assign(epoch(1, 1), None, 4, &[1], &[])]);
    assert_eq!(
        held.judge(&assign(epoch(1, 1), None, 3, &[2], &[])),
        Verdict::Known
    );
    assert_eq!(
        held.judge(&assign(epoch(1, 1), Some(3), 4, &[2], &[])),
        Verdict::Known
    );
    assert_eq!(
        held.reply(Verdict::Known),
        AssignReply::Taken { generation: 4 }
    );
}

#[test]
fn another_cluster_is_refused() {
    let held = taken(&[assign(epoch(1, 1), None, 4, &[1], &[])]);
    let foreign = Assign {
        cluster: "other".into(),
        ..assign(epoch(9, 9), None, 9, &[], &[])
    };
    assert_eq!(held.judge(&foreign), Verdict::Foreign);
    assert_eq!(
        held.reply(Verdict::Foreign),
        AssignReply::Foreign {
            cluster: "c".into()
        }
    );
}

#[test]
fn a_leader_that_asks_to_resync_is_obeyed_from_then_on() {
    let mut held = taken(&[assign(epoch(1, 1), None, 4, &[1], &[])]);
    held.apply(&assign(epoch(1, 5), Some(7), 8, &[2], &[]));
    assert_eq!(held.epoch, epoch(1, 5));
    assert_eq!(
        held.judge(&assign(epoch(1, 1), None, 9, &[2], &[])),
        Verdict::Stale
    );
    // Its whole set is taken, also where its generation is lower than the one held.
    assert_eq!(
        held.judge(&assign(epoch(1, 5), None, 2, &[2], &[])),
        Verdict::Take
    );
}

#[test]
fn what_differs_is_what_is_done() {
    let held_assigned: BTreeMap<RunId, (Arc<Assigned>, bool, bool)> = BTreeMap::from([
        (run(1), (Arc::new(assigned(1)), false, false)),
        (run(2), (Arc::new(assigned(2)), false, false)),
        (run(3), (Arc::new(assigned(3)), false, false)),
        (run(4), (Arc::new(assigned(4)), true, false)),
        (run(5), (Arc::new(assigned(5)), false, true)),
    ]);
    let changed = Arc::new(Assigned {
        version: 2,
        ..assigned(2)
    });
    let wanted = BTreeMap::from([
        (run(1), Arc::new(assigned(1))),
        (run(2), Arc::clone(&changed)),
        (run(6), Arc::new(assigned(6))),
    ]);
    let held = |placement| {
        let (assigned, ended, unwanted) = held_assigned.get(&placement)?;
        Some(Held {
            assigned,
            ended: *ended,
            unwanted: *unwanted,
        })
    };
    let all = (1..=7).map(run);
    assert_eq!(
        diff(&wanted, held, all),
        [
            Action::Change(changed),
            Action::StopUnknown(run(3)),
            Action::Forget(run(4)),
            Action::Start(Arc::new(assigned(6))),
        ]
    );
}

fn arbitrary() -> impl Strategy<Value = Assign> {
    let numbers = || proptest::collection::vec(0u8..6, 0..4);
    (
        0u64..3,
        0u64..4,
        proptest::option::of(0u64..5),
        0u64..6,
        numbers(),
        numbers(),
    )
        .prop_map(|(incarnation, sequence, base, generation, put, remove)| {
            assign(
                epoch(incarnation, sequence),
                base,
                generation,
                &put,
                &remove,
            )
        })
}

proptest! {
    #[test]
    fn older_epochs_never_win(assigns in proptest::collection::vec(arbitrary(), 1..30)) {
        let mut held = Assignment::default();
        let mut highest = Epoch::default();
        for assign in assigns {
            let before = held.clone();
            held.apply(&assign);
            if assign.epoch < highest {
                prop_assert_eq!(&held, &before);
            }
            highest = highest.max(assign.epoch);
            prop_assert!((held.taken_in, held.generation) >= (before.taken_in, before.generation));
            prop_assert_eq!(held.epoch, highest);
        }
    }

    #[test]
    fn a_doubled_assignment_is_harmless(assigns in proptest::collection::vec(arbitrary(), 1..30)) {
        let mut once = Assignment::default();
        let mut twice = Assignment::default();
        for assign in assigns {
            once.apply(&assign);
            twice.apply(&assign);
            twice.apply(&assign);
            prop_assert_eq!(&once, &twice);
        }
    }

    #[test]
    fn after_its_actions_a_node_has_what_it_shall_have(
        have in proptest::collection::btree_map(0u8..8, any::<bool>(), 0..8),
        want in proptest::collection::btree_set(0u8..8, 0..8),
    ) {
        let mut have: BTreeMap<RunId, (Arc<Assigned>, bool)> = have
            .into_iter()
            .map(|(number, ended)| (run(number), (Arc::new(assigned(number)), ended)))
            .collect();
        let want: BTreeMap<RunId, Arc<Assigned>> =
            want.into_iter().map(|number| (run(number), Arc::new(assigned(number)))).collect();
        // Twice: what is stopped ends, and is forgotten the next time.
        for _ in 0..2 {
            let snapshot = have.clone();
            let held = |placement| {
                let (assigned, ended) = snapshot.get(&placement)?;
                Some(Held { assigned, ended: *ended, unwanted: false })
            };
            for action in diff(&want, held, (0..8).map(run)) {
                match action {
                    Action::Start(assigned) | Action::Change(assigned) => {
                        have.insert(assigned.placement, (assigned, false));
                    }
                    Action::StopUnknown(placement) => {
                        if let Some(place) = have.get_mut(&placement) {
                            place.1 = true;
                        }
                    }
                    Action::Forget(placement) => {
                        have.remove(&placement);
                    }
                }
            }
        }
        prop_assert!(have.keys().eq(want.keys()));
    }
}

#[test]
fn a_set_that_comes_in_parts_is_whole_after_the_last_and_ends_nothing_before() {
    let mut held = taken(&[assign(epoch(1, 1), None, 4, &[1, 2, 3], &[])]);
    let first = Assign {
        keep: vec![run(2), run(5)],
        ..assign(epoch(1, 9), None, 7, &[1, 4], &[])
    };
    assert_eq!(held.judge(&first), Verdict::Take);
    held.apply(&first);
    let names = |held: &Assignment| held.placements.keys().copied().collect::<Vec<_>>();
    assert_eq!(names(&held), [run(1), run(2), run(4)], "3 is no part of it");
    let second = assign(epoch(1, 9), Some(7), 7, &[2, 5], &[]);
    for _ in 0..2 {
        assert_eq!(held.judge(&second), Verdict::Take);
        held.apply(&second);
        assert_eq!(names(&held), [run(1), run(2), run(4), run(5)]);
    }
    assert_eq!((held.taken_in, held.generation), (epoch(1, 9), 7));
    // A part of an earlier generation comes too late, one of a later is not for this node yet.
    let part = |generation| assign(epoch(1, 9), Some(generation), generation, &[6], &[]);
    assert_eq!(held.judge(&part(6)), Verdict::Known);
    assert_eq!(held.judge(&part(8)), Verdict::Resync);
    let other_leader = assign(epoch(1, 12), Some(7), 7, &[6], &[]);
    assert_ne!(held.judge(&other_leader), Verdict::Take);
}
