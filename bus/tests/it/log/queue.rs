//! The queue: taken in exactly once, whoever leads.

use bytes::Bytes;
use loom_bus::connection::Bus;
use loom_bus::log::{AppendError, Change, Commit, QueueCursor};
use loom_bus::queue::{Queue, QueueMessage, QueueOptions};

use super::{Manager, quick};
use crate::support::{Server, until};

async fn submit(bus: &Bus, text: &str) {
    let client = bus.call_bytes(
        "orch.job.queue",
        Bytes::copy_from_slice(text.as_bytes()),
        &[],
        std::time::Duration::from_secs(5),
    );
    let ack = client.await.unwrap();
    assert!(
        ack.payload.starts_with(b"{\"stream\":\"ORCH_QUEUE\""),
        "{:?}",
        ack.payload
    );
}

/// What a leader commits for a message.
fn taken(message: &QueueMessage) -> Commit {
    let text = String::from_utf8_lossy(&message.payload).into_owned();
    Commit {
        changes: vec![Change::put(
            format!("job/{text}"),
            format!("{}", message.cursor.sequence),
        )],
        events: Vec::new(),
        queue_cursor: Some(message.cursor),
    }
}

async fn queue(manager: &Manager) -> Queue {
    Queue::open(&manager.bus, QueueOptions::default())
        .await
        .unwrap()
}

fn cursor(manager: &Manager) -> Option<QueueCursor> {
    manager.replica.position.queue_cursor
}

#[tokio::test]
async fn messages_are_taken_in_in_order_and_then_purged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let queue = queue(&leader).await;
    submit(&leader.bus, "before").await;
    let mut reader = queue.read(cursor(&leader));
    for n in 0..20 {
        submit(&leader.bus, &format!("j{n}")).await;
    }
    let mut read = Vec::new();
    for _ in 0..21 {
        let message = reader.next().await.unwrap();
        read.push(String::from_utf8_lossy(&message.payload).into_owned());
        leader.append(taken(&message)).await.unwrap();
    }
    let mut wanted = vec!["before".to_owned()];
    wanted.extend((0..20).map(|n| format!("j{n}")));
    assert_eq!(read, wanted);
    queue.purge(cursor(&leader).unwrap()).await.unwrap();
    assert_eq!(queue.waiting().await.unwrap(), 0);
    let mut again = queue.read(cursor(&leader));
    submit(&leader.bus, "after").await;
    assert_eq!(again.next().await.unwrap().payload, "after");
}

#[tokio::test]
async fn a_message_held_by_a_paused_leader_is_taken_in_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut old = Manager::started(&server.url, "m1", quick()).await;
    old.lead().await;
    let mut held = queue(&old).await.read(cursor(&old));
    submit(&old.bus, "web").await;
    let message = held.next().await.unwrap();
    // It pauses here, with the message in its hands.
    let mut new = Manager::started(&server.url, "m2", quick()).await;
    new.lead().await;
    let queue = queue(&new).await;
    let mut reader = queue.read(cursor(&new));
    let same = reader.next().await.unwrap();
    assert_eq!(same.cursor, message.cursor);
    new.append(taken(&same)).await.unwrap();
    queue.purge(cursor(&new).unwrap()).await.unwrap();
    // It wakes.
    let refused = old.append(taken(&message)).await.unwrap_err();
    assert!(matches!(refused, AppendError::Deposed { .. }), "{refused}");
    old.catch_up().await.unwrap();
    assert_eq!(old.replica.hash(), new.replica.hash());
    assert_eq!(cursor(&old), Some(message.cursor));
}

#[tokio::test]
async fn a_queue_that_was_made_anew_is_read_from_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let queue = queue(&leader).await;
    let mut reader = queue.read(cursor(&leader));
    for text in ["a", "b", "c"] {
        submit(&leader.bus, text).await;
        let message = reader.next().await.unwrap();
        leader.append(taken(&message)).await.unwrap();
    }
    let old = cursor(&leader).unwrap();
    let client = async_nats::connect(&server.url).await.unwrap();
    let js = async_nats::jetstream::new(client);
    js.delete_stream("ORCH_QUEUE").await.unwrap();
    until("the reader has made it anew", || async {
        js.get_stream("ORCH_QUEUE").await.is_ok()
    })
    .await;
    submit(&leader.bus, "d").await;
    let message = reader.next().await.unwrap();
    assert_eq!(
        (message.payload.as_ref(), message.cursor.sequence),
        (&b"d"[..], 1)
    );
    assert_ne!(message.cursor.created, old.created);
    // The cursor of the former queue purges nothing here.
    queue.purge(old).await.unwrap();
    assert_eq!(queue.waiting().await.unwrap(), 1);
    leader.append(taken(&message)).await.unwrap();
    assert_eq!(cursor(&leader), Some(message.cursor));
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_message_says_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let manager = Manager::started(&server.url, "m1", quick()).await;
    let options = QueueOptions {
        max_messages: 2,
        ..QueueOptions::default()
    };
    let queue = Queue::open(&manager.bus, options).await.unwrap();
    let wait = std::time::Duration::from_secs(5);
    let headers = [("Nats-Msg-Id", "mine".to_owned())];
    let send = async || {
        let payload = Bytes::from("a");
        manager
            .bus
            .call_bytes("orch.job.queue", payload, &headers, wait)
            .await
            .unwrap()
    };
    send().await;
    submit(&manager.bus, "b").await;
    let full = manager
        .bus
        .call_bytes("orch.job.queue", Bytes::from("c"), &[], wait)
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&full.payload).contains("maximum messages"));
    let mut reader = queue.read(None);
    assert_eq!(reader.next().await.unwrap().id(), "mine");
    assert_eq!(reader.next().await.unwrap().id(), "2");
}
