//! How a version takes over from another.

use loom_schemas::record::{RunRecord, UpdatePhase};
use loom_schemas::spec::{DependOn, DependsOn, OnUpdateFailure, TaskSpec, UpdateOrder};
use loom_schemas::wire::{RollbackRequest, UpdateRequest, UpdateVerb};

use super::*;
use crate::plan::assignment;

/// A task of three whose runs are checked, in this variant.
pub(super) fn checked(variant: &str) -> TaskSpec {
    let mut task = task(3);
    task.args = vec![variant.to_owned()];
    task.health = Some(crate::state::fixture::health());
    task
}

pub(super) fn service(variant: &str) -> JobSpec {
    job("web", Kind::Service, checked(variant))
}

pub(super) fn stop_first(variant: &str) -> JobSpec {
    let mut spec = service(variant);
    spec.update.order = Some(UpdateOrder::StopFirst);
    spec
}

impl Leader {
    /// What its node says of a run.
    pub(super) fn tell(&mut self, index: u32, run: &RunRecord, state: RunState, seconds: i64) {
        self.tell_ahead((index, run), state, seconds, 0);
    }

    /// The same by a node whose clock is ahead by so many seconds.
    pub(super) fn tell_ahead(
        &mut self,
        (index, run): (u32, &RunRecord),
        state: RunState,
        now: i64,
        ahead: i64,
    ) {
        let checks = state == RunState::Running;
        let over = state.is_terminal();
        let seconds = now + ahead;
        let report = RunReport {
            placement: run.placement,
            version: run.version,
            started_at: Some(run.started_at.unwrap_or(at(seconds))),
            ended_at: over.then(|| at(seconds)),
            exit: over.then(|| Exit {
                code: Some(1),
                ..Exit::default()
            }),
            health: checks.then(|| Health {
                status: HealthStatus::Healthy,
                reason: None,
                since: at(seconds),
            }),
            ..report_of(&slot("web", index), run.run, state)
        };
        let node = run.node.clone().unwrap();
        self.decide(|draft| decide_report(draft, &node, &[report], now));
    }

    pub(super) fn incoming(&self, index: u32) -> Option<RunRecord> {
        self.slot(&slot("web", index)).incoming.as_ref().cloned()
    }

    pub(super) fn running_of(&self, index: u32) -> RunRecord {
        self.current(&slot("web", index)).clone()
    }

    /// Everything that was told to end has ended, everything placed is healthy; planned again.
    pub(super) fn obey(&mut self, seconds: i64) {
        for index in 0..3 {
            let record = self.state.slot(&slot("web", index)).cloned();
            let runs = record.iter().flat_map(|record| {
                record
                    .current
                    .iter()
                    .chain(&record.incoming)
                    .cloned()
                    .collect::<Vec<_>>()
            });
            for run in runs.collect::<Vec<_>>() {
                match (&run.order, run.state) {
                    (Order::Stop { .. }, state) if !state.is_terminal() => {
                        self.tell(index, &run, RunState::Killed, seconds);
                    }
                    (Order::Run, RunState::Scheduled) => {
                        self.tell(index, &run, RunState::Running, seconds);
                    }
                    _ => {}
                }
            }
        }
        self.plan(seconds);
    }

    /// A healthy service of version 1, from second 2.
    pub(super) fn healthy(&mut self, spec: &JobSpec) {
        self.submit(spec).unwrap();
        self.plan(1);
        self.obey(2);
    }

    /// Versions of the current and the incoming runs, and which of them are to go on.
    pub(super) fn rolled(&self) -> [String; 3] {
        [0, 1, 2].map(|index| {
            let record = self.state.slot(&slot("web", index));
            let runs = record
                .iter()
                .flat_map(|r| r.current.iter().chain(&r.incoming));
            let words = runs.map(|run| match run.order {
                Order::Run => run.version.to_string(),
                Order::Stop { .. } => format!("-{}", run.version),
            });
            words.collect::<Vec<_>>().join(" ")
        })
    }

    pub(super) fn phase(&self) -> UpdatePhase {
        self.job("web").update.as_ref().unwrap().phase
    }

    pub(super) fn steer(&mut self, verb: UpdateVerb, seconds: i64) -> Result<bool, WireError> {
        let job = name("web");
        let request = UpdateRequest { job, verb };
        let steered = self.decide(|draft| steer(draft, &request, ANNA, at(seconds)));
        self.plan(seconds);
        steered.0
    }

