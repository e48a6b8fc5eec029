//! What must hold, at every moment and in the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{Health, NodeStatus, Order, RunRecord, SlotRecord, UpdatePhase, Wanted};
use loom_schemas::wire::{Assigned, RunReport};
use loom_schemas::words::{JobStatus, Kind, RunState};

use super::world::World;
use crate::plan::{PlanOptions, assignment, plan};
use crate::reconcile::{replicas, version_of};
use crate::scheduler::{Request, Room, fits};
use crate::state::fixture::run_id;
use crate::state::{Draft, is_live, live_runs};

impl World {
    pub(super) fn check(&mut self) {
        for record in self.state.slots() {
            let goes_on = |run: &&RunRecord| is_live(run) && run.order == Order::Run;
            let live = record.current.iter().filter(goes_on).count();
            let incoming = record.incoming.iter().filter(goes_on).count();
            assert!(live <= 1 && incoming <= 1, "{}", record.slot);
            let all = || {
                record
                    .current
                    .iter()
                    .chain(&record.incoming)
                    .chain(&record.ended)
            };
            for run in all() {
                let slot = self
                    .named
                    .entry(run.run)
                    .or_insert_with(|| record.slot.clone());
                assert_eq!(*slot, record.slot, "a run is in one slot");
            }
            let mut runs: Vec<RunId> = all().map(|run| run.run).collect();
            let all = runs.len();
            runs.sort();
            runs.dedup();
            assert_eq!(runs.len(), all, "a run is in {} twice", record.slot);
        }
        self.check_surge();
        for node in self.state.nodes() {
            let Some(load) = self.state.load(&node.name) else {
                continue;
            };
            assert!(
                load.cpu <= u64::from(node.info.capacity.cpu.0),
                "cpu of {}",
                node.name
            );
            assert!(
                load.memory <= node.info.capacity.memory.0,
                "memory of {}",
                node.name
            );
            assert!(
                load.ports.values().all(|count| *count == 1),
                "a port is held twice"
            );
        }
    }

    /// Never more than the replicas and as many as are replaced at once.
    fn check_surge(&self) {
        for job in self.state.jobs() {
            let spec = self.state.spec(job).unwrap();
            let kept = self.state.versions(&job.name);
            let surge = kept
                .map(|record| record.spec.update.parallel)
                .max()
                .unwrap_or(1);
            for (name, task) in &spec.tasks {
                let replicas = replicas(job, name, task);
                let wanted = self.state.slots_of(&job.name).filter(|record| {
                    record.slot.task == *name && record.slot.index.number() < Some(replicas)
                });
                let live: usize = wanted.map(|record| live_runs(record).count()).sum();
                let most = (replicas + surge) as usize;
                assert!(live <= most, "{} has {live} runs, at most {most}", job.name);
            }
        }
    }

    /// How many wanted slots of each service serve, by reachable nodes, and how many have to while
    /// a version takes over.
    pub(super) fn serving(&self) -> BTreeMap<Name, (u32, u32)> {
        let mut serving = BTreeMap::new();
        for job in self.state.jobs() {
            let spec = self.state.spec(job).unwrap();
            let ends = job.wanted != Wanted::Run || job.status.is_terminal();
            if spec.kind == Kind::Batch || ends {
                continue;
            }
            let task = &spec.tasks[&Name::main()];
            let replicas = replicas(job, &Name::main(), task);
            let serves = |run: &RunRecord| {
                let node = self.state.node(run.node.as_ref().unwrap());
                let up = node.is_some_and(|node| node.status == NodeStatus::Up);
                let runs = run.state == RunState::Running && !run.marks.unknown;
                let healthy = run.health.as_ref().is_none_or(Health::is_healthy);
                up && runs && healthy && run.order == Order::Run && run.round == job.round
            };
            let slots = || {
                self.state.slots_of(&job.name).filter(|record| {
                    let at = (record.slot.task.clone(), record.slot.index.clone());
                    record.slot.index.number() < Some(replicas) && !job.stopped_slots.contains(&at)
                })
            };
            let count = slots()
                .filter(|record| live_runs(record).any(serves))
                .count();
            // What no node has room for, and what somebody stopped, cannot be waited for.
            let waits = |record: &&Arc<SlotRecord>| record.waiting.is_some();
            let there = slots().filter(|record| !waits(record)).count();
            let missing = (replicas as usize).saturating_sub(slots().count());
            let missing = missing.saturating_sub(job.stopped_slots.len());
            let least = u32::try_from(there + missing).unwrap();
            let least = least.saturating_sub(spec.update.parallel);
            serving.insert(job.name.clone(), (u32::try_from(count).unwrap(), least));
        }
        serving
    }

