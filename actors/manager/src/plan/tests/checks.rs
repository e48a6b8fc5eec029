//! What must hold, at every moment and in the end.

use std::collections::BTreeMap;

use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{Health, Order, RunRecord, Wanted};
use loom_schemas::wire::{Assigned, RunReport};
use loom_schemas::words::{JobStatus, RunState};

use super::world::World;
use crate::plan::{PlanOptions, assignment, plan};
use crate::scheduler::{Request, Room, fits};
use crate::state::fixture::run_id;
use crate::state::{Draft, is_live, live_runs};

impl World {
    pub(super) fn check(&mut self) {
        for record in self.state.slots() {
            let live = live_runs(record)
                .filter(|run| run.order == Order::Run)
                .count();
            assert!(live <= 1, "{} has {live} live runs", record.slot);
            for run in record.current.iter().chain(&record.ended) {
                let slot = self
                    .named
                    .entry(run.run)
                    .or_insert_with(|| record.slot.clone());
                assert_eq!(*slot, record.slot, "a run is in one slot");
            }
            let mut runs: Vec<RunId> = record
                .current
                .iter()
                .chain(&record.ended)
                .map(|run| run.run)
                .collect();
            let all = runs.len();
            runs.sort();
            runs.dedup();
            assert_eq!(runs.len(), all, "a run is in {} twice", record.slot);
        }
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
        let decided = draft.finish().unwrap();
        assert_eq!(decided.changes, [], "planning again changes something");
        assert_eq!(decided.events, [], "planning again tells something");
        self.check_told();
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
                    let request = Request::of(&spec.tasks[&Name::main()]);
                    let fits_somewhere = self.state.nodes().any(|node| {
                        fits(&Room::of(node, self.state.load(&node.name)), &request).is_ok()
                    });
                    assert!(record.waiting.is_some(), "{record:?}");
                    assert!(!fits_somewhere, "{} waits though it fits", record.slot);
                }
                let outdated = run.is_some_and(|run| is_live(run) && run.version != job.version);
                assert!(
                    !outdated,
                    "{} is not of version {}",
                    record.slot, job.version
                );
            }
        }
    }
}
