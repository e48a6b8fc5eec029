//! Who is evicted, for whom, and what becomes of both.

use std::cmp::Reverse;

use loom_schemas::ids::{RunId, Slot};
use loom_schemas::record::{Order, RunRecord};
use loom_schemas::spec::{PortSpec, Protocol, TaskSpec};
use loom_schemas::units::Bytes;
use loom_schemas::words::RunState;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::line::{Leader, asking, service, slot};
use crate::plan::{PlanOptions, preview};
use crate::state::fixture::{ANNA, at, cases, info, name, run_id, submission};
use crate::state::{is_live, live_runs};

/// The slots whose runs were evicted, with those they were evicted for.
fn evicted(leader: &Leader) -> Vec<(Slot, Slot)> {
    let slots = leader.state.slots();
    let gone = slots.flat_map(|record| {
        let runs = record.current.iter().chain(&record.ended);
        let gone = runs.filter_map(|run| run.evicted_for.as_ref());
        gone.map(|by| (record.slot.clone(), by.clone()))
    });
    gone.collect()
}

/// Every run that was told to end has.
fn obey(leader: &mut Leader) -> usize {
    let told = |run: &RunRecord| is_live(run) && run.order != Order::Run;
    let slots = leader.state.slots();
    let slots = slots.filter(|slot| slot.current.as_ref().is_some_and(told));
    let slots: Vec<Slot> = slots.map(|record| record.slot.clone()).collect();
    for slot in &slots {
        leader.says(slot, RunState::Killed);
    }
    slots.len()
}

#[test]
fn ten_more_evict_the_youngest_that_suffice_and_these_come_back() {
    let mut leader = Leader::new(&[(4, 8)]);
    leader.submit("anna", &service("low", 40, asking(1000, 1024, 2)));
    leader.plan();
    leader.submit("anna", &service("young", 40, asking(1000, 1024, 2)));
    leader.plan();
    leader.submit("anna", &service("near", 49, asking(1000, 1024, 1)));
    leader.plan();
    assert_eq!(evicted(&leader), [], "nine more evict nobody");
    leader.told.clear();
    leader.submit("bert", &service("high", 50, asking(1000, 1024, 1)));
    leader.plan();
    let high = slot("high", 0);
    let [(gone, by)] = evicted(&leader).try_into().unwrap();
    assert_eq!((gone.job.as_str(), &by), ("young", &high));
    let why = "evicted for high/0 (priority 50, its own is 40)";
    let told = |leader: &Leader, what: &str| {
        let of = leader
            .told
            .iter()
            .filter(|(subject, _)| subject.ends_with(what));
        of.map(|(_, reason)| reason.clone()).collect::<Vec<_>>()
    };
    assert_eq!(told(&leader, ".evicted"), [why]);
    let waits = leader.record(&high).waiting.clone().unwrap();
    let expected = format!("evicts {gone} on node-1, and waits until it has ended");
    assert_eq!(waits, expected);
    // Planning again evicts nobody else, and what it leaves is for nobody else.
    leader.state.mark_all_dirty();
    leader.plan();
    assert_eq!(evicted(&leader).len(), 1);
    leader.says(&gone, RunState::Killed);
    leader.plan();
    let run = leader.run_of(&high);
    assert_eq!(
        run.decision.as_ref().unwrap().evicted,
        std::slice::from_ref(&gone)
    );
    assert_eq!([leader.placed("near"), leader.placed("young")], [0, 1]);
    assert!(leader.record(&gone).waiting.is_some());
    // The high one ends: who is higher of those that wait is first, then the evicted.
    leader.submit("bert", &service("high", 50, asking(1000, 1024, 0)));
    leader.submit("anna", &service("near", 49, asking(1000, 1024, 0)));
    leader.plan();
    obey(&mut leader);
    leader.plan();
    assert_eq!([leader.placed("low"), leader.placed("young")], [2, 2]);
}

