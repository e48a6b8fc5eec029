//! What a node remembers over its agent's end: its assignment, how far each placement is, and what
//! it has not been able to report. Pure: every change is a [`Record`], and replaying the records
//! gives the same ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use loom_schemas::ids::{Epoch, Name, RunId};
use loom_schemas::record::{Limits, Marks, Order};
use loom_schemas::wire::{Assign, Assigned, Holding, Inventory, RunReport};
use loom_schemas::words::RunState;
use loom_task::Progress;
use serde::{Deserialize, Serialize};

use crate::assignment::Assignment;
use crate::journal::{Entry, Journal, Mark, merged};

/// Bytes of one page of an inventory; one placement may have more.
const INVENTORY_BYTES: usize = 2 << 20;

/// Why a run ends that no leader wants on this node.
pub(crate) const UNWANTED: &str = "no longer assigned to this node";

/// What a node remembers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ledger {
    /// Whose it is.
    pub(crate) node: Name,
    /// What the node shall have.
    pub(crate) assignment: Assignment,
    /// What it has, by placement; with those it was told to have but has not begun.
    pub(crate) places: BTreeMap<RunId, Place>,
    /// What it has to report.
    pub(crate) journal: Journal,
    /// The boot in which a leader last answered, and when in it.
    pub(crate) contact: Option<(String, Duration)>,
    journal_limit: usize,
}

/// One placement on the node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    /// As a leader last described it.
    pub(crate) assigned: Arc<Assigned>,
    /// Where it is; none until it first reported.
    pub(crate) progress: Option<Progress>,
    /// The last report of it; `passed` is empty.
    pub(crate) report: Option<RunReport>,
}

/// One change of the ledger, as it stands on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// A leader sent this, and it was taken.
    Assign(Assign),
    /// A run went on.
    Report {
        /// For the leader.
        report: RunReport,
        /// Where its placement is.
        progress: Progress,
    },
    /// A placement is about to begin a run that no leader knows.
    Progress(Progress),
    /// A leader took these reports.
    Acknowledged(Vec<Mark>),
    /// A placement is cleaned up.
    Forgotten(RunId),
    /// A leader answered a call.
    Contact {
        /// The boot.
        boot: String,
        /// When in it the call was sent, in milliseconds.
        at_ms: u64,
    },
    /// Written only when the file is written anew: the assignment but for its set.
    Head {
        /// The cluster.
        cluster: Option<String>,
        /// The highest epoch seen.
        epoch: Epoch,
        /// The epoch the set was last changed in.
        taken_in: Epoch,
        /// The generation of the set.
        generation: u64,
        /// How many changes the journal has seen: acknowledgements name them.
        changes: u64,
        /// The labels that people gave the node.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
    },
    /// Written only when the file is written anew: a placement.
    Place {
        /// As a leader last described it.
        assigned: Box<Assigned>,
        /// Whether it is in the assignment.
        wanted: bool,
        /// Where it is.
        progress: Option<Progress>,
        /// The last report of it.
        report: Option<RunReport>,
    },
    /// Written only when the file is written anew: a report that is not acknowledged.
    Entry(Entry),
    /// Written only when the file is written anew: runs folded to a count.
    Folded {
        /// The placement.
        placement: RunId,
        /// How many.
        count: u64,
    },
}

impl Place {
    /// A placement that was only told of.
    fn new(assigned: Arc<Assigned>) -> Self {
        Self {
            assigned,
            progress: None,
            report: None,
        }
    }

    /// Whether its last run ended and nothing follows here.
    pub(crate) fn has_ended(&self) -> bool {
        self.report.as_ref().is_some_and(is_final)
    }

    /// Whether a run of it runs, as far as was reported.
    pub(crate) fn is_running(&self) -> bool {
        self.report
            .as_ref()
            .is_some_and(|report| report.state == RunState::Running)
    }

    /// The run that fills it.
    pub(crate) fn run(&self) -> RunId {
        self.progress
            .as_ref()
            .map_or(self.assigned.placement, |progress| progress.run)
    }
}

