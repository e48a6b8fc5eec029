use loom_schemas::error::ErrorCode;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{Exit, JobRecord, Marks, Order, SlotRecord, Wanted};
use loom_schemas::spec::JobSpec;
use loom_schemas::wire::{Bye, JobAddress, JobRequest, RunReport, ScaleRequest, SubmitOutcome};
use loom_schemas::words::{JobStatus, Kind, RunState};
use proptest::prelude::{any, prop_assert_eq, proptest};

use super::*;
use crate::state::fixture::{
    ANNA, at, counter, hello_of, info, job, name, report_of, run_id, submission, task, with_nodes,
};
use crate::plan::{PlanOptions, plan};
use crate::state::{Decided, Draft};

/// A leader with one line of life.
struct Leader {
    state: State,
    ids: Box<dyn FnMut() -> RunId>,
    last: Vec<String>,
}

impl Leader {
    fn new(nodes: usize) -> Self {
        Self { state: with_nodes(nodes, 4), ids: Box::new(counter()), last: Vec::new() }
    }

    fn decide<R>(&mut self, edit: impl FnOnce(&mut Draft) -> R) -> (R, Decided) {
        let mut draft = Draft::new(self.state.clone());
        let result = edit(&mut draft);
        let decided = draft.finish().unwrap();
        self.state = decided.state.clone();
        let told = |event: &loom_schemas::event::Event| {
            event.subject().replace("orch.events.", "")
        };
        self.last = decided.events.iter().map(told).collect();
        (result, decided)
    }

    fn submit(&mut self, spec: &JobSpec) -> Result<Accepted, WireError> {
        self.decide(|draft| submit(draft, submission(spec), ANNA, at(1))).0
    }

    fn plan(&mut self, seconds: i64) {
        let mut ids = std::mem::replace(&mut self.ids, Box::new(|| run_id(0)));
        self.decide(|draft| plan(draft, at(seconds), &PlanOptions::default(), &mut ids));
        self.ids = ids;
    }

    fn report(&mut self, reports: &[RunReport], seconds: i64) -> Decided {
        let node = self.node_of(&reports[0].slot);
        self.decide(|draft| report(draft, &node, reports, false, at(seconds))).1
    }

    fn node_of(&self, slot: &Slot) -> Name {
        let record = self.slot(slot);
        let runs = record.current.iter().chain(&record.ended);
        runs.last().and_then(|run| run.node.clone()).unwrap_or_else(|| name("node-1"))
    }

    fn job(&self, job: &str) -> &JobRecord {
        self.state.job(&name(job)).unwrap()
    }

    fn slot(&self, slot: &Slot) -> &SlotRecord {
        self.state.slot(slot).unwrap()
    }

    fn current(&self, slot: &Slot) -> &loom_schemas::record::RunRecord {
        self.slot(slot).current.as_ref().unwrap()
    }

    /// Submits, plans, and reports every slot running.
    fn running(&mut self, spec: &JobSpec) {
        self.submit(spec).unwrap();
        self.plan(1);
        self.all_run(&spec.name, 2);
    }

    fn all_run(&mut self, job: &Name, seconds: i64) {
        let slots: Vec<Slot> =
            self.state.slots_of(job).map(|record| record.slot.clone()).collect();
        for slot in slots {
            let report = self.said(&slot, RunState::Running, seconds);
            self.report(&[report], seconds);
        }
        self.plan(seconds);
    }

    fn said(&self, slot: &Slot, state: RunState, seconds: i64) -> RunReport {
        let run = self.current(slot);
        let over = state.is_terminal();
        let code = i32::from(state != RunState::Completed);
        RunReport {
            placement: run.placement,
            version: run.version,
            restarts: run.restarts,
            started_at: Some(run.started_at.unwrap_or(at(seconds))),
            ended_at: over.then(|| at(seconds)),
            exit: over.then(|| Exit { code: Some(code), ..Exit::default() }),
            ..report_of(slot, run.run, state)
        }
    }
}

