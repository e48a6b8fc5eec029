//! Appends: fenced, each with exactly one outcome, and what is refused.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use loom_bus::log::entry::ENTRY_BYTES_MAX;
use loom_bus::log::{AppendError, Change, Commit, Entry, Log, LogError, LogOptions};
use loom_bus::stream::StreamError;
use loom_schemas::wire::FORMAT;
use tokio::time::timeout;

use super::{Manager, Records, put, quick};
use crate::support::{Server, connect};

/// How long the server may take to store something.
const CALL: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_commit_is_one_entry_and_every_replica_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    for n in 0..20 {
        leader
            .put(&format!("k{}", n % 7), &n.to_string())
            .await
            .unwrap();
    }
    let empty = leader.writer().append_empty().await.unwrap();
    leader.replica.apply_committed(&empty).unwrap();
    let other = Manager::started(&server.url, "m2", quick()).await;
    assert_eq!(other.replica.position, leader.replica.position);
    assert_eq!(other.replica.hash(), leader.replica.hash());
    assert_eq!(other.replica.position.sequence, 22);
    assert_eq!(
        other.replica.position.leader.as_ref().unwrap().as_str(),
        "m1"
    );
}

#[tokio::test]
async fn a_long_log_is_read_as_it_is_also_where_entries_are_large() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    for n in 0..700 {
        // What a seed makes does not compress, so every hundredth entry has half a megabyte.
        let large = if n % 100 == 50 { 500_000 } else { 10 };
        let value: String = noise(n).take(large).collect();
        leader.put(&format!("k{}", n % 70), &value).await.unwrap();
    }
    let other = Manager::started(&server.url, "m2", quick()).await;
    assert_eq!(other.replica.position, leader.replica.position);
    assert_eq!(other.replica.hash(), leader.replica.hash());
}

fn noise(seed: u64) -> impl Iterator<Item = char> {
    let mut x = seed + 1;
    std::iter::from_fn(move || {
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from_u32(33 + u32::try_from(x >> 58).ok()?)
    })
}

#[tokio::test]
async fn a_deposed_leaders_append_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut old = Manager::started(&server.url, "m1", quick()).await;
    old.lead().await;
    old.put("a", "1").await.unwrap();
    let mut new = Manager::started(&server.url, "m2", quick()).await;
    new.lead().await;
    let refused = old.append(put("a", "2", 1)).await.unwrap_err();
    let AppendError::Deposed { by } = refused else {
        panic!("{refused}")
    };
    assert_eq!(by.unwrap().as_str(), "m2");
    assert!(!old.writer().is_leading());
    let again = old.put("a", "3").await.unwrap_err();
    assert!(matches!(again, AppendError::Deposed { .. }), "{again}");
    new.put("b", "4").await.unwrap();
    old.catch_up().await.unwrap();
    assert_eq!(old.value("a").unwrap(), "1");
    assert_eq!(old.replica.position.events, 0);
    assert_eq!(old.replica.hash(), new.replica.hash());
}

#[tokio::test]
async fn of_two_that_want_to_lead_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut one = Manager::started(&server.url, "m1", quick()).await;
    let mut two = Manager::started(&server.url, "m2", quick()).await;
    let (position, other) = (one.replica.position.clone(), two.replica.position.clone());
    let first = one.log.lead(&one.bus, one.name.clone(), position);
    let second = two.log.lead(&two.bus, two.name.clone(), other);
    let (first, second) = futures::join!(first, second);
    assert!(first.is_ok() != second.is_ok());
    one.catch_up().await.unwrap();
    two.catch_up().await.unwrap();
    assert_eq!(one.replica.position, two.replica.position);
    assert!(!one.replica.position.cluster.is_empty());
}

