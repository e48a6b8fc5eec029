use std::collections::BTreeMap;

use loom_schemas::wire::DispatchRequest;
use loom_schemas::words::Kind;

use super::*;
use crate::decide;
use crate::state::fixture::{ANNA, at, decide as edit, job, name, submission, task, with_nodes};

const TIME: &str = "-20231114t221320z";

fn child_of(parent: &str) -> String {
    name_at(&name(parent), at(0)).unwrap().to_string()
}

#[test]
fn a_child_is_called_after_as_much_of_its_parents_name_as_leaves_room() {
    let whole = "a".repeat(41);
    assert_eq!(child_of(&whole), format!("{whole}{TIME}"));
    let long = "a".repeat(NAME_MAX);
    let child = child_of(&long);
    let head = format!("{}-", "a".repeat(32));
    assert!(child.starts_with(&head) && child.ends_with(TIME), "{child}");
    assert_eq!(child.len(), WHOLE_MAX + STAMP);
    assert_ne!(child, child_of(&format!("{}b", &long[1..])));
    // Where it is cut no hyphen is left over; the same name is the same in every build.
    let hyphen = format!("{}-{}", "a".repeat(31), "b".repeat(31));
    let expected = format!("{}-9f1826e8{TIME}", "a".repeat(31));
    assert_eq!(child_of(&hyphen), expected);
}

/// The dispatches of a batch with this name, one after the other in one second.
fn dispatches(parent: &str, count: usize) -> Vec<Result<String, String>> {
    let mut state = with_nodes(1, 400);
    let spec = job(parent, Kind::Batch, task(1));
    let request = DispatchRequest {
        job: name(parent),
        params: BTreeMap::new(),
    };
    let mut said = Vec::new();
    state = edit(&state, |draft| {
        decide::submit(draft, submission(&spec), ANNA, at(0)).unwrap();
    })
    .state;
    for _ in 0..count {
        state = edit(&state, |draft| {
            let made = decide::dispatch(draft, &request, ANNA, at(0));
            said.push(match made {
                Ok(made) => Ok(made.job.to_string()),
                Err(error) => Err(error.message),
            });
        })
        .state;
    }
    said
}

#[test]
fn children_of_one_second_have_names_however_long_their_parents_is() {
    let long = "a".repeat(NAME_MAX);
    let said = dispatches(&long, 12);
    let first = child_of(&long);
    assert_eq!(said[0], Ok(first.clone()));
    assert_eq!(said[11], Ok(format!("{first}-12")));
}

#[test]
fn no_more_dispatches_live_at_once_than_may_and_the_next_says_so() {
    let said = dispatches("render", CHILDREN_LIVE_MAX + 1);
    assert!(said[..CHILDREN_LIVE_MAX].iter().all(Result::is_ok));
    let why = "100 dispatches of render have not ended, and at most 100 may live at once: wait for \
               some of them, or stop them";
    assert_eq!(said[CHILDREN_LIVE_MAX], Err(why.to_owned()));
}
