//! Reports that no leader has acknowledged yet, folded to one a run. Pure.
//!
//! A run that changes twice before a leader answers is one report with the states it passed. Runs
//! that ended and were started again on the node pile up while no leader answers: past a limit the
//! oldest of them are folded to a count, which the next report of their placement tells. The end
//! of a placement's last run is never folded away.

use std::collections::{BTreeMap, BTreeSet};

use loom_schemas::ids::RunId;
use loom_schemas::wire::RunReport;
use loom_schemas::words::RunState;
use serde::{Deserialize, Serialize};

/// The most bytes of results in one batch: what is said of them has to fit into one commit.
const RESULTS_MAX: usize = 1024 * 1024;

/// Reports to deliver, at least once each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Journal {
    entries: BTreeMap<RunId, Entry>,
    /// Entries by the change they came in with, oldest first.
    order: BTreeMap<u64, RunId>,
    /// Entries that may be folded to a count, oldest first.
    foldable: BTreeSet<(u64, RunId)>,
    /// Runs folded to a count, by placement, not told yet.
    folded: BTreeMap<RunId, u64>,
    /// The number of the last change.
    changes: u64,
}

/// The report of one run, as far as it is not acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Folded.
    pub(crate) report: RunReport,
    /// The change it came in with.
    pub(crate) since: u64,
    /// The last change of it.
    pub(crate) change: u64,
}

/// What was sent of one run: names the change that an acknowledgement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The run.
    pub(crate) run: RunId,
    /// The last change of it that was sent.
    pub(crate) change: u64,
    /// The state that was sent.
    pub(crate) state: RunState,
    /// Its placement; none in what an earlier version wrote.
    #[serde(default)]
    pub(crate) placement: Option<RunId>,
    /// How many folded runs of the placement the report told of.
    #[serde(default)]
    pub(crate) folded: u64,
}

/// Some reports to send, and what to acknowledge when they were taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Batch {
    /// The reports, oldest first.
    pub(crate) reports: Vec<RunReport>,
    /// One for each report.
    pub(crate) marks: Vec<Mark>,
}

impl Journal {
    /// Whether everything was acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every entry, and what was folded of each placement: for writing it down whole.
    pub(crate) fn parts(&self) -> (impl Iterator<Item = &Entry>, &BTreeMap<RunId, u64>) {
        (self.entries.values(), &self.folded)
    }

    /// How many changes it has seen.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Puts back how many changes it has seen.
    pub(crate) fn restore_changes(&mut self, changes: u64) {
        self.changes = changes;
    }

    /// Puts back an entry that was written down.
    pub(crate) fn restore(&mut self, entry: Entry) {
        self.insert(entry);
    }

    /// Puts back a count that was written down.
    pub(crate) fn restore_folded(&mut self, placement: RunId, count: u64) {
        *self.folded.entry(placement).or_default() += count;
    }

    /// Takes in a report; with more than `limit` runs that ended and were started again, the oldest
    /// of those become a count.
    pub(crate) fn record(&mut self, report: RunReport, limit: usize) {
        self.changes += 1;
        let change = self.changes;
        let entry = match self.remove(report.run) {
            None => Entry {
                report,
                since: change,
                change,
            },
            Some(known) => {
                let Some(report) = merged(&known.report, report) else {
                    self.insert(known);
                    return;
                };
                Entry {
                    report,
                    since: known.since,
                    change,
                }
            }
        };
        self.insert(entry);
        while self.foldable.len() > limit {
            let Some((_, run)) = self.foldable.first().copied() else {
                return;
            };
            if let Some(entry) = self.remove(run) {
                *self.folded.entry(entry.report.placement).or_default() += 1;
            }
        }
    }

    /// The oldest reports, at most so many, and with not too much of results.
    pub(crate) fn batch(&self, most: usize) -> Batch {
        let mut batch = Batch::default();
        let mut untold = self.folded.clone();
        let mut results = 0;
        for run in self.order.values().take(most) {
            let Some(entry) = self.entries.get(run) else {
                continue;
            };
            let result = entry.report.result.as_ref().map_or(0, String::len);
            results += result;
            if results > RESULTS_MAX && results > result {
                break;
            }
            let mut report = entry.report.clone();
            report.change = entry.change;
            // The first report of a placement tells, no other.
            let folded = untold.remove(&report.placement);
            if let Some(count) = folded {
                let note = format!("{count} earlier runs ended while no leader answered");
                report.reason = Some(match report.reason.take() {
                    Some(reason) => format!("{reason}; {note}"),
                    None => note,
                });
            }
            batch.marks.push(Mark {
                run: *run,
                change: entry.change,
                state: report.state,
                placement: Some(report.placement),
                folded: folded.unwrap_or_default(),
            });
            batch.reports.push(report);
        }
        batch
    }

    /// Forgets what was taken. A run that changed since it was sent stays, without what was told.
    pub(crate) fn acknowledge(&mut self, marks: &[Mark]) {
        for mark in marks {
            self.was_told(mark.placement, mark.folded);
            let Some(mut entry) = self.remove(mark.run) else {
                // Folded since its report was sent: it is counted, and was told.
                self.was_told(mark.placement, 1);
                continue;
            };
            if entry.change == mark.change {
                continue;
            }
            entry
                .report
                .passed
                .retain(|state| state.rank() > mark.state.rank());
            self.insert(entry);
        }
    }

    fn was_told(&mut self, placement: Option<RunId>, count: u64) {
        let Some(placement) = placement else {
            return;
        };
        if let Some(left) = self.folded.get_mut(&placement) {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.folded.remove(&placement);
            }
        }
    }

    /// Forgets what is still to be told of runs folded to a count, with their placement.
    pub(crate) fn forget(&mut self, placement: RunId) {
        self.folded.remove(&placement);
    }

    fn insert(&mut self, entry: Entry) {
        let run = entry.report.run;
        self.order.insert(entry.since, run);
        if entry.report.state.is_terminal() && entry.report.will_restart {
            self.foldable.insert((entry.since, run));
        }
        self.entries.insert(run, entry);
    }

    fn remove(&mut self, run: RunId) -> Option<Entry> {
        let entry = self.entries.remove(&run)?;
        self.order.remove(&entry.since);
        self.foldable.remove(&(entry.since, run));
        Some(entry)
    }
}

/// A later report of a run put on an earlier one; none if it says nothing new. Neither a state nor
/// an end is ever taken back; an end may still turn out to be the placement's last one.
pub(crate) fn merged(known: &RunReport, later: RunReport) -> Option<RunReport> {
    if known.state.is_terminal() {
        let gave_up = known.will_restart && later.state.is_terminal() && !later.will_restart;
        return gave_up.then(|| RunReport {
            will_restart: false,
            reason: later.reason.or_else(|| known.reason.clone()),
            ..known.clone()
        });
    }
    if later.state.rank() < known.state.rank() || later == *known {
        return None;
    }
    let mut passed = known.passed.clone();
    if known.state != later.state {
        passed.push(known.state);
    }
    for state in &later.passed {
        let last = passed.last().map_or(0, |last| last.rank());
        if state.rank() > last && state.rank() < later.state.rank() {
            passed.push(*state);
        }
    }
    Some(RunReport { passed, ..later })
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