impl Ledger {
    /// The ledger of a node that never heard of anything.
    pub(crate) fn new(node: Name, journal_limit: usize) -> Self {
        Self {
            node,
            assignment: Assignment::default(),
            places: BTreeMap::new(),
            journal: Journal::default(),
            contact: None,
            journal_limit,
        }
    }

    /// Carries out a change. Returns the placements whose assignment may have changed.
    pub(crate) fn apply(&mut self, record: Record) -> BTreeSet<RunId> {
        match record {
            Record::Assign(assign) => return self.assign(&assign),
            Record::Report { report, progress } => self.report(report, progress),
            Record::Progress(progress) => {
                if let Some(place) = self.places.get_mut(&progress.placement) {
                    place.progress = Some(progress);
                }
            }
            Record::Acknowledged(marks) => self.journal.acknowledge(&marks),
            Record::Forgotten(placement) => {
                if !self.assignment.placements.contains_key(&placement) {
                    self.places.remove(&placement);
                    self.journal.forget(placement);
                }
            }
            Record::Contact { boot, at_ms } => {
                self.contact = Some((boot, Duration::from_millis(at_ms)));
            }
            Record::Head {
                cluster,
                epoch,
                taken_in,
                generation,
                changes,
                labels,
            } => {
                self.journal.restore_changes(changes);
                let placements = std::mem::take(&mut self.assignment.placements);
                self.assignment = Assignment {
                    cluster,
                    epoch,
                    taken_in,
                    generation,
                    placements,
                    labels,
                };
            }
            Record::Place {
                assigned,
                wanted,
                progress,
                report,
            } => {
                let assigned = Arc::new(*assigned);
                let placement = assigned.placement;
                if wanted {
                    self.assignment
                        .placements
                        .insert(placement, Arc::clone(&assigned));
                }
                self.places.insert(
                    placement,
                    Place {
                        assigned,
                        progress,
                        report,
                    },
                );
            }
            Record::Entry(entry) => self.journal.restore(entry),
            Record::Folded { placement, count } => self.journal.restore_folded(placement, count),
        }
        BTreeSet::new()
    }

    /// The records that make this ledger from an empty one.
    pub(crate) fn records(&self) -> Vec<Record> {
        let set = &self.assignment;
        let mut records = vec![Record::Head {
            cluster: set.cluster.clone(),
            epoch: set.epoch,
            taken_in: set.taken_in,
            generation: set.generation,
            changes: self.journal.changes(),
            labels: set.labels.clone(),
        }];
        records.extend(self.places.values().map(|place| Record::Place {
            assigned: Box::new((*place.assigned).clone()),
            wanted: set.placements.contains_key(&place.assigned.placement),
            progress: place.progress.clone(),
            report: place.report.clone(),
        }));
        let (entries, folded) = self.journal.parts();
        records.extend(entries.cloned().map(Record::Entry));
        records.extend(
            folded
                .iter()
                .map(|(&placement, &count)| Record::Folded { placement, count }),
        );
        if let Some((boot, at)) = &self.contact {
            records.push(contact(boot, *at));
        }
        records
    }

    /// One report for every run the node has or could not yet report the end of.
    pub(crate) fn inventory(&self) -> Vec<RunReport> {
        let mut inventory: BTreeMap<RunId, RunReport> = self
            .places
            .values()
            .map(|place| {
                let report = place
                    .report
                    .clone()
                    .unwrap_or_else(|| first_report(&place.assigned));
                (report.run, report)
            })
            .collect();
        let (entries, _) = self.journal.parts();
        inventory.extend(entries.map(|entry| (entry.report.run, entry.report.clone())));
        let change = self.journal.changes();
        let now = |report| RunReport { change, ..report };
        inventory.into_values().map(now).collect()
    }

    /// What the placements hold that have not ended, where it is anything.
    pub(crate) fn holdings(&self) -> Vec<Holding> {
        let live = self.places.values().filter(|place| !place.has_ended());
        let held = live.map(|place| Holding {
            placement: place.assigned.placement,
            ports: place.assigned.ports.clone(),
            gpus: place.assigned.gpus.clone(),
            restart: place.assigned.restart,
        });
        let holds = |held: &Holding| !held.ports.is_empty() || !held.gpus.is_empty();
        held.filter(|held| holds(held) || held.restart > 0)
            .collect()
    }

