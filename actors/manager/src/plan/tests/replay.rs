//! What is kept with a run says how it was chosen: made again from the log, each choice is the same.

use loom_schemas::ids::Name;
use loom_schemas::record::{ClusterRecord, Decision, RunRecord, SlotRecord};
use loom_schemas::words::Strategy;
use proptest::prelude::{any, prop, proptest};

use super::happens::Happens;
use super::world::World;
use crate::plan::task_turn::TaskTurn;
use crate::plan::{Pass, PlanOptions, deadlines};
use crate::scheduler::{Cluster, Smoothed, seed};
use crate::state::fixture::cases;
use crate::state::{Draft, State, live_runs};

/// The runs of a slot that were placed by a choice among nodes.
fn chosen(record: &SlotRecord) -> impl Iterator<Item = (&SlotRecord, &RunRecord, &Decision)> {
    let is_free = record.slot.index.node().is_none();
    let runs = live_runs(record).filter(move |_| is_free);
    runs.filter_map(move |run| Some((record, run, run.decision.as_deref()?)))
}

/// Whether room was kept for somebody, or is: who has to wait is looked at among those that are
/// placed, and where is not written down.
fn keeps_room(state: &State) -> bool {
    let mut slots = state.slots();
    slots.any(|slot| slot.claim.is_some() || slot.reservation.is_some())
}

/// Makes the choices of one pass again from the records before and after it; how many.
fn replay(world: &World, before: &State) -> usize {
    let after = &world.state;
    // What has failed in a slot that is taken away counts or does not, as the turn comes.
    let mut slots = before.slots();
    let takes_away = slots.any(|slot| after.slot(&slot.slot).is_none());
    if keeps_room(before) || keeps_room(after) || takes_away {
        return 0;
    }
    let is_new = |run: &RunRecord| before.slot_of_run(run.run).is_none();
    let mut placed: Vec<_> = after.slots().flat_map(|slot| chosen(slot)).collect();
    placed.retain(|(_, run, _)| is_new(run));
    // Ids are minted in the order of the choices.
    placed.sort_by_key(|(_, run, _)| run.run);
    for at in 0..placed.len() {
        let (record, run, decision) = placed[at];
        let mut draft = Draft::new(State::from_records(after));
        // Slots are taken away behind those that are placed.
        for gone in before
            .slots()
            .filter(|slot| after.slot(&slot.slot).is_none())
        {
            draft.put_slot(gone.as_ref().clone());
        }
        for (later, gone, _) in &placed[at..] {
            let mut slot = draft.state().slot(&later.slot).unwrap().as_ref().clone();
            slot.current.take_if(|run| run.run == gone.run);
            slot.incoming.take_if(|run| run.run == gone.run);
            draft.put_slot(slot);
        }
        let turn = at
            .checked_sub(1)
            .map(|last| placed[last].1.node.clone().unwrap());
        let turn = turn.or_else(|| before.cluster()?.last_placed.clone());
        draft.put_cluster(ClusterRecord {
            last_placed: turn,
            ..after.cluster().cloned().unwrap_or_default()
        });
        let again = choose(world, draft.state(), record, run);
        let chosen = choice(run, decision);
        assert_eq!(
            again,
            chosen,
            "{} of {:#?}",
            record.slot,
            told(before, after)
        );
    }
    placed.len()
}

/// What is compared: all that was chosen, and why.
type Choice = (Option<Name>, Decision, String);

fn choice(run: &RunRecord, decision: &Decision) -> Choice {
    let ports = format!("{:?} {:?}", run.ports, run.gpus);
    (run.node.clone(), decision.clone(), ports)
}

/// What there is in the slots, before a pass and after it.
fn told(before: &State, after: &State) -> Vec<String> {
    let of_run = |run: &RunRecord| {
        let id = run.run.0.as_u128() >> 20 & 0xffff;
        let node = run.node.as_ref().map(Name::as_str);
        format!(
            "{id} {node:?} {} v{} {}",
            run.state, run.version, run.marks.unknown
        )
    };
    let of_slot = |slot: &std::sync::Arc<SlotRecord>| {
        let runs =
            |runs: Vec<&RunRecord>| -> Vec<String> { runs.into_iter().map(of_run).collect() };
        let there = slot.current.iter().chain(&slot.incoming).collect();
        let over = slot.ended.iter().collect();
        format!("{}: {:?} after {:?}", slot.slot, runs(there), runs(over))
    };
    let slots = |state: &State| state.slots().map(of_slot).collect::<Vec<_>>();
    [slots(before), vec!["then".to_owned()], slots(after)].concat()
}

fn choose(world: &World, state: &State, record: &SlotRecord, run: &RunRecord) -> Choice {
    // What was measured is in the records.
    let options = PlanOptions {
        measured: imbl::OrdMap::new(),
        ..world.options.clone()
    };
    let lost_at = deadlines(state, options.lost_after);
    let mut cluster = Cluster::empty(options.strategy);
    let mut ids = || unreachable!("the run has its id");
    let mut pass = Pass::new(&mut cluster, world.now, &options, &lost_at, &mut ids);
    let slot = state.slot(&record.slot).unwrap();
    let job = state.job(&slot.slot.job).unwrap();
    let spec = &state.version(&job.name, run.version).unwrap().spec;
    let task = &spec.tasks[&slot.slot.task];
    let mut turn = TaskTurn::of(state, job, &slot.slot.task, world.now);
    let request = turn.request_of(state.spec(job).unwrap(), task, &slot.slot.index);
    let found = pass.find_node(state, task, &request, &mut turn, slot, run.run);
    let found = found.unwrap_or_else(|why| panic!("{} went somewhere: {why}", record.slot));
    let decision = Decision {
        strategy: found.strategy,
        revision: options.revision,
        seed: seed(run.run),
        score: found.score,
        bias: found.bias,
        runners_up: found.runners_up,
        evicted: Vec::new(),
        moved: None,
    };
    let gpus: loom_schemas::record::Seldom<_> =
        Some(found.gpus).filter(|gpus| !gpus.is_empty()).into();
    (
        Some(found.node),
        decision,
        format!("{:?} {gpus:?}", found.ports),
    )
}

/// Lives a story and makes its choices again; how many.
fn relived(strategy: Strategy, story: &[u32]) -> usize {
    let mut world = World::new(strategy);
    let mut choices = 0;
    for number in story {
        if number % 3 == 0 {
            let node = World::node_name(number.to_le_bytes()[1]);
            let cores = Smoothed::first(number / 3 % 5000);
            world.options.measured.insert(node, cores);
        }
        world.happen(Happens::of(*number));
        loop {
            let before = world.state.clone();
            let planned = world.plan_once();
            choices += replay(&world, &before);
            if !planned.more {
                break;
            }
        }
    }
    choices
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn a_choice_made_again_from_the_log_is_the_same(
        strategy in prop::sample::select(&Strategy::ALL[..]),
        story in prop::collection::vec(any::<u32>(), 1..24),
    ) {
        relived(strategy, &story);
    }
}

#[test]
fn there_are_choices_to_be_made_again() {
    let story: Vec<u32> = (1..200_u32)
        .map(|number| number.wrapping_mul(0x9e37_79b9))
        .collect();
    let made = Strategy::ALL.map(|strategy| relived(strategy, &story));
    assert!(made.iter().all(|made| *made >= 10), "{made:?}");
}
