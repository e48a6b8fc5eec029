//! Nodes of many kinds, and what is placed on them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use loom_manager::decide::{self, Asker, Submission};
use loom_manager::plan::{PlanOptions, plan_on};
use loom_manager::scheduler::Cluster;
use loom_manager::state::{Draft, State};
use loom_schemas::ids::{Epoch, Name, RunId, Slot};
use loom_schemas::record::{Capacity, NodeInfo, RunRecord};
use loom_schemas::spec::{JobSpec, Syntax, TaskSpec, read};
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::wire::{Hello, RunReport, TaintRequest};
use loom_schemas::words::{DriverKind, RunState, Strategy};
use uuid::Uuid;

const ASKER: Asker<'static> = Asker {
    user: "bench",
    admin: false,
    request: None,
};

/// How many different amounts the tasks on the node that dies ask for.
const KINDS: usize = 20;
/// Tasks on the node that dies, each of a job of its own.
const ON_THE_DEAD: usize = 200;

/// Nodes that said who they are.
pub(crate) fn fleet(count: usize) -> State {
    let mut state = State::default();
    edit(&mut state, |draft| {
        for number in 0..count {
            join(draft, number, at(0));
        }
    });
    state
}

/// A node says who it is; one of ten is for those that tolerate it, one of twenty the last choice of
/// the others.
pub(crate) fn join(draft: &mut Draft, number: usize, now: Timestamp) {
    decide::hello(draft, &node_name(number), &said(info(number)), false, now);
    let taint = match number % 20 {
        3 | 13 => "gpu:no-schedule",
        7 => "spare:prefer-not",
        _ => return,
    };
    let request = TaintRequest {
        node: node_name(number),
        set: vec![taint.to_owned()],
        remove: Vec::new(),
        after_ms: None,
    };
    decide::taint(draft, &request, ASKER, now).unwrap();
}

pub(crate) fn node_name(number: usize) -> Name {
    Name::new(&format!("node-{number:05}")).unwrap()
}

/// Nodes of four sizes, three datacenters, two architectures and a hundred racks.
pub(crate) fn info(number: usize) -> NodeInfo {
    let (cores, gib) = [(16, 64), (32, 128), (32, 256), (64, 256)][number % 4];
    let labels = [
        ("rack", format!("r{}", number % 100)),
        ("disk", ["ssd", "hdd", "nvme"][number % 3].to_owned()),
        ("generation", (number % 7).to_string()),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value));
    NodeInfo {
        hostname: format!("host-{number}"),
        address: format!(
            "10.{}.{}.{}",
            number >> 16,
            (number >> 8) & 255,
            number & 255
        ),
        arch: if number.is_multiple_of(5) {
            "arm64"
        } else {
            "amd64"
        }
        .to_owned(),
        os: "Debian GNU/Linux 12".to_owned(),
        kernel: format!("6.{}.0", number % 3),
        agent: "0.1.0".to_owned(),
        datacenter: Some(["east", "north", "west"][number % 3].to_owned()),
        labels: BTreeMap::from(labels),
        capacity: Capacity {
            cpu: MilliCores(cores * 1000),
            memory: Bytes::mib(gib * 1024),
            // What is free differs from node to node; agents say it to some percent.
            disk: Bytes::mib((64 + u64::try_from(number * 37 % 449).unwrap_or(0)) << 12),
            disk_rate: number.is_multiple_of(2).then_some(Bytes::mib(500)),
            pids: Some(28_672),
            ports_from: 20_000,
            ports_to: 29_999,
            gpus: Vec::new(),
        },
        drivers: vec![DriverKind::Process],
        log_dirs: Vec::new(),
        attributes: BTreeMap::new(),
        format: 1,
    }
}

pub(crate) fn said(info: NodeInfo) -> Hello {
    Hello {
        cluster: None,
        info,
        epoch: Epoch::default(),
        generation: 0,
        runs: Vec::new(),
        holdings: Vec::new(),
    }
}

/// A service of one task.
pub(crate) fn service(name: &str, replicas: usize, millicores: usize, mib: usize) -> JobSpec {
    service_with(name, replicas, millicores, mib, "")
}

