//! Nodes that do what they were told, and tell.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{Exit, Health, Limits, Marks, Order};
use loom_schemas::wire::{Assigned, RunReport};
use loom_schemas::words::{HealthStatus, Kind, RunState};

use super::world::World;
use crate::state::fixture::run_id;

/// What a node has of one placement.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) report: RunReport,
    restarts_obeyed: u32,
    /// The last change of its limits that was carried out.
    resized: u32,
    starts: u32,
}

#[derive(Clone, Debug, Default)]
pub(super) struct SimNode {
    pub(super) silent: bool,
    /// By how many seconds its clock is ahead.
    pub(super) ahead: i64,
    pub(super) told: BTreeMap<RunId, Assigned>,
    pub(super) held: BTreeMap<RunId, Held>,
}

impl World {
    /// Every node that is not cut off does what it was told.
    pub(super) fn work(&mut self) {
        for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
            if !self.nodes[&node].silent {
                self.node_works(&node);
            }
        }
    }

    pub(super) fn node_works(&mut self, node: &Name) {
        let next_id = &mut self.next_id;
        let sim = self.nodes.get_mut(node).unwrap();
        let now = self.now + SignedDuration::from_secs(sim.ahead);
        for (placement, told) in &sim.told {
            let held = sim.held.entry(*placement).or_insert_with(|| Held {
                report: first_report(told),
                restarts_obeyed: told.restart,
                resized: told.resize,
                starts: 1,
            });
            held.report.passed.clear();
            let over = held.report.state.is_terminal();
            if told.order != Order::Run {
                if over && !held.report.will_restart {
                    // Said again until it may be forgotten.
                } else if over {
                    held.report.will_restart = false;
                } else {
                    end(&mut held.report, RunState::Killed, 143, now);
                }
            } else if over && held.report.will_restart {
                *next_id += 1;
                held.starts += 1;
                held.report = next_report(&held.report, run_id(*next_id << 20));
            } else if !over && held.restarts_obeyed < told.restart {
                held.restarts_obeyed = told.restart;
                end(&mut held.report, RunState::Killed, 143, now);
                held.report.will_restart = true;
            } else if held.report.state == RunState::Running {
                limit(held, told);
                check(&mut held.report, told.task.health.is_some(), now);
            } else if !over {
                held.resized = told.resize;
                held.report.version = told.version;
                held.report.limits = Limits::Hold;
                held.report.passed = vec![RunState::Preparing, RunState::Starting];
                held.report.state = RunState::Running;
                held.report.started_at = Some(now);
            }
            self.wire.push((node.clone(), held.report.clone()));
        }
        if self.wire.len() > 60 {
            // A journal of reports is folded: only the newest of a run is kept.
            let mut seen = BTreeSet::new();
            let mut folded: Vec<_> = self
                .wire
                .drain(..)
                .rev()
                .filter(|(_, r)| seen.insert(r.run))
                .collect();
            folded.reverse();
            self.wire = folded;
        }
    }

    pub(super) fn sickens(&mut self, node: &Name, which: u8) {
        let sim = self.nodes.get_mut(node).unwrap();
        let now = self.now + SignedDuration::from_secs(sim.ahead);
        let held = &mut sim.held;
        let reports = held.values_mut().map(|held| &mut held.report);
        let checked = reports.filter(|report| report.health.is_some());
        let Some(report) = checked.into_iter().nth(usize::from(which)) else {
            return;
        };
        report.health = Some(health_of(HealthStatus::Unhealthy, now));
        self.wire.push((node.clone(), report.clone()));
    }

    pub(super) fn ends(&mut self, node: &Name, which: u8, code: u8) {
        let sim = self.nodes.get_mut(node).unwrap();
        let now = self.now + SignedDuration::from_secs(sim.ahead);
        let running = sim
            .held
            .iter_mut()
            .filter(|(_, h)| h.report.state == RunState::Running);
        let running: Vec<_> = running.collect();
        let count = running.len();
        let Some((placement, held)) = running.into_iter().nth(usize::from(which) % count.max(1))
        else {
            return;
        };
        let Some(told) = sim.told.get(placement) else {
            return;
        };
        let state = if code == 0 {
            RunState::Completed
        } else {
            RunState::Failed
        };
        end(&mut held.report, state, i32::from(code), now);
        let again = told.kind == Kind::Service || code != 0;
        held.report.will_restart = again && told.order == Order::Run && held.starts < 2;
        self.wire.push((node.clone(), held.report.clone()));
    }
}

/// Other limits hold at the second try.
fn limit(held: &mut Held, told: &Assigned) {
    let again = held.report.version == told.version && !held.report.limits.hold();
    held.report.version = told.version;
    held.report.limits = if held.resized == told.resize || again {
        held.resized = told.resize;
        Limits::Hold
    } else if told.resize.is_multiple_of(2) {
        Limits::Pending
    } else {
        Limits::Refused {
            reason: "memory limit: it holds more".to_owned(),
        }
    };
}

/// A check of a run comes in: the first finds it pending, the next one healthy.
fn check(report: &mut RunReport, checked: bool, now: Timestamp) {
    let status = match report.health.as_ref().map(|health| health.status) {
        _ if !checked => return report.health = None,
        Some(HealthStatus::Healthy) => return,
        None => HealthStatus::Pending,
        Some(_) => HealthStatus::Healthy,
    };
    report.health = Some(health_of(status, now));
}

fn health_of(status: HealthStatus, since: Timestamp) -> Health {
    Health {
        status,
        reason: None,
        since,
    }
}

fn first_report(told: &Assigned) -> RunReport {
    RunReport {
        version: told.version,
        ..crate::state::fixture::report_of(&told.slot, told.placement, RunState::Preparing)
    }
}

fn next_report(former: &RunReport, run: RunId) -> RunReport {
    RunReport {
        run,
        state: RunState::Preparing,
        restarts: former.restarts + 1,
        will_restart: false,
        marks: Marks::default(),
        exit: None,
        started_at: None,
        ended_at: None,
        passed: Vec::new(),
        ..former.clone()
    }
}

fn end(report: &mut RunReport, state: RunState, code: i32, now: Timestamp) {
    report.state = state;
    report.health = None;
    report.exit = Some(Exit {
        code: Some(code),
        ..Exit::default()
    });
    report.ended_at = Some(now);
}
