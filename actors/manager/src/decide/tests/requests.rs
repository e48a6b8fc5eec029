//! What clients ask for.

use std::collections::BTreeMap;

use super::*;

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
    assert_eq!(
        outcome(leader.submit(&changed)),
        (2, SubmitOutcome::Updated)
    );
    assert_eq!(leader.last, ["job.web.updated"]);
    leader
        .decide(|draft| stop(draft, &whole("web"), ANNA, at(1)))
        .0
        .unwrap();
    leader.plan(3);
    assert_eq!(leader.job("web").status, JobStatus::Killed);
    assert_eq!(
        outcome(leader.submit(&changed)),
        (2, SubmitOutcome::Restarted)
    );
    assert_eq!(
        (leader.job("web").round, leader.job("web").status),
        (2, JobStatus::Pending)
    );
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
    let kept: Vec<u32> = leader
        .state
        .versions(&name("web"))
        .map(|v| v.version)
        .collect();
    let expected: Vec<u32> = std::iter::once(1).chain(12..=31).collect();
    assert_eq!(kept, expected);
}

#[test]
fn a_conditional_submission_is_refused_at_another_version() {
    let mut leader = Leader::new(1);
    let spec = job("web", Kind::Service, task(1));
    let mut at_version = |version: u32| {
        let submission = Submission {
            sets: BTreeMap::new(),
            if_version: Some(version),
            ..submission(&spec)
        };
        let (result, decided) = leader.decide(|draft| submit(draft, submission, ANNA, at(1)));
        (
            result.map(|a| a.version).map_err(|e| e.code),
            decided.changes.len(),
        )
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
    let admin = Asker {
        user: "loom",
        admin: true,
        request: None,
    };
    leader
        .decide(|draft| submit(draft, submission(&spec), admin, at(1)))
        .0
        .unwrap();
    assert_eq!(leader.job("web").owner, "berta");
}

#[test]
fn a_stop_names_who_and_why() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let request = JobRequest {
        reason: Some("too loud".to_owned()),
        ..whole("web")
    };
    let (stopped, decided) = leader.decide(|draft| stop(draft, &request, ANNA, at(1)));
    assert!(stopped.unwrap());
    let [told] = decided.events.as_slice() else {
        panic!("{:?}", decided.events)
    };
    assert_eq!(told.subject(), "orch.events.job.web.stopping");
    let by_and_why = (told.by.as_deref(), told.reason.as_deref());
    assert_eq!(by_and_why, (Some("anna"), Some("too loud")));
    leader.plan(5);
    let killed = leader.said(&slot("web", 0), RunState::Killed, 6);
    leader.report(&[killed], 6);
    leader.plan(6);
    let web = leader.job("web");
    assert_eq!(web.status, JobStatus::Killed);
    assert_eq!(web.reason.as_deref(), Some("stopped by anna: too loud"));
    assert!(matches!(&web.wanted, Wanted::Stop { by, .. } if by == "anna"));
    assert!(
        !leader
            .decide(|draft| stop(draft, &request, ANNA, at(1)))
            .0
            .unwrap()
    );
    let part = leader
        .decide(|draft| restart(draft, &one("web", 0), ANNA, at(7)))
        .0;
    assert_eq!(part.unwrap_err().code, ErrorCode::Conflict);
    assert!(
        leader
            .decide(|draft| restart(draft, &whole("web"), ANNA, at(7)))
            .0
            .unwrap()
    );
    leader.plan(7);
    assert!(crate::state::is_live(leader.current(&slot("web", 0))));
}

#[test]
fn an_address_that_names_nothing_is_refused() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let mut refused = |request: JobRequest| {
        leader
            .decide(|draft| stop(draft, &request, ANNA, at(1)))
            .0
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused(whole("wep")), "no job wep");
    assert_eq!(refused(one("web", 3)), "no slot web/3: the task has 1");
    let task = Some(name("api"));
    let address = JobAddress {
        job: name("web"),
        task,
        index: None,
    };
    assert_eq!(
        refused(JobRequest {
            address,
            reason: None
        }),
        "job web has no task api: main"
    );
}

#[test]
fn reasons_and_scales_are_bounded() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let long = JobRequest {
        reason: Some("ä".repeat(1001)),
        ..whole("web")
    };
    let refused = leader.decide(|draft| stop(draft, &long, ANNA, at(1))).0;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Invalid);
    let refused = leader.decide(|draft| restart(draft, &long, ANNA, at(5))).0;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Invalid);
    let many = ScaleRequest {
        job: name("web"),
        task: None,
        replicas: 10_001,
    };
    let refused = leader.decide(|draft| scale(draft, &many, ANNA, at(5))).0;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Invalid);
}

fn restarted_under(leader: &mut Leader, command: &Command, seconds: i64) -> CommandOutcome {
    let wish = one("web", 0);
    let carry_out = |draft: &mut Draft| {
        if let Some(first) = repeated(draft.state(), command).unwrap() {
            return first;
        }
        let changed = restart(draft, &wish, ANNA, at(seconds)).unwrap();
        let outcome = CommandOutcome::Committed {
            job: name("web"),
            changed,
        };
        remember(draft, command, &outcome, at(seconds));
        outcome
    };
    leader.decide(carry_out).0
}

#[test]
fn a_command_is_carried_out_once_however_often_it_is_sent() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let command = |by, id| Command::new(by, id, &[b"orch.job.restart", b"web"]).unwrap();
    let first = restarted_under(&mut leader, &command("anna", "c-1"), 10);
    assert_eq!(
        restarted_under(&mut leader, &command("anna", "c-1"), 500),
        first
    );
    let orders = |leader: &Leader| leader.current(&slot("web", 0)).restart_orders;
    assert_eq!(orders(&leader), 1);
    restarted_under(&mut leader, &command("bert", "c-1"), 11);
    assert_eq!(orders(&leader), 2);
    let other = Command::new("anna", "c-1", &[b"orch.job.restart", b"api"]).unwrap();
    let refused = repeated(&leader.state, &other).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(Command::new("anna", &"x".repeat(300), &[]).is_err());
    // What is remembered is in the records, so that it outlives the leader.
    let again = State::from_records(&leader.state);
    assert_eq!(
        repeated(&again, &command("anna", "c-1")).unwrap(),
        Some(first)
    );
}

#[test]
fn commands_are_forgotten_by_age_and_by_number() {
    let mut leader = Leader::new(1);
    leader.running(&job("web", Kind::Service, task(1)));
    let command = |number: i64| Command::new("anna", &number.to_string(), &[]).unwrap();
    for number in 0..20 {
        restarted_under(&mut leader, &command(number), number);
    }
    assert_eq!(leader.state.command_count(), 20);
    // A quarter of an hour later each command takes some old ones along.
    restarted_under(&mut leader, &command(20), 1_000);
    restarted_under(&mut leader, &command(21), 1_001);
    assert_eq!(leader.state.command_count(), 2);
    let most = i64::try_from(COMMANDS_KEPT).unwrap();
    for number in 100..100 + most + 50 {
        restarted_under(&mut leader, &command(number), 1_010);
    }
    assert_eq!(leader.state.command_count(), COMMANDS_KEPT);
}