    /// Plans once more over everything: nothing may change.
    pub(super) fn check_planned(&self) {
        let mut state = self.state.clone();
        state.mark_all_dirty();
        let mut draft = Draft::new(state);
        let options = PlanOptions {
            slots: 1000,
            ..self.options.clone()
        };
        let again = plan(&mut draft, self.now, &options, &mut || run_id(u64::MAX));
        assert!(!again.more);
        let (decided, keys) = draft.finish_unwritten();
        assert_eq!(keys, [], "planning again changes something");
        assert_eq!(decided.events, [], "planning again tells something");
    }

    /// Deltas add up to the whole assignment, beside orders to stop the unknown.
    pub(super) fn check_told(&self) {
        for (node, sim) in &self.nodes {
            let whole: BTreeMap<RunId, Assigned> = assignment(&self.state, node)
                .into_iter()
                .map(|assigned| (assigned.placement, assigned))
                .collect();
            for (placement, assigned) in &whole {
                assert_eq!(sim.told.get(placement), Some(assigned), "told to {node}");
            }
            for (placement, assigned) in &sim.told {
                let stops = assigned.order != Order::Run;
                assert!(
                    whole.contains_key(placement) || stops,
                    "{node} was not told to forget"
                );
            }
        }
    }

    pub(super) fn check_stopped(&self) {
        for job in self.state.jobs() {
            for record in self.state.slots_of(&job.name) {
                for run in live_runs(record) {
                    assert!(
                        !job.status.is_terminal(),
                        "{} runs after its end",
                        record.slot
                    );
                    if job.wanted != Wanted::Run {
                        assert_ne!(run.order, Order::Run, "{} of a stopped job", record.slot);
                    }
                }
            }
        }
    }

    pub(super) fn quiet(&self) -> bool {
        self.nodes.values().all(|sim| {
            sim.told.iter().all(|(placement, told)| {
                let held = sim.held.get(placement).map(|held| &held.report);
                let checked = told.task.health.is_some();
                let healthy = |report: &RunReport| {
                    report.health.as_ref().is_some_and(Health::is_healthy) == checked
                };
                told.order == Order::Run
                    && held
                        .is_some_and(|report| report.state == RunState::Running && healthy(report))
            })
        })
    }

    /// A slot that could be placed is running or done.
    pub(super) fn check_settled(&self) {
        for job in self.state.jobs() {
            let spec = self.state.spec(job).unwrap();
            let wanted = job.wanted == Wanted::Run;
            assert!(
                wanted || job.status == JobStatus::Killed,
                "{} {:?}",
                job.name,
                job.status
            );
            if !wanted || job.status.is_terminal() {
                continue;
            }
            for record in self.state.slots_of(&job.name) {
                let at = (record.slot.task.clone(), record.slot.index.clone());
                if job.stopped_slots.contains(&at) {
                    continue;
                }
                let run: Option<&RunRecord> = record.current.as_ref();
                let done = run.is_some_and(|run| {
                    run.state == RunState::Running || run.state == RunState::Completed
                });
                if !done {
                    let version = version_of(record, job);
                    let kept = self.state.version(&job.name, version);
                    let spec = kept.map_or(spec, |record| &record.spec);
                    let request = Request::of(&spec.tasks[&Name::main()]);
                    let fits_somewhere = self.state.nodes().any(|node| {
                        fits(&Room::of(node, self.state.load(&node.name)), &request).is_ok()
                    });
                    assert!(record.waiting.is_some(), "{record:?}");
                    assert!(!fits_somewhere, "{} waits though it fits", record.slot);
                }
                let waits = job.update.as_ref().is_some_and(|update| {
                    matches!(update.phase, UpdatePhase::Paused | UpdatePhase::Canary)
                });
                let outdated =
                    !waits && run.is_some_and(|run| is_live(run) && run.version != job.version);
                assert!(
                    !outdated,
                    "{} is not of version {}",
                    record.slot, job.version
                );
            }
        }
    }
}
