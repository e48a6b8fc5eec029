use loom_schemas::error::ErrorCode;
use loom_schemas::words::{JobStatus, Kind};

use super::*;
use crate::plan::{PlanOptions, plan};
use crate::state::fixture::{ANNA, at, counter, decide, job, name, submission, task, with_nodes};

/// Six replicas on nodes that take four.
fn crowded() -> State {
    let spec = job("web", Kind::Service, task(6));
    let mut ids = counter();
    decide(&with_nodes(1, 4), |draft| {
        crate::decide::submit(draft, submission(&spec), ANNA, at(1)).unwrap();
        plan(draft, at(1), &PlanOptions::default(), &mut ids);
    })
    .state
}

#[test]
fn a_job_says_what_it_waits_for() {
    let state = crowded();
    let view = job_view(&state, &name("web")).unwrap();
    assert_eq!(view.summary.status, JobStatus::Pending);
    assert_eq!((view.summary.wanted, view.summary.waiting), (6, 2));
    let waits: Vec<_> = view
        .slots
        .iter()
        .filter_map(|slot| slot.waiting.as_deref())
        .collect();
    assert_eq!(waits, ["no node fits: 1 not enough cpu"; 2]);
    assert_eq!(job_list(&state).jobs, [view.summary]);
    let missing = job_view(&state, &name("nothing")).unwrap_err();
    assert_eq!(missing.code, ErrorCode::NotFound);
    assert_eq!(job_text(&state, &name("web"), None).unwrap(), b"web");
}

#[test]
fn a_node_shows_what_it_holds() {
    let state = crowded();
    let nodes = node_list(&state, &|_| None).nodes;
    assert_eq!(nodes.len(), 1);
    assert_eq!(nodes[0].reserved_cpu_millis, 4000);
    assert_eq!(nodes[0].runs.len(), 4);
    assert_eq!(node_view(&state, &name("node-1"), None).unwrap(), nodes[0]);
    assert_eq!(
        node_view(&state, &name("x"), None).unwrap_err().code,
        ErrorCode::NotFound
    );
}

#[test]
fn a_run_is_found_by_the_end_of_its_id() {
    let state = crowded();
    let run = node_list(&state, &|_| None).nodes[0].runs[2].clone();
    assert_eq!(run_view(&state, &run.run.run.to_string()).unwrap(), run);
    assert_eq!(run_view(&state, &run.run.run.short()).unwrap(), run);
    let hex = run.run.run.0.simple().to_string();
    assert_eq!(run_view(&state, &hex[32 - 12..]).unwrap(), run);
    for (text, code) in [
        ("1234567", ErrorCode::Invalid),
        ("nonsense!", ErrorCode::Invalid),
        ("ffffffff", ErrorCode::NotFound),
    ] {
        assert_eq!(run_view(&state, text).unwrap_err().code, code, "{text}");
    }
}
