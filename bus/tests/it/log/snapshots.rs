//! Snapshots: a start from one equals a start from the whole log, whatever broke off before.

use std::time::Duration;

use loom_bus::log::snapshot;
use loom_bus::log::{LogError, LogOptions, Replica, SnapshotMark};
use loom_schemas::ids::Revision;
use tokio::time::timeout;

use super::{Manager, Records, follow_to, put, quick};
use crate::support::Server;

const STEPS: [&str; 6] = ["nothing", "upload", "verify", "commit", "purge", "delete"];

/// Takes a snapshot up to and including a step, as if the program had died right after it.
async fn snapshot_until(leader: &mut Manager, last_step: usize) -> Option<SnapshotMark> {
    let snapshots = leader.log.snapshots().clone();
    if last_step == 0 {
        return None;
    }
    let mark = snapshots.upload(leader.replica.clone()).await.unwrap();
    if last_step >= 2 {
        snapshots.verify(&mark).await.unwrap();
    }
    if last_step >= 3 {
        let committed = leader
            .writer()
            .snapshot(mark.clone())
            .await
            .unwrap()
            .unwrap();
        leader.replica.apply_committed(&committed).unwrap();
    }
    let position = &leader.replica.position;
    if last_step >= 4 {
        snapshots
            .purge_log(position, position.revision())
            .await
            .unwrap();
    }
    if last_step >= 5 {
        snapshots.delete_stale(position).await.unwrap();
    }
    Some(mark)
}

async fn whole_round(leader: &mut Manager) {
    snapshot_until(leader, 5).await;
}

async fn put_some(leader: &mut Manager, tag: &str, count: usize) {
    for n in 0..count {
        leader
            .append(put(&format!("{tag}-{n}"), "some value", 1))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_start_from_a_snapshot_and_the_rest_equals_one_from_the_whole_log() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let options = LogOptions {
        chunk_bytes: 300,
        ..quick()
    };
    let mut leader = Manager::started(&server.url, "m1", options.clone()).await;
    leader.lead().await;
    put_some(&mut leader, "a", 30).await;
    let whole = Manager::started(&server.url, "m2", options.clone()).await;
    assert_eq!(whole.replica.hash(), leader.replica.hash());
    for tag in ["b", "c", "d"] {
        whole_round(&mut leader).await;
        put_some(&mut leader, tag, 10).await;
    }
    let extent = leader.log.extent().await.unwrap();
    assert!(extent.first > 30, "the log was purged: {extent:?}");
    assert_eq!(leader.log.snapshots().candidates().await.unwrap().len(), 2);
    let late = Manager::started(&server.url, "m3", options).await;
    assert_eq!(late.replica.hash(), leader.replica.hash());
    assert_eq!(late.replica.position, leader.replica.position);
}

#[tokio::test]
async fn a_follower_stopped_across_two_snapshots_and_purges_ends_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    put_some(&mut leader, "a", 20).await;
    let mut standby = Manager::started(&server.url, "m2", quick()).await;
    for tag in ["b", "c", "d"] {
        whole_round(&mut leader).await;
        put_some(&mut leader, tag, 20).await;
    }
    let extent = leader.log.extent().await.unwrap();
    assert!(
        extent.first > standby.replica.position.sequence + 1,
        "{extent:?}"
    );
    let last = leader.replica.position.sequence;
    follow_to(&standby.log, &mut standby.replica, last)
        .await
        .unwrap();
    assert_eq!(standby.replica.hash(), leader.replica.hash());
    assert_eq!(standby.replica.position, leader.replica.position);
}

#[tokio::test]
async fn a_crash_after_any_step_costs_nothing() {
    for (step, what) in STEPS.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path()).await;
        let mut leader = Manager::started(&server.url, "m1", quick()).await;
        leader.lead().await;
        put_some(&mut leader, "a", 10).await;
        whole_round(&mut leader).await;
        put_some(&mut leader, "b", 10).await;
        whole_round(&mut leader).await;
        put_some(&mut leader, "c", 10).await;
        snapshot_until(&mut leader, step).await;

        let mut next = Manager::started(&server.url, "m2", quick()).await;
        assert_eq!(next.replica.hash(), leader.replica.hash(), "after {what}");
        next.lead().await;
        put_some(&mut next, "d", 10).await;
        whole_round(&mut next).await;
        let names: Vec<String> = next
            .replica
            .position
            .snapshots
            .iter()
            .map(|mark| mark.name.clone())
            .collect();
        let mut found: Vec<String> = next
            .log
            .snapshots()
            .candidates()
            .await
            .unwrap()
            .into_iter()
            .map(|candidate| candidate.name)
            .collect();
        found.reverse();
        assert_eq!(found, names, "after {what}");
        let first = next.log.extent().await.unwrap().first;
        assert_eq!(
            first,
            next.replica.position.snapshots[0].sequence + 1,
            "after {what}"
        );
        let late = Manager::started(&server.url, "m3", quick()).await;
        assert_eq!(late.replica.hash(), next.replica.hash(), "after {what}");
    }
}

