//! Laws of placing: over whole histories here, of one choice after the other in [`pick`].

mod drawn;
mod oracle;
mod pick;

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use loom_schemas::ids::Name;
use loom_schemas::record::{Gpu, RunRecord, SlotRecord};
use loom_schemas::spec::{Affinity, Attribute, Constraint, Gpus, SpreadOver, TaskSpec};
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::wire::{JobAddress, JobRequest};
use loom_schemas::words::{Kind, RunState, Strategy};
use proptest::prelude::{Just, Strategy as _, any, prop, prop_assert, prop_assert_eq, prop_oneof};
use proptest::proptest;

use super::{Cluster, Smoothed};
use crate::decide::{self, submit};
use crate::plan::{PlanOptions, plan_on};
use crate::state::fixture::{
    ANNA, at, cases, hello_of, info, job, name, report_of, run_id, submission, task, with_nodes,
};
use crate::state::{Draft, State, live_runs};

fn asking(millicores: u32, mib: u64) -> TaskSpec {
    let mut task = task(1);
    task.resources.cpu = MilliCores(millicores);
    task.resources.memory = Bytes::mib(mib);
    task
}

/// The gpus of a node with so many cores: another on each of a name, and one of another.
fn gpus_of(cores: u32) -> Vec<Gpu> {
    let gpu = |id: u32| Gpu {
        name: name(if id == 0 { "t4" } else { "a100" }),
        id: id.to_string(),
    };
    (0..cores).map(gpu).collect()
}

fn asked_gpus((count, of_name): (u32, bool)) -> Option<Box<Gpus>> {
    let gpus = Gpus {
        any: if of_name { 0 } else { count },
        named: of_name.then(|| (name("a100"), count)).into_iter().collect(),
    };
    (!gpus.is_none()).then(|| Box::new(gpus))
}

/// What a task would rather have of racks, or has to.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Nothing,
    RackA,
    NotRackB,
    EvenRacks,
    OneRack,
    Distinct,
}

impl Wish {
    fn tell(self, task: &mut TaskSpec) {
        let affinity = |line: &str, weight| Affinity {
            predicate: line.parse().unwrap(),
            weight,
        };
        let over = |weight| SpreadOver {
            over: Attribute::Label("rack".to_owned()),
            weight,
            targets: BTreeMap::new(),
        };
        match self {
            Self::Nothing => {}
            Self::RackA => task.affinities.push(affinity("node.label.rack == a", 70)),
            Self::NotRackB => task.affinities.push(affinity("node.label.rack == b", -30)),
            Self::EvenRacks => task.spread.push(over(100)),
            Self::OneRack => task.spread.push(over(-60)),
            Self::Distinct => task.constraints.push(Constraint::DistinctHosts),
        }
    }
}

/// What happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    Submit {
        job: u32,
        replicas: u32,
        cpu: u32,
        mib: u64,
        /// Gpus, and whether they have to be of a name.
        gpus: (u32, bool),
        /// What it would rather have, or has to.
        wish: Wish,
    },
    Stop(u32),
    /// The runs of a node end as they were told to, or by themselves.
    Report(usize, bool),
    Down(usize),
    Up(usize, u32),
    /// So many thousandths of its cores are in use on a node, whatever runs there.
    Busy(usize, u32),
    /// A pass is made and thrown away, as when a leader is deposed.
    Dropped,
}

fn events() -> impl proptest::strategy::Strategy<Value = Vec<Event>> {
    let wish = prop_oneof![
        3 => Just(Wish::Nothing),
        1 => Just(Wish::RackA),
        1 => Just(Wish::NotRackB),
        1 => Just(Wish::EvenRacks),
        1 => Just(Wish::OneRack),
        1 => Just(Wish::Distinct),
    ];
    let gpus = prop_oneof![3 => Just((0, false)), 2 => (1..3u32, any::<bool>())];
    let submit = (0..6u32, 1..6u32, 100..2500u32, 64..4000u64, gpus, wish);
    let submit = submit.prop_map(|(job, replicas, cpu, mib, gpus, wish)| Event::Submit {
        job,
        replicas,
        cpu,
        mib,
        gpus,
        wish,
    });
    let event = prop_oneof![
        4 => submit,
        2 => (0..6u32).prop_map(Event::Stop),
        3 => (0..8usize, any::<bool>()).prop_map(|(node, ends)| Event::Report(node, ends)),
        1 => (0..8usize).prop_map(Event::Down),
        2 => (0..8usize, 1..5u32).prop_map(|(node, cores)| Event::Up(node, cores)),
        2 => (0..8usize, 0..5000u32).prop_map(|(node, cores)| Event::Busy(node, cores)),
        1 => Just(Event::Dropped),
    ];
    prop::collection::vec(event, 1..30)
}