    /// One placement of each task of each version that the node was told to have, those after
    /// `after`, as many as fit into a message.
    pub(crate) fn described(&self, after: Option<RunId>) -> Inventory {
        let mut inventory = Inventory {
            cluster: self.assignment.cluster.clone(),
            epoch: self.assignment.epoch,
            ..Inventory::default()
        };
        let (mut told, mut bytes) = (BTreeSet::new(), 0);
        for (placement, place) in &self.places {
            let assigned = &*place.assigned;
            let slot = &assigned.slot;
            let is_first = told.insert((&slot.job, assigned.version, &slot.task));
            if !is_first || Some(*placement) <= after {
                continue;
            }
            bytes += size_of(assigned);
            if bytes > INVENTORY_BYTES && !inventory.placements.is_empty() {
                inventory.more = true;
                break;
            }
            inventory.placements.push(assigned.clone());
        }
        inventory
    }

    /// What the task of a placement is told: what the leader says, or to end if it is not in the
    /// assignment; without its address while the node holds addresses back.
    pub(crate) fn told(&self, placement: RunId, withheld: bool) -> Option<Assigned> {
        let mut told = (*self.places.get(&placement)?.assigned).clone();
        if !self.assignment.placements.contains_key(&placement) {
            told.order = Order::Stop {
                reason: UNWANTED.to_owned(),
            };
        }
        told.holds_address &= !withheld;
        Some(told)
    }

    fn assign(&mut self, assign: &Assign) -> BTreeSet<RunId> {
        let touched = self.assignment.apply(assign);
        for placement in &touched {
            let Some(assigned) = self.assignment.placements.get(placement) else {
                continue;
            };
            self.places
                .entry(*placement)
                .and_modify(|place| place.assigned = Arc::clone(assigned))
                .or_insert_with(|| Place::new(Arc::clone(assigned)));
        }
        touched
    }

    fn report(&mut self, report: RunReport, progress: Progress) {
        let Some(place) = self.places.get_mut(&report.placement) else {
            self.journal.record(report, self.journal_limit);
            return;
        };
        place.progress = Some(progress);
        let known = place
            .report
            .as_ref()
            .filter(|known| known.run == report.run);
        let report = match known {
            None => report,
            Some(known) => {
                let told: Vec<RunState> = report.passed.clone();
                match merged(known, report) {
                    // The journal puts on `passed` what it has not told yet.
                    Some(merged) => RunReport {
                        passed: told,
                        ..merged
                    },
                    None => return,
                }
            }
        };
        place.report = Some(RunReport {
            passed: Vec::new(),
            ..report.clone()
        });
        self.journal.record(report, self.journal_limit);
    }
}

/// Bytes of a placement in a message.
fn size_of(assigned: &Assigned) -> usize {
    // It was read from such bytes.
    rmp_serde::to_vec_named(assigned).map_or(0, |bytes| bytes.len())
}

/// Whether a report is the last word on its placement.
pub(crate) fn is_final(report: &RunReport) -> bool {
    report.state.is_terminal() && !report.will_restart
}

/// The record of a contact.
pub(crate) fn contact(boot: &str, at: Duration) -> Record {
    let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
    Record::Contact {
        boot: boot.to_owned(),
        at_ms,
    }
}

/// The report of a placement that was not begun.
fn first_report(assigned: &Assigned) -> RunReport {
    RunReport {
        run: assigned.placement,
        placement: assigned.placement,
        slot: assigned.slot.clone(),
        version: assigned.version,
        state: RunState::Scheduled,
        passed: Vec::new(),
        marks: Marks::default(),
        health: None,
        restarts: 0,
        will_restart: false,
        pid: None,
        image: None,
        exit: None,
        reason: None,
        limits: Limits::default(),
        unenforced: Vec::new(),
        filled: BTreeMap::new(),
        result: None,
        started_at: None,
        ended_at: None,
        change: 0,
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
