//! Assignments: what each node should have, as the state says it.

use std::collections::BTreeMap;

use loom_schemas::ids::{Epoch, Name, RunId, Slot};
use loom_schemas::record::{Order, RunRecord, SlotRecord};
use loom_schemas::spec::{
    LogSpec, Operator, Resources, RestartOn, RestartSpec, ResultUse, StopSpec, TaskSpec,
};
use loom_schemas::units::{Bytes, Millis};
use loom_schemas::wire::{Assign, Assigned, RunReport};
use loom_schemas::words::{Kind, RunState};

use crate::reconcile::replicas;
use crate::state::{State, live_runs};

/// Every placement a node should have, by placement.
pub fn assignment(state: &State, node: &Name) -> Vec<Assigned> {
    let Some(load) = state.load(node) else {
        return Vec::new();
    };
    let assigned = load.placements.iter().filter_map(|(placement, slot)| {
        let record = state.slot(slot)?;
        let run = live_runs(record).find(|run| run.placement == *placement)?;
        assigned(state, record, run)
    });
    assigned.collect()
}

/// The whole assignment of a node as a message; none if the node is not known.
pub fn whole_assignment(state: &State, node: &Name, cluster: &str, epoch: Epoch) -> Option<Assign> {
    let record = state.node(node)?;
    Some(Assign {
        cluster: cluster.to_owned(),
        epoch,
        generation: record.generation,
        base: None,
        put: assignment(state, node),
        keep: Vec::new(),
        remove: Vec::new(),
        labels: record.labels.clone(),
    })
}

/// A live run as its node is told of it; none if its version is not kept any more, or it is held.
pub fn assigned(state: &State, record: &SlotRecord, run: &RunRecord) -> Option<Assigned> {
    let slot = &record.slot;
    if state.is_held(slot) {
        return None;
    }
    let version = state.version(&slot.job, run.told_version())?;
    let task = version.spec.tasks.get(&slot.task)?;
    let job = state.job(&slot.job)?;
    Some(Assigned {
        placement: run.placement,
        slot: slot.clone(),
        version: run.told_version(),
        kind: version.spec.kind,
        task: task.for_index(&slot.index),
        results: results(state, slot, task),
        labels: version.spec.labels.clone(),
        ports: run.ports.clone(),
        gpus: run.own_gpus().to_vec(),
        holds_address: record
            .holder()
            .is_some_and(|holder| holder.placement == run.placement),
        replicas: replicas(job, &slot.task, task),
        order: run.order.clone(),
        restart: run.restart_orders,
        spent: match version.spec.kind {
            Kind::Batch => record.failed_placements,
            Kind::Service | Kind::System => 0,
        },
        resize: run.resize_orders(),
    })
}

/// The values that a task uses of results of the tasks before it, as far as these left them when they
/// last completed in this round: what an earlier round left is not what this one comes to.
pub(crate) fn results(state: &State, slot: &Slot, task: &TaskSpec) -> BTreeMap<String, String> {
    let Some(job) = state.job(&slot.job) else {
        return BTreeMap::new();
    };
    let value = |of: &ResultUse| {
        let before = Slot {
            job: slot.job.clone(),
            task: of.task.clone(),
            index: 0.into(),
        };
        let record = state.slot(&before)?;
        let mut runs = record.current.iter().chain(record.ended.iter().rev());
        let completed = |run: &&RunRecord| run.state == RunState::Completed;
        let last = runs.find(|run| run.round == job.round && completed(run))?;
        Some((of.to_string(), of.of(last.result.as_deref()?)?))
    };
    task.results.iter().filter_map(value).collect()
}

/// The order to stop a run that the state knows nothing of.
pub fn unwanted(state: &State, report: &RunReport, reason: &str) -> Assigned {
    let slot = &report.slot;
    let version = state.version(&slot.job, report.version);
    let task = version.and_then(|version| version.spec.tasks.get(&slot.task));
    Assigned {
        placement: report.placement,
        slot: slot.clone(),
        version: report.version,
        kind: version.map_or(Kind::Service, |version| version.spec.kind),
        task: task.cloned().unwrap_or_else(nothing),
        labels: version
            .map(|version| version.spec.labels.clone())
            .unwrap_or_default(),
        ports: BTreeMap::new(),
        gpus: Vec::new(),
        results: BTreeMap::new(),
        holds_address: false,
        replicas: 0,
        order: Order::Stop {
            reason: reason.to_owned(),
        },
        restart: 0,
        spent: 0,
        resize: 0,
    }
}

/// Whether a node has to be told of a placement that its report names.
pub fn is_assigned(state: &State, node: &Name, placement: RunId) -> bool {
    state
        .load(node)
        .is_some_and(|load| load.placements.contains_key(&placement))
}

/// A task for an order to stop, where the version that said how is not kept any more: the common
/// way to stop, and nothing to start.
fn nothing() -> TaskSpec {
    TaskSpec {
        operator: Operator::Exec(vec!["true".to_owned()]),
        image: None,
        network: loom_schemas::spec::Network::default(),
        command: Vec::new(),
        args: Vec::new(),
        replicas: 0,
        per_index: BTreeMap::new(),
        gang: false,
        env: BTreeMap::new(),
        params: BTreeMap::new(),
        vars: BTreeMap::new(),
        result: false,
        results: std::collections::BTreeSet::new(),
        workdir: None,
        user: None,
        resources: Resources::default(),
        ports: BTreeMap::new(),
        constraints: Vec::new(),
        affinities: Vec::new(),
        spread: Vec::new(),
        tolerations: Vec::new(),
        restart: RestartSpec {
            on: RestartOn::Never,
            attempts: 1,
            delay: Millis::secs(1),
            max_delay: Millis::secs(60),
            window: None,
        },
        stop: StopSpec {
            signal: "SIGTERM".to_owned(),
            grace: Millis::secs(10),
        },
        timeout: None,
        after: Vec::new(),
        health: None,
        logs: LogSpec {
            max_size: Bytes::mib(10),
            keep: 5,
            ship: true,
            to: None,
        },
        sim: None,
    }
}
