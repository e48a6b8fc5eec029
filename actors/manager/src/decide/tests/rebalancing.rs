//! Runs that are moved to nodes where they cost less.

use loom_schemas::record::{Rebalance, RunRecord};
use loom_schemas::spec::UpdateOrder;
use loom_schemas::units::Millis;

use super::leaving::stop_reason;
use super::*;
use crate::plan::{Found, Search, begin, find, stop};

impl Leader {
    fn found(&self, seconds: i64) -> Found {
        let search = Search {
            strategy: loom_schemas::words::Strategy::Epvm,
            margin_percent: 10,
            most: 100,
            looks: crate::plan::LOOKS,
            now: at(seconds),
        };
        find(&self.state, &search)
    }

    /// Looks for moves and has them begin, so many at once.
    fn rebalances(&mut self, at_once: u32, seconds: i64) -> usize {
        let moves = self.found(seconds).moves;
        self.decide(|draft| begin(draft, moves, at_once, "anna", at(seconds)))
            .0
    }

    fn rebalance(&self) -> Option<&Rebalance> {
        let last = self.state.cluster()?.rebalance.as_ref();
        last.filter(|it| it.done_at.is_none())
    }

    /// Lets a second at a time go by, in which all do what they are told.
    fn goes_on(&mut self, jobs: &[&str], seconds: std::ops::Range<i64>) {
        for second in seconds {
            for job in jobs {
                self.all_obey(job, second);
            }
        }
    }

    fn taking_over(&self, job: &str) -> RunRecord {
        self.incoming_of(&slot(job, 0)).cloned().unwrap()
    }
}

/// Services of one replica, all on the only node there was, and another node.
fn crowded(jobs: &[&str], order: UpdateOrder) -> Leader {
    let mut leader = Leader::new(1);
    for job_name in jobs {
        let mut spec = job(job_name, Kind::Service, task(1));
        spec.update.order = Some(order);
        spec.update.healthy_for = Millis(0);
        leader.running(&spec);
    }
    leader.arrives("node-2", info(4, 8));
    leader
}

const FOUR: [&str; 4] = ["a", "b", "c", "d"];

#[test]
fn runs_are_spread_over_a_node_that_came_a_few_at_a_time() {
    let mut leader = crowded(&FOUR, UpdateOrder::StartFirst);
    let found = leader.found(20);
    assert_eq!(found.moves.len(), 2, "{:?}", found.view);
    assert!(found.view.cost_after.0 < found.view.cost_before.0);
    assert_eq!(found.view.movable, 4);
    assert_eq!(leader.rebalances(1, 20), 2);
    assert_eq!(leader.last, ["cluster.rebalancing"]);
    leader.plan(20);
    let new = leader.taking_over("a");
    assert_eq!(new.node, Some(name("node-2")));
    assert_eq!(stop_reason(leader.current(&slot("a", 0))), None);
    assert!(
        leader.incoming_of(&slot("b", 0)).is_none(),
        "one at a time is moved"
    );
    leader.reports(&new, &slot("a", 0), RunState::Running, 21);
    leader.plan(21);
    let why = "it costs less on node node-2 than on node-1: rebalanced by anna";
    assert_eq!(stop_reason(leader.current(&slot("a", 0))), Some(why));
    let mut told = Vec::new();
    for second in 22..30 {
        for job in FOUR {
            leader.all_obey(job, second);
            told.extend(leader.last.clone());
        }
    }
    let places: Vec<Vec<String>> = FOUR.iter().map(|job| leader.places(job)).collect();
    assert_eq!(
        places,
        [["node-2"], ["node-2"], ["node-1"], ["node-1"]],
        "the first two by name have moved"
    );
    let done = told.iter().filter(|it| *it == "cluster.rebalanced");
    assert_eq!(done.count(), 1);
    assert_eq!(leader.rebalance(), None);
    assert_eq!(leader.found(40).moves, [], "nothing is left to gain");
    let chosen = leader.current(&slot("a", 0)).decision.clone().unwrap();
    let first = &found.view.moves[0];
    assert_eq!(chosen.moved.as_deref(), Some("anna"));
    assert_eq!(
        (chosen.strategy, chosen.score),
        (first.strategy, first.there)
    );
    let next = &chosen.runners_up[0];
    assert_eq!((&next.node, next.score), (&first.from, first.here));
    let stay = leader.found(40).view.stay;
    assert_eq!(stay.get("were moved within ten minutes"), Some(&2));
    assert_eq!(leader.found(700).view.movable, 4);
}

