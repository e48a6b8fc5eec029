//! The log on three servers: without quorum, and with its leader killed.

use std::sync::Mutex;
use std::time::Duration;

use loom_bus::Bus;
use loom_bus::events::{History, Relay, RelayOptions};
use loom_bus::log::LogOptions;
use loom_schemas::wire::EventQuery;
use tokio::time::timeout;

use super::{Manager, follow_to, long_runs, put, quick};
use crate::support::{Cluster, until};

fn replicated() -> LogOptions {
    LogOptions {
        replicas: 3,
        ..quick()
    }
}

/// The index of the server that leads the stream of the log.
async fn leader_of(url: &str, stream: &str) -> usize {
    let client = async_nats::connect(url.split(',').collect::<Vec<_>>())
        .await
        .unwrap();
    let js = async_nats::jetstream::new(client);
    let info = js
        .get_stream(stream)
        .await
        .unwrap()
        .get_info()
        .await
        .unwrap();
    let name = info.cluster.unwrap().leader.unwrap();
    name.trim_start_matches('s').parse().unwrap()
}

/// What was told, once so many events were.
async fn told(bus: &Bus, events: u64) -> Vec<String> {
    let history = History::new(bus);
    let told = Mutex::new(Vec::new());
    until("all events are told", || async {
        // A stream whose leader is being chosen cannot be read yet.
        let Ok(list) = history.events(&EventQuery::default()).await else {
            return false;
        };
        let rows = list.events.into_iter();
        *told.lock().unwrap() = rows.map(|row| row.event.request.unwrap()).collect();
        list.last == events
    })
    .await;
    told.into_inner().unwrap()
}

/// Appends while two of three servers stand still for so long, twice.
async fn without_quorum(pause: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    let first = Manager::new(&cluster.url, "m0", replicated()).await;
    let leads = leader_of(&cluster.url, "ORCH_LOG").await;
    drop(first);
    let near = cluster.servers[leads].url.clone();
    let mut leader = Manager::started(&near, "m1", replicated()).await;
    leader.lead().await;
    let options = RelayOptions::default();
    let position = leader.replica.position.clone();
    let relay = Relay::start(&leader.bus, leader.log.clone(), &position, options);
    leader.put("a", "1").await.unwrap();
    for round in 0..2 {
        let others = (0..3).filter(|n| *n != leads);
        for n in others.clone() {
            cluster.servers[n].pause();
        }
        let key = format!("late{round}");
        let append = leader.writer.as_mut().unwrap().append(put(&key, "v", 1));
        let dropped = timeout(pause, append).await;
        assert!(dropped.is_err(), "{dropped:?}");
        for n in others {
            cluster.servers[n].resume();
        }
        let settled = leader.writer().settle().await.unwrap().unwrap();
        leader.replica.apply_committed(&settled).unwrap();
        relay.committed(&settled);
    }
    leader.put("b", "2").await.unwrap();
    let other = Manager::started(&cluster.url, "m2", replicated()).await;
    assert_eq!(other.replica.hash(), leader.replica.hash());
    assert_eq!(other.replica.position.sequence, 5);
    let told = told(&leader.bus, 2).await;
    assert_eq!(told, ["late0", "late1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_without_quorum_that_lands_later_counts_once() {
    without_quorum(Duration::from_millis(1200)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_without_quorum_for_long_counts_once() {
    if long_runs("two of three servers paused until the stream's leader steps down") {
        without_quorum(Duration::from_secs(15)).await;
    }
}

/// Kills the stream's leader while commits go on, so many times.
async fn kills(rounds: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path()).await;
    let mut leader = Manager::started(&cluster.url, "m1", replicated()).await;
    leader.lead().await;
    let options = RelayOptions::default();
    let position = leader.replica.position.clone();
    let relay = Relay::start(&leader.bus, leader.log.clone(), &position, options);
    let mut standby = Manager::started(&cluster.url, "m2", replicated()).await;
    let mut wanted = Vec::new();
    for round in 0..rounds {
        let victim = leader_of(&cluster.url, "ORCH_LOG").await;
        for n in 0..40 {
            if n == 10 {
                cluster.servers[victim].kill();
            }
            let key = format!("r{round}-{n}");
            let committed = leader.append(put(&key, "v", 1)).await.unwrap();
            relay.committed(&committed);
            wanted.push(key);
        }
        cluster.servers[victim].revive().await;
        let last = leader.replica.position.sequence;
        let caught = follow_to(&standby.log, &mut standby.replica, last);
        timeout(Duration::from_secs(40), caught)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(standby.replica.hash(), leader.replica.hash());
    }
    let told = told(&leader.bus, leader.replica.position.events).await;
    assert_eq!(told, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_and_events_go_on_when_the_streams_leader_is_killed() {
    kills(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_and_events_go_on_through_many_kills() {
    if long_runs("ten kills of the stream's leader") {
        kills(10).await;
    }
}
