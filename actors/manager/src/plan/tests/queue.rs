//! Who waits, in which order, and what wakes whom.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use loom_schemas::ids::Name;
use loom_schemas::words::RunState;
use proptest::prelude::{prop, prop_assert_eq, proptest};

use super::line::{Leader, asking, service, slot};
use crate::scheduler::{Apartness, Queue, Rank, Request, Room};
use crate::state::fixture::{at, cases, info, name};

#[test]
fn equals_of_two_owners_share_the_room_there_is() {
    let mut leader = Leader::new(&[(8, 16)]);
    leader.submit("anna", &service("a", 50, asking(1000, 1024, 8)));
    leader.submit("bert", &service("b", 50, asking(1000, 1024, 8)));
    leader.plan();
    assert_eq!([leader.placed("a"), leader.placed("b")], [4, 4]);
}

#[test]
fn an_owner_is_counted_what_all_of_its_jobs_hold() {
    let mut leader = Leader::new(&[(8, 16)]);
    leader.submit("anna", &service("before", 90, asking(1000, 1024, 2)));
    leader.plan();
    leader.submit("anna", &service("a", 50, asking(1000, 1024, 8)));
    leader.submit("bert", &service("b", 50, asking(1000, 1024, 8)));
    leader.plan();
    // Four cores each, whichever job they are of.
    assert_eq!([leader.placed("a"), leader.placed("b")], [2, 4]);
}

/// The example of the paper: 9 cores and 18 GB; tasks of 1 core and 4 GB, of 3 cores and 1 GB.
#[test]
fn shares_are_of_the_resource_that_an_owner_has_most_of() {
    let mut leader = Leader::new(&[(9, 18)]);
    leader.submit("anna", &service("a", 50, asking(1000, 4096, 9)));
    leader.submit("bert", &service("b", 50, asking(3000, 1024, 9)));
    leader.plan();
    assert_eq!([leader.placed("a"), leader.placed("b")], [3, 2]);
}

#[test]
fn of_one_owner_who_came_first_is_first_however_few_slots_a_pass_changes() {
    for slots in [1, 2, 256] {
        let mut leader = Leader::new(&[(4, 8)]);
        leader.submit("anna", &service("z", 50, asking(1000, 1024, 3)));
        leader.submit("anna", &service("a", 50, asking(1000, 1024, 3)));
        leader.plan_by(slots);
        assert_eq!([leader.placed("z"), leader.placed("a")], [3, 1]);
    }
}

#[test]
fn who_is_less_takes_what_the_higher_cannot_use_and_nothing_else() {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    leader.submit("anna", &service("there", 50, asking(3000, 1024, 2)));
    leader.plan();
    leader.submit("anna", &service("high", 55, asking(4000, 1024, 1)));
    leader.submit("anna", &service("low", 50, asking(1000, 1024, 6)));
    leader.plan();
    assert_eq!([leader.placed("high"), leader.placed("low")], [0, 2]);
    // Three more cores are free on a node, of which the higher can use none: another of it is taken.
    leader.submit("anna", &service("there", 50, asking(3000, 1024, 0)));
    leader.plan();
    let (first, last) = (slot("there", 0), slot("there", 1));
    leader.says(&first, RunState::Killed);
    leader.plan();
    assert_eq!([leader.placed("high"), leader.placed("low")], [0, 5]);
    // A whole node is free at last.
    leader.submit("anna", &service("low", 50, asking(1000, 1024, 0)));
    leader.plan();
    let node = leader.run_of(&last).node.clone();
    leader.says(&last, RunState::Killed);
    for index in 0..5 {
        let low = slot("low", index);
        if leader.run_of(&low).node == node {
            leader.says(&low, RunState::Killed);
        }
    }
    leader.submit("anna", &service("later", 50, asking(1000, 1024, 4)));
    leader.plan();
    assert_eq!([leader.placed("high"), leader.placed("later")], [1, 0]);
}

/// Room is made for one; a higher one comes, may evict the same, and only then can use it.
#[test]
fn room_that_is_made_for_a_lower_one_is_no_reason_to_let_a_higher_one_sleep() {
    let mut leader = Leader::new(&[(8, 16)]);
    leader.submit("anna", &service("middle", 55, asking(4000, 1024, 1)));
    leader.submit("anna", &service("small", 40, asking(2000, 1024, 2)));
    leader.plan();
    leader.submit("anna", &service("low", 55, asking(4000, 1024, 1)));
    leader.plan();
    leader.submit("anna", &service("high", 60, asking(8000, 1024, 1)));
    leader.plan();
    leader.says(&slot("small", 0), RunState::Killed);
    leader.plan();
    leader.submit("anna", &service("middle", 55, asking(4000, 1024, 0)));
    leader.plan();
    leader.says(&slot("middle", 0), RunState::Killed);
    leader.plan();
    leader.says(&slot("small", 1), RunState::Killed);
    leader.plan();
    assert_eq!([leader.placed("low"), leader.placed("high")], [0, 1]);
}

