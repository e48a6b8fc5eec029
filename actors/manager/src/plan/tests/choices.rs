//! What earlier choices and failures say about the next one.

use loom_schemas::record::SlotRecord;
use loom_schemas::words::{RunState, Strategy};

use super::gangs::pass;
use super::line::{Leader, asking, service, slot};
use crate::state::fixture::name;

#[test]
fn a_node_where_one_replica_failed_is_the_last_choice_of_the_others_for_a_while() {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    let node_of = |leader: &Leader, index| {
        let run = leader.run_of(&slot("web", index));
        run.node.clone().unwrap().to_string()
    };
    leader.submit("anna", &service("web", 50, asking(100, 64, 1)));
    leader.plan();
    assert_eq!(node_of(&leader, 0), "node-1");
    leader.says(&slot("web", 0), RunState::Failed);
    leader.plan();
    leader.seconds += 60;
    leader.plan();
    assert_eq!(node_of(&leader, 0), "node-2");
    // Nothing is on the first, and no replica of it.
    leader.submit("anna", &service("web", 50, asking(100, 64, 2)));
    leader.plan();
    assert_eq!(node_of(&leader, 1), "node-2");
    let decision = leader.run_of(&slot("web", 1)).decision.clone().unwrap();
    assert_eq!(decision.runners_up[0].node, name("node-1"));
    assert_eq!(decision.runners_up[0].bias.failures, 1);
    leader.seconds += 600;
    leader.submit("anna", &service("web", 50, asking(100, 64, 3)));
    leader.plan();
    assert_eq!(node_of(&leader, 2), "node-1");
}

#[test]
fn a_failure_counts_before_it_was_put_away() {
    let mut leader = Leader::new(&[(4, 8), (4, 8)]);
    let web = slot("web", 0);
    leader.submit("anna", &service("web", 50, asking(100, 64, 1)));
    leader.plan();
    // What is lost is put away and placed anew in one.
    leader.says(&web, RunState::Lost);
    leader.plan();
    let run = leader.run_of(&web);
    assert_eq!(run.node, Some(name("node-2")));
    let decision = run.decision.clone().unwrap();
    assert_eq!(decision.runners_up[0].bias.failures, 1);
}

#[test]
fn the_turn_of_round_robin_outlasts_an_eviction_in_the_same_pass() {
    let mut leader = Leader::new(&[(4, 8), (4, 8), (4, 8)]);
    leader.submit("anna", &service("low", 40, asking(3000, 1024, 3)));
    leader.plan();
    let by_turns = |job: &str, priority| {
        let mut spec = service(job, priority, asking(100, 64, 1));
        spec.strategy = Some(Strategy::RoundRobin);
        spec
    };
    leader.submit("anna", &by_turns("first", 70));
    leader.submit("anna", &service("high", 60, asking(3500, 1024, 1)));
    leader.plan();
    let claims = |record: &SlotRecord| record.claim.is_some();
    assert!(claims(leader.record(&slot("high", 0))), "it evicts");
    leader.submit("anna", &by_turns("second", 70));
    leader.plan();
    let node = |job: &str| leader.run_of(&slot(job, 0)).node.clone().unwrap();
    assert_eq!(
        [node("first"), node("second")],
        [name("node-1"), name("node-2")]
    );
}

#[test]
fn more_may_evict_in_one_pass_than_ways_are_kept() {
    let nodes = 300;
    let mut leader = Leader::new(&vec![(1, 2); nodes as usize]);
    leader.submit("anna", &service("low", 20, asking(1000, 1024, nodes)));
    leader.plan();
    leader.submit("bert", &service("high", 40, asking(1000, 1024, nodes)));
    pass(&mut leader, 1000);
    let claims = leader.state.slots().filter(|slot| slot.claim.is_some());
    assert_eq!(claims.count(), nodes as usize);
}
