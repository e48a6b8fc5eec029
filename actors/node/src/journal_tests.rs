use proptest::prelude::*;

use super::*;
use crate::testing::{report, run};

const NO_LIMIT: usize = usize::MAX;

fn restarted(run_number: u8, placement: u8) -> RunReport {
    RunReport {
        will_restart: true,
        ..report(run_number, placement, RunState::Failed)
    }
}

#[test]
fn a_run_that_went_on_is_one_report_with_the_states_it_passed() {
    let mut journal = Journal::default();
    for state in [RunState::Starting, RunState::Running, RunState::Completed] {
        journal.record(report(1, 1, state), NO_LIMIT);
    }
    let batch = journal.batch(10);
    assert_eq!(batch.reports.len(), 1);
    assert_eq!(batch.reports[0].state, RunState::Completed);
    assert_eq!(
        batch.reports[0].passed,
        [RunState::Starting, RunState::Running]
    );
}

#[test]
fn a_run_that_changed_since_it_was_sent_stays_without_what_was_told() {
    let mut journal = Journal::default();
    journal.record(report(1, 1, RunState::Starting), NO_LIMIT);
    let sent = journal.batch(10);
    journal.record(report(1, 1, RunState::Running), NO_LIMIT);
    journal.record(report(1, 1, RunState::Completed), NO_LIMIT);
    journal.acknowledge(&sent.marks);
    let rest = journal.batch(10);
    assert_eq!(rest.reports.len(), 1);
    assert_eq!(rest.reports[0].passed, [RunState::Running]);
    journal.acknowledge(&rest.marks);
    assert!(journal.is_empty());
}

#[test]
fn an_acknowledgement_that_comes_twice_is_harmless() {
    let mut journal = Journal::default();
    journal.record(report(1, 1, RunState::Running), NO_LIMIT);
    let sent = journal.batch(10);
    journal.acknowledge(&sent.marks);
    journal.record(report(1, 1, RunState::Completed), NO_LIMIT);
    journal.acknowledge(&sent.marks);
    assert_eq!(journal.batch(10).reports[0].state, RunState::Completed);
}

#[test]
fn a_full_journal_folds_the_oldest_restarted_runs_to_a_count() {
    let mut journal = Journal::default();
    for number in 2..=9 {
        journal.record(restarted(number, 1), 3);
    }
    journal.record(report(10, 1, RunState::Running), 3);
    let batch = journal.batch(10);
    let runs: Vec<_> = batch.reports.iter().map(|report| report.run).collect();
    assert_eq!(runs, [run(7), run(8), run(9), run(10)]);
    assert_eq!(
        batch.reports[0].reason.as_deref(),
        Some("5 earlier runs ended while no leader answered")
    );
    journal.acknowledge(&batch.marks);
    journal.record(restarted(11, 1), 3);
    assert_eq!(journal.batch(1).reports[0].reason, None);
}

#[test]
fn what_was_folded_since_the_reports_were_sent_is_still_told() {
    let mut journal = Journal::default();
    for number in 2..=5 {
        journal.record(restarted(number, 1), 2);
    }
    journal.record(report(20, 1, RunState::Running), 2);
    let sent = journal.batch(10);
    for number in 6..=8 {
        journal.record(restarted(number, 1), 2);
    }
    journal.acknowledge(&sent.marks);
    // Two were told as a count and two by their reports before they were folded.
    let reports = journal.batch(10).reports;
    assert_eq!(
        reports[0].reason.as_deref(),
        Some("1 earlier runs ended while no leader answered")
    );
    assert_eq!(reports[1].reason, None, "a count is told once");
}

#[test]
fn an_end_may_turn_out_to_be_the_last_one_but_is_not_taken_back() {
    let mut journal = Journal::default();
    journal.record(restarted(1, 1), NO_LIMIT);
    journal.record(report(1, 1, RunState::Killed), NO_LIMIT);
    let batch = journal.batch(1);
    assert_eq!(batch.reports[0].state, RunState::Failed);
    assert!(!batch.reports[0].will_restart);
    journal.record(report(1, 1, RunState::Running), NO_LIMIT);
    assert_eq!(journal.batch(1), batch);
}