#[test]
fn once_room_is_kept_for_no_gang_each_that_waits_is_looked_at_in_order() {
    let mut queue = Queue::default();
    for (priority, job) in [
        (50, "second"),
        (60, "first"),
        (50, "third"),
        (50, "started"),
    ] {
        queue.note_gang((Reverse(priority), at(0), name(job), Name::main()));
    }
    let mut next = |is_reserved| {
        let found = queue.next_gang(is_reserved, |job, _| job.as_str() != "started");
        found.map(|job| job.to_string())
    };
    assert_eq!([next(false), next(true), next(true)], [None, None, None]);
    assert_eq!(next(false).as_deref(), Some("first"));
    assert_eq!(next(false).as_deref(), Some("second"));
    // It was reserved for, and is through.
    assert_eq!(next(true), None);
    let order = [next(false), next(false), next(false), next(false)];
    let order = order.iter().flatten().collect::<Vec<_>>();
    assert_eq!(order, ["first", "second", "third"]);
}

#[test]
fn of_replicas_that_wait_one_is_tried() {
    let mut leader = Leader::new(&[(4, 8)]);
    let many = |priority| service("many", priority, asking(1000, 64, 1000));
    leader.submit("anna", &many(50));
    leader.plan();
    assert_eq!(
        (leader.placed("many"), leader.state.waiting().count()),
        (4, 996)
    );
    // An id is minted for each try.
    let tried = leader.ids;
    leader.says(&slot("many", 0), RunState::Failed);
    leader.seconds += 60;
    leader.plan();
    assert_eq!(
        leader.placed("many"),
        4,
        "another one took its place, or it itself"
    );
    assert!(leader.ids - tried <= 4, "{} were tried", leader.ids - tried);
    // What all of them ask for is another thing now: each is looked at.
    leader.submit("bert", &service("low", 30, asking(500, 64, 1)));
    leader.submit("anna", &many(60));
    leader.plan();
    let tried = leader.ids;
    leader.says(&slot("many", 1), RunState::Failed);
    leader.seconds += 60;
    leader.plan();
    assert_eq!(leader.placed("many"), 4);
    assert!(leader.ids - tried <= 8, "{} were tried", leader.ids - tried);
    let words = leader.state.waiting().filter(|slot| {
        let waits = &leader.record(slot).waiting;
        waits.as_ref().is_some_and(|why| !why.is_empty())
    });
    assert_eq!(words.count(), 2, "the first of each task says why");
}

#[test]
fn ten_thousand_that_wait_cost_nothing_when_something_else_changes() {
    let mut leader = Leader::new(&[(4, 8)]);
    for (job, cpu) in [("there", 3000), ("nine", 900), ("one", 100)] {
        leader.submit("anna", &service(job, 50, asking(cpu, 512, 1)));
    }
    leader.plan();
    // A thousand jobs of ten slots: each asks for something else.
    for number in 0..1000u32 {
        let task = asking(1000 + number, 1024 + u64::from(number), 10);
        leader.submit("anna", &service(&format!("w-{number}"), 50, task));
    }
    leader.plan();
    assert_eq!(leader.state.waiting().count(), 10_000);
    let looked = leader.cluster.queue().looked();
    // A run turns healthy, another job comes, and 0.9 cores with their memory become free.
    leader.says(&slot("there", 0), RunState::Running);
    assert_eq!(leader.plan(), 1, "the job of that run");
    leader.submit("bert", &service("none", 10, asking(5000, 16, 1)));
    assert!(
        leader.plan() <= 2,
        "the job that is new, until it is settled"
    );
    leader.submit("anna", &service("nine", 50, asking(900, 512, 0)));
    assert!(leader.plan() <= 2, "the job that is to hold less");
    leader.says(&slot("nine", 0), RunState::Killed);
    assert!(leader.plan() <= 2, "the job that has held it");
    assert_eq!(leader.cluster.queue().looked(), looked);
    // With another tenth one of them fits, and no other is looked at.
    leader.submit("anna", &service("one", 50, asking(100, 512, 0)));
    leader.plan();
    leader.says(&slot("one", 0), RunState::Killed);
    let jobs = leader.plan();
    assert!(
        (2..=4).contains(&jobs),
        "the one that held and the one that waits: {jobs}"
    );
    assert_eq!(leader.cluster.queue().looked(), looked + 1);
    assert_eq!([leader.placed("w-0"), leader.placed("w-1")], [1, 0]);
}

