//! Figures of a job's life in the pure core: what it costs to validate and plan a job of 1,000
//! tasks, and what one changed job costs among 10,000 others.
//!
//! `cargo run --release -p loom-manager --example bench_life` prints a table and then JSON, one line
//! a figure. It needs no server: everything measured is a function of what it is given.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use loom_manager::decide::{self, Asker, Submission};
use loom_manager::plan::{PlanOptions, plan_on, preview};
use loom_manager::scheduler::Cluster;
use loom_manager::state::{Draft, State, live_runs};
use loom_schemas::ids::{Epoch, Name, RunId, Slot};
use loom_schemas::record::{Capacity, Marks, NodeInfo, Order, RunRecord};
use loom_schemas::spec::{JobSpec, Syntax, read};
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::wire::{Hello, PlanAction, RunReport};
use loom_schemas::words::{DriverKind, RunState};
use serde_json::json;
use uuid::Uuid;

// The allocator of loomctl.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tasks of the large job.
const TASKS: usize = 1000;
/// Jobs beside the one that changes.
const OTHERS: usize = 10_000;
/// Measurements of one figure.
const RUNS: usize = 41;
/// Changes of the one job; alone and among the others take turns, so that both see the same machine.
const CHANGES: usize = 1001;

const ASKER: Asker<'static> = Asker {
    user: "bench",
    admin: false,
    request: None,
};

fn main() {
    println!("the life of a job, {TASKS} tasks, or one job of {OTHERS}");
    large_job();
    one_of_many();
}

/// A job of many tasks: read and validated, planned when it is new, and when one task has changed.
fn large_job() {
    let (text, changed_text) = (large_text("one"), large_text("other"));
    let spec = read(text.as_bytes(), Syntax::Yaml, "big.yaml").unwrap();
    let changed = read(changed_text.as_bytes(), Syntax::Yaml, "big.yaml").unwrap();
    let empty = cluster(50);
    let mut running = empty.clone();
    let mut ids = counter();
    edit(&mut running, |draft| {
        decide::submit(draft, submission(&spec, &text), ASKER, at(0)).unwrap();
    });
    settle(&mut running, at(0), &mut ids);
    assert_eq!(running.slots().count(), TASKS, "every task has its slot");

    let mut reading = Vec::new();
    let mut whole = |state: &State, text: &str, spec: &JobSpec, action: PlanAction| {
        let mut planning = Vec::new();
        let mut both = Vec::new();
        for _ in 0..RUNS {
            let begun = Instant::now();
            let read = read(text.as_bytes(), Syntax::Yaml, "big.yaml").unwrap();
            let read_in = begun.elapsed();
            assert_eq!(read, *spec);
            let submission = submission(&read, text);
            let begun = Instant::now();
            let options = PlanOptions::default();
            let found = preview(state, submission, ASKER, &options, at(1), &mut counter()).unwrap();
            let planned_in = begun.elapsed();
            assert!(found.tasks.iter().any(|task| task.action == action));
            assert!(found.blocked.is_empty(), "{:?}", found.blocked);
            reading.push(millis(read_in));
            planning.push(millis(planned_in));
            both.push(millis(read_in + planned_in));
        }
        (planning, both)
    };
    let new = whole(&empty, &text, &spec, PlanAction::Create);
    let update = whole(&running, &changed_text, &changed, PlanAction::Replace);
    figure("life_read_1000_ms", "ms", &reading, None, "-");
    figure("life_plan_1000_new_ms", "ms", &new.0, None, "-");
    figure("life_plan_1000_changed_ms", "ms", &update.0, None, "-");
    figure("life_validate_and_plan_new_ms", "ms", &new.1, None, "20");
    figure(
        "life_validate_and_plan_changed_ms",
        "ms",
        &update.1,
        None,
        "20",
    );
}

/// One job is changed, its run ends and the next is placed: alone, and among many jobs.
fn one_of_many() {
    let mut alone = Many::new(0);
    let mut among = Many::new(OTHERS);
    let (mut of_alone, mut of_among) = (Vec::new(), Vec::new());
    for change in 0..CHANGES {
        of_alone.push(alone.change(change));
        of_among.push(among.change(change));
    }
    let raw = median(&of_alone);
    figure(
        "life_one_of_10000_us",
        "us",
        &of_among,
        Some(raw),
        "ratio 1.2",
    );
}