/// A task that asks for little but a fixed port of its node, or so much disk.
fn fixing(port: Option<u16>, disk_mib: u64, replicas: u32) -> TaskSpec {
    let mut task = asking(100, 64, replicas);
    task.resources.disk = Bytes::mib(disk_mib);
    if let Some(host) = port {
        let fixed = PortSpec {
            port: None,
            host: Some(host),
            protocol: Protocol::Tcp,
        };
        task.ports.insert(name("http"), fixed);
    }
    task
}

#[test]
fn who_holds_a_fixed_port_is_evicted_and_one_that_is_free_elsewhere_is_taken_at_once() {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    for (job, task) in [
        ("first", fixing(Some(80), 0, 1)),
        ("second", fixing(Some(80), 0, 1)),
        ("beside-the-first", asking(2000, 1024, 1)),
    ] {
        leader.submit("anna", &service(job, 40, task));
        leader.plan();
    }
    leader.submit("bert", &service("high", 60, fixing(Some(80), 0, 1)));
    leader.plan();
    let (first, high) = (slot("first", 0), slot("high", 0));
    assert_eq!(evicted(&leader), [(slot("second", 0), high.clone())]);
    // The other one ends by itself, on the node that costs more, before the one that was told to.
    leader.submit("anna", &service("first", 40, fixing(Some(80), 0, 0)));
    leader.plan();
    leader.says(&first, RunState::Killed);
    leader.plan();
    assert_eq!(leader.run_of(&high).node, Some(name("node-1")));
}

/// What holds nothing but a port changes nothing else of its node when it ends.
#[test]
fn a_port_that_becomes_free_is_seen_by_those_that_asked_before() {
    let mut leader = Leader::new(&[(4, 8)]);
    for job in ["first", "second", "third"] {
        let mut task = fixing(Some(80), 0, 1);
        (task.resources.cpu.0, task.resources.memory) = (0, Bytes(0));
        leader.submit("anna", &service(job, 40, task));
        leader.plan();
    }
    assert_eq!([leader.placed("first"), leader.placed("second")], [1, 0]);
    leader.submit("anna", &service("first", 40, asking(0, 0, 0)));
    leader.plan();
    leader.says(&slot("first", 0), RunState::Killed);
    leader.plan();
    assert_eq!([leader.placed("second"), leader.placed("third")], [1, 0]);
}

#[test]
fn as_many_are_evicted_as_hold_the_disk_that_is_missing() {
    let third = 1024;
    let mut leader = Leader::new(&[]);
    let mut info = info(4, 8);
    info.capacity.disk = Bytes::mib(3 * third);
    leader.hello("node-1", info);
    leader.submit("anna", &service("bare", 40, fixing(None, 0, 3)));
    leader.submit("anna", &service("low", 40, fixing(None, third, 3)));
    leader.plan();
    leader.submit(
        "bert",
        &service("high", 60, fixing(None, third + third / 2, 1)),
    );
    leader.plan();
    let gone = evicted(&leader);
    let jobs: Vec<&str> = gone.iter().map(|(gone, _)| gone.job.as_str()).collect();
    assert_eq!(jobs, ["low", "low"]);
    obey(&mut leader);
    leader.plan();
    assert_eq!(leader.placed("high"), 1);
}

#[test]
fn for_replicas_that_are_apart_one_is_evicted_on_each_of_their_nodes() {
    let mut leader = Leader::new(&[(2, 8), (2, 8), (2, 8)]);
    leader.submit("anna", &service("low", 40, asking(1000, 1024, 6)));
    leader.plan();
    let mut task = asking(1000, 1024, 3);
    task.constraints = vec!["distinct_hosts".parse().unwrap()];
    leader.submit("anna", &service("high", 50, task));
    leader.plan();
    assert_eq!(evicted(&leader).len(), 3);
    assert_eq!(obey(&mut leader), 3);
    leader.plan();
    let mut nodes: Vec<_> = (0..3)
        .filter_map(|index| leader.run_of(&slot("high", index)).node.clone())
        .collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 3);
    // A fourth has no node of its own: for it nobody is evicted.
    let mut task = asking(1000, 1024, 4);
    task.constraints = vec!["distinct_hosts".parse().unwrap()];
    leader.submit("anna", &service("high", 50, task));
    leader.plan();
    assert_eq!(obey(&mut leader), 0);
    let waits = leader.record(&slot("high", 3)).waiting.clone();
    let why = "no node fits: 3 constraint distinct_hosts";
    assert_eq!(waits.as_deref(), Some(why));
}

