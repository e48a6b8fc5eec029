use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use loom_bus::call::CallError;
use loom_schemas::error::ErrorCode;
use loom_schemas::ids::{Epoch, RunId};
use loom_schemas::spec::SimScript;
use loom_schemas::subject;
use loom_schemas::units::Millis;
use loom_schemas::wire::{Assign, AssignReply, Assigned, CommandReply};
use loom_schemas::words::{DriverKind, RunState};

use crate::leader::{CLUSTER, Manner};
use crate::specs::{name, played, playing, restarting, script, stopped};
use crate::world::{World, until};

const WAIT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_what_it_is_and_lives() {
    let world = World::new().await;
    let node = world.host("node-1").await;
    let hello = world.leader.said().hellos[0].clone();
    assert_eq!(hello.cluster, None);
    assert_eq!(
        hello.info.labels,
        BTreeMap::from([("disk".to_owned(), "ssd".to_owned())])
    );
    assert_eq!(hello.info.drivers, [DriverKind::Process, DriverKind::Sim]);
    assert!(hello.info.capacity.memory.0 > 0 && hello.info.capacity.cpu.0 >= 1000);
    assert_eq!(
        (hello.info.capacity.ports_from, hello.info.capacity.ports_to),
        (20_000, 29_999)
    );
    assert_eq!(hello.info.address, "127.0.0.1");
    assert!(hello.runs.is_empty());
    world
        .until("a heartbeat", |said| !said.heartbeats.is_empty())
        .await;
    let (who, heartbeat) = world.leader.said().heartbeats[0].clone();
    assert_eq!((who.as_str(), heartbeat.usage.runs), ("node-1", 0));
    assert!(heartbeat.usage.memory > 0);
    drop(node);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_assigned_runs_and_what_is_removed_is_forgotten() {
    let world = World::new().await;
    let node = world.node("node-1").await;
    let web = playing("web", 0);
    let reply = world.leader.assign("node-1", &[&web], &[]).await;
    assert_eq!(reply, AssignReply::Taken { generation: 1 });
    world.until_state(web.placement, RunState::Running).await;
    world
        .until("it is counted", |said| {
            said.heartbeats
                .last()
                .is_some_and(|(_, last)| last.usage.runs == 1 && last.generation == 1)
        })
        .await;
    world.leader.assign("node-1", &[&stopped(&web)], &[]).await;
    let report = world.until_state(web.placement, RunState::Killed).await;
    assert!(!report.will_restart);
    world.leader.assign("node-1", &[], &[web.placement]).await;
    // Killed before it has forgotten, a node forgets when it is back.
    let mut node = Some(node);
    until("an empty inventory", async || {
        node.take().unwrap().kill().await;
        node = Some(world.node("node-1").await);
        world.leader.said().hellos.last().unwrap().runs.is_empty()
    })
    .await;
    assert_eq!(
        world
            .leader
            .said()
            .hellos
            .last()
            .unwrap()
            .cluster
            .as_deref(),
        Some(CLUSTER)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_is_taken_from_the_newest_leader_only() {
    let world = World::new().await;
    let _node = world.node("node-1").await;
    let me = name("node-1");
    let web = playing("web", 0);
    world.leader.assign("node-1", &[&web], &[]).await;
    world.until_state(web.placement, RunState::Running).await;
    let now = world.leader.whole(&me);

    let older = Epoch {
        incarnation: 1,
        sequence: 9,
    };
    let stale = Assign {
        epoch: older,
        generation: 99,
        put: vec![],
        ..now.clone()
    };
    let reply = world.leader.send(&me, &stale).await;
    assert_eq!(reply, AssignReply::Stale { epoch: now.epoch });

    let foreign = Assign {
        cluster: "other".to_owned(),
        generation: 99,
        ..now.clone()
    };
    let reply = world.leader.send(&me, &foreign).await;
    assert_eq!(
        reply,
        AssignReply::Foreign {
            cluster: CLUSTER.to_owned()
        }
    );

    let other_base = Assign {
        base: Some(7),
        generation: 8,
        put: vec![],
        ..now.clone()
    };
    let reply = world.leader.send(&me, &other_base).await;
    assert_eq!(reply, AssignReply::Resync { generation: 1 });

    // Doubled: harmless.
    for _ in 0..2 {
        let reply = world.leader.send(&me, &now).await;
        assert_eq!(reply, AssignReply::Taken { generation: 1 });
    }
    // A whole set without the run ends it.
    world.leader.want("node-1", &[], &[web.placement]);
    world.leader.send(&me, &world.leader.whole(&me)).await;
    let report = world.until_state(web.placement, RunState::Killed).await;
    assert_eq!(
        report.reason.as_deref(),
        Some("no longer assigned to this node")
    );
    let runs: Vec<_> = world
        .leader
        .said()
        .reports
        .iter()
        .map(|report| report.run)
        .collect();
    assert!(
        runs.iter().all(|run| *run == web.placement),
        "one run, never two"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_is_greeted() {
    let world = World::new().await;
    let _node = world.node("node-1").await;
    let before = world.leader.said().hellos.len();
    world.leader.said().epoch.sequence = 20;
    world.leader.assign("node-1", &[], &[]).await;
    world
        .until("it is greeted", |said| said.hellos.len() > before)
        .await;
    assert_eq!(
        world.leader.said().hellos.last().unwrap().epoch.sequence,
        20
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_and_changes_nothing() {
    let world = World::new().await;
    let _node = world.node("node-1").await;
    let bus = loom_bus::connection::Bus::connect(world.connect.clone())
        .await
        .unwrap();
    let subject = subject::assign(&name("node-1"));
    let deep = vec![0x91_u8; 100_000];
    let nothing = br#"{"cluster": 1}"#.to_vec();
    for payload in [
        deep,
        nothing,
        vec![0xde, 0xff, 0xff],
        b"hello".to_vec(),
        vec![],
    ] {
        let answer = bus
            .call_bytes(&subject, Bytes::from(payload), &[], WAIT)
            .await;
        let Err(CallError::Refused(error)) = answer else {
            panic!("{answer:?}")
        };
        assert!(
            matches!(error.code, ErrorCode::Invalid | ErrorCode::TooLarge),
            "{error:?}"
        );
    }
    // Users do not get there at all.
    let answer = world
        .user
        .call_bytes(&subject, Bytes::from_static(b"{}"), &[], WAIT)
        .await;
    assert!(answer.is_err());
    let web = playing("web", 0);
    world.leader.assign("node-1", &[&web], &[]).await;
    world.until_state(web.placement, RunState::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_refused_leads_to_hello_and_is_delivered() {
    let world = World::new().await;
    let _node = world.node("node-1").await;
    let before = world.leader.said().hellos.len();
    world.leader.manner(Manner::Refuses);
    let web = playing("web", 0);
    world.leader.assign("node-1", &[&web], &[]).await;
    world
        .until("another hello", |said| said.hellos.len() > before)
        .await;
    let inventory = world.leader.said().hellos.last().unwrap().runs.clone();
    assert_eq!(inventory.len(), 1);
    world.leader.manner(Manner::Answers);
    world.until_state(web.placement, RunState::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_of_many_runs_goes_in_parts() {
    let mut world = World::new().await;
    let mut options = world.options("node-1");
    options.limits.reports = 2;
    let _node = world.start(options).await;
    let web: Vec<Assigned> = (0..5).map(|index| playing("web", index)).collect();
    let put: Vec<&Assigned> = web.iter().collect();
    world.leader.assign("node-1", &put, &[]).await;
    for one in &web {
        world.until_state(one.placement, RunState::Running).await;
    }
    for (manner, parts) in [(Manner::Answers, 3), (Manner::KnowsNoParts, 0)] {
        world.leader.manner(manner);
        let (before, parts_before) = {
            let said = world.leader.said();
            (said.hellos.len(), said.parts)
        };
        world.kill_bus().await;
        world.restart_bus().await;
        world
            .until("a whole hello", |said| said.hellos.len() > before)
            .await;
        let said = world.leader.said();
        let told = said.hellos.last().unwrap().runs.iter();
        let told: BTreeSet<RunId> = told.map(|run| run.placement).collect();
        assert_eq!(told, web.iter().map(|one| one.placement).collect());
        assert!(said.parts - parts_before >= parts, "{manner:?}");
        assert_eq!((said.parts - parts_before) % 3, 0, "{manner:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_whose_answer_was_lost_is_delivered_again() {
    let world = World::new().await;
    let _node = world.node("node-1").await;
    world.leader.manner(Manner::LosesAnswers);
    let script = SimScript {
        run: Some(Millis(20)),
        exit: 3,
        ..SimScript::default()
    };
    let batch = played("batch", 0, script);
    world.leader.assign("node-1", &[&batch], &[]).await;
    let failed = |report: &loom_schemas::wire::RunReport| report.state == RunState::Failed;
    world
        .until("the end is told twice", |said| {
            said.reports.iter().filter(|report| failed(report)).count() >= 2
        })
        .await;
    world.leader.manner(Manner::Answers);
    let exit = world
        .leader
        .said()
        .of(batch.placement)
        .unwrap()
        .exit
        .clone()
        .unwrap();
    assert_eq!(exit.code, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_refused_where_they_are_not_allowed() {
    let world = World::new().await;
    let _node = world.node("node-1").await;
    assert_eq!(
        world.leader.said().hellos[0].info.drivers,
        [DriverKind::Sim]
    );
    let web = script("web", "sleep 1000");
    world.leader.assign("node-1", &[&web], &[]).await;
    let report = world.until_state(web.placement, RunState::Rejected).await;
    assert!(report.reason.unwrap().contains("--allow-process"));
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_are_runs_of_their_own() {
    let world = World::new().await;
    let _node = world.node("node-1").await;
    let once = SimScript {
        run: Some(Millis(5)),
        exit: 1,
        ..SimScript::default()
    };
    let web = restarting(played("web", 0, once), Millis(5));
    world.leader.assign("node-1", &[&web], &[]).await;
    world
        .until("three restarts", |said| {
            said.of(web.placement)
                .is_some_and(|report| report.restarts >= 3)
        })
        .await;
    let said = world.leader.said();
    let ended: Vec<_> = said
        .reports
        .iter()
        .filter(|report| report.state == RunState::Failed)
        .collect();
    assert!(ended.iter().all(|report| report.will_restart));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placement_that_the_node_never_had_ends_when_it_is_stopped() {
    let world = World::new().await;
    let _node = world.node("node-1").await;
    let never = stopped(&playing("web", 0));
    world.leader.assign("node-1", &[&never], &[]).await;
    let report = world.until_state(never.placement, RunState::Killed).await;
    assert!(!report.will_restart);
    assert_eq!(report.started_at, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_the_leaders_time() {
    let world = World::new().await;
    world.leader.said().ahead_ms = Some(3_600_000);
    let _node = world.node("node-1").await;
    let web = playing("web", 0);
    world.leader.assign("node-1", &[&web], &[]).await;
    world.until_state(web.placement, RunState::Running).await;
    let inspect = async |minutes: i64| {
        let deadline = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes);
        let headers = [("Orch-Deadline", deadline.to_string())];
        let subject = subject::task(&web.slot, "inspect");
        world
            .user
            .call_bytes(&subject, Bytes::new(), &headers, WAIT)
            .await
    };
    // Half an hour from now, here, has passed for a leader that is an hour ahead.
    match inspect(30).await {
        Err(CallError::Refused(error)) => assert_eq!(error.code, ErrorCode::Expired),
        other => panic!("expected `expired`, found {other:?}"),
    }
    assert!(inspect(90).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_to_many_is_waited_for_by_the_leaders_time() {
    let world = World::new().await;
    world.leader.said().ahead_ms = Some(-3_600_000);
    let _node = world.node("node-1").await;
    let web = playing("web", 0);
    world.leader.assign("node-1", &[&web], &[]).await;
    world.until_state(web.placement, RunState::Running).await;
    // By the clock of this node it passed long ago; for the leader there is half an hour left.
    let deadline = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(30);
    let headers = [("Orch-Deadline", deadline.to_string())];
    let subject = subject::task_all(&web.slot.job, None, "inspect");
    let asked = world
        .user
        .call_bytes(&subject, Bytes::new(), &headers, WAIT);
    let reply: CommandReply = asked.await.unwrap().decode().unwrap();
    assert!(reply.rows[0].is_done(), "{:?}", reply.rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_what_it_was_told_to_leaders_alone() {
    let world = World::new().await;
    let _node = world.node("node-1").await;
    let (web, api) = (playing("web", 0), playing("api", 0));
    world.leader.assign("node-1", &[&web, &api], &[]).await;
    let inventory = world.leader.inventory("node-1").await;
    assert_eq!(inventory.cluster.as_deref(), Some(CLUSTER));
    assert_eq!(inventory.placements.len(), 2);
    assert!(inventory.placements.contains(&web) && !inventory.more);
    let forged = world
        .user
        .call_bytes("orch.inventory.node-1", Bytes::new(), &[], WAIT)
        .await;
    assert!(forged.is_err(), "{forged:?}");
}