    /// Who answers on the address of a slot, as its node is told.
    fn address(&self, index: u32) -> Vec<u32> {
        let nodes = self.state.nodes().map(|node| node.name.clone());
        let told = nodes.flat_map(|node| assignment(&self.state, &node));
        told.filter(|a| a.slot == slot("web", index) && a.holds_address)
            .map(|assigned| assigned.version)
            .collect()
    }
}

fn decide_report(draft: &mut Draft, node: &Name, reports: &[RunReport], seconds: i64) {
    super::report(draft, node, reports, false, at(seconds));
}

#[test]
fn start_first_hands_over_once_the_new_run_was_healthy_for_long_enough() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    assert_eq!(leader.rolled(), ["1 2", "1", "1"]);
    assert_eq!(leader.address(0), [1]);
    leader.obey(101);
    leader.plan(110);
    assert_eq!(leader.rolled(), ["1 2", "1", "1"], "healthy for 9 s");
    leader.plan(111);
    assert_eq!(leader.rolled(), ["-1 2", "1", "1"]);
    assert_eq!(leader.address(0), [2], "the address has moved");
    leader.obey(112);
    assert_eq!(leader.rolled(), ["2", "1 2", "1"]);
    for seconds in [113, 123, 124, 125, 135, 136] {
        leader.obey(seconds);
    }
    assert_eq!(leader.rolled(), ["2", "2", "2"]);
    assert_eq!(leader.phase(), UpdatePhase::Done);
    assert_eq!(leader.last, ["job.web.deployed"]);
}

#[test]
fn stop_first_ends_the_old_run_before_the_new_one_is_placed() {
    let mut leader = Leader::new(1);
    leader.healthy(&stop_first("1"));
    leader.submit(&stop_first("2")).unwrap();
    leader.plan(100);
    assert_eq!(leader.rolled(), ["-1", "1", "1"]);
    leader.obey(101);
    assert_eq!(leader.rolled(), ["2", "1", "1"]);
    leader.obey(102);
    leader.plan(111);
    assert_eq!(leader.rolled(), ["2", "1", "1"]);
    leader.plan(112);
    assert_eq!(leader.rolled(), ["2", "-1", "1"]);
}

#[test]
fn a_run_that_is_paused_proves_nothing() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    leader.obey(101);
    let web = slot("web", 0);
    let paused = |leader: &mut Leader, paused: bool, seconds: i64| {
        let mut record = leader.slot(&web).clone();
        record.incoming.as_mut().unwrap().marks.paused = paused;
        leader.decide(|draft| draft.put_slot(record));
        leader.plan(seconds);
    };
    paused(&mut leader, true, 102);
    leader.plan(150);
    assert_eq!(leader.rolled(), ["1 2", "1", "1"]);
    paused(&mut leader, false, 151);
    assert_eq!(leader.rolled(), ["-1 2", "1", "1"]);
}

#[test]
fn parallel_says_how_many_at_once() {
    let mut leader = Leader::new(3);
    leader.healthy(&service("1"));
    let mut spec = service("2");
    spec.update.parallel = 2;
    leader.submit(&spec).unwrap();
    leader.plan(100);
    assert_eq!(leader.rolled(), ["1 2", "1 2", "1"]);
}

#[test]
fn while_health_is_unknown_not_all_are_replaced_at_once() {
    let mut leader = Leader::new(2);
    leader.running(&stop_first("1"));
    assert!(leader.running_of(0).health.is_none());
    leader.submit(&stop_first("2")).unwrap();
    leader.plan(3);
    assert_eq!(leader.rolled(), ["-1", "1", "1"]);
}

#[test]
fn what_fails_goes_back_to_the_last_healthy_version_by_itself() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    let new = leader.incoming(0).unwrap();
    leader.tell(0, &new, RunState::Failed, 101);
    leader.plan(101);
    assert_eq!(
        leader.last[..2],
        ["job.web.update-failed", "job.web.rolled-back"]
    );
    leader.plan(101);
    assert_eq!(
        leader.rolled(),
        ["3", "3", "3"],
        "nothing of the old was touched"
    );
    let job = leader.job("web").clone();
    assert_eq!(job.version, 3);
    let third = leader.state.version(&name("web"), 3).unwrap().clone();
    assert_eq!(third.spec, service("1"));
    let why = "rolled back to version 1: version 2 failed: web/0 failed: exit code 1";
    assert_eq!(third.reason.as_deref(), Some(why));
    leader.plan(102);
    assert_eq!(leader.phase(), UpdatePhase::Done);
    // The same text is no reason to try again by itself, a new submission is.
    assert_eq!(leader.submit(&service("2")).unwrap().version, 4);
}

