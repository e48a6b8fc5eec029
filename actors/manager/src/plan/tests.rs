//! Laws over generated histories of a small cluster whose nodes obey, fail, fall silent, forget,
//! and report late, twice and in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{Exit, Marks, Order, RunRecord};
use loom_schemas::spec::JobSpec;
use loom_schemas::wire::{
    Assigned, Bye, JobAddress, JobRequest, RunReport, ScaleRequest,
};
use loom_schemas::words::{JobStatus, Kind, RunState, Strategy};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use super::{PlanOptions, Planned, assignment, plan};
use crate::decide;
use crate::state::fixture::{ANNA, at, hello_of, info, job, name, run_id, submission, task};
use crate::scheduler::{Room, fits};
use crate::state::{Draft, State, is_live, live_runs};

/// How many histories are tried; `LOOM_HISTORIES` says otherwise.
const HISTORIES: u32 = 20_000;

const NODES: usize = 3;
const STRATEGIES: [Strategy; 4] =
    [Strategy::Epvm, Strategy::Binpack, Strategy::Spread, Strategy::RoundRobin];

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Submit { job: u8, replicas: u8, variant: u8 },
    Stop { job: u8, index: Option<u8> },
    Restart { job: u8, index: Option<u8> },
    Scale { job: u8, replicas: u8 },
    /// The nodes carry out what they were told.
    Work,
    /// A run on a node ends by itself.
    Ends { node: u8, which: u8, code: u8 },
    /// Reports arrive: so many, from a place in the queue, some of them again later.
    Arrive { from: u8, count: u8, again: bool },
    Silent { node: u8 },
    /// The node is heard again and says hello.
    Back { node: u8 },
    /// The node says bye and is away for a while.
    Bye { node: u8 },
    /// The node loses everything it had.
    Forgets { node: u8 },
    Passes { seconds: u8 },
}

fn happens() -> impl Strategy_<Value = Happens> {
    let index = || prop_oneof![2 => Just(None), 1 => (0..3u8).prop_map(Some)];
    prop_oneof![
        4 => (0..2u8, 0..4u8, 0..3u8).prop_map(|(job, replicas, variant)| Happens::Submit {
            job, replicas, variant
        }),
        1 => (0..2u8, index()).prop_map(|(job, index)| Happens::Stop { job, index }),
        1 => (0..2u8, index()).prop_map(|(job, index)| Happens::Restart { job, index }),
        1 => (0..2u8, 0..4u8).prop_map(|(job, replicas)| Happens::Scale { job, replicas }),
        5 => Just(Happens::Work),
        3 => (0..3u8, 0..4u8, 0..2u8).prop_map(|(node, which, code)| Happens::Ends {
            node, which, code
        }),
        5 => (any::<u8>(), 1..6u8, any::<bool>()).prop_map(|(from, count, again)| {
            Happens::Arrive { from, count, again }
        }),
        1 => (0..3u8).prop_map(|node| Happens::Silent { node }),
        1 => (0..3u8).prop_map(|node| Happens::Back { node }),
        1 => (0..3u8).prop_map(|node| Happens::Bye { node }),
        1 => (0..3u8).prop_map(|node| Happens::Forgets { node }),
        2 => (1..50u8).prop_map(|seconds| Happens::Passes { seconds }),
    ]
}

use proptest::strategy::Strategy as Strategy_;

/// What a node has of one placement.
#[derive(Clone, Debug)]
struct Held {
    report: RunReport,
    restarts_obeyed: u32,
    starts: u32,
}

#[derive(Clone, Debug, Default)]
struct SimNode {
    silent: bool,
    told: BTreeMap<RunId, Assigned>,
    held: BTreeMap<RunId, Held>,
}

struct World {
    state: State,
    options: PlanOptions,
    now: Timestamp,
    nodes: BTreeMap<Name, SimNode>,
    wire: Vec<(Name, RunReport)>,
    next_id: u64,
    /// Every run ever seen, with its slot.
    named: BTreeMap<RunId, Slot>,
}