fn node(number: usize) -> Name {
    name(&format!("node-{number}"))
}

/// The state after an event; each edits a draft as a leader does.
fn after(state: &State, event: &Event, seconds: i64) -> State {
    let mut draft = Draft::new(state.clone());
    let now = at(seconds);
    match event {
        Event::Submit {
            job: number,
            replicas,
            cpu,
            mib,
            gpus,
            wish,
        } => {
            let mut task = asking(*cpu, *mib);
            task.replicas = *replicas;
            task.resources.gpus = asked_gpus(*gpus);
            wish.tell(&mut task);
            let spec = job(&format!("job-{number}"), Kind::Service, task);
            drop(submit(&mut draft, submission(&spec), ANNA, now));
        }
        Event::Stop(number) => {
            let address = JobAddress {
                job: name(&format!("job-{number}")),
                task: None,
                index: None,
            };
            let request = JobRequest {
                address,
                reason: None,
            };
            drop(decide::stop(&mut draft, &request, ANNA, at(1)));
        }
        Event::Report(number, ends) => report(&mut draft, &node(*number), *ends, now),
        Event::Down(number) if draft.state().node(&node(*number)).is_some() => {
            drop(decide::node_lost(
                &mut draft,
                &node(*number),
                "anna",
                None,
                now,
            ));
        }
        Event::Up(number, cores) => {
            let mut info = info(*cores, u64::from(*cores) * 2);
            info.capacity.gpus = gpus_of(*cores);
            let rack = ["a", "b", "c", "a", "b"][*cores as usize];
            info.labels.insert("rack".to_owned(), rack.to_owned());
            let hello = hello_of(info, Vec::new());
            decide::hello(&mut draft, &node(*number), &hello, false, now);
        }
        Event::Down(_) | Event::Busy(..) | Event::Dropped => {}
    }
    draft.finish().unwrap().state
}

/// Every run of a node is running, or has ended: as killed if that was the order.
fn report(draft: &mut Draft, node: &Name, ends: bool, now: jiff::Timestamp) {
    let state = draft.state().clone();
    let held = state
        .load(node)
        .into_iter()
        .flat_map(|load| load.placements.values());
    let runs = held.filter_map(|slot| state.slot(slot)).flat_map(|record| {
        let here = live_runs(record).filter(|run| run.node.as_ref() == Some(node));
        here.map(|run| (record.slot.clone(), run.clone()))
    });
    for (slot, run) in runs {
        let told = run.order != loom_schemas::record::Order::Run;
        let to = match (told, ends) {
            (true, _) => RunState::Killed,
            (false, true) => RunState::Failed,
            (false, false) => RunState::Running,
        };
        let mut said = report_of(&slot, run.run, to);
        said.version = run.version;
        said.started_at = Some(now);
        said.ended_at = to.is_terminal().then_some(now);
        decide::report(draft, node, &[said], false, now);
    }
}

/// What of the slots does not hang on how often something was tried: ids are minted with each try.
fn essence(state: &State) -> Vec<String> {
    let of_run = |run: &RunRecord| {
        let RunRecord { version, state, .. } = run;
        format!("{:?} {version} {state} {:?}", run.node, run.order)
    };
    let of_slot = |record: &Arc<SlotRecord>| {
        let runs = record.current.iter().chain(&record.incoming);
        let runs: Vec<String> = runs.chain(&record.ended).map(of_run).collect();
        let waits = record.waiting.is_some();
        format!("{} {runs:?} {waits}", record.slot)
    };
    let jobs = state.jobs();
    let jobs = jobs.map(|job| format!("{} {} {:?}", job.name, job.status, job.update));
    state.slots().map(of_slot).chain(jobs).collect()
}