#[test]
fn with_stop_first_the_run_ends_and_the_next_one_is_where_it_was_to_go() {
    let mut leader = crowded(&["a", "b"], UpdateOrder::StopFirst);
    assert_eq!(leader.rebalances(4, 20), 1);
    leader.plan(20);
    let old = leader.current(&slot("a", 0)).clone();
    assert!(stop_reason(&old).is_some());
    assert!(leader.incoming_of(&slot("a", 0)).is_none());
    leader.goes_on(&["a", "b"], 21..26);
    assert_eq!(leader.places("a"), ["node-2"]);
    assert_eq!(leader.places("b"), ["node-1"]);
    assert_eq!(leader.rebalance(), None);
}

#[test]
fn a_run_stays_if_what_takes_over_fails() {
    let mut leader = crowded(&["a", "b"], UpdateOrder::StartFirst);
    leader.rebalances(4, 20);
    leader.plan(20);
    let new = leader.taking_over("a");
    leader.reports(&new, &slot("a", 0), RunState::Rejected, 21);
    leader.plan(21);
    assert_eq!(leader.rebalance(), None);
    for second in [22, 90, 400] {
        leader.plan(second);
        assert!(leader.incoming_of(&slot("a", 0)).is_none());
        assert_eq!(stop_reason(leader.current(&slot("a", 0))), None);
    }
    assert_eq!(leader.places("a"), ["node-1"]);
    // It would be looked for elsewhere next time.
    assert!(
        leader
            .found(400)
            .moves
            .iter()
            .all(|it| it.slot != slot("a", 0))
    );
}

/// A service that takes a whole node.
fn whole_node(priority: u8) -> JobSpec {
    let mut big = job("big", Kind::Service, task(1));
    big.priority = priority;
    let main = big.tasks.get_mut(&Name::main()).unwrap();
    main.resources.cpu = loom_schemas::units::MilliCores(4000);
    big
}

#[test]
fn what_has_no_room_there_any_more_stays_and_nobody_is_evicted_for_it() {
    for order in [UpdateOrder::StartFirst, UpdateOrder::StopFirst] {
        let mut leader = crowded(&FOUR, order);
        let moves = leader.found(20).moves;
        leader.running(&whole_node(10));
        assert_eq!(leader.places("big"), ["node-2"]);
        leader.decide(|draft| begin(draft, moves, 4, "anna", at(22)));
        for second in 22..26 {
            leader.goes_on(&["a", "b", "c", "d", "big"], second..second + 1);
            for job in FOUR {
                assert_eq!(
                    stop_reason(leader.current(&slot(job, 0))),
                    None,
                    "{order:?}"
                );
            }
        }
        assert_eq!(leader.rebalance(), None);
        assert_eq!(leader.places("big"), ["node-2"]);
        for job in FOUR {
            assert_eq!(leader.places(job), ["node-1"]);
            assert!(leader.slot(&slot(job, 0)).waiting.is_none());
        }
    }
}

#[test]
fn room_is_kept_for_it_before_it_is_stopped() {
    let mut leader = crowded(&["a", "b"], UpdateOrder::StopFirst);
    assert_eq!(leader.rebalances(4, 20), 1);
    // Who comes now finds it taken, and may take no place of its own priority.
    leader.submit(&whole_node(50)).unwrap();
    leader.plan(20);
    assert_eq!(leader.places("big"), ["-"]);
    assert!(stop_reason(leader.current(&slot("a", 0))).is_some());
    leader.goes_on(&["a", "b", "big"], 21..26);
    assert_eq!(leader.places("a"), ["node-2"]);
    assert_eq!(leader.rebalance(), None);
}

#[test]
fn it_stays_where_its_target_is_closed_before_it_was_stopped() {
    let mut leader = crowded(&["a", "b"], UpdateOrder::StopFirst);
    assert_eq!(leader.rebalances(4, 20), 1);
    leader.drains("node-2", None, 20);
    leader.plan(20);
    assert_eq!(stop_reason(leader.current(&slot("a", 0))), None);
    assert_eq!(leader.rebalance(), None);
    assert!(leader.slot(&slot("a", 0)).claim.is_none());
}

