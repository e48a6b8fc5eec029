use proptest::prelude::*;

use super::*;
use crate::testing::{assign, epoch, name, progress, report, run};

const LIMIT: usize = 4;

fn ledger() -> Ledger {
    Ledger::new(name("node-1"), LIMIT)
}

fn said(run_number: u8, placement: u8, state: RunState) -> Record {
    Record::Report {
        report: report(run_number, placement, state),
        progress: progress(run_number, placement, state),
    }
}

#[test]
fn a_placement_that_is_no_longer_assigned_is_told_to_end() {
    let mut ledger = ledger();
    ledger.apply(Record::Assign(assign(epoch(1, 1), None, 1, &[1], &[])));
    ledger.apply(said(1, 1, RunState::Running));
    assert_eq!(ledger.told(run(1), false).unwrap().order, Order::Run);
    ledger.apply(Record::Assign(assign(epoch(1, 1), Some(1), 2, &[], &[1])));
    let told = ledger.told(run(1), false).unwrap();
    assert_eq!(
        told.order,
        Order::Stop {
            reason: UNWANTED.to_owned()
        }
    );
    assert!(!ledger.places[&run(1)].has_ended());
    ledger.apply(said(1, 1, RunState::Killed));
    assert!(ledger.places[&run(1)].has_ended());
    ledger.apply(Record::Forgotten(run(1)));
    assert!(ledger.places.is_empty());
    // Its end is still to be reported.
    assert_eq!(ledger.journal.batch(9).reports[0].state, RunState::Killed);
}

#[test]
fn labels_that_people_gave_are_those_told_last_and_are_kept() {
    let labelled = |base, generation, labels: &[(&str, &str)]| {
        let own = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Record::Assign(Assign {
            labels: own.collect(),
            ..assign(epoch(1, 1), base, generation, &[], &[])
        })
    };
    let mut ledger = ledger();
    ledger.apply(labelled(None, 1, &[("disk", "ssd"), ("rack", "7")]));
    ledger.apply(labelled(Some(1), 2, &[("disk", "hdd")]));
    // One that comes late says nothing new.
    ledger.apply(labelled(None, 1, &[("disk", "ssd")]));
    let kept = BTreeMap::from([("disk".to_owned(), "hdd".to_owned())]);
    assert_eq!(ledger.assignment.labels, kept);
    let mut again = Ledger::new(name("node-1"), LIMIT);
    for record in ledger.records() {
        again.apply(record);
    }
    assert_eq!(again.assignment.labels, kept);
}

#[test]
fn addresses_held_back_are_not_told() {
    let mut ledger = ledger();
    ledger.apply(Record::Assign(assign(epoch(1, 1), None, 1, &[1], &[])));
    assert!(ledger.told(run(1), false).unwrap().holds_address);
    assert!(!ledger.told(run(1), true).unwrap().holds_address);
}

#[test]
fn what_live_placements_hold_is_told() {
    let mut ledger = ledger();
    let mut told = assign(epoch(1, 1), None, 1, &[1, 2, 3], &[]);
    told.put[0].ports.insert(name("http"), 20_000);
    told.put[1].restart = 2;
    ledger.apply(Record::Assign(told));
    let placements = |ledger: &Ledger| {
        let all = ledger.holdings().into_iter();
        all.map(|held| held.placement).collect::<Vec<_>>()
    };
    assert_eq!(ledger.holdings()[0].ports[&name("http")], 20_000);
    assert_eq!(ledger.holdings()[1].restart, 2);
    assert_eq!(
        placements(&ledger),
        [run(1), run(2)],
        "the third has nothing"
    );
    ledger.apply(said(1, 1, RunState::Killed));
    assert_eq!(placements(&ledger), [run(2)]);
}

#[test]
fn the_inventory_has_every_run_there_is_or_whose_end_is_not_known_to_a_leader() {
    let mut ledger = ledger();
    ledger.apply(Record::Assign(assign(
        epoch(1, 1),
        None,
        1,
        &[1, 2, 3],
        &[],
    )));
    ledger.apply(said(2, 2, RunState::Running));
    let batch = ledger.journal.batch(9);
    ledger.apply(Record::Acknowledged(batch.marks));
    ledger.apply(said(3, 3, RunState::Failed));
    ledger.apply(Record::Assign(assign(epoch(1, 1), Some(1), 2, &[], &[3])));
    ledger.apply(Record::Forgotten(run(3)));
    let inventory: Vec<_> = ledger
        .inventory()
        .into_iter()
        .map(|report| (report.run, report.state))
        .collect();
    assert_eq!(
        inventory,
        [
            (run(1), RunState::Scheduled),
            (run(2), RunState::Running),
            (run(3), RunState::Failed)
        ]
    );
}

#[test]
fn a_restarted_run_is_where_its_placement_goes_on() {
    let mut ledger = ledger();
    ledger.apply(Record::Assign(assign(epoch(1, 1), None, 1, &[1], &[])));
    ledger.apply(Record::Progress(progress(7, 1, RunState::Scheduled)));
    assert_eq!(ledger.places[&run(1)].run(), run(7));
}

fn record() -> impl Strategy<Value = Record> {
    let state = prop_oneof![
        Just(RunState::Starting),
        Just(RunState::Running),
        Just(RunState::Completed),
        Just(RunState::Failed),
    ];
    let numbers = || proptest::collection::vec(0u8..6, 0..4);
    prop_oneof![
        (
            0u64..3,
            proptest::option::of(0u64..6),
            0u64..6,
            numbers(),
            numbers()
        )
            .prop_map(|(sequence, base, generation, put, remove)| {
                Record::Assign(assign(epoch(1, sequence), base, generation, &put, &remove))
            }),
        (0u8..9, state, any::<bool>()).prop_map(|(number, state, will_restart)| {
            Record::Report {
                report: RunReport {
                    will_restart,
                    ..report(number, number / 2, state)
                },
                progress: progress(number, number / 2, state),
            }
        }),
        (0u8..6).prop_map(|number| Record::Forgotten(run(number))),
        (0u8..9, 0u64..20).prop_map(|(number, change)| {
            let state = RunState::Running;
            Record::Acknowledged(vec![Mark {
                run: run(number),
                change,
                state,
                placement: Some(run(number / 2)),
                folded: change % 3,
            }])
        }),
        (0u64..100).prop_map(|at_ms| Record::Contact {
            boot: "boot".into(),
            at_ms
        }),
    ]
}

proptest! {
    #[test]
    fn written_anew_it_says_the_same(records in proptest::collection::vec(record(), 0..60)) {
        let mut ledger = ledger();
        for record in records {
            ledger.apply(record);
        }
        let mut again = self::ledger();
        for record in ledger.records() {
            again.apply(record);
        }
        prop_assert_eq!(again, ledger);
    }
}
