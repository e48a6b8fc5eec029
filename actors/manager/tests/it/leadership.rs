//! Who leads, and what becomes of requests when that changes.

use std::time::{Duration, Instant};

use loom_bus::call::CallError;
use loom_bus::log::{Log, LogOptions, Replica};
use loom_manager::{Part, StartError};
use loom_schemas::error::ErrorCode;
use loom_schemas::wire::{ManagerRole, ManagerView};
use loom_schemas::words::JobStatus;

use super::cluster::{CALL, Client, Cluster, name, until};
use super::test_node::TestNode;

const WEB: &str = "name: web\nexec: [sleep, \"1000\"]\nreplicas: 2\n";

/// Submits until it is taken, as a patient client does.
async fn submit_patiently(client: &Client, text: &str) {
    until("it is submitted", async || {
        client.submit(text).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_at_once_when_the_leader_says_bye() {
    let (cluster, first, client) = Cluster::with_leader().await;
    let second = cluster.manager("m2").await;
    client.submit(WEB).await.unwrap();
    until("the standby follows", async || {
        second.state_hash() == first.state_hash()
    })
    .await;
    assert_eq!(second.role(), ManagerRole::Standby);
    let begun = Instant::now();
    first.stop().await;
    until("the standby leads", async || second.leads()).await;
    assert!(begun.elapsed() < CALL);
    assert_eq!(client.job("web").await.summary.job.version, 1);
    submit_patiently(&client, "name: next\nexec: [\"true\"]\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_when_the_leader_dies_and_all_hashes_are_equal() {
    let (cluster, first, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    let second = cluster.manager("m2").await;
    let third = cluster.manager("m3").await;
    client.submit(WEB).await.unwrap();
    until("two run", async || node.running().len() == 2).await;
    drop(first);
    until("somebody leads", async || second.leads() || third.leads()).await;
    submit_patiently(&client, "name: next\nexec: [sleep, \"1000\"]\n").await;
    until("the next one runs", async || {
        client.status("next").await == JobStatus::Running
    })
    .await;
    assert_eq!(
        node.running().len(),
        3,
        "nothing was stopped or started twice"
    );
    until("both have the same state", async || {
        let (a, b) = (second.state_hash(), third.state_hash());
        a == b && a.0.sequence > 0
    })
    .await;
    let told = client.told("manager.*.elected").await;
    assert_eq!(told.len(), 2, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_answers_nothing_from_the_past() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    client.submit(WEB).await.unwrap();
    // Somebody else leads by an entry that the leader does not look at.
    let bus = cluster.own_bus().await;
    let log = Log::open(&bus, LogOptions::default()).await.unwrap();
    let mut replica = Replica::<loom_manager::state::State>::default();
    log.catch_up(&mut replica).await.unwrap();
    let led = log
        .lead(&bus, name("intruder"), replica.position.clone())
        .await;
    drop(led.unwrap());
    // Even that there is nothing to do is not for a deposed leader to say.
    let answer = client.submit(WEB).await;
    match answer {
        Err(CallError::Refused(error)) => assert_eq!(error.code, ErrorCode::Unavailable),
        other => panic!("expected `unavailable`, found {other:?}"),
    }
    until(
        "it leads again, since nobody pings for the intruder",
        async || manager.leads(),
    )
    .await;
    submit_patiently(&client, WEB).await;
}

/// Submits one job after the other for some seconds: how many were taken and refused, and when
/// those were sent that nobody answered.
async fn keep_submitting(client: Client) -> (u32, u32, Vec<Instant>) {
    let (mut taken, mut refused, mut silent) = (0, 0, Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        let sent = Instant::now();
        let job = format!("name: job-{taken}\nexec: [\"true\"]\n");
        match client.submit(&job).await {
            Ok(_) => taken += 1,
            Err(CallError::NoResponders | CallError::Refused(_)) => refused += 1,
            Err(CallError::Timeout) => silent.push(sent),
            Err(other) => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (taken, refused, silent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_during_takeovers_are_answered_or_refused_but_never_left() {
    let (cluster, first, client) = Cluster::with_leader().await;
    let second = cluster.manager("m2").await;
    let asking = tokio::spawn(keep_submitting(client.clone()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    first.stop().await;
    until("the second leads", async || second.leads()).await;
    let third = cluster.manager("m3").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let crash = Instant::now();
    drop(second);
    until("the third leads", async || third.leads()).await;
    let (taken, refused, silent) = asking.await.unwrap();
    assert!(taken > 5, "{taken} taken, {refused} refused");
    // What a dead process had been handed cannot be answered by anybody, nor what reaches a
    // subscription just as it ends: one request at a time, so one at a change of leader at most.
    let left: Vec<_> = silent
        .iter()
        .map(|sent| crash.saturating_duration_since(*sent))
        .collect();
    assert!(left.len() <= 2, "before the crash: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_actor_costs_no_run_and_no_commit() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    client.submit(WEB).await.unwrap();
    until("two run", async || node.running().len() == 2).await;
    let before = node.running();
    let parts = [
        Part::Scheduler,
        Part::Relay,
        Part::QueueReader,
        Part::Reads,
        Part::Snapshotter,
        Part::LogWriter,
        Part::Manager,
        Part::Root,
    ];
    for (n, part) in parts.into_iter().enumerate() {
        assert!(manager.kill(part), "{part:?}");
        let job = format!("name: after-{n}\nexec: [sleep, \"1000\"]\n");
        submit_patiently(&client, &job).await;
        until("it runs", async || node.running().len() == 3 + n).await;
        until("reads are answered", async || {
            client.send("orch.api.job.list", b"").await.is_ok()
        })
        .await;
        let view = client.ask("orch.api.manager.list", &()).await;
        let view: ManagerView = view.unwrap_or_else(|error| panic!("{part:?}: {error}"));
        assert_eq!(view.role, ManagerRole::Leader, "{part:?}");
    }
    let after = node.running();
    assert!(
        before.iter().all(|run| after.contains(run)),
        "no run was lost"
    );
    until("every event is in the history", async || {
        client.told("job.*.accepted").await.len() == 1 + parts.len()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_killed_follows_again() {
    let (cluster, first, client) = Cluster::with_leader().await;
    let second = cluster.manager("m2").await;
    until("it follows", async || {
        second.state_hash() == first.state_hash()
    })
    .await;
    assert!(second.kill(Part::Follower));
    client.submit(WEB).await.unwrap();
    until("it follows again", async || {
        second.state_hash() == first.state_hash()
    })
    .await;
    assert!(first.leads() && !second.leads());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_manager_of_the_same_name_is_refused() {
    let (cluster, _manager, _client) = Cluster::with_leader().await;
    let twin = loom_manager::start(cluster.options("m1")).await;
    assert!(matches!(twin, Err(StartError::NameTaken(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_comes_back_goes_on_where_it_was() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    client.submit(WEB).await.unwrap();
    let before = manager.state_hash().0;
    drop(manager);
    until("its name is free", async || {
        let gone = client.bus.call::<_, ()>("orch.job.submit", &(), CALL).await;
        matches!(gone, Err(CallError::NoResponders))
    })
    .await;
    let manager = cluster.manager("m1").await;
    until("it leads", async || manager.leads()).await;
    assert!(manager.state_hash().0 > before);
    assert_eq!(client.job("web").await.summary.job.version, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_lost_is_noticed_and_stops_nothing() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    let late = TestNode::start(cluster.own_bus().await, "n2").await;
    client.submit(WEB).await.unwrap();
    let running = async || node.running().len() + late.running().len();
    until("two run", async || running().await == 2).await;
    let before = manager.state_hash().0;
    let (first, second) = (node.running(), late.running());
    let own = cluster.own_client().await;
    own.send("$JS.API.STREAM.DELETE.ORCH_LOG", b"")
        .await
        .unwrap();
    // The leader finds out by its next append.
    let _ = client.submit(WEB).await;
    until("it leads again, in a later life of the log", async || {
        manager.leads() && manager.state_hash().0.incarnation > before.incarnation
    })
    .await;
    until("it has recovered", async || {
        manager.role() == ManagerRole::Leader
    })
    .await;
    submit_patiently(&client, "name: next\nexec: [sleep, \"1000\"]\n").await;
    until("the next one runs", async || running().await == 3).await;
    assert!(
        first.iter().all(|run| node.running().contains(run)),
        "nothing was stopped"
    );
    assert!(
        second.iter().all(|run| late.running().contains(run)),
        "nothing was stopped"
    );
}
