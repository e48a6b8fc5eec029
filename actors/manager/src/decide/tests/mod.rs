//! Decisions, one line of a leader's life at a time.

mod healthy;
mod leaving;
mod nodes;
mod placing;
mod rebalancing;
mod requests;
mod resizing;
mod rolling;
mod slots;

use loom_schemas::error::ErrorCode;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{
    COMMANDS_KEPT, CommandOutcome, Exit, Health, JobRecord, Marks, Order, SlotRecord, Wanted,
};
use loom_schemas::spec::{JobSpec, PortSpec, Protocol};
use loom_schemas::wire::{
    Bye, Holding, JobAddress, JobRequest, RunReport, ScaleRequest, SubmitOutcome,
};
use loom_schemas::words::{HealthStatus, JobStatus, Kind, RunState};
use proptest::prelude::{any, prop_assert_eq, proptest};

use super::*;
use crate::plan::{PlanOptions, plan};
use crate::state::fixture::{
    ANNA, at, counter, hello_of, info, job, name, report_of, run_id, submission, task, with_nodes,
};
use crate::state::{Decided, Draft};

/// A leader with one line of life.
struct Leader {
    state: State,
    ids: Box<dyn FnMut() -> RunId>,
    last: Vec<String>,
}

impl Leader {
    fn new(nodes: usize) -> Self {
        Self {
            state: with_nodes(nodes, 4),
            ids: Box::new(counter()),
            last: Vec::new(),
        }
    }

    fn decide<R>(&mut self, edit: impl FnOnce(&mut Draft) -> R) -> (R, Decided) {
        let mut draft = Draft::new(self.state.clone());
        let result = edit(&mut draft);
        let decided = draft.finish().unwrap();
        self.state = decided.state.clone();
        let told = |event: &loom_schemas::event::Event| event.subject().replace("orch.events.", "");
        self.last = decided.events.iter().map(told).collect();
        (result, decided)
    }

    fn submit(&mut self, spec: &JobSpec) -> Result<Accepted, WireError> {
        self.decide(|draft| submit(draft, submission(spec), ANNA, at(1)))
            .0
    }

    fn plan(&mut self, seconds: i64) {
        let mut ids = std::mem::replace(&mut self.ids, Box::new(|| run_id(0)));
        self.decide(|draft| plan(draft, at(seconds), &PlanOptions::default(), &mut ids));
        self.ids = ids;
    }

    fn report(&mut self, reports: &[RunReport], seconds: i64) -> Decided {
        let node = self.node_of(&reports[0].slot);
        self.decide(|draft| report(draft, &node, reports, false, at(seconds)))
            .1
    }

    fn node_of(&self, slot: &Slot) -> Name {
        let record = self.slot(slot);
        let runs = record.ended.iter().chain(&record.current);
        runs.last()
            .and_then(|run| run.node.clone())
            .unwrap_or_else(|| name("node-1"))
    }

    fn job(&self, job: &str) -> &JobRecord {
        self.state.job(&name(job)).unwrap()
    }

    fn slot(&self, slot: &Slot) -> &SlotRecord {
        self.state.slot(slot).unwrap()
    }

    fn current(&self, slot: &Slot) -> &loom_schemas::record::RunRecord {
        self.slot(slot).current.as_ref().unwrap()
    }

    /// Submits, plans, and reports every slot running.
    fn running(&mut self, spec: &JobSpec) {
        self.submit(spec).unwrap();
        self.plan(1);
        self.all_run(&spec.name, 2);
    }

    fn all_run(&mut self, job: &Name, seconds: i64) {
        let slots: Vec<Slot> = self
            .state
            .slots_of(job)
            .map(|record| record.slot.clone())
            .collect();
        for slot in slots {
            let report = self.said(&slot, RunState::Running, seconds);
            self.report(&[report], seconds);
        }
        self.plan(seconds);
    }

    fn said(&self, slot: &Slot, state: RunState, seconds: i64) -> RunReport {
        let run = self.current(slot);
        let over = state.is_terminal();
        let code = i32::from(state != RunState::Completed);
        RunReport {
            placement: run.placement,
            version: run.version,
            restarts: run.restarts,
            started_at: Some(run.started_at.unwrap_or(at(seconds))),
            ended_at: over.then(|| at(seconds)),
            exit: over.then(|| Exit {
                code: Some(code),
                ..Exit::default()
            }),
            ..report_of(slot, run.run, state)
        }
    }
}

fn slot(job: &str, index: u32) -> Slot {
    Slot::new(name(job), Name::main(), index)
}

fn whole(job: &str) -> JobRequest {
    JobRequest {
        address: JobAddress {
            job: name(job),
            task: None,
            index: None,
        },
        reason: None,
    }
}

fn one(job: &str, index: u32) -> JobRequest {
    let address = JobAddress {
        job: name(job),
        task: None,
        index: Some(index.into()),
    };
    JobRequest {
        address,
        reason: Some("maintenance".to_owned()),
    }
}
