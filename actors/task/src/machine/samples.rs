//! What tests begin with.

use std::collections::BTreeMap;

use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::Order;
use loom_schemas::spec::{
    HealthCheck, HealthSpec, ImageSpec, LogSpec, Operator, Pull, Resources, RestartOn, RestartSpec,
    Script, StopSpec, TaskSpec,
};
use loom_schemas::units::{Bytes, MilliCores, Millis};
use loom_schemas::wire::Assigned;
use loom_schemas::words::Kind;
use uuid::Uuid;

use crate::driver::Started;

pub(crate) fn id(number: u128) -> RunId {
    RunId(Uuid::from_u128(number))
}

pub(crate) fn started(at: Timestamp) -> Started {
    Started {
        pid: Some(42),
        at,
        directory: None,
        unenforced: Vec::new(),
        container: None,
    }
}

pub(crate) fn image() -> ImageSpec {
    ImageSpec {
        name: "nginx:1.27".into(),
        pull: Pull::Missing,
    }
}

pub(crate) fn health() -> HealthSpec {
    HealthSpec {
        check: HealthCheck::Exec(vec!["true".into()]),
        interval: Millis::secs(10),
        timeout: Millis::secs(2),
        retries: 3,
        start_period: Millis::secs(10),
    }
}

pub(crate) fn assigned() -> Assigned {
    Assigned {
        placement: id(1),
        slot: Slot::new(Name::new("web").unwrap(), Name::main(), 0),
        version: 7,
        kind: Kind::Service,
        task: TaskSpec {
            operator: Operator::Bash(Script {
                text: "true".into(),
                file: None,
            }),
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
                memory: Bytes::mib(128),
                pids: Some(512),
                ..Resources::default()
            },
            ports: BTreeMap::new(),
            constraints: Vec::new(),
            affinities: Vec::new(),
            spread: Vec::new(),
            tolerations: Vec::new(),
            restart: RestartSpec {
                on: RestartOn::Any,
                attempts: 3,
                delay: Millis::secs(1),
                max_delay: Millis::secs(60),
                window: Some(Millis::secs(300)),
            },
            stop: StopSpec {
                signal: "SIGTERM".into(),
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
        },
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