#[test]
fn nobody_takes_the_room_that_is_made_but_one_who_is_higher() {
    let mut leader = Leader::new(&[(4, 8)]);
    leader.submit("anna", &service("low", 10, asking(2000, 1024, 2)));
    leader.plan();
    leader.submit("anna", &service("high", 50, asking(4000, 1024, 1)));
    leader.plan();
    assert_eq!(evicted(&leader).len(), 2);
    // The first of the two has ended: half of the node is free, and kept.
    leader.says(&slot("low", 0), RunState::Killed);
    leader.submit("anna", &service("other", 50, asking(1000, 1024, 1)));
    leader.plan();
    assert_eq!([leader.placed("low"), leader.placed("other")], [1, 0]);
    // One who is higher by one gets it all the same.
    leader.submit("anna", &service("higher", 51, asking(2000, 1024, 1)));
    leader.plan();
    assert_eq!(leader.placed("higher"), 1);
    assert_eq!(leader.placed("high"), 0);
    leader.says(&slot("low", 1), RunState::Killed);
    leader.plan();
    assert_eq!([leader.placed("high"), leader.placed("other")], [0, 1]);
}

#[test]
fn who_gives_up_gives_back_the_room_that_was_made() {
    let mut leader = Leader::new(&[(4, 8)]);
    leader.submit("anna", &service("low", 10, asking(2000, 1024, 2)));
    leader.plan();
    leader.submit("anna", &service("high", 50, asking(4000, 1024, 1)));
    leader.plan();
    leader.submit("anna", &service("high", 50, asking(4000, 1024, 0)));
    leader.plan();
    assert_eq!(obey(&mut leader), 2);
    leader.plan();
    assert_eq!(leader.placed("low"), 2);
    let load = leader.state.load(&name("node-1")).unwrap();
    assert!(load.claims.is_empty());
}

#[test]
fn a_plan_names_who_would_be_evicted() {
    let mut leader = Leader::new(&[(4, 8)]);
    leader.submit("anna", &service("low", 10, asking(2000, 1024, 2)));
    leader.plan();
    let look = |cores: u32| {
        let spec = service("high", 50, asking(cores * 1000, 1024, 1));
        let options = PlanOptions::default();
        let submitted = submission(&spec);
        let mut ids = || run_id(1 << 40);
        preview(&leader.state, submitted, ANNA, &options, at(9), &mut ids).unwrap()
    };
    let plan = look(2);
    assert_eq!(plan.evicts, ["low/1 on node-1, for high/0"]);
    assert_eq!(plan.blocked, Vec::<String>::new());
    let plan = look(5);
    assert_eq!(plan.evicts, Vec::<String>::new());
    assert_eq!(plan.blocked, ["high/0: no node fits: 1 not enough cpu"]);
}

/// What there is to choose from on a node, by the oracle's books: cpu and memory that it has, and
/// what runs there: priority, age and id, cpu, memory.
type Books = Vec<((u64, u64), Vec<((u8, i64, Reverse<RunId>), u64, u64)>)>;

/// The least that has to go on any node, tried out: the worst of each choice first.
fn least(books: &Books, asked: (u64, u64), priority: u8) -> Option<Vec<(u8, i64)>> {
    let ways = books.iter().filter_map(|(all, runs)| {
        let goes = |choice: u32, at: usize| choice >> at & 1 == 1;
        let choices = (0u32..1 << runs.len()).filter(|choice| {
            let stay = runs
                .iter()
                .enumerate()
                .filter(|(at, _)| !goes(*choice, *at));
            let used = stay.fold((0, 0), |sum, (_, run)| (sum.0 + run.1, sum.1 + run.2));
            let all_lower =
                (0..runs.len()).all(|at| !goes(*choice, at) || runs[at].0.0 + 10 <= priority);
            all_lower && used.0 + asked.0 <= all.0 && used.1 + asked.1 <= all.1
        });
        let gone = |choice: u32| {
            let gone = runs.iter().enumerate().filter(|(at, _)| goes(choice, *at));
            let mut gone: Vec<_> = gone.map(|(_, run)| run.0).collect();
            gone.sort_by(|a, b| b.cmp(a));
            (gone.len(), gone)
        };
        choices.map(gone).min()
    });
    let known = |gone: Vec<(u8, i64, Reverse<RunId>)>| -> Vec<(u8, i64)> {
        gone.into_iter()
            .map(|(priority, age, _)| (priority, age))
            .collect()
    };
    let least = ways.map(|(count, gone)| (count, known(gone))).min();
    least.map(|(_, gone)| gone)
}

