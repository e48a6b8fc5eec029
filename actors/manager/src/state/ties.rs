//! Jobs by what they hang on beside themselves: other jobs, the nodes there are, the clock.
//!
//! Kept as job and version records change, so that who has something to do is found without looking
//! at all jobs.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::record::{JobRecord, Wanted};
use loom_schemas::spec::JobSpec;
use loom_schemas::words::Kind;

use super::{State, live_runs};

/// What one job hangs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tie {
    /// The jobs it waits for before it starts.
    waits_for: Vec<Name>,
    /// It follows the nodes.
    system: bool,
    /// When its schedule fires next.
    fires: Option<Timestamp>,
    /// The job it is a child of.
    parent: Option<Name>,
    /// How much it matters, until it has ended.
    priority: Option<u8>,
}

/// Jobs by what they hang on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ties {
    dependants: OrdMap<Name, OrdSet<Name>>,
    system: OrdSet<Name>,
    firings: OrdSet<(Timestamp, Name)>,
    children: OrdMap<Name, OrdSet<Name>>,
    by_priority: OrdMap<u8, OrdSet<Name>>,
}

impl State {
    /// The jobs that have not started and wait for this one.
    pub fn dependants(&self, job: &Name) -> impl Iterator<Item = &Name> {
        self.ties.dependants(job)
    }

    /// The jobs that this one has made: firings of its schedule, dispatches, runs of its tasks.
    pub fn children(&self, job: &Name) -> impl Iterator<Item = &Arc<JobRecord>> {
        self.ties
            .children(job)
            .filter_map(|name| self.jobs.record(name))
    }

    /// Schedules that fire at `now` or should have before, the earliest first.
    pub fn firings_due(&self, now: Timestamp) -> impl Iterator<Item = &Name> {
        let due = self
            .ties
            .firings()
            .iter()
            .take_while(move |(at, _)| *at <= now);
        due.map(|(_, name)| name)
    }

    /// The jobs of at most this priority that have not ended, the lowest first.
    pub fn jobs_up_to(&self, priority: u8) -> impl Iterator<Item = (u8, &Name)> {
        let lower = self.ties.by_priority.range(..=priority);
        lower.flat_map(|(priority, jobs)| jobs.iter().map(|job| (*priority, job)))
    }

    /// When the next schedule fires after `now`.
    pub fn next_firing(&self, now: Timestamp) -> Option<Timestamp> {
        let firings = self.ties.firings().iter().map(|(at, _)| *at);
        firings.into_iter().find(|at| *at > now)
    }

    /// A job, or its wanted version, has changed.
    pub(super) fn tie(&mut self, name: &Name) {
        let Some(of) = self.jobs.get(name) else {
            return;
        };
        let new = of.record.as_ref().map(|job| {
            let version = of.version(job.version);
            Tie::of(job, version.map(|version| &version.spec))
        });
        let new = new.unwrap_or_default();
        if of.tie == new {
            return;
        }
        let old = self
            .jobs
            .change(name, |of| std::mem::replace(&mut of.tie, new.clone()));
        self.ties.set(name, &old, &new);
        if new.priority < old.priority {
            // Its runs may be evicted for others now.
            let slots = self.jobs.slots_of(name);
            let nodes = slots.flat_map(|slot| live_runs(slot).filter_map(|run| run.node.clone()));
            self.freed.extend(nodes.collect::<Vec<_>>());
        }
    }
}

impl Ties {
    /// A job hangs on other things than it did.
    fn set(&mut self, name: &Name, old: &Tie, new: &Tie) {
        for other in &old.waits_for {
            take(&mut self.dependants, other, name);
        }
        if let Some(parent) = &old.parent {
            take(&mut self.children, parent, name);
        }
        if let Some(at) = old.fires {
            self.firings.remove(&(at, name.clone()));
        }
        for other in &new.waits_for {
            let of = self.dependants.entry(other.clone()).or_default();
            of.insert(name.clone());
        }
        if let Some(parent) = &new.parent {
            let of = self.children.entry(parent.clone()).or_default();
            of.insert(name.clone());
        }
        if let Some(at) = new.fires {
            self.firings.insert((at, name.clone()));
        }
        if old.priority != new.priority {
            if let Some(priority) = old.priority {
                take(&mut self.by_priority, &priority, name);
            }
            if let Some(priority) = new.priority {
                self.by_priority
                    .entry(priority)
                    .or_default()
                    .insert(name.clone());
            }
        }
        if new.system {
            self.system.insert(name.clone());
        } else {
            self.system.remove(name);
        }
    }

    /// The jobs that wait for this one.
    pub(super) fn dependants(&self, name: &Name) -> impl Iterator<Item = &Name> {
        self.dependants.get(name).into_iter().flatten()
    }

    /// The children of a job.
    pub(super) fn children(&self, name: &Name) -> impl Iterator<Item = &Name> {
        self.children.get(name).into_iter().flatten()
    }

    /// The jobs that follow the nodes.
    pub(super) fn system(&self) -> &OrdSet<Name> {
        &self.system
    }

    /// Schedules by when they fire next.
    pub(super) fn firings(&self) -> &OrdSet<(Timestamp, Name)> {
        &self.firings
    }
}

impl Tie {
    fn of(job: &JobRecord, spec: Option<&JobSpec>) -> Self {
        let mut tie = Self {
            parent: job.parent.as_ref().map(|parent| parent.job.clone()),
            ..Self::default()
        };
        let Some(spec) = spec.filter(|_| !job.status.is_terminal()) else {
            return tie;
        };
        if job.started_at.is_none() {
            tie.waits_for = spec
                .depends_on
                .iter()
                .map(|other| other.job.clone())
                .collect();
        }
        tie.priority = Some(spec.priority);
        tie.system = spec.kind == Kind::System;
        if job.wanted == Wanted::Run && spec.schedule.is_some() {
            // The times of another version are not those of this one.
            let known = job.schedule.as_ref();
            let known = known.filter(|known| known.version == job.version);
            tie.fires = known.and_then(|known| known.next);
        }
        tie
    }
}

fn take<K: Clone + Ord>(of: &mut OrdMap<K, OrdSet<Name>>, key: &K, name: &Name) {
    if let Some(names) = of.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            of.remove(key);
        }
    }
}