fn slot(job: &str, index: u32) -> Slot {
    Slot::new(name(job), Name::main(), index)
}

fn whole(job: &str) -> JobRequest {
    JobRequest { address: JobAddress { job: name(job), task: None, index: None }, reason: None }
}

fn one(job: &str, index: u32) -> JobRequest {
    let address = JobAddress { job: name(job), task: None, index: Some(index) };
    JobRequest { address, reason: Some("maintenance".to_owned()) }
}

#[test]
fn a_submission_creates_changes_or_leaves_alone() {
    let mut leader = Leader::new(1);
    let spec = job("web", Kind::Service, task(1));
    let outcome = |accepted: Result<Accepted, WireError>| {
        let accepted = accepted.unwrap();
        (accepted.version, accepted.outcome)
    };
    assert_eq!(outcome(leader.submit(&spec)), (1, SubmitOutcome::Created));
    assert_eq!(leader.last, ["job.web.accepted"]);
    assert_eq!(leader.job("web").owner, "anna");
    assert_eq!(outcome(leader.submit(&spec)), (1, SubmitOutcome::Unchanged));
    assert_eq!(leader.last, Vec::<String>::new());
    let changed = job("web", Kind::Service, task(2));
    assert_eq!(outcome(leader.submit(&changed)), (2, SubmitOutcome::Updated));
    assert_eq!(leader.last, ["job.web.updated"]);
    leader.decide(|draft| stop(draft, &whole("web"), ANNA)).0.unwrap();
    leader.plan(3);
    assert_eq!(leader.job("web").status, JobStatus::Killed);
    assert_eq!(outcome(leader.submit(&changed)), (2, SubmitOutcome::Restarted));
    assert_eq!((leader.job("web").round, leader.job("web").status), (2, JobStatus::Pending));
}

#[test]
fn only_the_last_versions_are_kept_and_those_that_run() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    for number in 0..30 {
        let mut main = task(1);
        main.args = vec![number.to_string()];
        leader.submit(&job("web", Kind::Service, main)).unwrap();
    }
    let kept: Vec<u32> = leader.state.versions(&name("web")).map(|v| v.version).collect();
    let expected: Vec<u32> = std::iter::once(1).chain(12..=31).collect();
    assert_eq!(kept, expected);
}

#[test]
fn a_conditional_submission_is_refused_at_another_version() {
    let mut leader = Leader::new(1);
    let spec = job("web", Kind::Service, task(1));
    let mut at_version = |version: u32| {
        let submission = Submission { if_version: Some(version), ..submission(&spec) };
        let (result, decided) = leader.decide(|draft| submit(draft, submission, ANNA, at(1)));
        (result.map(|a| a.version).map_err(|e| e.code), decided.changes.len())
    };
    assert_eq!(at_version(1), (Err(ErrorCode::Conflict), 0));
    assert_eq!(at_version(0), (Ok(1), 2));
    assert_eq!(at_version(0), (Err(ErrorCode::Conflict), 0));
    assert_eq!(at_version(1), (Ok(1), 0));
}

#[test]
fn only_an_admin_may_submit_for_another() {
    let mut leader = Leader::new(1);
    let mut spec = job("web", Kind::Service, task(1));
    spec.owner = Some("berta".to_owned());
    assert_eq!(leader.submit(&spec).unwrap_err().code, ErrorCode::Denied);
    let admin = Asker { user: "loom", admin: true, request: None };
    leader.decide(|draft| submit(draft, submission(&spec), admin, at(1))).0.unwrap();
    assert_eq!(leader.job("web").owner, "berta");
}