impl World {
    fn new(strategy: Strategy) -> Self {
        let mut world = Self {
            state: State::default(),
            options: PlanOptions { strategy, slots: 4, ..PlanOptions::default() },
            now: at(0),
            nodes: BTreeMap::new(),
            wire: Vec::new(),
            next_id: 0,
            named: BTreeMap::new(),
        };
        for number in 1..=NODES {
            world.nodes.insert(name(&format!("node-{number}")), SimNode::default());
        }
        for node in world.nodes.keys().cloned().collect::<Vec<_>>() {
            world.hello(&node);
        }
        world
    }

    fn node_name(which: u8) -> Name {
        name(&format!("node-{}", usize::from(which) % NODES + 1))
    }

    /// Decides, hands the assignments out, and looks at what must always hold.
    fn decide<R>(&mut self, edit: impl FnOnce(&mut Draft, Timestamp) -> R) -> R {
        let mut draft = Draft::new(self.state.clone());
        let result = edit(&mut draft, self.now);
        let decided = draft.finish().unwrap();
        for (node, delta) in &decided.assigns {
            let sim = self.nodes.get_mut(node).unwrap();
            let message = delta.message(&decided.state, "c", loom_schemas::ids::Epoch::default());
            for assigned in message.put {
                sim.told.insert(assigned.placement, assigned);
            }
            for placement in message.remove {
                sim.told.remove(&placement);
                if !sim.silent {
                    sim.held.remove(&placement);
                }
            }
        }
        self.state = decided.state;
        self.check();
        result
    }

    fn check(&mut self) {
        for record in self.state.slots() {
            let live = live_runs(record).filter(|run| run.order == Order::Run).count();
            assert!(live <= 1, "{} has {live} live runs", record.slot);
            for run in record.current.iter().chain(&record.ended) {
                let slot = self.named.entry(run.run).or_insert_with(|| record.slot.clone());
                assert_eq!(*slot, record.slot, "a run is in one slot");
            }
            let mut runs: Vec<RunId> =
                record.current.iter().chain(&record.ended).map(|run| run.run).collect();
            let all = runs.len();
            runs.sort();
            runs.dedup();
            assert_eq!(runs.len(), all, "a run is in {} twice", record.slot);
        }
        for node in self.state.nodes() {
            let Some(load) = self.state.load(&node.name) else { continue };
            assert!(load.cpu <= u64::from(node.info.capacity.cpu.0), "cpu of {}", node.name);
            assert!(load.memory <= node.info.capacity.memory.0, "memory of {}", node.name);
            assert!(load.ports.values().all(|count| *count == 1), "a port is held twice");
        }
    }

