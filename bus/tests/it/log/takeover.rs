//! Takeovers and followers: whoever leads, all fold the same state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use loom_bus::log::{AppendError, EntryKind, Followed, Replica};
use tokio::task::JoinSet;

use super::{Manager, Records, aloud, long_runs, put, quick};
use crate::support::{Cluster, Server, until};

/// The hash of a replica after each entry.
type Hashes = BTreeMap<u64, String>;

/// Leads, then appends until it is deposed; gives what was acknowledged.
async fn reign(mut manager: Manager, tag: usize) -> (Manager, Vec<String>) {
    manager.lead().await;
    let mut acknowledged = Vec::new();
    let mut append = Duration::from_millis(1);
    for n in 0.. {
        let key = format!("r{tag}-{n}");
        // Who never pauses cannot be overtaken: a standby would always be one entry behind. So
        // the pauses differ, and takeovers fall into them and onto their ends. They are as long
        // as the machine is slow: a takeover is a few appends.
        let pause = (tag * 7 + n * 5) % 6;
        tokio::time::sleep(append * u32::try_from(pause).unwrap()).await;
        let began = Instant::now();
        let appended = manager.append(put(&key, "v", 1)).await;
        append = began.elapsed().max(Duration::from_millis(1));
        match appended {
            Ok(_) => acknowledged.push(key),
            Err(AppendError::Deposed { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    (manager, acknowledged)
}

/// Follows until told to stop and the end is reached; gives the hash after each entry.
async fn watch(url: String, replicas: usize, stop: Arc<AtomicBool>) -> (Replica<Records>, Hashes) {
    let options = loom_bus::log::LogOptions {
        replicas,
        ..quick()
    };
    let mut manager = Manager::new(&url, "watcher", options).await;
    let mut follower = manager.log.follow("watcher", 0);
    let mut hashes = Hashes::new();
    loop {
        let last = manager.log.last_sequence().await.unwrap_or(u64::MAX);
        if stop.load(Ordering::Relaxed) && manager.replica.position.sequence >= last {
            return (manager.replica, hashes);
        }
        let next = tokio::time::timeout(Duration::from_millis(200), follower.next());
        let Ok(next) = next.await else { continue };
        let Some(Followed::Entry { sequence, raw }) = next else {
            panic!("{next:?}")
        };
        manager
            .log
            .apply(&mut manager.replica, sequence, &raw)
            .await
            .unwrap();
        hashes.insert(sequence, manager.replica.hash());
    }
}

/// Takes over so many times while the leader appends, and compares everything with everything.
async fn takeovers(url: &str, replicas: usize, rounds: usize) {
    let options = || loom_bus::log::LogOptions {
        replicas,
        ..quick()
    };
    let stop = Arc::new(AtomicBool::new(false));
    drop(Manager::new(url, "first", options()).await);
    let watchers: Vec<_> = (0..2)
        .map(|_| tokio::spawn(watch(url.to_owned(), replicas, Arc::clone(&stop))))
        .collect();
    let mut managers = Vec::new();
    for n in 0..3 {
        managers.push(Manager::started(url, &format!("m{n}"), options()).await);
    }
    let mut acknowledged = Vec::new();
    let mut reigns = JoinSet::new();
    for round in 0..rounds {
        if managers.is_empty() {
            let (manager, keys) = reigns.join_next().await.unwrap().unwrap();
            acknowledged.extend(keys);
            managers.push(manager);
        }
        reigns.spawn(reign(managers.remove(0), round));
    }
    let mut last = Manager::started(url, "last", options()).await;
    while !reigns.is_empty() {
        // It leads after all of them have; each has its turn in between.
        last.lead().await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        while let Some(reign) = reigns.try_join_next() {
            acknowledged.extend(reign.unwrap().1);
        }
    }
    last.lead().await;
    last.put("end", "v").await.unwrap();
    acknowledged.push("end".to_owned());

    stop.store(true, Ordering::Relaxed);
    let fresh = Manager::started(url, "fresh", options()).await;
    assert_eq!(fresh.replica.hash(), last.replica.hash());
    let mut hashes = Vec::new();
    for watcher in watchers {
        let (replica, seen) = watcher.await.unwrap();
        assert_eq!(replica.hash(), fresh.replica.hash());
        assert_eq!(replica.position, fresh.replica.position);
        hashes.push(seen);
    }
    assert_eq!(
        hashes[0], hashes[1],
        "all replicas have the same hash at the same sequences"
    );
    assert_eq!(hashes[0].len() as u64, fresh.replica.position.sequence);

    let mut leads = 0;
    let mut committed = Vec::new();
    for sequence in 1..=fresh.replica.position.sequence {
        let entry = fresh.log.entry(sequence).await.unwrap().unwrap();
        leads += usize::from(entry.kind == EntryKind::Lead);
        committed.extend(entry.changes.into_iter().map(|change| change.key));
    }
    assert!(leads > rounds, "{leads} takeovers");
    committed.sort();
    acknowledged.sort();
    assert_eq!(
        committed, acknowledged,
        "what was acknowledged is there, once, and nothing else"
    );
    aloud(&format!("{leads} takeovers, {} commits", committed.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_takeovers_with_appends_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    takeovers(&server.url, 1, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_takeovers_with_appends_in_flight_replicated() {
    if !long_runs("a hundred takeovers on three servers") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path()).await;
    takeovers(&cluster.url, 3, 100).await;
}

#[tokio::test]
async fn a_follower_goes_on_after_the_servers_death() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let mut standby = Manager::started(&server.url, "m2", quick()).await;
    let mut follower = standby.log.follow("m2", standby.replica.position.sequence);
    for round in 0..3 {
        leader.put(&format!("k{round}"), "v").await.unwrap();
        server.kill();
        server.revive().await;
        let last = leader
            .put("again", &round.to_string())
            .await
            .unwrap()
            .sequence;
        while standby.replica.position.sequence < last {
            let Some(Followed::Entry { sequence, raw }) = follower.next().await else {
                panic!("the follower ended");
            };
            standby
                .log
                .apply(&mut standby.replica, sequence, &raw)
                .await
                .unwrap();
        }
        assert_eq!(standby.replica.hash(), leader.replica.hash());
    }
}

#[tokio::test]
async fn a_follower_sees_entries_as_they_are_appended() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    let mut standby = Manager::started(&server.url, "m2", quick()).await;
    let mut follower = standby.log.follow("m2", 0);
    leader.lead().await;
    for n in 0..10 {
        leader.put(&format!("k{n}"), "v").await.unwrap();
        let wanted = leader.replica.position.sequence;
        until("the follower has it", || {
            let next = follower.try_next();
            if let Some(Followed::Entry { sequence, raw }) = next {
                standby.replica.apply(sequence, &raw).unwrap();
            }
            let reached = standby.replica.position.sequence == wanted;
            async move { reached }
        })
        .await;
    }
    assert_eq!(standby.replica.hash(), leader.replica.hash());
}
