use loom_schemas::error::ErrorCode;
use loom_schemas::words::{JobStatus, Kind};

use super::*;
use crate::plan::{PlanOptions, plan};
use crate::state::fixture::{ANNA, at, counter, decide, job, name, submission, task, with_nodes};

/// Larger than anything here.
const MUCH: usize = 1 << 20;

fn whole(job: &str) -> JobGet {
    JobGet {
        job: name(job),
        after: None,
    }
}

fn node(node: &str) -> NodeGet {
    NodeGet {
        node: name(node),
        after: None,
    }
}

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
    let view = job_view(&state, &whole("web"), MUCH).unwrap();
    assert_eq!(view.summary.status, JobStatus::Pending);
    assert_eq!((view.summary.wanted, view.summary.waiting), (6, 2));
    let waits: Vec<_> = view
        .slots
        .iter()
        .filter_map(|slot| slot.waiting.as_deref())
        .collect();
    assert_eq!(waits, ["no node fits: 1 not enough cpu"; 2]);
    assert_eq!(
        job_list(&state, &JobListQuery::default(), MUCH).jobs,
        [view.summary]
    );
    let missing = job_view(&state, &whole("nothing"), MUCH).unwrap_err();
    assert_eq!(missing.code, ErrorCode::NotFound);
    assert_eq!(job_text(&state, &name("web"), None).unwrap(), b"web");
}

#[test]
fn why_a_job_waits_is_told_as_of_now() {
    let mut state = crowded();
    // A node that is too small wakes nobody, and is counted all the same.
    let small = crate::state::fixture::hello_of(crate::state::fixture::info(0, 1), Vec::new());
    state = crate::state::fixture::decide(&state, |draft| {
        crate::decide::hello(draft, &name("small"), &small, false, at(2));
    })
    .state;
    let view = job_view(&state, &whole("web"), MUCH).unwrap();
    let waits = view.slots.iter().filter_map(|slot| slot.waiting.as_deref());
    let expected = ["no node fits: 2 not enough cpu"; 2];
    assert_eq!(waits.collect::<Vec<_>>(), expected);
}

#[test]
fn other_replicas_are_counted_before_the_room_that_a_node_has() {
    let mut main = task(3);
    main.constraints.push("distinct_hosts".parse().unwrap());
    let mut ids = counter();
    // What comes after it fills both nodes.
    let jobs = [
        job("apart", Kind::Service, main),
        job("filler", Kind::Service, task(6)),
    ];
    let state = decide(&with_nodes(2, 4), |draft| {
        for spec in jobs {
            crate::decide::submit(draft, submission(&spec), ANNA, at(1)).unwrap();
            plan(draft, at(1), &PlanOptions::default(), &mut ids);
        }
    })
    .state;
    let view = job_view(&state, &whole("apart"), MUCH).unwrap();
    let waits = view.slots.iter().find_map(|slot| slot.waiting.as_deref());
    assert_eq!(waits, Some("no node fits: 2 constraint distinct_hosts"));
    let view = job_view(&state, &whole("filler"), MUCH).unwrap();
    assert!(view.slots.iter().all(|slot| slot.waiting.is_none()));
}

#[test]
fn a_node_shows_what_it_holds() {
    let state = crowded();
    let nodes = node_list(&state, &NodeListQuery::default(), &|_| None, MUCH).nodes;
    assert_eq!(nodes.len(), 1);
    assert_eq!((nodes[0].reserved_cpu_millis, nodes[0].runs), (4000, 4));
    let view = node_view(&state, &node("node-1"), None, MUCH).unwrap();
    assert_eq!((&view.summary, view.runs.len()), (&nodes[0], 4));
    assert_eq!(view.next, None);
    let missing = node_view(&state, &node("x"), None, MUCH).unwrap_err();
    assert_eq!(missing.code, ErrorCode::NotFound);
}

