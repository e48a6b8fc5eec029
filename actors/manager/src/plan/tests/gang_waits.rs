//! Gangs that wait: what is kept for them, and who may use it before.

use jiff::SignedDuration;
use loom_schemas::record::Gpu;
use loom_schemas::spec::{Gpus, JobSpec};
use loom_schemas::words::RunState;

use super::gangs::{batch, gang, timed, waits};
use super::line::{Leader, asking, service, slot};
use crate::decide;
use crate::state::State;
use crate::state::fixture::{at, info, name};

/// Two nodes of four cores on which batches of an hour and of a minute run; a gang needs both.
fn reserved() -> Leader {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    leader.submit("anna", &batch("hour", 4000, 1, 3600));
    leader.plan();
    leader.says(&slot("hour", 0), RunState::Running);
    leader.submit("anna", &batch("minute", 1000, 1, 60));
    leader.plan();
    leader.says(&slot("minute", 0), RunState::Running);
    leader.submit("anna", &gang("ranks", 4000, 2));
    leader.plan();
    leader
}

#[test]
fn room_is_kept_for_the_first_gang_and_who_ends_before_may_use_it() {
    let mut leader = reserved();
    let ends = at(leader
        .run_of(&slot("hour", 0))
        .started_at
        .unwrap()
        .as_second()
        - at(0).as_second()
        + 3600);
    let why = waits(&leader, &slot("ranks", 0));
    let expected = format!(
        "0 of 2 fit now, no node one more: 2 not enough cpu; room is kept for all of it to start by {ends:.0}"
    );
    assert_eq!(why, expected);
    // One without a limit, and one that would end too late, wait: it is said for whom.
    leader.submit("bert", &service("open", 50, asking(1000, 256, 1)));
    leader.submit("bert", &batch("late", 1000, 1, 9000));
    leader.plan();
    assert_eq!([leader.placed("open"), leader.placed("late")], [0, 0]);
    for held in ["open", "late"] {
        let why = waits(&leader, &slot(held, 0));
        let kept = format!("room on node-2 is kept for gang ranks/main to start by {ends:.0}");
        assert!(why.ends_with(&kept), "{why}");
    }
    // One that ends before is placed, and one of a higher priority.
    leader.submit("bert", &batch("short", 1000, 1, 600));
    leader.plan();
    assert_eq!(leader.placed("short"), 1);
    let mut first = batch("first", 1000, 1, 7200);
    first.priority = 51;
    leader.submit("bert", &first);
    leader.plan();
    assert_eq!(leader.placed("first"), 1);
    let later = leader.run_of(&slot("first", 0)).created_at + SignedDuration::from_secs(7200);
    let why = waits(&leader, &slot("ranks", 0));
    assert!(why.ends_with(&format!("start by {later:.0}")), "{why}");
    leader.says(&slot("first", 0), RunState::Completed);
    leader.plan();
    let why = waits(&leader, &slot("ranks", 0));
    assert!(why.ends_with(&format!("start by {ends:.0}")), "{why}");
    // All end as they said, and the gang goes before those that came after it.
    for done in ["minute", "short", "hour"] {
        assert_eq!(leader.placed("ranks"), 0);
        leader.says(&slot(done, 0), RunState::Completed);
        leader.plan();
    }
    assert_eq!(
        [
            leader.placed("ranks"),
            leader.placed("open"),
            leader.placed("late")
        ],
        [2, 0, 0]
    );
}

#[test]
fn what_a_gang_does_not_need_is_for_everybody() {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    leader.submit("anna", &batch("hour", 2000, 2, 3600));
    leader.plan();
    leader.says(&slot("hour", 0), RunState::Running);
    leader.says(&slot("hour", 1), RunState::Running);
    // Three cores on each: of the two that are free one is needed once the others have ended.
    leader.submit("anna", &gang("ranks", 3000, 2));
    leader.plan();
    leader.submit("bert", &service("open", 50, asking(1000, 256, 4)));
    leader.plan();
    assert_eq!([leader.placed("ranks"), leader.placed("open")], [0, 2]);
    leader.says(&slot("hour", 0), RunState::Completed);
    leader.plan();
    assert_eq!(leader.placed("open"), 2);
    leader.says(&slot("hour", 1), RunState::Completed);
    leader.plan();
    assert_eq!([leader.placed("ranks"), leader.placed("open")], [2, 2]);
}

#[test]
fn the_next_gang_is_reserved_for_when_the_first_has_started() {
    let mut leader = reserved();
    let mut next = gang("next", 4000, 1);
    let main = next.tasks.values_mut().next().unwrap();
    *main = timed(main.clone(), 5000);
    leader.submit("bert", &next);
    leader.plan();
    let why = waits(&leader, &slot("next", 0));
    assert!(why.ends_with("gang ranks/main is before it"), "{why}");
    let all = leader
        .state
        .spec(leader.state.job(&name("ranks")).unwrap())
        .unwrap()
        .clone();
    let mut timed_all = all;
    let main = timed_all.tasks.values_mut().next().unwrap();
    *main = timed(main.clone(), 1000);
    leader.submit("anna", &timed_all);
    leader.plan();
    leader.says(&slot("minute", 0), RunState::Completed);
    leader.says(&slot("hour", 0), RunState::Completed);
    leader.plan();
    assert_eq!(leader.placed("ranks"), 2);
    let why = waits(&leader, &slot("next", 0));
    assert!(
        why.contains("room is kept for all of it to start by"),
        "{why}"
    );
}

