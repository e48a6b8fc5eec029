//! Tasks and placements to assign.

use std::collections::BTreeMap;

use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::Order;
use loom_schemas::spec::{
    LogSpec, Operator, Resources, RestartOn, RestartSpec, Script, SimScript, StopSpec, TaskSpec,
};
use loom_schemas::units::{Bytes, MilliCores, Millis};
use loom_schemas::wire::Assigned;
use loom_schemas::words::Kind;
use uuid::Uuid;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn task(operator: Operator, sim: Option<SimScript>) -> TaskSpec {
    TaskSpec {
        operator,
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
            pids: Some(64),
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
            grace: Millis::secs(2),
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
        sim,
    }
}

fn assigned(job: &str, index: u32, task: TaskSpec) -> Assigned {
    Assigned {
        placement: RunId(Uuid::now_v7()),
        slot: Slot::new(name(job), Name::main(), index),
        version: 1,
        kind: Kind::Service,
        task,
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

/// Plays until stopped.
pub fn playing(job: &str, index: u32) -> Assigned {
    played(job, index, SimScript::default())
}

/// Plays a script.
pub fn played(job: &str, index: u32, script: SimScript) -> Assigned {
    assigned(
        job,
        index,
        task(Operator::Exec(vec!["true".to_owned()]), Some(script)),
    )
}

/// A process that runs a shell script.
pub fn script(job: &str, text: &str) -> Assigned {
    let script = Script {
        text: text.to_owned(),
        file: None,
    };
    assigned(job, 0, task(Operator::Bash(script), None))
}

/// Started again after each end.
pub fn restarting(mut assigned: Assigned, delay: Millis) -> Assigned {
    assigned.task.restart = RestartSpec {
        on: RestartOn::Any,
        attempts: 1000,
        delay,
        max_delay: delay,
        window: Some(Millis::secs(600)),
    };
    assigned
}

/// To be ended.
pub fn stopped(assigned: &Assigned) -> Assigned {
    Assigned {
        order: Order::Stop {
            reason: "scaled down".to_owned(),
        },
        ..assigned.clone()
    }
}