#[test]
fn what_comes_to_be_on_another_node_was_not_moved() {
    let mut leader = crowded(&["a", "b"], UpdateOrder::StopFirst);
    assert_eq!(leader.rebalances(4, 20), 1);
    leader.plan(20);
    assert!(stop_reason(leader.current(&slot("a", 0))).is_some());
    leader.drains("node-2", None, 20);
    leader.goes_on(&["a", "b"], 21..26);
    assert_eq!(leader.places("a"), ["node-1"]);
    let last = leader.state.cluster().unwrap().rebalance.clone().unwrap();
    assert_eq!((last.moved, last.dropped), (0, 1));
    assert!(last.done_at.is_some());
}

#[test]
fn a_run_that_ends_for_good_before_its_turn_is_no_more_of_it() {
    let mut leader = Leader::new(1);
    let mut spec = job("a", Kind::Service, task(4));
    let main = spec.tasks.get_mut(&Name::main()).unwrap();
    main.restart.on = loom_schemas::spec::RestartOn::Failure;
    spec.update.order = Some(UpdateOrder::StartFirst);
    spec.update.parallel = 1;
    leader.running(&spec);
    leader.arrives("node-2", info(4, 8));
    assert_eq!(leader.rebalances(4, 20), 2);
    leader.plan(20);
    let on_its_way = |leader: &Leader, index| leader.incoming_of(&slot("a", index)).is_some();
    let moves: Vec<u32> = (0..4).filter(|at| on_its_way(&leader, *at)).collect();
    let [first] = moves[..] else {
        panic!("one at a time: {moves:?}");
    };
    let begun = leader.rebalance().unwrap().under_way.clone();
    let other = begun.iter().find(|it| it.slot != slot("a", first));
    let other = other.unwrap().slot.clone();
    let said = leader.said(&other, RunState::Completed, 21);
    leader.report(&[said], 21);
    leader.goes_on(&["a"], 22..60);
    let last = leader.state.cluster().unwrap().rebalance.clone().unwrap();
    assert_eq!((last.moved, last.dropped), (1, 1));
    assert!(last.done_at.is_some(), "{last:?}");
}

#[test]
fn a_move_that_takes_too_long_is_given_up_and_the_run_stays() {
    let mut leader = crowded(&["a", "b"], UpdateOrder::StartFirst);
    assert_eq!(leader.rebalances(4, 20), 1);
    leader.plan(20);
    let new = leader.taking_over("a");
    let deadline = leader.rebalance().unwrap().under_way[0].deadline;
    assert_eq!(
        deadline,
        Some(at(20 + 300)),
        "as long as an update may take"
    );
    leader.plan(319);
    assert_eq!(stop_reason(&leader.taking_over("a")), None);
    leader.plan(320);
    assert_eq!(leader.rebalance(), None);
    let why = "did not serve on node node-2 within 5m: rebalanced by anna";
    assert_eq!(stop_reason(&leader.taking_over("a")), Some(why));
    leader.reports(&new, &slot("a", 0), RunState::Killed, 321);
    leader.plan(321);
    assert!(leader.incoming_of(&slot("a", 0)).is_none());
    assert_eq!(leader.places("a"), ["node-1"]);
    assert_eq!(stop_reason(leader.current(&slot("a", 0))), None);
}

#[test]
fn what_is_to_move_and_is_stopped_updated_or_drained_first_is_no_more_of_it() {
    let mut leader = crowded(&FOUR, UpdateOrder::StartFirst);
    leader.rebalances(1, 20);
    leader.plan(20);
    leader
        .decide(|draft| super::stop(draft, &whole("a"), ANNA, at(1)))
        .0
        .unwrap();
    leader.plan(21);
    assert_eq!(
        leader
            .rebalance()
            .map(|it| (it.dropped, it.under_way.len())),
        Some((1, 1)),
        "the next one begins"
    );
    leader.drains("node-2", None, 22);
    leader.goes_on(&FOUR, 22..40);
    assert_eq!(leader.rebalance(), None);
    assert_eq!(leader.places("b"), ["node-1"]);
}