#[test]
fn an_update_without_progress_fails_at_its_deadline() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    let new = leader.incoming(0).unwrap();
    let running = RunReport {
        started_at: Some(at(101)),
        version: 2,
        ..report_of(&slot("web", 0), new.run, RunState::Running)
    };
    let node = new.node.unwrap();
    leader.decide(|draft| decide_report(draft, &node, &[running], 101));
    leader.plan(300);
    assert_eq!(leader.rolled(), ["1 2", "1", "1"]);
    leader.plan(401);
    let job = leader.job("web");
    assert_eq!(job.version, 3);
    let why = "version 2 failed: no further slot was healthy within 5m: web/0 is running";
    assert_eq!(job.update.as_ref().unwrap().reason.as_deref(), Some(why));
    leader.plan(401);
    assert_eq!(leader.rolled(), ["3 -2", "3", "3"]);
}

#[test]
fn without_a_healthy_version_a_failed_update_stays_failed() {
    let mut leader = Leader::new(2);
    leader.submit(&service("1")).unwrap();
    leader.plan(1);
    leader.submit(&service("2")).unwrap();
    for seconds in 2..6 {
        leader.plan(seconds);
        for index in 0..3 {
            let Some(run) = leader.slot(&slot("web", index)).current.clone() else {
                continue;
            };
            if run.order != Order::Run {
                leader.tell(index, &run, RunState::Killed, seconds);
            } else if run.version == 2 && !run.state.is_terminal() {
                leader.tell(index, &run, RunState::Failed, seconds);
            }
        }
    }
    leader.plan(6);
    assert_eq!(leader.phase(), UpdatePhase::Failed);
    let update = leader.job("web").update.clone().unwrap();
    let why = update.reason.unwrap();
    assert!(
        why.ends_with("there is no healthy version to go back to"),
        "{why}"
    );
}

#[test]
fn a_failed_update_pauses_where_it_is_told_to_and_goes_on_when_told() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    let mut spec = service("2");
    spec.update.on_failure = OnUpdateFailure::Pause;
    leader.submit(&spec).unwrap();
    leader.plan(100);
    let new = leader.incoming(0).unwrap();
    leader.tell(0, &new, RunState::Failed, 101);
    leader.plan(101);
    leader.plan(101);
    assert_eq!(leader.phase(), UpdatePhase::Paused);
    assert!(leader.steer(UpdateVerb::Continue, 150).unwrap());
    assert_eq!(leader.rolled(), ["1 2", "1", "1"]);
    leader.obey(151);
    leader.plan(161);
    assert_eq!(leader.rolled(), ["-1 2", "1", "1"]);
    assert!(leader.steer(UpdateVerb::Pause, 161).unwrap());
    leader.obey(162);
    leader.plan(300);
    assert_eq!(
        leader.rolled(),
        ["2", "1", "1"],
        "what was begun is finished"
    );
    assert!(!leader.steer(UpdateVerb::Pause, 162).unwrap());
}

#[test]
fn an_update_that_goes_on_after_failures_reaches_every_slot() {
    let mut leader = Leader::new(2);
    leader.healthy(&stop_first("1"));
    let mut spec = stop_first("2");
    spec.update.on_failure = OnUpdateFailure::Continue;
    leader.submit(&spec).unwrap();
    leader.plan(100);
    leader.obey(101);
    let new = leader.running_of(0);
    leader.tell(0, &new, RunState::Failed, 102);
    leader.plan(102);
    assert_eq!(leader.last[0], "job.web.update-failed");
    assert_eq!(leader.rolled()[1..], ["-1", "1"]);
}