#[test]
fn a_node_that_comes_wakes_those_alone_that_it_could_help() {
    let mut leader = Leader::new(&[(1, 2)]);
    let mut there = service("there", 50, asking(2000, 1024, 1));
    there.datacenters = vec!["ams".to_owned()];
    leader.submit("anna", &there);
    leader.submit("anna", &service("wide", 50, asking(9000, 1024, 1)));
    leader.submit("anna", &service("fits", 50, asking(4000, 1024, 1)));
    leader.plan();
    assert_eq!(leader.state.waiting().count(), 3);
    let jobs_before = leader.plan();
    assert_eq!(jobs_before, 0);
    leader.hello("node-2", info(4, 8));
    assert_eq!(leader.plan(), 1);
    assert_eq!(leader.placed("fits"), 1);
    let mut elsewhere = info(4, 8);
    elsewhere.datacenter = Some("ams".to_owned());
    leader.hello("node-3", elsewhere);
    assert_eq!(leader.plan(), 1);
    assert_eq!([leader.placed("there"), leader.placed("wide")], [1, 0]);
}

#[test]
fn what_has_to_be_apart_is_not_woken_by_a_node_on_which_it_is_already() {
    let mut leader = Leader::new(&[]);
    for (node, rack) in [("node-1", "a"), ("node-2", "b"), ("node-3", "b")] {
        let mut info = info(4, 8);
        info.labels.insert("rack".to_owned(), rack.to_owned());
        leader.hello(node, info);
    }
    for (job, constraint, fit) in [
        ("hosts", "distinct_hosts", 3),
        ("racks", "node.label.rack distinct_property 1", 2),
    ] {
        leader.submit("anna", &service("other", 50, asking(100, 64, 3)));
        let mut task = asking(100, 64, 4);
        task.constraints.push(constraint.parse().unwrap());
        leader.submit("anna", &service(job, 50, task));
        leader.plan();
        assert_eq!(leader.placed(job), fit, "{job}");
        leader.submit("anna", &service("other", 50, asking(100, 64, 0)));
        leader.plan();
        for index in 0..3 {
            leader.says(&slot("other", index), RunState::Killed);
        }
        let jobs = leader.plan();
        assert!(jobs <= 2, "{job}: {jobs} looked at for the job that ended");
    }
    // A node more in a rack of its own helps both.
    let mut info = info(4, 8);
    info.labels.insert("rack".to_owned(), "c".to_owned());
    leader.hello("node-4", info);
    leader.plan();
    assert_eq!([leader.placed("hosts"), leader.placed("racks")], [4, 3]);
}

/// A request of so many millicores and MiB.
fn request(cpu: u32, mib: u64) -> Request {
    Request::of(&asking(cpu, mib, 1))
}

proptest! {
    #![proptest_config(cases(512))]

    /// Whoever waits and fits a node is woken by it, and nobody else; whatever came and went before.
    #[test]
    fn a_node_wakes_whom_it_fits(
        asked in prop::collection::vec((1..40u32, 1..40u64, 0..6u8, 0..3u32), 1..60),
        nodes in prop::collection::vec((1..5u32, 1..5u64, 0..4000u64), 1..10),
    ) {
        let leader = Leader::new(&[(1, 1)]);
        let record = leader.state.node(&name("node-1")).unwrap();
        let (mut queue, mut waiting) = (Queue::default(), imbl::OrdSet::new());
        let mut known = std::collections::BTreeMap::new();
        for (cpu, mib, which, index) in asked {
            let at = slot(&format!("job-{which}"), index);
            let asks = request(cpu * 100, mib * 100);
            // Every fifth ceases to wait.
            if cpu % 5 == 0 {
                waiting.remove(&at);
                known.remove(&at);
            } else {
                let rank = Rank { priority: which * 10, borrows: false, gang: false };
                queue.note(&at, &asks, rank);
                waiting.insert(at.clone());
                known.insert(at, (u64::from(cpu) * 100, mib * 100));
            }
            if mib % 3 == 0 {
                queue.follow(&waiting);
            }
        }
        queue.follow(&waiting);
        for (cores, gib, used) in nodes {
            let mut room = Room::of(record, None);
            room.capacity = info(cores, gib).capacity;
            room.held.cpu = used;
            let free = (u64::from(cores) * 1000).saturating_sub(used);
            let fit = known.iter().filter(|(_, (cpu, mib))| *cpu <= free && *mib <= gib * 1024);
            let expected: BTreeSet<Name> = fit.map(|(slot, _)| slot.job.clone()).collect();
            let mut woken = BTreeSet::new();
            let mut apart = Apartness::of(&leader.state);
            queue.woken_by(record, &|_| room.clone(), &mut apart, &mut woken);
            prop_assert_eq!(woken, expected);
        }
    }
}
