use std::time::Duration;

use loom_node::NodeOptions;
use loom_schemas::spec::SimScript;
use loom_schemas::subject;
use loom_schemas::units::Millis;
use loom_schemas::wire::CommandReply;
use loom_schemas::words::RunState;
use ractor::ActorCell;
use serde_json::json;

use crate::leader::Manner;
use crate::specs::{played, playing, restarting, script};
use crate::world::{World, lives, until};

const WAIT: Duration = Duration::from_secs(5);

fn ends_after(millis: u64) -> SimScript {
    SimScript {
        run: Some(Millis(millis)),
        ..SimScript::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_no_leader_answers_is_reported_later() {
    let world = World::new().await;
    let _node = world.node("node-1").await;
    let batch = played("batch", 0, ends_after(50));
    world.leader.assign("node-1", &[&batch], &[]).await;
    world.leader.manner(Manner::Silent);
    world
        .until("it has ended", |said| {
            said.heartbeats
                .last()
                .is_some_and(|(_, last)| last.generation == 1 && last.usage.runs == 0)
        })
        .await;
    world.leader.manner(Manner::Answers);
    world
        .until_state(batch.placement, RunState::Completed)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_bus_is_killed_and_comes_back() {
    let mut world = World::new().await;
    let node = world.host("node-1").await;
    let web = script("web", "sleep 1000");
    let batch = script("batch", "while [ ! -e go ]; do sleep 0.01; done; exit 4");
    world.leader.assign("node-1", &[&web, &batch], &[]).await;
    let pid = world
        .until_state(web.placement, RunState::Running)
        .await
        .pid
        .unwrap();
    let end = world
        .until_state(batch.placement, RunState::Running)
        .await
        .pid
        .unwrap();
    let hellos = world.leader.said().hellos.len();
    world.kill_bus().await;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(end.try_into().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    until("the batch has ended", async || !lives(end)).await;
    world.restart_bus().await;
    world
        .until("it is greeted", |said| said.hellos.len() > hellos)
        .await;
    world.until_state(batch.placement, RunState::Failed).await;
    // Its address is served again, without any manager's doing.
    until("its address answers", async || {
        let asked = world
            .user
            .call(&subject::task(&web.slot, "inspect"), &json!({}), WAIT)
            .await;
        asked.is_ok_and(|reply: CommandReply| reply.rows[0].is_done())
    })
    .await;
    assert!(lives(pid));
    node.stop(loom_node::TasksOnStop::Stop).await;
    assert!(!lives(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_restarts_nothing_until_a_leader_answers() {
    let world = World::new().await;
    let mut options = world.options("node-1");
    options.timings.lost_after = Duration::from_millis(600);
    let _node = world.start(options).await;
    let web = restarting(played("web", 0, ends_after(20)), Millis(20));
    world.leader.assign("node-1", &[&web], &[]).await;
    world
        .until("it restarts", |said| {
            said.of(web.placement).is_some_and(|at| at.restarts > 2)
        })
        .await;
    // Without a call it keeps the contact young by itself.
    world
        .until("it asks", |said| said.probes > 0 || said.reports.len() > 20)
        .await;
    world.leader.manner(Manner::Silent);
    world
        .until("twenty heartbeats without a run", |said| {
            let last: Vec<_> = said.heartbeats.iter().rev().take(20).collect();
            last.len() == 20 && last.iter().all(|(_, at)| at.usage.runs == 0)
        })
        .await;
    let restarts = world.leader.said().of(web.placement).unwrap().restarts;
    world.leader.manner(Manner::Answers);
    world
        .until("it restarts again", |said| {
            said.of(web.placement)
                .is_some_and(|at| at.restarts > restarts + 2)
        })
        .await;
}

/// The node's actor below the root, and the task actors below it.
fn actors(root: &ActorCell) -> (ActorCell, Vec<ActorCell>) {
    let node = root.get_children().pop().unwrap();
    let tasks = node.get_children();
    (node, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_actors_cost_no_run() {
    let world = World::new().await;
    let node = world.host("node-1").await;
    let web = script("web", "sleep 1000");
    world.leader.assign("node-1", &[&web], &[]).await;
    let pid = world
        .until_state(web.placement, RunState::Running)
        .await
        .pid
        .unwrap();
    let answers = async || {
        let asked = world
            .user
            .call(&subject::task(&web.slot, "inspect"), &json!({}), WAIT)
            .await;
        asked.is_ok_and(|reply: CommandReply| {
            let row = &reply.rows[0];
            row.is_done() && row.value.as_ref().is_some_and(|value| value["pid"] == pid)
        })
    };
    until("it answers", answers).await;
    for round in 0..4 {
        let (node_actor, mut tasks) = actors(&node.root());
        let killed = if round % 2 == 0 {
            tasks.pop().unwrap()
        } else {
            node_actor
        };
        killed.kill();
        until("another actor is there", async || {
            let children = node.root().get_children();
            children.first().is_some_and(|node| {
                let tasks = node.get_children();
                node.get_id() != killed.get_id()
                    && tasks
                        .first()
                        .is_some_and(|task| task.get_id() != killed.get_id())
            })
        })
        .await;
        until("it answers again", answers).await;
        assert!(lives(pid));
    }
    assert_eq!(world.leader.said().of(web.placement).unwrap().restarts, 0);
    node.stop(loom_node::TasksOnStop::Stop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_share_a_connection() {
    let world = World::new().await;
    let bus = loom_bus::connection::Bus::connect(world.connect.clone())
        .await
        .unwrap();
    let mut nodes = Vec::new();
    for number in 0..50 {
        let options = NodeOptions {
            bus: loom_node::BusAccess::Shared {
                control: bus.clone(),
                bulk: bus.clone(),
            },
            drivers: vec![loom_schemas::words::DriverKind::Sim],
            ..world.options(&format!("sim-{number}"))
        };
        nodes.push(world.start(options).await);
    }
    let web = playing("web", 0);
    world.leader.assign("sim-49", &[&web], &[]).await;
    world.until_state(web.placement, RunState::Running).await;
    for node in nodes {
        node.stop(loom_node::TasksOnStop::Stop).await;
    }
    world
        .until("all said bye", |said| said.byes.len() == 50)
        .await;
}