proptest! {
    #![proptest_config(cases(512))]

    /// As few as can be are evicted, of those the lowest, then the youngest, none where it fits
    /// without or in no case; by an oracle that tries every choice on every node.
    #[test]
    fn no_more_are_evicted_than_needed(
        nodes in prop::collection::vec((2..7u32, 2..7u64), 1..4),
        runs in prop::collection::vec((0..5u8, 200..3000u32, 200..3000u64), 0..14),
        (priority, cpu, mib) in (0..6u8, 500..6000u32, 500..6000u64),
    ) {
        let mut leader = Leader::new(&nodes);
        for (at, (priority, cpu, mib)) in runs.iter().enumerate() {
            let spec = service(&format!("r-{at}"), priority * 10, asking(*cpu, *mib, 1));
            leader.submit("anna", &spec);
        }
        leader.plan();
        // Those that were evicted so far are gone, and what waits is given up.
        while obey(&mut leader) > 0 {
            leader.plan();
        }
        for (at, (priority, cpu, mib)) in runs.iter().copied().enumerate() {
            if leader.placed(&format!("r-{at}")) == 0 {
                let spec = service(&format!("r-{at}"), priority * 10, asking(cpu, mib, 0));
                leader.submit("anna", &spec);
            }
        }
        leader.plan();
        let before = evicted(&leader).len();
        let books: Books = (1..=nodes.len()).map(|number| {
            let (cores, gib) = nodes[number - 1];
            let node = name(&format!("node-{number}"));
            let here = leader.state.slots().flat_map(|slot| live_runs(slot));
            let here = here.filter(|run| run.node.as_ref() == Some(&node));
            let of = |run: &RunRecord| {
                let slot = leader.state.slot_of_run(run.run).unwrap();
                let job = leader.state.job(&slot.job).unwrap();
                let priority = leader.state.spec(job).unwrap().priority;
                let held = &run.reserved;
                let rank = (priority, -run.placed_at.as_second(), Reverse(run.placement));
                (rank, u64::from(held.cpu.0), held.memory.0)
            };
            ((u64::from(cores) * 1000, gib << 30), here.map(of).collect())
        }).collect();
        let expected = least(&books, (u64::from(cpu), mib << 20), priority * 10);
        leader.submit("bert", &service("high", priority * 10, asking(cpu, mib, 1)));
        leader.plan();
        let high = slot("high", 0);
        let claim = leader.record(&high).claim.as_ref().cloned();
        let gone = claim.map(|claim| claim.evicted).unwrap_or_default();
        let mut worth: Vec<(u8, i64)> = gone.iter().map(|slot| {
            let job = leader.state.job(&slot.job).unwrap();
            let run = leader.run_of(slot);
            (leader.state.spec(job).unwrap().priority, -run.placed_at.as_second())
        }).collect();
        worth.sort_by(|a, b| b.cmp(a));
        prop_assert_eq!(evicted(&leader).len() - before, gone.len());
        match expected {
            None => {
                prop_assert!(gone.is_empty());
                prop_assert!(leader.record(&high).waiting.is_some());
            }
            Some(expected) => {
                prop_assert_eq!(&worth, &expected);
                while obey(&mut leader) > 0 {
                    leader.plan();
                }
                prop_assert_eq!(leader.placed("high"), 1);
            }
        }
    }

    /// Whatever comes, ends and goes: who is evicted is lower by ten at least, a node never holds more
    /// than it has, nobody waits who could be placed in the stead of others that are so much lower,
    /// and in the end, when only those are left that have room, they all run and nothing is kept.
    #[test]
    fn an_eviction_never_makes_a_higher_priority_wait(
        sizes in prop::collection::vec((1..7u32, 1..7u64), 8),
        story in prop::collection::vec((0..8u8, any::<u8>(), any::<u8>()), 1..30),
    ) {
        let mut leader = Leader::new(&[(4, 8), (4, 4), (2, 8)]);
        let priority_of = |which: u8| [0, 5, 10, 15, 20, 30, 50, 90][usize::from(which)];
        let spec = |which: u8, replicas: u8| {
            let (cpu, mib) = sizes[usize::from(which)];
            let task = asking(500 * cpu, 512 * mib, u32::from(replicas % 4));
            service(&format!("job-{which}"), priority_of(which), task)
        };
        let mut told = 0;
        for (which, what, much) in story {
            match what % 4 {
                0 | 1 => {
                    let owner = if which % 2 == 0 { "anna" } else { "bert" };
                    leader.submit(owner, &spec(which, much));
                }
                2 => {
                    // One of those that were told to end has.
                    let slots = leader.state.slots();
                    let ending = slots.filter(|slot| {
                        slot.current.as_ref().is_some_and(|run| is_live(run) && run.order != Order::Run)
                    });
                    let ending: Vec<Slot> = ending.map(|slot| slot.slot.clone()).collect();
                    if !ending.is_empty() {
                        leader.says(&ending[usize::from(much) % ending.len()], RunState::Killed);
                    }
                }
                _ => leader.seconds += i64::from(much),
            }
            leader.plan();
            for (subject, reason) in &leader.told[told..] {
                if subject.ends_with(".evicted") {
                    let mut words = reason.trim_end_matches(')').rsplit([' ', ',']);
                    let own: u8 = words.next().unwrap().parse().unwrap();
                    let by: u8 = words.find_map(|word| word.parse().ok()).unwrap();
                    prop_assert!(own + 10 <= by, "{}", reason);
                }
            }
            told = leader.told.len();
            for node in leader.state.nodes() {
                let Some(load) = leader.state.load(&node.name) else { continue };
                let all = &node.info.capacity;
                prop_assert!(load.held.cpu <= u64::from(all.cpu.0) && load.held.memory <= all.memory.0);
            }
        }
        for _ in 0..60 {
            obey(&mut leader);
            leader.plan();
            leader.seconds += 61;
        }
        for record in leader.state.slots().filter(|slot| slot.waiting.is_some()) {
            let job = leader.state.job(&record.slot.job).unwrap();
            let wanted = leader.state.spec(job).unwrap();
            let asked = &wanted.tasks.values().next().unwrap().resources;
            for node in leader.state.nodes() {
                let here = leader.state.slots().flat_map(|slot| live_runs(slot).map(move |run| (slot, run)));
                let here = here.filter(|(_, run)| run.node.as_ref() == Some(&node.name));
                let stays = here.filter(|(slot, _)| {
                    let job = leader.state.job(&slot.slot.job).unwrap();
                    leader.state.spec(job).unwrap().priority + 10 > wanted.priority
                });
                let used = stays.fold((0, 0), |sum, (_, run)| {
                    (sum.0 + run.reserved.cpu.0, sum.1 + run.reserved.memory.0)
                });
                let all = &node.info.capacity;
                let fits = used.0 + asked.cpu.0 <= all.cpu.0 && used.1 + asked.memory.0 <= all.memory.0;
                prop_assert!(!fits, "{} waits although {} has room for it", record.slot, node.name);
            }
        }
        // With nodes enough everybody who was evicted is back.
        for number in 10..30 {
            leader.hello(&format!("node-{number}"), info(8, 16));
        }
        leader.plan();
        prop_assert_eq!(leader.state.waiting().count(), 0);
        let claims = leader.state.loads().map(|(_, load)| load.claims.len());
        prop_assert_eq!(claims.sum::<usize>(), 0);
    }
}