#[test]
fn a_batch_completes_once_all_its_slots_have() {
    let mut leader = Leader::new(1);
    leader.running(&job("etl", Kind::Batch, task(2)));
    assert_eq!(leader.last, Vec::<String>::new());
    assert_eq!(leader.job("etl").status, JobStatus::Running);
    for index in 0..2 {
        let done = leader.said(&slot("etl", index), RunState::Completed, 5);
        leader.report(&[done], 5);
        leader.plan(5);
    }
    let etl = leader.job("etl");
    assert_eq!((etl.status, etl.exit_code), (JobStatus::Completed, Some(0)));
    assert_eq!((etl.started_at, etl.ended_at), (Some(at(2)), Some(at(5))));
    assert_eq!(leader.last, ["job.etl.completed"]);
    assert!(leader.state.loads().next().is_none());
}

#[test]
fn a_batch_with_a_failed_slot_stops_the_others_and_fails() {
    let mut leader = Leader::new(1);
    leader.running(&job("etl", Kind::Batch, task(3)));
    let failed = leader.said(&slot("etl", 1), RunState::Failed, 5);
    let decided = leader.report(&[failed], 5);
    assert_eq!(decided.events[0].exit_code, Some(1));
    leader.plan(5);
    assert_eq!(leader.job("etl").status, JobStatus::Running);
    let reason = "etl/1 failed: exit code 1".to_owned();
    for index in [0, 2] {
        let order = &leader.current(&slot("etl", index)).order;
        assert_eq!(*order, Order::Stop { reason: reason.clone() });
        let killed = leader.said(&slot("etl", index), RunState::Killed, 6);
        leader.report(&[killed], 6);
    }
    leader.plan(6);
    let etl = leader.job("etl");
    assert_eq!((etl.status, etl.exit_code), (JobStatus::Failed, Some(1)));
    assert_eq!(etl.reason, Some(reason));
}

#[test]
fn a_service_is_placed_again_elsewhere_after_a_growing_pause() {
    let mut leader = Leader::new(2);
    leader.running(&job("web", Kind::Service, task(1)));
    let web = slot("web", 0);
    let mut time = 10;
    for pause in [1, 2, 4, 8] {
        let before = leader.node_of(&web);
        let failed = leader.said(&web, RunState::Failed, time);
        leader.report(&[failed], time);
        leader.plan(time);
        assert_eq!(leader.slot(&web).not_before, Some(at(time + pause)));
        leader.plan(time + pause - 1);
        assert!(leader.slot(&web).current.is_none() || pause == 1);
        leader.plan(time + pause);
        assert_ne!(leader.node_of(&web), before, "another node is preferred");
        time += pause;
    }
    assert_eq!(leader.job("web").status, JobStatus::Running);
}

#[test]
fn a_restart_on_the_node_is_a_new_run_in_the_same_slot() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let web = slot("web", 0);
    let first = leader.current(&web).clone();
    let mut failed = leader.said(&web, RunState::Failed, 5);
    failed.will_restart = true;
    leader.report(&[failed.clone()], 5);
    leader.plan(5);
    assert_eq!(leader.current(&web).run, first.run, "it is left to the node");
    let second = RunReport {
        run: run_id(99),
        state: RunState::Running,
        restarts: 1,
        passed: vec![RunState::Preparing, RunState::Starting],
        exit: None,
        ended_at: None,
        will_restart: false,
        ..failed
    };
    let decided = leader.report(&[second], 6);
    assert_eq!(leader.current(&web).run, run_id(99));
    assert_eq!(leader.slot(&web).ended[0].run, first.run);
    assert_eq!(decided.events[0].passed, [RunState::Preparing, RunState::Starting]);
    assert_eq!(decided.assigns.len(), 0, "the node knows already");
    leader.decide(|draft| restart(draft, &whole("web"), ANNA, at(7))).0.unwrap();
    assert_eq!(leader.current(&web).restart_orders, 1);
}

