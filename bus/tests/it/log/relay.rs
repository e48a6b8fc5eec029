//! The relay of events: nothing of a refused commit, no gap, in order, none twice.

use std::time::Duration;

use loom_bus::events::{EVENTS, History, Relay, RelayOptions};
use loom_schemas::wire::{EventQuery, EventRow};

use super::{Manager, put, quick};
use crate::support::{Server, until};

fn relay(manager: &Manager) -> Relay {
    let options = RelayOptions {
        window: 64,
        settled_after: Duration::ZERO,
    };
    Relay::start(
        &manager.bus,
        manager.log.clone(),
        &manager.replica.position,
        options,
    )
}

async fn events(manager: &Manager) -> Vec<EventRow> {
    History::new(&manager.bus)
        .events(&EventQuery::default())
        .await
        .unwrap()
        .events
}

/// Waits until everything committed is in the history; checks numbers and gives the requests.
async fn told(manager: &Manager, first: u64) -> Vec<String> {
    let history = History::new(&manager.bus);
    let last = manager.replica.position.events;
    until("the history has all events", || {
        let history = history.clone();
        async move {
            history
                .last_event()
                .await
                .is_ok_and(|number| number == last)
        }
    })
    .await;
    let rows = events(manager).await;
    let numbers: Vec<u64> = rows.iter().map(|row| row.number).collect();
    assert_eq!(
        numbers,
        (first..=last).collect::<Vec<_>>(),
        "no gap, in order, none twice"
    );
    rows.into_iter()
        .map(|row| row.event.request.unwrap())
        .collect()
}

async fn commit(manager: &mut Manager, relay: &Relay, key: &str, events: usize) {
    let committed = manager.append(put(key, "v", events)).await.unwrap();
    relay.committed(&committed);
}

#[tokio::test]
async fn events_are_published_in_the_order_of_the_commits() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    let mut live = leader.bus.subscribe("orch.events.>").await.unwrap();
    leader.lead().await;
    let relay = relay(&leader);
    let mut wanted = Vec::new();
    for n in 0..50 {
        let key = format!("k{n}");
        commit(&mut leader, &relay, &key, n % 3).await;
        wanted.extend(vec![key; n % 3]);
    }
    assert_eq!(told(&leader, 1).await, wanted);
    let first = live.next().await.unwrap();
    assert_eq!(first.subject, "orch.events.job.web.accepted");
    assert_eq!(first.headers.get("Orch-Event"), Some("1"));
    assert_eq!(first.headers.get("Orch-Revision"), Some("1.3"));
    assert!(first.payload.starts_with(b"{\"at\":"));
    let last = leader.replica.position.revision();
    until("the relay says so", || {
        let there = *relay.relayed().borrow() == last && relay.settled() == last;
        async move { there }
    })
    .await;
}

#[tokio::test]
async fn two_relays_at_once_tell_everything_once_and_nothing_that_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut old = Manager::started(&server.url, "m1", quick()).await;
    old.lead().await;
    let old_relay = relay(&old);
    let mut wanted = Vec::new();
    for n in 0..30 {
        commit(&mut old, &old_relay, &format!("old{n}"), 2).await;
        wanted.extend(vec![format!("old{n}"); 2]);
    }
    let mut new = Manager::started(&server.url, "m2", quick()).await;
    new.lead().await;
    let new_relay = relay(&new);
    old.append(put("refused", "v", 3)).await.unwrap_err();
    for n in 0..30 {
        commit(&mut new, &new_relay, &format!("new{n}"), 1).await;
        wanted.push(format!("new{n}"));
    }
    assert_eq!(told(&new, 1).await, wanted);
}

#[tokio::test]
async fn a_commit_whose_leader_died_before_its_event_is_told_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    for n in 0..20 {
        leader.append(put(&format!("k{n}"), "v", 1)).await.unwrap();
    }
    server.kill();
    drop(leader);
    server.revive().await;
    let mut next = Manager::started(&server.url, "m2", quick()).await;
    next.lead().await;
    let _relay = relay(&next);
    assert_eq!(told(&next, 1).await.len(), 20);
}

