use loom_node::TasksOnStop;
use loom_schemas::words::RunState;

use crate::specs::{playing, script};
use crate::world::{World, lives};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_stopped_ends_its_tasks_reports_that_and_says_bye() {
    let world = World::new().await;
    let node = world.host("node-1").await;
    let (web, sim) = (script("web", "sleep 1000"), playing("sim", 0));
    world.leader.assign("node-1", &[&web, &sim], &[]).await;
    let pid = world
        .until_state(web.placement, RunState::Running)
        .await
        .pid
        .unwrap();
    world.until_state(sim.placement, RunState::Running).await;
    node.stop(TasksOnStop::Stop).await;
    assert!(!lives(pid));
    let said = world.leader.said();
    assert_eq!(said.byes[0].back_within, None);
    for placement in [web.placement, sim.placement] {
        let report = said.of(placement).unwrap();
        assert_eq!(report.state, RunState::Killed);
        assert_eq!(report.reason.as_deref(), Some("the node was stopped"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_its_tasks_says_when_it_is_back() {
    let world = World::new().await;
    let node = world.host("node-1").await;
    let web = script("web", "sleep 1000");
    world.leader.assign("node-1", &[&web], &[]).await;
    let pid = world
        .until_state(web.placement, RunState::Running)
        .await
        .pid
        .unwrap();
    node.stop(TasksOnStop::Keep).await;
    assert!(lives(pid));
    assert_eq!(world.leader.said().byes[0].back_within, Some(60));
    let node = world.host("node-1").await;
    assert_eq!(
        world.leader.said().hellos.last().unwrap().runs[0].pid,
        Some(pid)
    );
    node.stop(TasksOnStop::Stop).await;
    assert!(!lives(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_bus_stops_as_well() {
    let mut world = World::new().await;
    let node = world.host("node-1").await;
    let web = script("web", "sleep 1000");
    world.leader.assign("node-1", &[&web], &[]).await;
    let pid = world
        .until_state(web.placement, RunState::Running)
        .await
        .pid
        .unwrap();
    world.kill_bus().await;
    node.stop(TasksOnStop::Stop).await;
    assert!(!lives(pid));
    world.restart_bus().await;
    let node = world.host("node-1").await;
    world.until_state(web.placement, RunState::Killed).await;
    node.kill().await;
}