#[test]
fn the_oldest_are_sent_first() {
    let mut journal = Journal::default();
    for number in [9, 1, 5] {
        journal.record(report(number, number, RunState::Running), NO_LIMIT);
    }
    let runs: Vec<_> = journal
        .batch(2)
        .reports
        .iter()
        .map(|report| report.run)
        .collect();
    assert_eq!(runs, [run(9), run(1)]);
}

#[derive(Clone, Debug)]
enum Step {
    Record(u8, RunState, bool),
    Send(usize),
    Take,
    Lose,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let state = prop_oneof![
        Just(RunState::Starting),
        Just(RunState::Running),
        Just(RunState::Completed),
        Just(RunState::Failed),
    ];
    let step = prop_oneof![
        4 => (0u8..12, state, any::<bool>()).prop_map(|(run, state, again)| {
            Step::Record(run, state, again && state.is_terminal())
        }),
        2 => (1usize..5).prop_map(Step::Send),
        1 => Just(Step::Take),
        1 => Just(Step::Lose),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    /// Sends may be lost or taken; in the end every last end of a placement was taken, the journal
    /// is empty, and no run was ever told to go back.
    #[test]
    fn every_last_end_is_delivered_and_then_forgotten(steps in steps()) {
        let mut journal = Journal::default();
        let mut told: BTreeMap<RunId, RunState> = BTreeMap::new();
        let mut ends: BTreeMap<RunId, RunState> = BTreeMap::new();
        let mut latest: BTreeMap<RunId, RunReport> = BTreeMap::new();
        let mut sent = Batch::default();
        let mut take = |journal: &mut Journal, batch: &Batch| {
            for report in &batch.reports {
                let before = told.insert(report.run, report.state);
                prop_assert!(before.is_none_or(|before| before.rank() <= report.state.rank()));
            }
            journal.acknowledge(&batch.marks);
            Ok(())
        };
        for step in steps {
            match step {
                Step::Record(number, state, will_restart) => {
                    let new = RunReport { will_restart, ..report(number, number / 3, state) };
                    // As the ledger does: what says nothing new does not reach the journal.
                    let new = match latest.get(&new.run) {
                        Some(known) => merged(known, new),
                        None => Some(new),
                    };
                    if let Some(new) = new {
                        if new.state.is_terminal() && !new.will_restart {
                            ends.insert(new.run, new.state);
                        }
                        latest.insert(new.run, new.clone());
                        journal.record(new, 2);
                    }
                }
                Step::Send(most) => sent = journal.batch(most),
                Step::Take => take(&mut journal, &std::mem::take(&mut sent))?,
                Step::Lose => sent = Batch::default(),
            }
        }
        while !journal.is_empty() {
            let batch = journal.batch(2);
            take(&mut journal, &batch)?;
        }
        for (run, state) in ends {
            prop_assert_eq!(told.get(&run), Some(&state));
        }
        prop_assert!(journal.order.is_empty() && journal.foldable.is_empty());
    }

    #[test]
    fn a_journal_is_bounded(runs in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut journal = Journal::default();
        for number in runs {
            journal.record(restarted(number, number % 4), 16);
            prop_assert!(journal.entries.len() <= 16);
        }
    }
}

#[test]
fn large_results_are_told_a_few_at_a_time() {
    let mut journal = Journal::default();
    for number in 1..=20 {
        let mut report = report(number, number, RunState::Completed);
        report.result = Some("x".repeat(100 * 1024));
        journal.record(report, NO_LIMIT);
    }
    let first = journal.batch(100);
    assert_eq!(first.reports.len(), 10);
    journal.acknowledge(&first.marks);
    let second = journal.batch(100);
    journal.acknowledge(&second.marks);
    assert_eq!(second.reports.len(), 10);
    assert!(journal.is_empty());
}