#[tokio::test]
async fn the_bus_may_die_at_any_moment_between_commits_events_and_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let relay = relay(&leader);
    let mut wanted = Vec::new();
    for round in 0..4 {
        for n in 0..25 {
            let key = format!("r{round}-{n}");
            commit(&mut leader, &relay, &key, 2).await;
            wanted.extend(vec![key; 2]);
        }
        if round % 2 == 0 {
            // Acknowledged, and perhaps not yet written: the server may lose them again.
            let last = leader.replica.position.revision();
            let mut relayed = relay.relayed();
            relayed
                .wait_for(|revision| *revision == last)
                .await
                .unwrap();
        }
        server.kill();
        server.revive().await;
    }
    assert_eq!(told(&leader, 1).await, wanted);
}

#[tokio::test]
async fn a_history_that_aged_away_is_not_told_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let first = relay(&leader);
    for n in 0..5 {
        commit(&mut leader, &first, &format!("k{n}"), 1).await;
    }
    told(&leader, 1).await;
    drop(first);
    let client = async_nats::connect(&server.url).await.unwrap();
    let js = async_nats::jetstream::new(client);
    js.get_stream(EVENTS).await.unwrap().purge().await.unwrap();
    leader.lead().await;
    let second = relay(&leader);
    commit(&mut leader, &second, "late", 1).await;
    assert_eq!(told(&leader, 6).await, ["late"]);
}

#[tokio::test]
async fn a_history_that_was_lost_begins_anew_with_the_right_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let first = relay(&leader);
    for tag in ["a", "b", "c"] {
        for n in 0..4 {
            commit(&mut leader, &first, &format!("{tag}{n}"), 1).await;
        }
        let mark = leader
            .log
            .snapshots()
            .take(leader.replica.clone())
            .await
            .unwrap();
        let committed = leader.writer().snapshot(mark).await.unwrap().unwrap();
        leader.replica.apply_committed(&committed).unwrap();
        first.committed(&committed);
    }
    told(&leader, 1).await;
    drop(first);
    let position = leader.replica.position.clone();
    leader
        .log
        .snapshots()
        .purge_log(&position, position.revision())
        .await
        .unwrap();
    let client = async_nats::connect(&server.url).await.unwrap();
    let js = async_nats::jetstream::new(client);
    js.delete_stream(EVENTS).await.unwrap();

    let mut next = Manager::started(&server.url, "m2", quick()).await;
    next.lead().await;
    let second = relay(&next);
    commit(&mut next, &second, "late", 1).await;
    // The log still holds the last of them; those before are lost with the history.
    assert_eq!(told(&next, 9).await, ["c0", "c1", "c2", "c3", "late"]);
    let info = js
        .get_stream(EVENTS)
        .await
        .unwrap()
        .get_info()
        .await
        .unwrap();
    assert_eq!(
        info.state.last_sequence, 13,
        "the sequence is in step with the numbers"
    );
}

#[tokio::test]
async fn a_new_log_goes_on_numbering_after_an_old_history() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let first = relay(&leader);
    for n in 0..5 {
        commit(&mut leader, &first, &format!("k{n}"), 1).await;
    }
    told(&leader, 1).await;
    drop(first);
    let client = async_nats::connect(&server.url).await.unwrap();
    let js = async_nats::jetstream::new(client);
    js.delete_stream("ORCH_LOG").await.unwrap();
    let mut next = Manager::started(&server.url, "m2", quick()).await;
    next.lead().await;
    let second = relay(&next);
    commit(&mut next, &second, "late", 2).await;
    assert_eq!(told(&next, 1).await[5..], ["late", "late"]);
}

#[tokio::test]
async fn a_relay_that_falls_behind_reads_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut leader = Manager::started(&server.url, "m1", quick()).await;
    leader.lead().await;
    let relay = relay(&leader);
    for n in 0..300 {
        let committed = leader.append(put(&format!("k{n}"), "v", 1)).await.unwrap();
        if n % 7 == 0 {
            relay.committed(&committed);
        }
        if n == 299 {
            relay.committed(&committed);
        }
    }
    assert_eq!(told(&leader, 1).await.len(), 300);
}
