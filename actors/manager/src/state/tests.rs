use bytes::Bytes;
use loom_bus::log::Fold;
use loom_schemas::ids::Slot;
use loom_schemas::words::Kind;
use proptest::prelude::{prop, prop_assert_eq, proptest};

use super::*;
use crate::plan::{PlanOptions, plan};
use crate::state::fixture::{ANNA, at, counter, decide, job, name, submission, task, with_nodes};

/// A cluster with a job of three replicas that is placed.
fn placed() -> State {
    let state = with_nodes(2, 4);
    let spec = job("web", Kind::Service, task(3));
    let mut ids = counter();
    decide(&state, |draft| {
        crate::decide::submit(draft, submission(&spec), ANNA, at(1)).unwrap();
        plan(draft, at(1), &PlanOptions::default(), &mut ids);
    })
    .state
}

fn records(state: &State) -> Vec<(String, Bytes)> {
    state.records().collect()
}

#[test]
fn the_changes_of_a_draft_lead_a_follower_to_the_same_state() {
    let mut follower = State::default();
    let mut leader = State::default();
    let spec = job("web", Kind::Service, task(3));
    let mut ids = counter();
    for turn in 0..3 {
        let decided = decide(&leader, |draft| match turn {
            0 => {
                let hello =
                    crate::state::fixture::hello_of(crate::state::fixture::info(4, 8), Vec::new());
                crate::decide::hello(draft, &name("node-1"), &hello, false, at(0));
            }
            1 => drop(crate::decide::submit(draft, submission(&spec), ANNA, at(1)).unwrap()),
            _ => drop(plan(draft, at(2), &PlanOptions::default(), &mut ids)),
        });
        for change in &decided.changes {
            match &change.value {
                Some(value) => follower.put(&change.key, value),
                None => follower.delete(&change.key),
            }
        }
        leader = decided.state;
        assert_eq!(records(&leader), records(&follower));
    }
    assert_eq!(leader.load(&name("node-1")), follower.load(&name("node-1")));
    assert_eq!(leader.load(&name("node-1")).unwrap().held.cpu, 3000);
}

#[test]
fn a_state_from_its_own_records_has_the_same_indexes() {
    let state = placed();
    let mut again = State::default();
    for (key, value) in records(&state).into_iter().rev() {
        again.put(&key, &value);
    }
    assert_eq!(records(&again), records(&state));
    assert!(again.loads().eq(state.loads()));
    assert_eq!(again.runs, state.runs);
    assert_eq!(again.waiting, state.waiting);
    assert_eq!(again.down, state.down);
}

#[test]
fn what_a_newer_build_wrote_is_kept_byte_for_byte() {
    let mut state = placed();
    let foreign: [(&str, &[u8]); 4] = [
        ("gang/web", b"\x81\xa1a\x01"),
        ("job/web", b"no record at all"),
        ("slot/web/main/7", b"key without padding"),
        ("zebra", b""),
    ];
    let mut node = serde_json::to_value(state.node(&name("node-1")).unwrap().as_ref()).unwrap();
    node["shoe_size"] = 46.into();
    let newer = rmp_serde::to_vec_named(&node).unwrap();
    state.put("node/node-1", &newer);
    for (key, value) in foreign {
        state.put(key, value);
    }
    let all = records(&state);
    for (key, value) in foreign
        .into_iter()
        .chain([("node/node-1", newer.as_slice())])
    {
        let found = all.iter().find(|(k, _)| k == key).unwrap();
        assert_eq!(found.1, value, "{key}");
    }
    assert!(
        all.is_sorted_by(|a, b| a.0 < b.0),
        "in the order of keys, each once"
    );
    assert!(
        state.node(&name("node-1")).is_some(),
        "what could be read of it is used"
    );
    assert_eq!(state.foreign_records(), 5);
    state.delete("zebra");
    state.delete("gang/web");
    assert_eq!(state.foreign_records(), 3);
}

#[test]
fn keys_come_in_the_order_of_their_text() {
    let mut state = State::default();
    for job in ["a", "a-b", "a-b-c", "ab", "a0"] {
        for (task, index) in [("a", 10), ("a", 9), ("a-a", 0)] {
            let slot = Slot::new(name(job), name(task), index);
            let record = crate::plan::empty_slot(slot.clone());
            state.set_slot(&slot, Some(Arc::new(record)));
        }
    }
    let keys: Vec<String> = state.records().map(|(key, _)| key).collect();
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(keys, sorted);
    let slots = state.slots_of(&name("a-b")).count();
    assert_eq!(slots, 3);
}

#[test]
fn a_draft_without_effect_changes_nothing() {
    let state = placed();
    let decided = decide(&state, |draft| {
        let job = state.job(&name("web")).unwrap();
        draft.put_job(loom_schemas::record::JobRecord::clone(job));
    });
    assert_eq!((decided.changes.len(), decided.assigns.len()), (0, 0));
}

proptest! {
    #![proptest_config(crate::state::fixture::cases(256))]

    /// Whatever text a key is, it is read as what it writes, or not at all.
    #[test]
    fn keys_read_back(parts in prop::collection::vec("[a-z]{1,3}|slot|version|[0-9]{10}", 1..6)) {
        let text = parts.join("/");
        if let Some(key) = Key::parse(&text) {
            prop_assert_eq!(key.to_string(), text);
        }
    }
}