/// Plans until nothing is left, or for long enough.
fn planned(
    cluster: &mut Cluster,
    state: &State,
    (seconds, measured): (i64, &OrdMap<Name, Smoothed>),
    ids: &mut u64,
) -> State {
    let strategy = cluster.strategy;
    let mut state = state.clone();
    let options = PlanOptions {
        strategy,
        slots: 20,
        measured: measured.clone(),
        ..PlanOptions::default()
    };
    for _ in 0..20 {
        let mut draft = Draft::new(state);
        let mut next = || {
            *ids += 1;
            run_id(*ids)
        };
        let left = plan_on(cluster, &mut draft, at(seconds), &options, &mut next);
        state = draft.finish().unwrap().state;
        if !left.more {
            break;
        }
    }
    state
}

proptest! {
    #![proptest_config(cases(100))]

    /// Nodes that are kept from pass to pass place as if they were looked at afresh, also after
    /// passes that never came to be; no history reserves more than a node has; and when everything
    /// has stopped, nothing is reserved.
    #[test]
    fn kept_nodes_are_as_good_as_new_ones(
        strategy in prop::sample::select(&Strategy::ALL[..]),
        events in events(),
    ) {
        let mut state = with_nodes(3, 4);
        let mut kept = Cluster::empty(strategy);
        let mut ids = 0;
        let mut seconds = 0;
        let mut measured: OrdMap<Name, Smoothed> = OrdMap::new();
        let everything = (0..6).map(Event::Stop);
        let ends = (0..8).map(|number| Event::Report(number, true));
        let events: Vec<Event> = events.into_iter().chain(everything).chain(ends).collect();
        for event in events {
            seconds += 61;
            if let Event::Busy(number, cores) = &event {
                measured.insert(node(*number), Smoothed::first(*cores));
            }
            let next = after(&state, &event, seconds);
            if matches!(event, Event::Dropped) {
                let mut others = ids + 1_000_000;
                planned(&mut kept, &next, (seconds, &measured), &mut others);
                continue;
            }
            let mut others = ids;
            let by_kept = planned(&mut kept, &next, (seconds, &measured), &mut ids);
            let mut fresh = Cluster::empty(strategy);
            let by_fresh = planned(&mut fresh, &next, (seconds, &measured), &mut others);
            prop_assert_eq!(essence(&by_kept), essence(&by_fresh), "{:?}", event);
            for record in by_kept.nodes() {
                let Some(load) = by_kept.load(&record.name) else { continue };
                let capacity = &record.info.capacity;
                // A node that came back smaller keeps what it had.
                let shrunk = matches!(&event, Event::Up(..));
                let before = state.load(&record.name).map(|load| load.held).unwrap_or_default();
                let no_more = |held: u64, before: u64, all: u64| held <= before.max(all);
                let held = load.held;
                let within = no_more(held.cpu, before.cpu, capacity.cpu.0.into())
                    && no_more(held.memory, before.memory, capacity.memory.0)
                    && no_more(held.pids, before.pids, capacity.pids.map_or(u64::MAX, u64::from));
                prop_assert!(shrunk || within, "{} {load:?}", record.name);
                // A gpu is never of two runs, and only of one that the node had.
                let mut twice = load.gpus.iter().filter(|(_, runs)| **runs != 1);
                prop_assert_eq!(twice.next(), None, "{}", record.name);
                let had = |id: &String| {
                    let before = state.load(&record.name);
                    let kept = before.is_some_and(|before| before.gpus.contains_key(id));
                    kept || capacity.gpus.iter().any(|gpu| gpu.id == *id)
                };
                let stray: Vec<&String> = load.gpus.keys().filter(|id| !had(id)).collect();
                prop_assert!(stray.is_empty(), "{} {stray:?}", record.name);
            }
            state = by_kept;
        }
        prop_assert_eq!(state.loads().count(), 0, "something is still reserved");
    }
}
