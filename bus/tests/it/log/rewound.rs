//! A log that was rewound: noticed by everybody, appended to by nobody, restored on purpose.

use std::path::Path;
use std::time::Duration;

use loom_bus::log::{AppendError, Floor, Followed, LogError, Replica};

use super::{Manager, Records, put, quick};
use crate::support::Server;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Puts the server's disk back to what it was when `then` begins to run.
async fn rewind<F: Future>(server: &mut Server, copy_to: &Path, then: F) {
    server.kill();
    copy(&server.store(), copy_to);
    server.revive().await;
    then.await;
    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    copy(copy_to, &server.store());
    server.revive().await;
}

async fn put_some(leader: &mut Manager, tag: &str, count: usize) {
    for n in 0..count {
        leader
            .append(put(&format!("{tag}-{n}"), tag, 1))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_truncated_log_is_noticed_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server")).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    put_some(&mut leader, "a", 5).await;
    let mut standby = Manager::started(&server.url, "m2", quick()).await;
    let mut behind = Manager::started(&server.url, "m3", quick()).await;
    rewind(&mut server, &dir.path().join("copy"), async {
        put_some(&mut leader, "b", 5).await;
        standby.catch_up().await.unwrap();
    })
    .await;

    let refused = leader.put("c", "1").await.unwrap_err();
    assert!(
        matches!(refused, AppendError::Rewound { known: 11, last: 6 }),
        "{refused}"
    );
    let refused = leader.put("c", "1").await.unwrap_err();
    assert!(matches!(refused, AppendError::Deposed { .. }), "{refused}");
    let before = standby.replica.hash();
    let refused = standby.catch_up().await.unwrap_err();
    assert!(refused.is_rewound(), "{refused}");
    assert_eq!(standby.replica.hash(), before);
    let mut follower = standby.log.follow("m2", standby.replica.position.sequence);
    assert_eq!(follower.next().await, Some(Followed::Rewound { last: 6 }));
    assert_eq!(follower.next().await, None);
    assert_eq!(
        leader.log.last_sequence().await.unwrap(),
        6,
        "nothing was appended"
    );

    // One that knows less sees nothing wrong and leads; whoever knows more still notices.
    behind.lead().await;
    put_some(&mut behind, "other", 8).await;
    let refused = standby.catch_up().await.unwrap_err();
    assert!(refused.is_rewound(), "{refused}");
    let mut follower = standby.log.follow("m2", standby.replica.position.sequence);
    let Some(Followed::Entry { sequence, raw }) = follower.next().await else {
        panic!("the log is longer by now");
    };
    let refused = standby
        .log
        .apply(&mut standby.replica, sequence, &raw)
        .await
        .unwrap_err();
    assert!(refused.is_rewound(), "{refused}");
    let refused = leader.put("c", "1").await.unwrap_err();
    assert!(matches!(refused, AppendError::Deposed { .. }), "{refused}");
}

#[tokio::test]
async fn the_most_advanced_manager_gives_the_log_its_state_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server")).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    put_some(&mut leader, "a", 5).await;
    let mut behind = Manager::started(&server.url, "m2", quick()).await;
    let mut follower = behind.log.follow("m2", behind.replica.position.sequence);
    let mut ahead = Manager::started(&server.url, "m4", quick()).await;
    rewind(&mut server, &dir.path().join("copy"), async {
        put_some(&mut leader, "b", 5).await;
        ahead.catch_up().await.unwrap();
    })
    .await;
    leader.put("c", "1").await.unwrap_err();
    assert!(ahead.catch_up().await.unwrap_err().is_rewound());

    let floor = Floor {
        incarnation: 77,
        events: 40,
        end: None,
    };
    let state = leader.replica.clone();
    let name = leader.name.clone();
    leader.replica = leader
        .log
        .restore(&leader.bus, name, state, floor)
        .await
        .unwrap();
    let position = &leader.replica.position;
    assert_eq!((position.sequence, position.events), (7, 40));
    assert!(position.incarnation > 77);
    leader.lead().await;
    put_some(&mut leader, "d", 3).await;

    // A live follower that knew less is replaced as a whole, without a reload.
    while behind.replica.position.sequence < leader.replica.position.sequence {
        match follower.next().await {
            Some(Followed::Entry { sequence, raw }) => {
                if sequence > behind.replica.position.sequence {
                    behind
                        .log
                        .apply(&mut behind.replica, sequence, &raw)
                        .await
                        .unwrap();
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(behind.replica.hash(), leader.replica.hash());
    assert_eq!(behind.replica.position, leader.replica.position);
    assert_eq!(behind.value("b-4").unwrap(), "b");
    // One that knew as much as was lost finds its way back too.
    ahead.catch_up().await.unwrap();
    assert_eq!(ahead.replica.hash(), leader.replica.hash());
    let fresh = Manager::started(&server.url, "m3", quick()).await;
    assert_eq!(fresh.replica.hash(), leader.replica.hash());
}

#[tokio::test]
async fn a_log_that_was_lost_whole_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    put_some(&mut leader, "a", 5).await;
    let client = async_nats::connect(&server.url).await.unwrap();
    let js = async_nats::jetstream::new(client);
    js.delete_stream("ORCH_LOG").await.unwrap();
    let refused = leader.put("b", "1").await.unwrap_err();
    assert!(
        matches!(refused, AppendError::Rewound { last: 0, .. }),
        "{refused}"
    );
    let other = Manager::new(&server.url, "m2", quick()).await;
    assert_eq!(other.log.last_sequence().await.unwrap(), 0);
    let refused = leader.catch_up().await.unwrap_err();
    assert!(refused.is_rewound(), "{refused}");

    let (name, floor) = (leader.name.clone(), Floor::default());
    let state = leader.replica.clone();
    leader.replica = leader
        .log
        .restore(&leader.bus, name, state, floor)
        .await
        .unwrap();
    leader.lead().await;
    let fresh = Manager::started(&server.url, "m3", quick()).await;
    assert_eq!(fresh.replica.hash(), leader.replica.hash());
    assert_eq!(fresh.value("a-4").unwrap(), "a");
}

#[tokio::test]
async fn a_snapshot_beyond_the_log_shows_that_it_was_rewound() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    put_some(&mut leader, "a", 5).await;
    let mark = leader
        .log
        .snapshots()
        .take(leader.replica.clone())
        .await
        .unwrap();
    leader.writer().snapshot(mark).await.unwrap();
    let client = async_nats::connect(&server.url).await.unwrap();
    let js = async_nats::jetstream::new(client);
    js.delete_stream("ORCH_LOG").await.unwrap();

    let mut fresh = Manager::new(&server.url, "m2", quick()).await;
    let refused = fresh.catch_up().await.unwrap_err();
    let LogError::Rewound { applied, last, .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!((applied.sequence, *last), (6, 0));
    let newest: Replica<Records> = fresh.log.snapshots().newest().await.unwrap().unwrap();
    assert_eq!(newest.hash(), leader.replica.hash());

    let (name, floor) = (fresh.name.clone(), Floor::default());
    fresh.replica = fresh
        .log
        .restore(&fresh.bus, name, newest, floor)
        .await
        .unwrap();
    fresh.lead().await;
    // The snapshot of the former life does not make the next start stumble.
    let third = Manager::started(&server.url, "m3", quick()).await;
    assert_eq!(third.replica.hash(), fresh.replica.hash());
}

#[tokio::test]
async fn a_restore_is_a_beginning_when_the_beginning_of_the_log_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    put_some(&mut leader, "a", 5).await;
    let (name, floor) = (leader.name.clone(), Floor::default());
    let state = leader.replica.clone();
    leader.replica = leader
        .log
        .restore(&leader.bus, name, state, floor)
        .await
        .unwrap();
    leader.lead().await;
    put_some(&mut leader, "b", 5).await;
    let client = async_nats::connect(&server.url).await.unwrap();
    let js = async_nats::jetstream::new(client);
    let stream = js.get_stream("ORCH_LOG").await.unwrap();
    stream.purge().sequence(3).await.unwrap();
    let fresh = Manager::started(&server.url, "m2", quick()).await;
    assert_eq!(fresh.replica.hash(), leader.replica.hash());
    tokio::time::timeout(Duration::from_secs(5), leader.put("c", "1"))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_is_left_of_a_log_without_its_beginning_can_be_given_back_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    put_some(&mut leader, "a", 3).await;
    put_some(&mut leader, "b", 3).await;
    let client = async_nats::connect(&server.url).await.unwrap();
    let js = async_nats::jetstream::new(client);
    let stream = js.get_stream("ORCH_LOG").await.unwrap();
    stream.purge().sequence(5).await.unwrap();

    let mut fresh = Manager::new(&server.url, "m2", quick()).await;
    let refused = fresh.catch_up().await.unwrap_err();
    assert!(
        matches!(refused, LogError::Recovering { first: 5 }),
        "{refused}"
    );
    let mut left: Replica<Records> = fresh.log.salvage().await.unwrap();
    let position = &left.position;
    assert_eq!((position.incarnation, position.sequence), (1, 7));
    assert_eq!(position.cluster, "", "nobody began to lead in what is left");
    left.position
        .cluster
        .clone_from(&leader.replica.position.cluster);
    let name = fresh.name.clone();
    fresh.replica = fresh
        .log
        .restore(&fresh.bus, name, left, Floor::default())
        .await
        .unwrap();
    fresh.lead().await;
    assert_eq!(fresh.value("b-2").unwrap(), "b");
    assert_eq!(fresh.value("a-0"), None, "that was in what is gone");
    let other = Manager::started(&server.url, "m3", quick()).await;
    assert_eq!(other.replica.hash(), fresh.replica.hash());
    assert_eq!(
        other.replica.position.cluster,
        leader.replica.position.cluster
    );
}

#[tokio::test]
async fn a_restore_meant_for_one_end_of_the_log_does_not_undo_what_came_after() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    put_some(&mut leader, "a", 3).await;
    let known = Manager::started(&server.url, "m2", quick()).await;
    put_some(&mut leader, "b", 3).await;
    let floor = Floor {
        end: Some(known.replica.position.sequence),
        ..Floor::default()
    };
    let (name, state) = (known.name.clone(), known.replica.clone());
    let refused = known.log.restore(&known.bus, name, state, floor).await;
    assert!(matches!(refused, Err(LogError::Append(_))), "{refused:?}");
    leader.put("c", "1").await.unwrap();
}