#[test]
fn a_stopped_index_stays_down_until_it_is_restarted() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(2)));
    let (changed, decided) = leader.decide(|draft| stop(draft, &one("web", 1), ANNA));
    assert!(changed.unwrap());
    assert_eq!(decided.assigns[&name("node-1")].put.len(), 1);
    let killed = leader.said(&slot("web", 1), RunState::Killed, 5);
    let decided = leader.report(&[killed], 5);
    let reason = decided.events[0].reason.as_deref();
    assert_eq!(reason, Some("stopped by anna: maintenance"));
    assert_eq!(decided.assigns[&name("node-1")].remove.len(), 1);
    leader.plan(5);
    assert!(!crate::state::is_live(leader.current(&slot("web", 1))));
    assert!(!leader.decide(|draft| stop(draft, &one("web", 1), ANNA)).0.unwrap());
    leader.decide(|draft| restart(draft, &one("web", 1), ANNA, at(6))).0.unwrap();
    leader.plan(6);
    assert!(crate::state::is_live(leader.current(&slot("web", 1))));
}

#[test]
fn scaling_down_stops_the_highest_and_removes_their_slots() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(3)));
    let to = |replicas| ScaleRequest { job: name("web"), task: None, replicas };
    assert!(leader.decide(|draft| scale(draft, &to(1), ANNA, at(3))).0.unwrap());
    assert!(!leader.decide(|draft| scale(draft, &to(1), ANNA, at(3))).0.unwrap());
    leader.plan(3);
    assert_eq!(leader.current(&slot("web", 0)).order, Order::Run);
    for index in [1, 2] {
        let stop = Order::Stop { reason: "scaled to 1".to_owned() };
        assert_eq!(leader.current(&slot("web", index)).order, stop);
        let killed = leader.said(&slot("web", index), RunState::Killed, 4);
        leader.report(&[killed], 4);
    }
    leader.plan(4);
    assert_eq!(leader.state.slots_of(&name("web")).count(), 1);
}

#[test]
fn a_new_version_replaces_one_slot_after_the_other() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(3)));
    let mut main = task(3);
    main.args = vec!["new".to_owned()];
    leader.submit(&job("web", Kind::Service, main)).unwrap();
    for index in 0..3 {
        leader.plan(10);
        let stopping: Vec<u32> = leader
            .state
            .slots_of(&name("web"))
            .filter(|record| record.current.as_ref().unwrap().order != Order::Run)
            .map(|record| record.slot.index)
            .collect();
        assert_eq!(stopping, [index]);
        let killed = leader.said(&slot("web", index), RunState::Killed, 10);
        leader.report(&[killed], 10);
        leader.plan(10);
        assert_eq!(leader.current(&slot("web", index)).version, 2);
        let running = leader.said(&slot("web", index), RunState::Running, 10);
        leader.report(&[running], 10);
    }
    leader.plan(10);
    assert!(leader.state.slots().all(|record| record.current.as_ref().unwrap().version == 2));
}

#[test]
fn what_changes_in_place_restarts_nothing() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(2)));
    let mut main = task(3);
    main.restart.attempts = 9;
    leader.submit(&job("web", Kind::Service, main)).unwrap();
    leader.plan(10);
    for index in 0..2 {
        let run = leader.current(&slot("web", index));
        assert_eq!((run.version, &run.order, run.state), (2, &Order::Run, RunState::Running));
    }
    assert_eq!(leader.current(&slot("web", 2)).state, RunState::Scheduled);
}

