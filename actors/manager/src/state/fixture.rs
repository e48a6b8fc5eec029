//! What the tests of the pure core are made of.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use loom_schemas::ids::{Name, RunId};
use loom_schemas::record::{Capacity, Limits, Marks, NodeInfo, NodeRecord, SlotRecord};
use loom_schemas::spec::{
    HealthCheck, HealthSpec, JobSpec, LogSpec, Operator, PRIORITY, Resources, RestartOn,
    RestartSpec, StopSpec, TaskSpec, UpdateSpec,
};
use loom_schemas::units::{Bytes, MilliCores, Millis};
use loom_schemas::wire::{Hello, RunReport};
use loom_schemas::words::{DriverKind, Kind, RunState};
use uuid::Uuid;

use crate::decide::{Asker, Submission};
use crate::state::{Decided, Draft, State};

/// Somebody without rights over others.
pub(crate) const ANNA: Asker<'static> = Asker {
    user: "anna",
    admin: false,
    request: None,
};

/// The time all tests begin at, and seconds after it.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_700_000_000 + seconds)
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A run id that counts.
pub(crate) fn run_id(number: u64) -> RunId {
    RunId(Uuid::from_u128(
        (0x7000_u128 << 64) | (0x8000_u128 << 48) | u128::from(number),
    ))
}

/// Ids from 1.
pub(crate) fn counter() -> impl FnMut() -> RunId {
    let mut next = 0;
    move || {
        next += 1;
        run_id(next)
    }
}

/// A task that needs a core and a GiB.
pub(crate) fn task(replicas: u32) -> TaskSpec {
    TaskSpec {
        operator: Operator::Exec(vec!["sleep".to_owned()]),
        image: None,
        network: loom_schemas::spec::Network::default(),
        command: Vec::new(),
        args: Vec::new(),
        replicas,
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
            cpu: MilliCores(1000),
            cpu_limit: None,
            memory: Bytes::mib(1024),
            disk: Bytes(0),
            disk_rate: None,
            pids: None,
            gpus: None,
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

/// Checks that look every ten seconds.
pub(crate) fn health() -> HealthSpec {
    HealthSpec {
        check: HealthCheck::Exec(vec!["true".to_owned()]),
        interval: Millis::secs(10),
        timeout: Millis::secs(2),
        retries: 3,
        start_period: Millis::secs(10),
    }
}

/// A job of the task `main`.
pub(crate) fn job(job: &str, kind: Kind, mut main: TaskSpec) -> JobSpec {
    if kind == Kind::Batch {
        main.restart.on = RestartOn::Failure;
    }
    JobSpec {
        name: name(job),
        owner: None,
        kind,
        priority: PRIORITY,
        datacenters: Vec::new(),
        strategy: None,
        schedule: None,
        depends_on: Vec::new(),
        vars: BTreeMap::new(),
        update: UpdateSpec::default(),
        labels: BTreeMap::new(),
        tasks: BTreeMap::from([(Name::main(), main)]),
    }
}

pub(crate) fn submission(spec: &JobSpec) -> Submission {
    Submission {
        spec: spec.clone(),
        text: spec.name.as_str().into(),
        sets: BTreeMap::new(),
        if_version: None,
    }
}

pub(crate) fn info(cores: u32, gib: u64) -> NodeInfo {
    NodeInfo {
        hostname: "host".to_owned(),
        address: "127.0.0.1".to_owned(),
        arch: "amd64".to_owned(),
        os: "Debian GNU/Linux 12".to_owned(),
        kernel: "6.1".to_owned(),
        agent: "0.1.0".to_owned(),
        datacenter: None,
        labels: BTreeMap::new(),
        capacity: Capacity {
            cpu: MilliCores(cores * 1000),
            memory: Bytes::mib(gib * 1024),
            disk: Bytes(0),
            disk_rate: None,
            pids: None,
            ports_from: 20000,
            ports_to: 20009,
            gpus: Vec::new(),
        },
        drivers: vec![DriverKind::Process],
        log_dirs: Vec::new(),
        attributes: std::collections::BTreeMap::new(),
        format: 1,
    }
}

/// A node that is up.
pub(crate) fn node_record(name: Name, info: NodeInfo) -> NodeRecord {
    NodeRecord {
        name,
        info,
        status: loom_schemas::record::NodeStatus::Up,
        since: at(0),
        reason: None,
        generation: 0,
        back_by: None,
        lost: false,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        drain: None,
    }
}

pub(crate) fn hello_of(info: NodeInfo, runs: Vec<RunReport>) -> Hello {
    Hello {
        cluster: None,
        info,
        epoch: loom_schemas::ids::Epoch::default(),
        generation: 0,
        runs,
        holdings: Vec::new(),
    }
}

/// A report of a run that never was restarted.
pub(crate) fn report_of(slot: &loom_schemas::ids::Slot, run: RunId, state: RunState) -> RunReport {
    RunReport {
        run,
        placement: run,
        slot: slot.clone(),
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

/// A state with nodes `node-1` and so on, each of so many cores and twice as many GiB.
pub(crate) fn with_nodes(count: usize, cores: u32) -> State {
    let mut draft = Draft::new(State::default());
    for number in 1..=count {
        let hello = hello_of(info(cores, u64::from(cores) * 2), Vec::new());
        crate::decide::hello(
            &mut draft,
            &name(&format!("node-{number}")),
            &hello,
            false,
            at(0),
        );
    }
    draft.finish().unwrap().state
}

/// Edits a state in one draft.
pub(crate) fn decide(state: &State, edit: impl FnOnce(&mut Draft)) -> Decided {
    let mut draft = Draft::new(state.clone());
    edit(&mut draft);
    draft.finish().unwrap()
}

/// So many cases, or as `LOOM_HISTORIES` says; a failure is told with its input and not kept.
pub(crate) fn cases(count: u32) -> proptest::test_runner::Config {
    let asked = std::env::var("LOOM_HISTORIES")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = std::env::var("LOOM_SEED").ok();
    let seed = seed.and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    // Shown with what a test says when it fails.
    println!("LOOM_SEED={seed} tries the same cases again");
    proptest::test_runner::Config {
        cases: asked.unwrap_or(count),
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(seed),
        ..proptest::test_runner::Config::default()
    }
}

impl State {
    /// Whether the records are the same, but for the words in which slots wait: those are of when
    /// they were tried last.
    pub(crate) fn same_records(&self, other: &Self) -> bool {
        let wordless = |state: &Self| -> Vec<SlotRecord> {
            let slots = state.slots().map(|slot| SlotRecord {
                waiting: slot.waiting.as_ref().map(|_| String::new()),
                ..SlotRecord::clone(slot)
            });
            slots.collect()
        };
        let slots = wordless(self) == wordless(other);
        slots && self.jobs().eq(other.jobs()) && self.nodes == other.nodes
    }

    /// The same state as a manager has it that starts from the records.
    pub(crate) fn from_records(state: &State) -> State {
        let mut again = State::default();
        for (key, value) in state.all_records() {
            again.put_bytes(&key, &value);
        }
        again
    }
}
