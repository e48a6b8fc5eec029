use loom_node::{NodeOptions, StartError, StoreError};

use crate::leader::Manner;
use crate::specs::name;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_serves_one_node_of_one_cluster() {
    let world = World::new().await;
    let node = world.node("node-1").await;
    let second = loom_node::start(world.options("node-1")).await.unwrap_err();
    assert!(
        matches!(second, StartError::Store(StoreError::Locked { .. })),
        "{second}"
    );
    node.kill().await;
    let other = NodeOptions {
        name: name("node-2"),
        ..world.options("node-1")
    };
    let error = loom_node::start(other).await.unwrap_err();
    assert!(
        matches!(error, StartError::Store(StoreError::OtherNode { .. })),
        "{error}"
    );
    // The managers on the bus are another cluster's now.
    world.leader.said().cluster = "cluster-2".to_owned();
    let node = loom_node::start(world.options("node-1")).await.unwrap();
    let error = node.ready().await.unwrap_err();
    assert!(matches!(error, StartError::OtherCluster { .. }), "{error}");
    assert!(node.stopped().await.unwrap().contains("cluster-2"));
    // As managers say it.
    world.leader.manner(Manner::Conflict);
    let node = loom_node::start(world.options("node-1")).await.unwrap();
    let error = node.ready().await.unwrap_err();
    assert!(matches!(error, StartError::OtherCluster { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_make_no_sense_and_no_bus_are_clear_errors() {
    let world = World::new().await;
    let options = NodeOptions {
        ports: 0..=0,
        ..world.options("node-1")
    };
    assert!(matches!(
        loom_node::start(options).await,
        Err(StartError::Options(_))
    ));
    let options = NodeOptions {
        drivers: vec![],
        ..world.options("node-1")
    };
    assert!(matches!(
        loom_node::start(options).await,
        Err(StartError::Options(_))
    ));
    let mut options = world.options("node-1");
    let loom_node::BusAccess::Connect(connect) = &mut options.bus else {
        unreachable!()
    };
    connect.url = "nats://127.0.0.1:1".to_owned();
    assert!(matches!(
        loom_node::start(options).await,
        Err(StartError::Connect(_))
    ));
    // The directory is free again.
    world.node("node-1").await.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_on_the_bus_is_refused() {
    let world = World::new().await;
    let node = world.node("node-1").await;
    let elsewhere = || NodeOptions {
        data_dir: world.directory.path().join("elsewhere"),
        ..world.options("node-1")
    };
    let error = loom_node::start(elsewhere()).await.unwrap_err();
    assert!(matches!(error, StartError::NameTaken(_)), "{error}");
    node.kill().await;
    world.start(elsewhere()).await.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_leaders_log_was_rewound_says_so() {
    let world = World::new().await;
    world.node("node-1").await.kill().await;
    world.leader.said().epoch.sequence = 3;
    let mut options = world.options("node-1");
    options.timings.lost_after = std::time::Duration::from_millis(300);
    let node = loom_node::start(options).await.unwrap();
    let error = node.ready().await.unwrap_err();
    assert!(matches!(error, StartError::StoreRewound { .. }), "{error}");
    assert!(node.stopped().await.unwrap().contains("epoch"));
}