#[test]
fn runs_of_a_silent_node_are_unknown_then_lost_and_replaced() {
    let mut leader = Leader::new(2);
    leader.running(&job("web", Kind::Service, task(1)));
    let web = slot("web", 0);
    let node = leader.node_of(&web);
    let old = leader.current(&web).run;
    leader.decide(|draft| node_down(draft, &node, "no heartbeat", at(10)));
    assert_eq!(leader.last, [format!("node.{node}.down")]);
    leader.plan(10);
    assert_eq!(leader.last, ["task.web.main.0.unknown"]);
    leader.plan(39);
    assert_eq!(leader.current(&web).run, old);
    leader.plan(40);
    assert_eq!(leader.last, ["task.web.main.0.lost", "task.web.main.0.scheduled"]);
    assert_ne!(leader.node_of(&web), node);
    // The node is back with the old run: it is told to stop it, then to forget it.
    let mut held = report_of(&web, old, RunState::Running);
    let hello_again = |held: &RunReport| hello_of(info(4, 8), vec![held.clone()]);
    let message = hello_again(&held);
    let (_, decided) = leader.decide(|draft| hello(draft, &node, &message, false, at(50)));
    assert_eq!(decided.assigns[&node].stop.keys().collect::<Vec<_>>(), [&old]);
    held.state = RunState::Killed;
    let (_, decided) =
        leader.decide(|draft| report(draft, &node, &[held], false, at(51)));
    assert!(decided.assigns[&node].remove.contains(&old));
    assert_eq!(leader.slot(&web).ended[0].state, RunState::Lost, "the first end stays");
}

#[test]
fn a_node_back_in_time_keeps_its_runs() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let node = name("node-1");
    let away = Bye { back_within: Some(120) };
    leader.decide(|draft| bye(draft, &node, &away, at(10)));
    leader.plan(100);
    assert!(leader.current(&slot("web", 0)).marks.unknown);
    let after = std::time::Duration::from_secs(30);
    let (up, _) = leader.decide(|draft| node_up(draft, &node, after, at(110)));
    assert_eq!(up, Up::Up);
    assert_eq!(leader.current(&slot("web", 0)).marks, Marks::default());
    leader.decide(|draft| node_down(draft, &node, "no heartbeat", at(200)));
    let (up, _) = leader.decide(|draft| node_up(draft, &node, after, at(230)));
    assert_eq!(up, Up::NeedsHello);
}

#[test]
fn a_node_that_lost_a_run_is_believed_but_gets_what_it_never_had() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    leader.submit(&job("new", Kind::Service, task(1))).unwrap();
    leader.plan(5);
    let (node, message) = (name("node-1"), hello_of(info(4, 8), Vec::new()));
    leader.decide(|draft| hello(draft, &node, &message, false, at(6)));
    assert_eq!(leader.current(&slot("web", 0)).state, RunState::Lost);
    assert_eq!(leader.current(&slot("new", 0)).state, RunState::Scheduled);
    assert_eq!(crate::plan::assignment(&leader.state, &node).len(), 1);
    leader.plan(6);
    assert_eq!(leader.current(&slot("web", 0)).state, RunState::Scheduled);
}

#[test]
fn a_recovering_leader_takes_up_what_the_log_has_lost() {
    let mut leader = Leader::new(1);
    leader.submit(&job("web", Kind::Service, task(1))).unwrap();
    let unknown = report_of(&slot("web", 0), run_id(77), RunState::Running);
    let stray = report_of(&slot("gone", 0), run_id(78), RunState::Running);
    let message = hello_of(info(4, 8), vec![unknown, stray]);
    let node = name("node-1");
    let (_, decided) = leader.decide(|draft| hello(draft, &node, &message, true, at(2)));
    assert_eq!(leader.current(&slot("web", 0)).run, run_id(77));
    assert!(decided.assigns[&node].stop.is_empty(), "nothing is stopped");
    leader.plan(3);
    assert_eq!(leader.current(&slot("web", 0)).run, run_id(77));
}

#[test]
fn marks_are_told() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let mut said = leader.said(&slot("web", 0), RunState::Running, 5);
    said.marks.paused = true;
    leader.report(&[said.clone()], 5);
    assert_eq!(leader.last, ["task.web.main.0.paused"]);
    leader.report(&[said.clone()], 5);
    assert_eq!(leader.last, Vec::<String>::new());
    said.marks.paused = false;
    leader.report(&[said], 6);
    assert_eq!(leader.last, ["task.web.main.0.resumed"]);
}