#[tokio::test]
async fn a_dropped_append_is_settled_before_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let mut landed = 0;
    for n in 0..150_u64 {
        let wait = Duration::from_micros(n * 13 % 1200);
        let append = leader
            .writer
            .as_mut()
            .unwrap()
            .append(put(&format!("k{n}"), "v", 1));
        let committed = match timeout(wait, append).await {
            Ok(done) => Some(done.unwrap()),
            Err(_) if leader.writer().is_unresolved() => {
                let refused = leader.writer().append_empty().await.unwrap_err();
                assert!(matches!(refused, AppendError::Unresolved), "{refused}");
                leader.writer().settle().await.unwrap()
            }
            Err(_) => None,
        };
        if let Some(committed) = committed {
            leader.replica.apply_committed(&committed).unwrap();
            landed += 1;
        }
    }
    let other = Manager::started(&server.url, "m2", quick()).await;
    assert_eq!(other.replica.position.sequence, landed + 1);
    assert_eq!(other.replica.position.events, landed);
    assert_eq!(other.replica.hash(), leader.replica.hash());
}

#[tokio::test]
async fn an_append_to_a_hung_server_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    leader.put("before", "0").await.unwrap();
    server.pause();
    let append = leader.writer.as_mut().unwrap().append(put("a", "1", 1));
    // Long enough for the same bytes to be sent more than once.
    assert!(timeout(Duration::from_millis(1300), append).await.is_err());
    server.resume();
    let committed = leader.writer().settle().await.unwrap().unwrap();
    leader.replica.apply_committed(&committed).unwrap();
    leader.put("b", "2").await.unwrap();
    let other = Manager::started(&server.url, "m2", quick()).await;
    assert_eq!(other.replica.position.sequence, 4);
    assert_eq!(other.replica.hash(), leader.replica.hash());
}

#[tokio::test]
async fn a_commit_outlives_the_servers_death() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    for round in 0..3 {
        leader.put(&format!("before{round}"), "v").await.unwrap();
        server.kill();
        let append = leader
            .writer
            .as_mut()
            .unwrap()
            .append(put("during", "v", 0));
        let (appended, ()) = futures::join!(append, server.revive());
        leader.replica.apply_committed(&appended.unwrap()).unwrap();
    }
    let other = Manager::started(&server.url, "m2", quick()).await;
    assert_eq!(other.replica.position.sequence, 7);
    assert_eq!(other.replica.hash(), leader.replica.hash());
}

#[tokio::test]
async fn the_largest_commit_fits_and_a_larger_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    // Bytes that do not compress.
    let mut noise = vec![0; ENTRY_BYTES_MAX - 1000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let large = |bytes: Vec<u8>| Commit {
        changes: vec![Change::put("large", Bytes::from(bytes))],
        ..Commit::default()
    };
    leader.append(large(noise.clone())).await.unwrap();
    noise.extend([0; 2000]);
    let refused = leader.append(large(noise)).await.unwrap_err();
    assert!(matches!(refused, AppendError::Entry(_)), "{refused}");
    assert!(!leader.writer().is_unresolved());
    leader.put("b", "2").await.unwrap();
    let other = Manager::started(&server.url, "m2", quick()).await;
    assert_eq!(other.replica.hash(), leader.replica.hash());
}

#[tokio::test]
async fn a_full_log_takes_no_commits_until_a_snapshot_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let options = LogOptions {
        max_bytes: 400_000,
        reserve: 200_000,
        ..quick()
    };
    let mut leader = Manager::started(&server.url, "m1", options).await;
    leader.lead().await;
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut fill = |n: usize| {
        let mut value = vec![0; 10_000];
        noise.fill(&mut value);
        Commit {
            changes: vec![Change::put(format!("k{}", n % 3), value)],
            ..Commit::default()
        }
    };
    let mut refused = None;
    for n in 0..100 {
        if let Err(error) = leader.append(fill(n)).await {
            refused = Some(error);
            break;
        }
    }
    assert!(
        matches!(refused, Some(AppendError::NoSpace { .. })),
        "{refused:?}"
    );
    assert!(leader.writer().is_leading() && !leader.writer().is_unresolved());
    for _ in 0..2 {
        let mark = leader
            .log
            .snapshots()
            .take(leader.replica.clone())
            .await
            .unwrap();
        let committed = leader.writer().snapshot(mark).await.unwrap().unwrap();
        leader.replica.apply_committed(&committed).unwrap();
    }
    let position = &leader.replica.position;
    leader
        .log
        .snapshots()
        .purge_log(position, position.revision())
        .await
        .unwrap();
    leader.append(fill(0)).await.unwrap();
}

