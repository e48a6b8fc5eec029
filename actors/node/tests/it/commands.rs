use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use loom_bus::call::CallError;
use loom_schemas::error::ErrorCode;
use loom_schemas::ids::RunId;
use loom_schemas::subject;
use loom_schemas::wire::{Assigned, CommandReply, TaskCommand};
use loom_schemas::words::RunState;

use crate::specs::{name, playing};
use crate::world::{World, until};

const WAIT: Duration = Duration::from_millis(500);

async fn ask(world: &World, subject: &str, command: &TaskCommand) -> Vec<CommandReply> {
    let mut replies = world.user.call_many(subject, command, WAIT).await.unwrap();
    let mut all = Vec::new();
    while let Some(reply) = replies.next().await {
        all.push(reply.unwrap());
    }
    all
}

fn runs(replies: &[CommandReply]) -> Vec<RunId> {
    let mut runs: Vec<_> = replies
        .iter()
        .flat_map(|reply| &reply.rows)
        .map(|row| row.run)
        .collect();
    runs.sort();
    runs
}

fn labelled(mut assigned: Assigned, tier: &str) -> Assigned {
    assigned.labels = BTreeMap::from([("tier".to_owned(), tier.to_owned())]);
    assigned
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_to_many_gets_a_row_a_task_from_every_node() {
    let world = World::new().await;
    let (_one, _two) = (world.node("node-1").await, world.node("node-2").await);
    let web: Vec<_> = (0..3).map(|index| playing("web", index)).collect();
    let other = playing("other", 0);
    world
        .leader
        .assign("node-1", &[&web[0], &web[1], &other], &[])
        .await;
    world.leader.assign("node-2", &[&web[2]], &[]).await;
    for placed in web.iter().chain([&other]) {
        world.until_state(placed.placement, RunState::Running).await;
    }
    let wanted: Vec<_> = web.iter().map(|web| web.placement).collect();
    let everything = TaskCommand::default();
    let main = name("main");
    for subject in [
        subject::task_all(&name("web"), None, "inspect"),
        subject::task_all(&name("web"), Some(&main), "inspect"),
    ] {
        let replies = ask(&world, &subject, &everything).await;
        assert_eq!(replies.len(), 2);
        assert_eq!(runs(&replies), wanted);
        let rows: Vec<_> = replies.iter().flat_map(|reply| &reply.rows).collect();
        assert!(
            rows.iter()
                .all(|row| row.is_done() && row.value.is_some() && row.replicas == 1)
        );
    }
    // A task the job does not have: the nodes answer without rows.
    let subject = subject::task_all(&name("web"), Some(&name("api")), "inspect");
    assert_eq!(runs(&ask(&world, &subject, &everything).await), []);
    // A bare argument, and a verb with an effect.
    let subject = subject::task_all(&name("web"), None, "signal");
    let mut replies = world
        .user
        .call_many_bytes::<CommandReply>(&subject, Bytes::from_static(b"TERM"), &[], WAIT)
        .await
        .unwrap();
    assert!(
        replies
            .next()
            .await
            .unwrap()
            .unwrap()
            .rows
            .iter()
            .all(loom_schemas::wire::CommandRow::is_done)
    );
    for placed in &web {
        until("it has ended", async || {
            world
                .leader
                .said()
                .of(placed.placement)
                .is_some_and(|at| at.state.is_terminal())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_found_by_label_and_by_the_end_of_a_run_id() {
    let world = World::new().await;
    let (_one, _two) = (world.node("node-1").await, world.node("node-2").await);
    let (front, back) = (playing("front", 0), playing("back", 0));
    let (front, back) = (labelled(front, "web"), labelled(back, "db"));
    world.leader.assign("node-1", &[&front], &[]).await;
    world.leader.assign("node-2", &[&back], &[]).await;
    for placed in [&front, &back] {
        world.until_state(placed.placement, RunState::Running).await;
    }
    let subject = subject::find("inspect");
    let by_label = TaskCommand {
        labels: front.labels.clone(),
        ..TaskCommand::default()
    };
    let replies = ask(&world, &subject, &by_label).await;
    assert_eq!(
        replies.len(),
        2,
        "a node without such a task answers as well"
    );
    assert_eq!(runs(&replies), [front.placement]);
    for suffix in [back.placement.short(), back.placement.to_string()] {
        let by_id = TaskCommand {
            run_suffix: Some(suffix),
            ..TaskCommand::default()
        };
        assert_eq!(runs(&ask(&world, &subject, &by_id).await), [back.placement]);
    }
    let short = TaskCommand {
        run_suffix: Some("0".to_owned()),
        ..TaskCommand::default()
    };
    assert_eq!(runs(&ask(&world, &subject, &short).await), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let _node = world.node("node-1").await;
    let web = playing("web", 0);
    world.leader.assign("node-1", &[&web], &[]).await;
    world.until_state(web.placement, RunState::Running).await;
    let refused = async |subject: &str, payload: &'static [u8]| {
        let asked = world
            .user
            .call_bytes(subject, Bytes::from_static(payload), &[], WAIT)
            .await;
        match asked {
            Err(CallError::Refused(error)) => error.code,
            other => panic!("{subject}: {other:?}"),
        }
    };
    assert_eq!(
        refused("orch.find.inspect", b"{}").await,
        ErrorCode::Invalid
    );
    assert_eq!(refused("orch.find.dance", b"{}").await, ErrorCode::Invalid);
    assert_eq!(refused("orch.find.exec", b"{}").await, ErrorCode::NotYet);
    assert_eq!(
        refused("orch.task.web.all.all.pause", b"now").await,
        ErrorCode::Invalid
    );
    assert_eq!(
        refused("orch.task.web.all.all.logs", b"some").await,
        ErrorCode::Invalid
    );
    assert_eq!(
        refused("orch.task.web.all.all.inspect", &[0xdf, 1, 2]).await,
        ErrorCode::Invalid
    );
}