#[test]
fn a_stop_names_who_and_why() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let request = JobRequest { reason: Some("too loud".to_owned()), ..whole("web") };
    assert!(leader.decide(|draft| stop(draft, &request, ANNA)).0.unwrap());
    leader.plan(5);
    let killed = leader.said(&slot("web", 0), RunState::Killed, 6);
    leader.report(&[killed], 6);
    leader.plan(6);
    let web = leader.job("web");
    assert_eq!(web.status, JobStatus::Killed);
    assert_eq!(web.reason.as_deref(), Some("stopped by anna: too loud"));
    assert!(matches!(&web.wanted, Wanted::Stop { by, .. } if by == "anna"));
    assert!(!leader.decide(|draft| stop(draft, &request, ANNA)).0.unwrap());
    let part = leader.decide(|draft| restart(draft, &one("web", 0), ANNA, at(7))).0;
    assert_eq!(part.unwrap_err().code, ErrorCode::Conflict);
    assert!(leader.decide(|draft| restart(draft, &whole("web"), ANNA, at(7))).0.unwrap());
    leader.plan(7);
    assert!(crate::state::is_live(leader.current(&slot("web", 0))));
}

#[test]
fn an_address_that_names_nothing_is_refused() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let mut refused = |request: JobRequest| {
        leader.decide(|draft| stop(draft, &request, ANNA)).0.unwrap_err().to_string()
    };
    assert_eq!(refused(whole("wep")), "no job wep");
    assert_eq!(refused(one("web", 3)), "no slot web/3: the task has 1");
    let task = Some(name("api"));
    let address = JobAddress { job: name("web"), task, index: None };
    assert_eq!(refused(JobRequest { address, reason: None }), "job web has no task api: main");
}

/// The reports of a placement with restarts, in the order its node made them.
fn life(web: &Slot, first: RunId, restarts: u32) -> Vec<RunReport> {
    let mut reports = Vec::new();
    for number in 0..=restarts {
        let run = if number == 0 { first } else { run_id(500 + u64::from(number)) };
        for state in [RunState::Preparing, RunState::Running, RunState::Failed] {
            let seconds = i64::from(10 * number);
            let over = state == RunState::Failed;
            reports.push(RunReport {
                placement: first,
                restarts: number,
                will_restart: over && number < restarts,
                pid: (state != RunState::Preparing).then_some(number + 40),
                started_at: (state != RunState::Preparing).then(|| at(seconds)),
                ended_at: over.then(|| at(seconds + 5)),
                exit: over.then(|| Exit { code: Some(3), ..Exit::default() }),
                ..report_of(web, run, state)
            });
        }
    }
    reports
}

proptest! {
    /// Reports in any order, some twice, end in the same slot.
    #[test]
    fn the_order_of_reports_makes_no_difference(
        restarts in 0..7u32,
        again in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        order in proptest::collection::vec(any::<u32>(), 64),
    ) {
        let mut leader = Leader::new(1);
        leader.running(&job("web", Kind::Service, task(1)));
        let web = slot("web", 0);
        let first = leader.current(&web).run;
        let mut reports = life(&web, first, restarts);
        let node = name("node-1");
        let apply = |reports: &[RunReport]| {
            let mut draft = Draft::new(leader.state.clone());
            for said in reports {
                report(&mut draft, &node, std::slice::from_ref(said), false, at(99));
            }
            draft.state().slot(&web).unwrap().clone()
        };
        let expected = apply(&reports);
        for index in again {
            reports.push(reports[index.index(reports.len())].clone());
        }
        let mut turned: Vec<_> = reports.into_iter().zip(order.into_iter().cycle()).collect();
        turned.sort_by_key(|(_, place)| *place);
        let turned: Vec<_> = turned.into_iter().map(|(said, _)| said).collect();
        prop_assert_eq!(apply(&turned), expected);
    }
}