#[tokio::test]
async fn what_the_server_refuses_for_space_is_not_appended() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let options = LogOptions {
        max_bytes: 40_000,
        reserve: 0,
        ..quick()
    };
    let mut leader = Manager::started(&server.url, "m1", options).await;
    leader.lead().await;
    let mut value = vec![0; 50_000];
    blake3::Hasher::new().finalize_xof().fill(&mut value);
    let commit = Commit {
        changes: vec![Change::put("large", value)],
        ..Commit::default()
    };
    let refused = leader.append(commit).await.unwrap_err();
    assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused}");
    assert!(!leader.writer().is_unresolved());
    leader.put("small", "1").await.unwrap();
}

#[tokio::test]
async fn a_log_that_is_not_kept_as_it_must_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = async_nats::connect(&server.url).await.unwrap();
    let config = async_nats::jetstream::stream::Config {
        name: "ORCH_LOG".to_owned(),
        subjects: vec!["orch.log".to_owned()],
        max_age: Duration::from_hours(1),
        ..Default::default()
    };
    async_nats::jetstream::new(client)
        .create_stream(config)
        .await
        .unwrap();
    let bus = connect(&server.url).await;
    let Err(LogError::Stream(StreamError::Configuration { field, .. })) =
        Log::open(&bus, quick()).await
    else {
        panic!("it was taken as it is");
    };
    assert_eq!(field, "discard");
}

#[tokio::test]
async fn a_foreign_message_in_the_log_stops_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    leader.put("a", "1").await.unwrap();
    assert!(Entry::decode(b"garbage").is_err());
    leader
        .bus
        .publish("orch.log", Bytes::from("garbage"), &[])
        .await
        .unwrap();
    leader.bus.round_trip().await.unwrap();
    let refused = leader.put("b", "2").await.unwrap_err();
    assert!(
        matches!(refused, AppendError::Deposed { by: None }),
        "{refused}"
    );
    let unreadable = leader.catch_up().await.unwrap_err();
    assert!(matches!(unreadable, LogError::Apply(_)), "{unreadable}");
    assert_eq!(leader.value("a").unwrap(), "1");
}

#[tokio::test]
async fn what_a_newer_build_wrote_is_neither_read_again_and_again_nor_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    for n in 0..40 {
        leader.put(&format!("a-{n}"), "1").await.unwrap();
    }
    let last = leader.log.last_sequence().await.unwrap();
    let newer = Entry {
        format: FORMAT + 1,
        ..leader.log.entry(last).await.unwrap().unwrap()
    };
    let raw = newer.encode().unwrap();
    let stored = leader.bus.call_bytes("orch.log", raw, &[], CALL).await;
    stored.unwrap();

    let mut standby = Manager::new(&server.url, "m2", quick()).await;
    let refused = standby.catch_up().await.unwrap_err();
    assert!(refused.is_newer(), "{refused}");
    assert_eq!(standby.replica.hash(), leader.replica.hash());
    let reads = "$JS.API.STREAM.MSG.GET.ORCH_LOG";
    let client = async_nats::connect(&server.url).await.unwrap();
    let mut asked = client.subscribe(reads).await.unwrap();
    client.flush().await.unwrap();
    assert!(standby.catch_up().await.unwrap_err().is_newer());
    client.publish(reads, "end".into()).await.unwrap();
    let mut count = 0;
    while asked.next().await.unwrap().payload != "end" {
        count += 1;
    }
    assert!((1..=3).contains(&count), "{count} entries were read again");

    // Nor is what is left taken for all there is to restore.
    let salvaged = standby.log.salvage::<Records>().await.unwrap_err();
    assert!(salvaged.is_newer(), "{salvaged}");
}