#[test]
fn a_list_of_nodes_is_no_larger_for_what_runs_on_them_and_both_come_in_pages() {
    let state = crowded();
    let all = node_list(&state, &NodeListQuery::default(), &|_| None, MUCH);
    let idle = node_list(
        &with_nodes(1, 4),
        &NodeListQuery::default(),
        &|_| None,
        MUCH,
    );
    assert!(size_of(&all) < size_of(&idle) + 32);

    let whole = node_view(&state, &node("node-1"), None, MUCH).unwrap();
    let (mut ask, mut runs) = (node("node-1"), Vec::new());
    loop {
        let page = node_view(&state, &ask, None, 1).unwrap();
        assert_eq!(page.runs.len(), 1);
        runs.extend(page.runs);
        ask.after = page.next;
        if ask.after.is_none() {
            break;
        }
    }
    assert_eq!(runs, whole.runs);

    let (mut query, mut names) = (NodeListQuery::default(), Vec::new());
    loop {
        let page = node_list(&with_nodes(3, 4), &query, &|_| None, 1);
        names.extend(
            page.nodes
                .into_iter()
                .map(|line| line.node.name.to_string()),
        );
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(names, ["node-1", "node-2", "node-3"]);
}

#[test]
fn what_is_being_stopped_is_counted_apart() {
    let spec = job("web", Kind::Service, task(2));
    let mut ids = counter();
    let state = decide(&with_nodes(1, 4), |draft| {
        crate::decide::submit(draft, submission(&spec), ANNA, at(1)).unwrap();
        plan(draft, at(1), &PlanOptions::default(), &mut ids);
    })
    .state;
    let counts = |state: &State| {
        let line = job_view(state, &whole("web"), MUCH).unwrap().summary;
        (line.running, line.stopping, line.wanted)
    };
    let state = decide(&state, |draft| {
        let records: Vec<_> = state
            .slots()
            .map(|record| SlotRecord::clone(record))
            .collect();
        for mut record in records {
            record.current.as_mut().unwrap().state = RunState::Running;
            draft.put_slot(record);
        }
    })
    .state;
    assert_eq!(counts(&state), (2, 0, 2));
    let state = decide(&state, |draft| {
        for index in [0, 1] {
            let address = loom_schemas::wire::JobAddress {
                job: name("web"),
                task: None,
                index: Some(index.into()),
            };
            let reason = None;
            let request = loom_schemas::wire::JobRequest { address, reason };
            crate::decide::stop(draft, &request, ANNA, at(1)).unwrap();
        }
        plan(draft, at(2), &PlanOptions::default(), &mut ids);
    })
    .state;
    assert_eq!(counts(&state), (0, 2, 0));
}

#[test]
fn a_run_is_found_by_the_end_of_its_id() {
    let state = crowded();
    let run = node_view(&state, &node("node-1"), None, MUCH).unwrap().runs[2].clone();
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

#[test]
fn pages_are_the_whole_in_order_however_small_they_are() {
    let state = crowded();
    let all = job_view(&state, &whole("web"), MUCH).unwrap();
    assert_eq!(all.next, None);
    for bytes in [1, 300, 700, MUCH] {
        let (mut ask, mut slots, mut pages) = (whole("web"), Vec::new(), 0);
        loop {
            let page = job_view(&state, &ask, bytes).unwrap();
            pages += 1;
            slots.extend(page.slots);
            ask.after = page.next;
            if ask.after.is_none() {
                break;
            }
        }
        assert_eq!(slots, all.slots, "{bytes}");
        assert_eq!(pages == 1, bytes == MUCH, "{pages} pages of {bytes} bytes");
    }
}

#[test]
fn a_list_of_jobs_goes_on_where_the_last_page_ended() {
    let mut state = with_nodes(1, 4);
    for job_name in ["a", "b", "c"] {
        let spec = job(job_name, Kind::Service, task(1));
        state = decide(&state, |draft| {
            crate::decide::submit(draft, submission(&spec), ANNA, at(1)).unwrap();
        })
        .state;
    }
    let (mut query, mut names) = (JobListQuery::default(), Vec::new());
    loop {
        let page = job_list(&state, &query, 1);
        assert_eq!(page.jobs.len(), 1);
        names.extend(page.jobs.into_iter().map(|line| line.job.name.to_string()));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
}