/// A cluster of jobs of one task each, of which the first is changed.
struct Many {
    state: State,
    /// Kept from pass to pass, as a leader does.
    cluster: Cluster,
    ids: Box<dyn FnMut() -> RunId>,
}

impl Many {
    fn new(others: usize) -> Self {
        let mut state = cluster(100);
        let ids: Box<dyn FnMut() -> RunId> = Box::new(counter());
        let mut names = Vec::new();
        for number in 0..=others {
            let (spec, text) = small_job(number, "first");
            names.push(spec.name.clone());
            edit(&mut state, |draft| {
                decide::submit(draft, submission(&spec, &text), ASKER, at(0)).unwrap();
            });
        }
        let cluster = Cluster::empty(PlanOptions::default().strategy);
        let mut many = Self {
            state,
            cluster,
            ids,
        };
        many.settle(at(0));
        let up = many.report(&names, RunState::Running, at(1));
        assert_eq!(up, others + 1, "every job runs");
        many.settle(at(1));
        many
    }

    fn settle(&mut self, now: Timestamp) {
        settle_on(&mut self.cluster, &mut self.state, now, &mut self.ids);
    }

    /// Microseconds to take a change in, have the old run end, and place the new one.
    fn change(&mut self, number: usize) -> f64 {
        let now = at(i64::try_from(number).unwrap() + 2);
        let (spec, text) = small_job(0, &number.to_string());
        let names = [spec.name.clone()];
        let submission = submission(&spec, &text);
        let begun = Instant::now();
        edit(&mut self.state, |draft| {
            decide::submit(draft, submission, ASKER, now).unwrap();
        });
        self.settle(now);
        let ended = self.report(&names, RunState::Killed, now);
        self.settle(now);
        let up = self.report(&names, RunState::Running, now);
        self.settle(now);
        let took = begun.elapsed();
        assert_eq!((ended, up), (1, 1), "one run followed another");
        took.as_secs_f64() * 1e6
    }

    /// Nodes say that what they are to run runs, or that what they are to stop was killed; of how
    /// many runs.
    fn report(&mut self, jobs: &[Name], state: RunState, now: Timestamp) -> usize {
        let mut reports: BTreeMap<Name, Vec<RunReport>> = BTreeMap::new();
        for record in jobs.iter().flat_map(|job| self.state.slots_of(job)) {
            for run in live_runs(record) {
                let stops = run.order != Order::Run;
                if stops != state.is_terminal() || run.state == state {
                    continue;
                }
                let node = run.node.clone().unwrap();
                let of_node = reports.entry(node).or_default();
                of_node.push(report(&record.slot, run, state, now));
            }
        }
        let count = reports.values().map(Vec::len).sum();
        for (node, reports) in reports {
            edit(&mut self.state, |draft| {
                decide::report(draft, &node, &reports, false, now);
            });
        }
        count
    }
}

fn report(slot: &Slot, run: &RunRecord, state: RunState, now: Timestamp) -> RunReport {
    RunReport {
        run: run.run,
        placement: run.placement,
        slot: slot.clone(),
        version: run.version,
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
        limits: loom_schemas::record::Limits::default(),
        unenforced: Vec::new(),
        filled: BTreeMap::new(),
        result: None,
        started_at: Some(now),
        ended_at: state.is_terminal().then_some(now),
        change: 0,
    }
}

/// A job file of many tasks, the last of them with an argument of its own.
fn large_text(last: &str) -> String {
    let mut text = "name: big\nlabels: {team: bench}\ntasks:\n".to_owned();
    for number in 0..TASKS {
        let arg = if number + 1 == TASKS { last } else { "one" };
        writeln!(
            text,
            "  task-{number}:\n    exec: [sleep, \"600\", {arg}]\n    cpu: 0.01\n    memory: 4MiB\n    \
             env: {{MODE: fast, NUMBER: \"{number}\"}}\n    restart: {{delay: 2s}}"
        )
        .unwrap();
    }
    text
}