#[test]
fn the_list_is_written_once_read_by_the_next_leader_and_gone_in_the_end() {
    let mut leader = crowded(&FOUR, UpdateOrder::StartFirst);
    let moves = leader.found(20).moves;
    let (_, decided) = leader.decide(|draft| begin(draft, moves.clone(), 1, "anna", at(20)));
    assert!(decided.changes.iter().any(|change| change.key == "moves"));
    let list = leader.state.moves().to_vec();
    assert_eq!(list, moves);
    assert_eq!(leader.rebalance().unwrap().left, 1);
    leader.state = State::from_records(&leader.state);
    leader.state.mark_all_dirty();
    assert_eq!(leader.state.moves(), list);
    leader.goes_on(&FOUR, 21..60);
    assert_eq!(leader.rebalance(), None);
    let over = leader.state.cluster().unwrap().rebalance.clone().unwrap();
    assert_eq!((over.moved, over.dropped, over.left), (2, 0, 0));
    assert!(leader.state.moves().is_empty());
}

#[test]
fn what_is_begun_is_brought_to_its_end_and_nothing_more() {
    let mut leader = crowded(&FOUR, UpdateOrder::StartFirst);
    leader.rebalances(1, 20);
    leader.plan(20);
    let (stopped, _) = leader.decide(|draft| stop(draft, "anna", at(21)));
    assert!(stopped);
    leader.goes_on(&FOUR, 22..30);
    let places: Vec<Vec<String>> = FOUR.iter().map(|job| leader.places(job)).collect();
    assert_eq!(places, [["node-2"], ["node-1"], ["node-1"], ["node-1"]]);
    assert_eq!(leader.rebalance(), None);
    let (stopped, _) = leader.decide(|draft| stop(draft, "anna", at(31)));
    assert!(!stopped, "there is nothing to stop");
}

#[test]
fn another_takes_the_place_of_what_is_not_begun_also_where_it_finds_nothing() {
    let mut leader = crowded(&FOUR, UpdateOrder::StartFirst);
    assert_eq!(leader.rebalances(1, 20), 2);
    leader.plan(20);
    let (count, _) = leader.decide(|draft| begin(draft, Vec::new(), 4, "anna", at(21)));
    assert_eq!(count, 0);
    let left = leader.rebalance().unwrap();
    assert_eq!((left.left, left.under_way.len()), (0, 1));
    leader.goes_on(&FOUR, 22..30);
    let places: Vec<Vec<String>> = FOUR.iter().map(|job| leader.places(job)).collect();
    assert_eq!(places, [["node-2"], ["node-1"], ["node-1"], ["node-1"]]);
}

#[test]
fn one_that_did_not_serve_there_was_not_moved() {
    let mut leader = crowded(&["a", "b"], UpdateOrder::StopFirst);
    assert_eq!(leader.rebalances(4, 20), 1);
    leader.plan(20);
    leader.all_obey("a", 21);
    let new = leader.current(&slot("a", 0)).clone();
    assert_eq!(new.node, Some(name("node-2")));
    let said = RunReport {
        started_at: None,
        ..leader.said(&slot("a", 0), RunState::Rejected, 22)
    };
    leader.report(&[said], 22);
    leader.plan(22);
    leader.goes_on(&["a", "b"], 23..40);
    let last = leader.state.cluster().unwrap().rebalance.clone().unwrap();
    assert_eq!((last.moved, last.dropped), (0, 1));
}

#[test]
fn what_runs_to_completion_or_together_stays() {
    let mut leader = Leader::new(1);
    leader.running(&job("batch", Kind::Batch, task(1)));
    let mut gang = task(2);
    gang.gang = true;
    leader.running(&job("gang", Kind::Service, gang));
    leader.arrives("node-2", info(4, 8));
    let found = leader.found(20);
    assert_eq!(found.moves, []);
    let stay: Vec<(&str, u32)> = found
        .view
        .stay
        .iter()
        .map(|(why, count)| (why.as_str(), *count))
        .collect();
    assert_eq!(stay, [("are of gangs", 2), ("run to completion", 1)]);
    assert_eq!(leader.rebalances(4, 20), 0);
    assert_eq!(leader.last, [""; 0]);
}