fn service_with(name: &str, replicas: usize, millicores: usize, mib: usize, more: &str) -> JobSpec {
    let cores = millicores as f64 / 1000.0;
    let text = format!(
        "name: {name}\nexec: [serve]\nreplicas: {replicas}\ncpu: {cores}\nmemory: {mib}MiB\n{more}"
    );
    read(text.as_bytes(), Syntax::Yaml, "bench.yaml").unwrap()
}

pub(crate) fn task(millicores: usize, mib: usize) -> TaskSpec {
    main_of(service("bench", 1, millicores, mib))
}

fn main_of(spec: JobSpec) -> TaskSpec {
    spec.tasks.into_values().next().unwrap()
}

/// A task like no other: with amounts, constraints and affinities that are its own.
pub(crate) fn different(number: usize) -> TaskSpec {
    let arch = ["arch == amd64", "arch is_set"][number % 2];
    let tolerations = ["", "tolerations: [gpu]\n"][number % 2];
    let more = format!(
        "constraints:\n- {arch}\n- node.label.rack != r{}\n- memory >= {}MiB\n\
         affinities:\n- {{match: node.label.disk == {}, weight: {}}}\n\
         - {{match: node.label.rack regexp ^r{}, weight: {}}}\n\
         - {{match: node.label.generation >= {}, weight: -{}}}\n{tolerations}",
        number % 100,
        16 + number % 60_000,
        ["ssd", "hdd", "nvme"][number % 3],
        1 + number % 100,
        number % 10,
        1 + number % 89,
        number % 7,
        1 + number % 97,
    );
    let (millicores, mib) = (100 + number % 997, 128 + number % 1009);
    main_of(service_with("bench", 1, millicores, mib, &more))
}

/// A task whose replicas are spread over racks.
pub(crate) fn spreading() -> TaskSpec {
    let more = "spread: [{over: node.label.rack, weight: 100}]\n";
    main_of(service_with("bench", 1, 250, 512, more))
}

pub(crate) fn submit(state: &mut State, spec: &JobSpec) {
    let submission = Submission {
        spec: spec.clone(),
        text: spec.name.as_str().into(),
        sets: BTreeMap::new(),
        if_version: None,
    };
    edit(state, |draft| {
        decide::submit(draft, submission, ASKER, at(0)).unwrap();
    });
}

/// Passes until nothing is left to plan, each whole: planned, compared and encoded for the log. How
/// long planning alone took.
pub(crate) fn settle(
    state: &mut State,
    cluster: &mut Cluster,
    now: Timestamp,
    ids: &mut dyn FnMut() -> RunId,
) -> Duration {
    let mut planning = Duration::ZERO;
    let options = PlanOptions {
        slots: 256,
        ..PlanOptions::default()
    };
    loop {
        let mut draft = Draft::new(state.clone());
        let begun = Instant::now();
        let planned = plan_on(cluster, &mut draft, now, &options, ids);
        planning += begun.elapsed();
        *state = draft.finish().unwrap().state;
        if !planned.more {
            return planning;
        }
    }
}

/// 5,000 nodes of which one just died, and it held tasks of as many jobs.
pub(crate) fn with_a_dead_node(ids: &mut dyn FnMut() -> RunId) -> (State, Cluster) {
    let mut cluster = Cluster::empty(Strategy::Epvm);
    let mut state = State::default();
    let dying = node_name(0);
    let large = NodeInfo {
        capacity: info(3).capacity,
        ..info(0)
    };
    edit(&mut state, |draft| {
        decide::hello(draft, &dying, &said(large), false, at(0));
    });
    for number in 0..ON_THE_DEAD {
        let millicores = 10 * (1 + number % KINDS);
        submit(
            &mut state,
            &service(&format!("there-{number}"), 1, millicores, 64),
        );
    }
    settle(&mut state, &mut cluster, at(0), ids);
    edit(&mut state, |draft| {
        for number in 1..5000 {
            join(draft, number, at(1));
        }
    });
    for number in 0..2000 {
        submit(
            &mut state,
            &service(&format!("elsewhere-{number}"), 10, 250, 512),
        );
        settle(&mut state, &mut cluster, at(1), ids);
    }
    let held = state.load(&dying).map_or(0, |load| load.placements.len());
    assert!(held >= ON_THE_DEAD, "the node has {held} tasks");
    edit(&mut state, |draft| {
        decide::node_lost(draft, &dying, "bench", None, at(2)).unwrap();
    });
    (state, cluster)
}

