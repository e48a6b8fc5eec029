//! Values for the tests of this crate.

use std::collections::BTreeMap;

use loom_schemas::ids::{Epoch, Name, RunId, Slot};
use loom_schemas::record::{Capacity, Limits, Marks, NodeInfo, Order};
use loom_schemas::spec::{
    LogSpec, Operator, Resources, RestartOn, RestartSpec, SimScript, StopSpec, TaskSpec,
};
use loom_schemas::units::{Bytes, MilliCores, Millis};
use loom_schemas::wire::{Assign, Assigned, RunReport};
use loom_schemas::words::{Kind, RunState};
use loom_task::Progress;
use uuid::Uuid;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn run(number: u8) -> RunId {
    RunId(Uuid::from_bytes([number; 16]))
}

pub(crate) fn epoch(incarnation: u64, sequence: u64) -> Epoch {
    Epoch {
        incarnation,
        sequence,
    }
}

pub(crate) fn slot(index: u32) -> Slot {
    Slot::new(name("web"), Name::main(), index)
}

pub(crate) fn task() -> TaskSpec {
    TaskSpec {
        operator: Operator::Exec(vec!["true".to_owned()]),
        image: None,
        network: loom_schemas::spec::Network::default(),
        command: Vec::new(),
        args: Vec::new(),
        replicas: 1,
        per_index: BTreeMap::new(),
        gang: false,
        env: BTreeMap::new(),
        params: BTreeMap::new(),
        vars: BTreeMap::new(),
        result: false,
        results: std::collections::BTreeSet::new(),
        workdir: None,
        user: None,
        resources: Resources {
            cpu: MilliCores(100),
            cpu_limit: None,
            memory: Bytes::mib(16),
            disk: Bytes(0),
            disk_rate: None,
            pids: Some(16),
            gpus: None,
        },
        ports: BTreeMap::new(),
        constraints: Vec::new(),
        affinities: Vec::new(),
        spread: Vec::new(),
        tolerations: Vec::new(),
        restart: RestartSpec {
            on: RestartOn::Never,
            attempts: 1,
            delay: Millis(10),
            max_delay: Millis(10),
            window: None,
        },
        stop: StopSpec {
            signal: "SIGTERM".to_owned(),
            grace: Millis::secs(1),
        },
        timeout: None,
        after: Vec::new(),
        health: None,
        logs: LogSpec {
            max_size: Bytes::mib(1),
            keep: 1,
            ship: false,
            to: None,
        },
        sim: Some(SimScript::default()),
    }
}

pub(crate) fn assigned(number: u8) -> Assigned {
    Assigned {
        placement: run(number),
        slot: slot(u32::from(number)),
        version: 1,
        kind: Kind::Service,
        task: task(),
        labels: BTreeMap::new(),
        ports: BTreeMap::new(),
        gpus: Vec::new(),
        results: BTreeMap::new(),
        holds_address: true,
        replicas: 1,
        order: Order::Run,
        restart: 0,
        spent: 0,
        resize: 0,
    }
}

pub(crate) fn assign(
    epoch: Epoch,
    base: Option<u64>,
    generation: u64,
    put: &[u8],
    remove: &[u8],
) -> Assign {
    Assign {
        cluster: "c".to_owned(),
        epoch,
        generation,
        base,
        put: put.iter().copied().map(assigned).collect(),
        keep: Vec::new(),
        remove: remove.iter().copied().map(run).collect(),
        labels: BTreeMap::new(),
    }
}

pub(crate) fn report(run_number: u8, placement: u8, state: RunState) -> RunReport {
    RunReport {
        run: run(run_number),
        placement: run(placement),
        slot: slot(u32::from(placement)),
        version: 1,
        state,
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

pub(crate) fn progress(run_number: u8, placement: u8, state: RunState) -> Progress {
    Progress {
        run: run(run_number),
        state,
        ..Progress::first(run(placement))
    }
}

/// What a small node says of itself.
pub(crate) fn info() -> NodeInfo {
    NodeInfo {
        hostname: "host".to_owned(),
        address: "127.0.0.1".to_owned(),
        arch: "amd64".to_owned(),
        os: String::new(),
        kernel: String::new(),
        agent: String::new(),
        datacenter: None,
        labels: BTreeMap::new(),
        capacity: Capacity {
            cpu: MilliCores(1000),
            memory: Bytes::mib(1),
            disk: Bytes(0),
            disk_rate: None,
            pids: None,
            ports_from: 1,
            ports_to: 2,
            gpus: Vec::new(),
        },
        drivers: Vec::new(),
        log_dirs: Vec::new(),
        attributes: BTreeMap::new(),
        format: 1,
    }
}