#[test]
fn a_gang_that_came_first_or_is_higher_takes_the_reservation_over() {
    let mut leader = reserved();
    let mut high = gang("high", 4000, 2);
    high.priority = 55;
    leader.submit("bert", &high);
    leader.plan();
    let why = waits(&leader, &slot("high", 0));
    assert!(
        why.contains("room is kept for all of it to start by"),
        "{why}"
    );
    let why = waits(&leader, &slot("ranks", 0));
    assert!(why.ends_with("gang high/main is before it"), "{why}");
    let holders = leader
        .state
        .slots()
        .filter(|slot| slot.reservation.is_some());
    assert_eq!(holders.count(), 1);
}

#[test]
fn whoever_leads_next_keeps_the_same_room() {
    let leader = reserved();
    let before = leader.record(&slot("ranks", 0)).reservation.clone();
    assert!(before.is_some());
    let mut next = Leader::new(&[]);
    (next.state, next.seconds, next.ids) =
        (State::from_records(&leader.state), leader.seconds, 1000);
    next.state.mark_all_dirty();
    next.plan();
    assert_eq!(next.record(&slot("ranks", 0)).reservation, before);
}

#[test]
fn room_is_kept_as_soon_as_those_without_a_limit_are_told_to_end_and_let_go_with_its_node() {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    leader.submit("anna", &service("there", 50, asking(1000, 1024, 1)));
    leader.plan();
    leader.says(&slot("there", 0), RunState::Running);
    leader.submit("anna", &gang("ranks", 2000, 4));
    leader.plan();
    let why = waits(&leader, &slot("ranks", 0));
    assert!(why.contains("nobody knows when all fit"), "{why}");
    leader.submit("anna", &service("there", 50, asking(1000, 1024, 0)));
    leader.plan();
    let why = waits(&leader, &slot("ranks", 0));
    assert!(
        why.contains("room is kept for all of it to start by"),
        "{why}"
    );
    leader.edit(|draft| decide::node_down(draft, &name("node-1"), "silent", at(50)));
    leader.plan();
    let why = waits(&leader, &slot("ranks", 0));
    assert!(why.contains("not all fit the nodes there are"), "{why}");
    assert!(leader.state.reserved().is_none());
}

#[test]
fn a_gang_that_waits_for_gpus_is_kept_them_and_gets_as_many() {
    let mut leader = Leader::new(&[(8, 8), (8, 8)]);
    for node in ["node-1", "node-2"] {
        let mut info = info(8, 8);
        let gpu = |kind: &str, id: &str| Gpu {
            name: name(kind),
            id: id.to_owned(),
        };
        info.capacity.gpus = vec![gpu("a100", "0"), gpu("a100", "1"), gpu("t4", "2")];
        leader.hello(node, info);
    }
    let asks = |mut spec: JobSpec, count: u32| {
        let main = spec.tasks.values_mut().next().unwrap();
        let named = [(name("a100"), count)].into_iter().collect();
        main.resources.gpus = Some(Box::new(Gpus { any: 0, named }));
        spec
    };
    leader.submit("anna", &asks(batch("first", 100, 1, 60), 2));
    leader.plan();
    leader.submit("anna", &asks(gang("gang", 100, 4), 1));
    leader.plan();
    assert_eq!(leader.placed("gang"), 0);
    let why = "2 of 4 fit now, no node one more: 2 not enough a100 gpus; room is kept for all of it to start by";
    let said = waits(&leader, &slot("gang", 0));
    assert!(said.starts_with(why), "{said}");
    let first = leader.record(&slot("gang", 0));
    let kept = first.reservation.iter().flatten();
    let kept: u32 = kept.map(|claim| claim.reserved.gpus().count()).sum();
    assert_eq!(kept, 4);
    // What is free is kept for it: one that has no limit gets none.
    leader.submit("bert", &asks(service("late", 50, asking(100, 64, 1)), 1));
    leader.plan();
    assert_eq!(leader.placed("late"), 0);
    leader.says(&slot("first", 0), RunState::Completed);
    leader.plan();
    assert_eq!(leader.placed("gang"), 4);
    let members = [0, 1, 2, 3].map(|index| leader.run_of(&slot("gang", index)));
    let mut gpus: Vec<_> = members
        .iter()
        .map(|run| (run.node.clone(), run.own_gpus()[0].id.clone()))
        .collect();
    gpus.sort();
    gpus.dedup();
    assert_eq!(gpus.len(), 4, "each has one of its own: {members:?}");
}