#[test]
fn beyond_its_canaries_an_update_goes_on_once_it_is_promoted() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    let mut spec = service("2");
    spec.update.canary = 1;
    leader.submit(&spec).unwrap();
    leader.plan(100);
    for seconds in [101, 111, 112, 122] {
        leader.obey(seconds);
    }
    assert_eq!(leader.rolled(), ["2", "1", "1"]);
    assert_eq!(leader.phase(), UpdatePhase::Canary);
    leader.plan(1000);
    assert_eq!(
        leader.rolled(),
        ["2", "1", "1"],
        "it waits for as long as it takes"
    );
    // What goes down meanwhile comes back as it was.
    let old = leader.running_of(1);
    leader.tell(1, &old, RunState::Failed, 1001);
    leader.plan(1001);
    leader.plan(1003);
    assert_eq!(leader.rolled(), ["2", "1", "1"]);
    leader.obey(1004);
    assert!(leader.steer(UpdateVerb::Promote, 1020).unwrap());
    assert_eq!(leader.rolled(), ["2", "1 2", "1"]);
    assert!(!leader.steer(UpdateVerb::Promote, 1020).unwrap());
}

#[test]
fn canaries_are_promoted_once_they_are_healthy_and_never_while_the_update_is_paused() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    let mut spec = service("2");
    spec.update.canary = 1;
    spec.update.on_failure = OnUpdateFailure::Pause;
    leader.submit(&spec).unwrap();
    leader.plan(100);
    let early = leader.steer(UpdateVerb::Promote, 100).unwrap_err();
    assert_eq!(
        early.message,
        "the canaries of job web have not proved healthy yet"
    );
    let new = leader.incoming(0).unwrap();
    leader.tell(0, &new, RunState::Failed, 101);
    leader.plan(101);
    leader.plan(101);
    assert_eq!(leader.phase(), UpdatePhase::Paused);
    let paused = leader.steer(UpdateVerb::Promote, 102).unwrap_err();
    assert_eq!(paused.code, ErrorCode::Conflict);
    let why = &paused.message;
    assert!(
        why.starts_with("the update of job web is paused: web/0"),
        "{why}"
    );
    assert_eq!(leader.phase(), UpdatePhase::Paused);
}

#[test]
fn an_update_over_a_running_one_takes_its_place() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    leader.obey(101);
    leader.submit(&service("3")).unwrap();
    leader.plan(102);
    assert_eq!(leader.rolled(), ["1 -2", "1", "1"]);
    leader.obey(103);
    assert_eq!(leader.rolled(), ["1 3", "1", "1"]);
    assert_eq!(leader.job("web").update.as_ref().unwrap().from, Some(1));
}

#[test]
fn a_scale_during_an_update_holds_and_survives_going_back() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    let request = ScaleRequest {
        job: name("web"),
        task: None,
        replicas: 4,
    };
    leader
        .decide(|draft| scale(draft, &request, ANNA, at(101)))
        .0
        .unwrap();
    leader.plan(101);
    let fourth = leader.current(&slot("web", 3)).version;
    assert_eq!(fourth, 2);
    assert_eq!(leader.rolled(), ["1 2", "1", "1"]);
    let new = leader.incoming(0).unwrap();
    leader.tell(0, &new, RunState::Failed, 102);
    leader.plan(102);
    leader.plan(102);
    assert_eq!(leader.job("web").scaled, [(Name::main(), 4)].into());
    let back = leader.state.version(&name("web"), 3).unwrap();
    assert_eq!(back.by, "the update of version 2", "nobody asked for it");
    assert_eq!(leader.rolled(), ["3", "3", "3"]);
}

#[test]
fn a_scale_that_is_undone_does_not_come_back_with_a_rollback() {
    let mut leader = Leader::new(2);
    leader.healthy(&service("1"));
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    let request = ScaleRequest {
        job: name("web"),
        task: None,
        replicas: 5,
    };
    let scale = |draft: &mut Draft| scale(draft, &request, ANNA, at(101));
    leader.decide(scale).0.unwrap();
    leader.submit(&service("2")).unwrap();
    leader.plan(102);
    let new = leader.incoming(0).unwrap();
    leader.tell(0, &new, RunState::Failed, 103);
    leader.plan(103);
    leader.plan(103);
    assert_eq!(leader.job("web").version, 3);
    assert!(leader.job("web").scaled.is_empty());
}