    /// Deltas add up to the whole assignment, beside orders to stop the unknown.
    fn check_told(&self) {
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
                assert!(whole.contains_key(placement) || stops, "{node} was not told to forget");
            }
        }
    }

    fn plan_once(&mut self) -> Planned {
        let options = self.options.clone();
        let mut next = self.next_id;
        let planned = self.decide(|draft, now| {
            plan(draft, now, &options, &mut || {
                next += 1;
                run_id(next << 20)
            })
        });
        self.next_id = next;
        planned
    }

    /// Plans until nothing is left, then once more over everything: nothing may change.
    fn plan(&mut self) {
        for _ in 0..200 {
            if !self.plan_once().more {
                self.check_stopped();
                let mut state = self.state.clone();
                state.mark_all_dirty();
                let mut draft = Draft::new(state);
                let again = plan(&mut draft, self.now, &PlanOptions {
                    slots: 1000,
                    ..self.options.clone()
                }, &mut || run_id(u64::MAX));
                assert!(!again.more);
                let decided = draft.finish().unwrap();
                assert_eq!(decided.changes, [], "planning again changes something");
                assert_eq!(decided.events, [], "planning again tells something");
                self.check_told();
                return;
            }
        }
        panic!("planning does not settle");
    }

    fn check_stopped(&self) {
        for job in self.state.jobs() {
            for record in self.state.slots_of(&job.name) {
                for run in live_runs(record) {
                    assert!(!job.status.is_terminal(), "{} runs after its end", record.slot);
                    if job.wanted != loom_schemas::record::Wanted::Run {
                        assert_ne!(run.order, Order::Run, "{} of a stopped job", record.slot);
                    }
                }
            }
        }
    }

    fn hello(&mut self, node: &Name) {
        let sim = self.nodes.get_mut(node).unwrap();
        sim.silent = false;
        let hello = hello_of(info(4, 8), sim.held.values().map(|h| h.report.clone()).collect());
        // What it says now it need not say again.
        self.wire.retain(|(from, _)| from != node);
        self.decide(|draft, now| decide::hello(draft, node, &hello, false, now));
        let whole = assignment(&self.state, node);
        let sim = self.nodes.get_mut(node).unwrap();
        sim.told.retain(|placement, _| sim.held.contains_key(placement));
        sim.told.extend(whole.into_iter().map(|assigned| (assigned.placement, assigned)));
    }

    fn job(which: u8) -> Name {
        name(if which == 0 { "svc" } else { "bat" })
    }

    fn address(which: u8, index: Option<u8>) -> JobRequest {
        let index = index.map(u32::from);
        let address = JobAddress { job: Self::job(which), task: None, index };
        JobRequest { address, reason: None }
    }

    fn spec(which: u8, replicas: u8, variant: u8) -> JobSpec {
        let kind = if which == 0 { Kind::Service } else { Kind::Batch };
        let mut main = task(u32::from(replicas));
        if variant > 0 {
            main.args = vec![variant.to_string()];
        }
        if which == 0 {
            let port = loom_schemas::spec::PortSpec {
                port: None,
                host: None,
                protocol: loom_schemas::spec::Protocol::Tcp,
            };
            main.ports.insert(name("http"), port);
        }
        job(Self::job(which).as_str(), kind, main)
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Submit { job, replicas, variant } => {
                let submission = submission(&Self::spec(job, replicas, variant));
                self.decide(|d, now| decide::submit(d, submission, ANNA, now)).unwrap();
            }
            Happens::Stop { job, index } => {
                let request = Self::address(job, index);
                drop(self.decide(|d, _| decide::stop(d, &request, ANNA)));
            }
            Happens::Restart { job, index } => {
                let request = Self::address(job, index);
                drop(self.decide(|d, now| decide::restart(d, &request, ANNA, now)));
            }
            Happens::Scale { job, replicas } => {
                let (job, replicas) = (Self::job(job), u32::from(replicas));
                let request = ScaleRequest { job, task: None, replicas };
                drop(self.decide(|d, now| decide::scale(d, &request, ANNA, now)));
            }
            Happens::Work => self.work(),
            Happens::Ends { node, which, code } => self.ends(&Self::node_name(node), which, code),
            Happens::Arrive { from, count, again } => self.arrive(from, count, again),
            Happens::Silent { node } => {
                let node = Self::node_name(node);
                self.nodes.get_mut(&node).unwrap().silent = true;
                self.decide(|draft, now| decide::node_down(draft, &node, "silent", now));
            }
            Happens::Back { node } => self.hello(&Self::node_name(node)),
            Happens::Bye { node } => {
                let (node, bye) = (Self::node_name(node), Bye { back_within: Some(60) });
                self.nodes.get_mut(&node).unwrap().silent = true;
                self.decide(|draft, now| decide::bye(draft, &node, &bye, now));
            }
            Happens::Forgets { node } => {
                let node = Self::node_name(node);
                self.nodes.get_mut(&node).unwrap().held.clear();
                self.hello(&node);
            }
            Happens::Passes { seconds } => {
                self.now += SignedDuration::from_secs(i64::from(seconds));
            }
        }
    }

    fn arrive(&mut self, from: u8, count: u8, again: bool) {
        for _ in 0..count {
            if self.wire.is_empty() {
                return;
            }
            let at = usize::from(from) % self.wire.len();
            let (node, report) = self.wire.remove(at);
            if again {
                self.wire.push((node.clone(), report.clone()));
            }
            self.decide(|d, now| decide::report(d, &node, &[report], false, now));
        }
    }

    /// Every node that is not cut off does what it was told.
    fn work(&mut self) {
        for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
            if !self.nodes[&node].silent {
                self.node_works(&node);
            }
        }
    }

    fn node_works(&mut self, node: &Name) {
        let (now, next_id) = (self.now, &mut self.next_id);
        let sim = self.nodes.get_mut(node).unwrap();
        for (placement, told) in &sim.told {
            let held = sim.held.entry(*placement).or_insert_with(|| Held {
                report: first_report(told),
                restarts_obeyed: told.restart,
                starts: 1,
            });
            held.report.passed.clear();
            let over = held.report.state.is_terminal();
            if told.order != Order::Run {
                if over && !held.report.will_restart {
                    // Said again until it may be forgotten.
                } else if over {
                    held.report.will_restart = false;
                } else {
                    end(&mut held.report, RunState::Killed, 143, now);
                }
            } else if over && held.report.will_restart {
                *next_id += 1;
                held.starts += 1;
                held.report = next_report(&held.report, run_id(*next_id << 20));
            } else if !over && held.restarts_obeyed < told.restart {
                held.restarts_obeyed = told.restart;
                end(&mut held.report, RunState::Killed, 143, now);
                held.report.will_restart = true;
            } else if !over && held.report.state != RunState::Running {
                held.report.passed = vec![RunState::Preparing, RunState::Starting];
                held.report.state = RunState::Running;
                held.report.started_at = Some(now);
            }
            self.wire.push((node.clone(), held.report.clone()));
        }
        if self.wire.len() > 60 {
            // A journal of reports is folded: only the newest of a run is kept.
            let mut seen = BTreeSet::new();
            let mut folded: Vec<_> =
                self.wire.drain(..).rev().filter(|(_, r)| seen.insert(r.run)).collect();
            folded.reverse();
            self.wire = folded;
        }
    }

    fn ends(&mut self, node: &Name, which: u8, code: u8) {
        let now = self.now;
        let sim = self.nodes.get_mut(node).unwrap();
        let running = sim.held.iter_mut().filter(|(_, h)| h.report.state == RunState::Running);
        let running: Vec<_> = running.collect();
        let count = running.len();
        let Some((placement, held)) =
            running.into_iter().nth(usize::from(which) % count.max(1))
        else {
            return;
        };
        let Some(told) = sim.told.get(placement) else { return };
        let state = if code == 0 { RunState::Completed } else { RunState::Failed };
        end(&mut held.report, state, i32::from(code), now);
        let again = told.kind == Kind::Service || code != 0;
        held.report.will_restart = again && told.order == Order::Run && held.starts < 2;
        self.wire.push((node.clone(), held.report.clone()));
    }

    /// Everybody is back, everything arrives, enough time passes: until nothing changes.
    fn settle(&mut self) {
        for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.hello(&node);
        }
        for _ in 0..60 {
            self.plan();
            self.work();
            self.wire.reverse();
            let (from, before) = (0, self.state.clone());
            while !self.wire.is_empty() {
                self.arrive(from, 50, false);
            }
            self.plan();
            let same = before.all_records().eq(self.state.all_records());
            if same && self.state.next_delay(self.now).is_none() && self.quiet() {
                return;
            }
            if same {
                self.now += SignedDuration::from_secs(61);
            }
        }
        panic!("the cluster does not settle");
    }

    fn quiet(&self) -> bool {
        self.nodes.values().all(|sim| {
            sim.told.iter().all(|(placement, told)| {
                let held = sim.held.get(placement).map(|held| &held.report);
                told.order == Order::Run
                    && held.is_some_and(|report| report.state == RunState::Running)
            })
        })
    }

    /// A slot that could be placed is running or done.
    fn check_settled(&self) {
        for job in self.state.jobs() {
            let spec = self.state.spec(job).unwrap();
            let wanted = job.wanted == loom_schemas::record::Wanted::Run;
            assert!(wanted || job.status == JobStatus::Killed, "{} {:?}", job.name, job.status);
            if !wanted || job.status.is_terminal() {
                continue;
            }
            for record in self.state.slots_of(&job.name) {
                let at = (record.slot.task.clone(), record.slot.index);
                if job.stopped_slots.contains(&at) {
                    continue;
                }
                let run: Option<&RunRecord> = record.current.as_ref();
                let done = run.is_some_and(|run| {
                    run.state == RunState::Running || run.state == RunState::Completed
                });
                if !done {
                    let request = crate::scheduler::Request::of(&spec.tasks[&Name::main()]);
                    let fits_somewhere = self.state.nodes().any(|node| {
                        fits(&Room::of(node, self.state.load(&node.name)), &request).is_ok()
                    });
                    assert!(record.waiting.is_some(), "{record:?}");
                    assert!(!fits_somewhere, "{} waits though it fits", record.slot);
                }
                let outdated = run.is_some_and(|run| is_live(run) && run.version != job.version);
                assert!(!outdated, "{} is not of version {}", record.slot, job.version);
            }
        }
    }
}