/// 5,000 nodes, all their cores taken by runs of 4 cores each, some 45,000 of 100 jobs.
pub(crate) fn full() -> (State, Cluster, impl FnMut() -> RunId) {
    full_of(500, "")
}

/// Nearly the same, of runs of which it is known when they have ended.
pub(crate) fn full_of_timed() -> (State, Cluster, impl FnMut() -> RunId) {
    full_of(450, "kind: batch\ntimeout: 1h\nrestart: {on: never}\n")
}

fn full_of(replicas: usize, more: &str) -> (State, Cluster, impl FnMut() -> RunId + use<>) {
    let mut ids = counter();
    let mut cluster = Cluster::empty(Strategy::Epvm);
    let mut state = fleet(5000);
    let more = format!("tolerations: [gpu]\n{more}");
    for number in 0..100 {
        let spec = service_with(&format!("low-{number}"), replicas, 4000, 64, &more);
        submit(&mut state, &spec);
        settle(&mut state, &mut cluster, at(1), &mut ids);
    }
    (state, cluster, ids)
}

/// A batch of 10,000 replicas on nodes with room for a part of them.
pub(crate) fn queued() -> (State, Cluster, impl FnMut() -> RunId) {
    let mut state = fleet(100);
    let mut cluster = Cluster::empty(Strategy::Epvm);
    let mut ids = counter();
    let many = service_with("many", 10_000, 1000, 64, "kind: batch\n");
    submit(&mut state, &many);
    settle(&mut state, &mut cluster, at(1), &mut ids);
    (state, cluster, ids)
}

/// 5,000 nodes, of which half came when all that runs was there.
pub(crate) fn half_empty() -> State {
    let mut state = serving(2500);
    edit(&mut state, |draft| {
        for number in 2500..5000 {
            join(draft, number, at(2));
        }
    });
    state
}

/// 5,000 nodes that hold what was placed on all of them.
pub(crate) fn quiet() -> State {
    serving(5000)
}

/// So many nodes on which 20,000 runs of 2,000 services run.
fn serving(nodes: usize) -> State {
    let mut ids = counter();
    let mut cluster = Cluster::empty(Strategy::Epvm);
    let mut state = fleet(nodes);
    for number in 0..2000 {
        let name = format!("job-{number}");
        submit(&mut state, &service(&name, 10, 250 + number % 7, 512));
        settle(&mut state, &mut cluster, at(1), &mut ids);
    }
    let runs: Vec<(Slot, RunRecord)> = state
        .slots()
        .filter_map(|record| Some((record.slot.clone(), record.current.clone()?)))
        .collect();
    edit(&mut state, |draft| {
        for (slot, run) in runs {
            let node = run.node.clone().unwrap();
            decide::report(draft, &node, &[runs_now(&slot, &run)], false, at(2));
        }
    });
    state
}

/// One run of a job has completed.
pub(crate) fn completes(state: &mut State, job: &str, index: u32, now: Timestamp) {
    let slot = Slot::new(job.parse().unwrap(), Name::main(), index);
    let run = state.slot(&slot).unwrap().current.clone().unwrap();
    let report = RunReport {
        state: RunState::Completed,
        ended_at: Some(now),
        change: 2,
        ..runs_now(&slot, &run)
    };
    edit(state, |draft| {
        decide::report(draft, &run.node.unwrap(), &[report], false, now);
    });
}

fn runs_now(slot: &Slot, run: &RunRecord) -> RunReport {
    let report = serde_json::json!({
        "slot": slot,
        "run": run.run,
        "placement": run.placement,
        "version": run.version,
        "state": RunState::Running,
        "started_at": at(2),
        "change": 1,
    });
    serde_json::from_value(report).unwrap()
}

pub(crate) fn edit(state: &mut State, edit: impl FnOnce(&mut Draft)) {
    let mut draft = Draft::new(state.clone());
    edit(&mut draft);
    *state = draft.finish().unwrap().state;
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_700_000_000 + seconds)
}

pub(crate) fn counter() -> impl FnMut() -> RunId {
    let mut next = 0u128;
    move || {
        next += 1;
        RunId(Uuid::from_u128((0x7000 << 64) | (0x8000 << 48) | next))
    }
}