#[test]
fn going_back_that_fails_stays_failed_until_somebody_decides() {
    let mut leader = Leader::new(2);
    leader.healthy(&stop_first("1"));
    leader.submit(&stop_first("2")).unwrap();
    leader.plan(100);
    leader.obey(101);
    for seconds in [102, 103] {
        let run = leader.running_of(0);
        leader.tell(0, &run, RunState::Failed, seconds);
        leader.plan(seconds);
        leader.plan(seconds);
    }
    assert_eq!(leader.job("web").version, 3);
    assert_eq!(leader.phase(), UpdatePhase::Failed);
    assert!(!leader.steer(UpdateVerb::Pause, 104).unwrap());
    assert!(leader.steer(UpdateVerb::Continue, 104).unwrap());
    assert_eq!(leader.phase(), UpdatePhase::Rolling);
}

/// `web` waits for `db` to run.
fn waiting_for_db(variant: &str) -> JobSpec {
    let mut spec = service(variant);
    spec.depends_on = vec![DependsOn {
        job: name("db"),
        task: None,
        on: DependOn::Running,
    }];
    spec
}

/// `web` waited for `db` in its first version; now it is the other way round.
fn turned_round() -> Leader {
    let mut leader = Leader::new(4);
    leader.running(&job("db", Kind::Service, task(1)));
    leader.healthy(&waiting_for_db("v1"));
    leader.submit(&service("v2")).unwrap();
    let mut db = job("db", Kind::Service, task(1));
    db.depends_on = vec![DependsOn {
        job: name("web"),
        task: None,
        on: DependOn::Running,
    }];
    leader.submit(&db).unwrap();
    leader
}

const CIRCLE: &str = "depends_on: the jobs wait for each other: web -> db -> web";

#[test]
fn a_version_that_closes_a_circle_is_not_brought_back() {
    let mut leader = turned_round();
    let request = RollbackRequest {
        job: name("web"),
        to: Some(1),
        if_version: None,
        reason: None,
    };
    let refused = leader
        .decide(|draft| rollback(draft, &request, ANNA, at(20)))
        .0;
    assert_eq!(refused.unwrap_err().message, CIRCLE);
    leader.plan(100);
    let new = leader.incoming(0).unwrap();
    leader.tell(0, &new, RunState::Failed, 101);
    leader.plan(101);
    let failed = leader
        .last
        .iter()
        .filter(|event| *event == "job.web.update-failed");
    assert_eq!(failed.count(), 1, "{:?}", leader.last);
    let web = leader.job("web");
    let reason = web
        .update
        .as_ref()
        .and_then(|update| update.reason.as_deref());
    let reason = reason.unwrap_or_default();
    assert!(
        reason.ends_with(&format!("it does not go back to version 1: {CIRCLE}")),
        "{reason}"
    );
    assert_eq!(web.version, 2);
}

#[test]
fn a_person_brings_an_earlier_version_back() {
    let mut leader = Leader::new(2);
    let back = |leader: &mut Leader, to| {
        let request = RollbackRequest {
            job: name("web"),
            to,
            if_version: None,
            reason: None,
        };
        leader
            .decide(|draft| rollback(draft, &request, ANNA, at(200)))
            .0
    };
    leader.healthy(&service("1"));
    assert_eq!(
        back(&mut leader, None).unwrap_err().code,
        ErrorCode::NotFound
    );
    assert_eq!(
        back(&mut leader, Some(1)).unwrap_err().code,
        ErrorCode::Conflict
    );
    leader.submit(&service("2")).unwrap();
    leader.plan(100);
    assert_eq!(back(&mut leader, None).unwrap(), (3, 1));
    leader.plan(201);
    assert_eq!(leader.rolled(), ["3 -2", "3", "3"]);
    let third = leader.state.version(&name("web"), 3).unwrap();
    assert_eq!(
        third.reason.as_deref(),
        Some("rolled back to version 1: anna said so")
    );
    assert_eq!(
        third.text,
        leader.state.version(&name("web"), 1).unwrap().text
    );
    // A job that was stopped begins a new round with it.
    leader
        .decide(|draft| stop(draft, &whole("web"), ANNA, at(1)))
        .0
        .unwrap();
    assert_eq!(back(&mut leader, Some(2)).unwrap(), (4, 2));
    assert_eq!(
        (leader.job("web").round, leader.job("web").update.is_none()),
        (2, true)
    );
}