fn first_report(told: &Assigned) -> RunReport {
    RunReport {
        version: told.version,
        ..crate::state::fixture::report_of(&told.slot, told.placement, RunState::Preparing)
    }
}

fn next_report(former: &RunReport, run: RunId) -> RunReport {
    RunReport {
        run,
        state: RunState::Preparing,
        restarts: former.restarts + 1,
        will_restart: false,
        marks: Marks::default(),
        exit: None,
        started_at: None,
        ended_at: None,
        passed: Vec::new(),
        ..former.clone()
    }
}

fn end(report: &mut RunReport, state: RunState, code: i32, now: Timestamp) {
    report.state = state;
    report.exit = Some(Exit { code: Some(code), ..Exit::default() });
    report.ended_at = Some(now);
}

fn config() -> Config {
    let histories = std::env::var("LOOM_HISTORIES").ok().and_then(|text| text.parse().ok());
    Config {
        cases: histories.unwrap_or(HISTORIES),
        max_shrink_iters: 2000,
        failure_persistence: None,
        rng_seed: match std::env::var("LOOM_SEED").ok().and_then(|text| text.parse().ok()) {
            Some(seed) => RngSeed::Fixed(seed),
            None => RngSeed::Random,
        },
        ..Config::default()
    }
}

fn history(which: Strategy, story: &[Happens]) {
    let mut world = World::new(which);
    for what in story {
        world.happen(*what);
        world.plan();
    }
    world.settle();
    world.check_settled();
    for job in [0, 1] {
        world.happen(Happens::Stop { job, index: None });
    }
    world.settle();
    assert!(world.state.loads().next().is_none(), "something is reserved after the end");
    assert!(world.state.jobs().all(|job| job.status.is_terminal()));
}

proptest! {
    #![proptest_config(config())]

    /// Planning settles, a stopped job gets no run, a slot no two, capacity is kept, everything
    /// that can run runs in the end, and nothing is held once all is stopped.
    #[test]
    fn whatever_happens_the_cluster_comes_to_what_is_wanted(
        which in 0..4usize,
        story in prop::collection::vec(happens(), 1..12),
    ) {
        history(STRATEGIES[which], &story);
    }
}

#[test]
fn a_node_gone_for_long_is_replaced_and_one_that_said_bye_later() {
    let deadlines_of = |node: u8, bye: bool| {
        let mut world = World::new(Strategy::Epvm);
        let what = if bye { Happens::Bye { node } } else { Happens::Silent { node } };
        world.happen(what);
        super::deadlines(&world.state, Duration::from_secs(30))
    };
    assert_eq!(deadlines_of(0, false), BTreeMap::from([(name("node-1"), at(30))]));
    assert_eq!(deadlines_of(0, true), BTreeMap::from([(name("node-1"), at(60))]));
}