#[tokio::test]
async fn an_upload_that_broke_off_is_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let options = LogOptions {
        chunk_bytes: 100,
        snapshot_rate: 2_000,
        ..quick()
    };
    let mut leader = Manager::started(&server.url, "m1", options).await;
    leader.lead().await;
    put_some(&mut leader, "a", 200).await;
    let upload = leader.log.snapshots().upload(leader.replica.clone());
    assert!(timeout(Duration::from_millis(200), upload).await.is_err());
    assert_eq!(leader.log.snapshots().candidates().await.unwrap(), []);
    let fast = Manager::started(&server.url, "m2", quick()).await;
    assert_eq!(fast.replica.hash(), leader.replica.hash());
    let mark = fast
        .log
        .snapshots()
        .take(fast.replica.clone())
        .await
        .unwrap();
    assert!(leader.writer().snapshot(mark).await.unwrap().is_some());
}

#[tokio::test]
async fn a_damaged_snapshot_is_passed_over_for_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    for tag in ["a", "b", "c"] {
        put_some(&mut leader, tag, 10).await;
        whole_round(&mut leader).await;
    }
    put_some(&mut leader, "d", 3).await;
    let client = async_nats::connect(&server.url).await.unwrap();
    let js = async_nats::jetstream::new(client);
    let bucket = js.get_stream("OBJ_ORCH_SNAPSHOTS").await.unwrap();
    let newest = leader.replica.position.snapshots[1].clone();
    // Its chunks are the last ones before its description.
    let info = bucket.get_info().await.unwrap();
    bucket
        .delete_message(info.state.last_sequence - 1)
        .await
        .unwrap();
    assert!(leader.log.snapshots().verify(&newest).await.is_err());
    let late = Manager::started(&server.url, "m2", quick()).await;
    assert_eq!(late.replica.hash(), leader.replica.hash());

    // Without any snapshot the state is never folded from the middle of the log.
    bucket.purge().await.unwrap();
    let mut lost = Manager::new(&server.url, "m3", quick()).await;
    let refused = lost.catch_up().await.unwrap_err();
    assert!(matches!(refused, LogError::Recovering { .. }), "{refused}");
    assert_eq!(lost.replica.position.sequence, 0);
}

#[tokio::test]
async fn the_log_is_not_purged_beyond_what_the_relay_needs() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    for tag in ["a", "b", "c"] {
        put_some(&mut leader, tag, 10).await;
        snapshot_until(&mut leader, 3).await;
    }
    let position = leader.replica.position.clone();
    let relayed = Revision {
        sequence: 5,
        ..position.revision()
    };
    leader
        .log
        .snapshots()
        .purge_log(&position, relayed)
        .await
        .unwrap();
    assert_eq!(leader.log.extent().await.unwrap().first, 6);
}

#[tokio::test]
async fn a_snapshot_is_due_by_the_bytes_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let options = LogOptions {
        snapshot_after: 5_000,
        ..quick()
    };
    let mut leader = Manager::started(&server.url, "m1", options).await;
    leader.lead().await;
    let due = |leader: &Manager| leader.log.snapshots().is_due(&leader.replica.position);
    assert!(!due(&leader));
    put_some(&mut leader, "a", 20).await;
    assert!(due(&leader));
    whole_round(&mut leader).await;
    assert!(!due(&leader));
}

#[tokio::test]
async fn a_snapshot_lives_outside_the_bus_too() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("a")).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    put_some(&mut leader, "a", 10).await;
    let path = dir.path().join("backup.snapshot");
    let file = std::fs::File::create(&path).unwrap();
    snapshot::write(&leader.replica, file).unwrap();

    let empty = Server::start(&dir.path().join("b")).await;
    let state: Replica<Records> = snapshot::read(std::fs::File::open(&path).unwrap()).unwrap();
    let mut other = Manager::started(&empty.url, "m1", quick()).await;
    let (name, floor) = (other.name.clone(), loom_bus::log::Floor::default());
    other.replica = other
        .log
        .restore(&other.bus, name, state, floor)
        .await
        .unwrap();
    assert_eq!(other.replica.state, leader.replica.state);
    assert_eq!(
        other.replica.position.cluster,
        leader.replica.position.cluster
    );
    other.lead().await;
    other.put("b", "after").await.unwrap();
    let late = Manager::started(&empty.url, "m2", quick()).await;
    assert_eq!(late.replica.hash(), other.replica.hash());
    assert!(late.replica.position.incarnation > leader.replica.position.incarnation);
}