fn small_job(number: usize, arg: &str) -> (JobSpec, String) {
    let text = format!(
        "name: job-{number}\nexec: [sleep, \"600\", {arg:?}]\ncpu: 0.01\nmemory: 4MiB\nupdate: \
         {{order: stop-first, healthy_for: 0s}}\n"
    );
    (
        read(text.as_bytes(), Syntax::Yaml, "job.yaml").unwrap(),
        text,
    )
}

fn submission(spec: &JobSpec, text: &str) -> Submission {
    Submission {
        spec: spec.clone(),
        text: text.as_bytes().to_vec(),
        sets: BTreeMap::new(),
        if_version: None,
    }
}

/// A state with so many nodes, each of 64 cores.
fn cluster(nodes: usize) -> State {
    let info = NodeInfo {
        hostname: "host".to_owned(),
        address: "127.0.0.1".to_owned(),
        arch: "amd64".to_owned(),
        os: "Debian GNU/Linux 12".to_owned(),
        kernel: "6.1".to_owned(),
        agent: "0.1.0".to_owned(),
        datacenter: None,
        labels: BTreeMap::new(),
        capacity: Capacity {
            cpu: MilliCores(64_000),
            memory: Bytes::mib(131_072),
            disk: Bytes(0),
            disk_rate: None,
            pids: None,
            ports_from: 20000,
            ports_to: 29999,
            gpus: Vec::new(),
        },
        drivers: vec![DriverKind::Process],
        log_dirs: Vec::new(),
        attributes: BTreeMap::new(),
        format: 1,
    };
    let mut state = State::default();
    edit(&mut state, |draft| {
        for number in 1..=nodes {
            let hello = Hello {
                cluster: None,
                info: info.clone(),
                epoch: Epoch::default(),
                generation: 0,
                runs: Vec::new(),
                holdings: Vec::new(),
            };
            let name = Name::new(&format!("node-{number}")).unwrap();
            decide::hello(draft, &name, &hello, false, at(0));
        }
    });
    state
}

/// Edits the state as one commit does, its bytes included.
fn edit(state: &mut State, edit: impl FnOnce(&mut Draft)) {
    let mut draft = Draft::new(state.clone());
    edit(&mut draft);
    *state = draft.finish().unwrap().state;
}

/// Plans until nothing is left.
fn settle(state: &mut State, now: Timestamp, ids: &mut dyn FnMut() -> RunId) {
    let mut cluster = Cluster::empty(PlanOptions::default().strategy);
    settle_on(&mut cluster, state, now, ids);
}

fn settle_on(
    cluster: &mut Cluster,
    state: &mut State,
    now: Timestamp,
    ids: &mut dyn FnMut() -> RunId,
) {
    let mut more = true;
    while more {
        edit(state, |draft| {
            more = plan_on(cluster, draft, now, &PlanOptions::default(), ids).more;
        });
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_700_000_000 + seconds)
}

/// Run ids that count.
fn counter() -> impl FnMut() -> RunId {
    let mut next = (0x7000_u128 << 64) | (0x8000_u128 << 48);
    move || {
        next += 1;
        RunId(Uuid::from_u128(next))
    }
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a short list"
    )]
    let at = ((sorted.len() - 1) as f64 * q).round() as usize;
    sorted[at]
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

fn figure(name: &str, unit: &str, values: &[f64], raw: Option<f64>, bar: &str) {
    let (value, low, high) = (median(values), quantile(values, 0.1), quantile(values, 0.9));
    let ratio = raw.map(|raw| value / raw);
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"));
    println!(
        "{name:<34} {value:>9.2} {unit}  raw {:>7}  ratio {:>5}  spread {low:.2} to {high:.2}  bar {bar}",
        shown(raw),
        shown(ratio)
    );
    println!(
        "{}",
        json!({
            "figure": name, "value": value, "unit": unit, "raw": raw, "ratio": ratio,
            "runs": values.len(), "spread": [low, high],
        })
    );
}
