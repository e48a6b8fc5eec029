//! Two managers on a bus of three servers, and one of them cut off.

use std::time::Duration;

use loom_bus::connection::{Bus, ConnectOptions};
use loom_manager::ManagerHandle;
use loom_schemas::ids::Name;
use loom_schemas::wire::{ManagerRole, Submitted};
use tokio::time::timeout;

use super::cluster::{name, options_at, until};
use super::support;

const WEB: &str = "name: web\nexec: [sleep, \"1000\"]\n";

async fn connect(url: &str) -> Bus {
    support::connect(url).await
}

/// The index of a server that does not lead the log's stream.
async fn bystander(bus: &Bus) -> usize {
    let info: serde_json::Value = {
        let reply = bus
            .call_bytes(
                "$JS.API.STREAM.INFO.ORCH_LOG",
                bytes::Bytes::new(),
                &[],
                Duration::from_secs(5),
            )
            .await
            .unwrap();
        serde_json::from_slice(&reply.payload).unwrap()
    };
    let leader = info["cluster"]["leader"].as_str().unwrap();
    let leader: usize = leader.trim_start_matches('s').parse().unwrap();
    (leader + 1) % 3
}

async fn manager(text: &str, url: &str, directory: &std::path::Path) -> ManagerHandle {
    let bus = ConnectOptions {
        url: url.to_owned(),
        ..ConnectOptions::default()
    };
    let mut options = options_at(name(text), bus, directory.join(text));
    options.replicas = 3;
    options.timings.node_call = Duration::from_secs(5);
    loom_manager::start(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_cut_off_answers_nothing_from_the_past() {
    let directory = tempfile::tempdir().unwrap();
    let bus = support::Cluster::start(directory.path()).await;
    // Makes the streams, so that it is known who leads them.
    let first = manager("m0", &bus.url, directory.path()).await;
    until("m0 leads", async || first.leads()).await;
    let client = connect(&bus.url).await;
    let far = bystander(&client).await;
    drop(client);
    first.stop().await;
    let near: Vec<&str> = (0..3)
        .filter(|n| *n != far)
        .map(|n| bus.servers[n].url.as_str())
        .collect();
    let near = near.join(",");

    let cut_off = manager("m1", &bus.servers[far].url, directory.path()).await;
    until("m1 leads", async || cut_off.leads()).await;
    let there = connect(&bus.servers[far].url).await;
    let here = connect(&near).await;
    let submitted: Submitted = submit(&here, WEB).await.unwrap();
    let standby = manager("m2", &near, directory.path()).await;
    until("m2 follows", async || {
        standby.state_hash().0 >= submitted.revision
    })
    .await;
    assert_eq!(standby.role(), ManagerRole::Standby);

    bus.servers[far].pause();
    // Asked of the leader that hears nothing: the answer is due once it is back.
    let late = tokio::spawn({
        let there = there.clone();
        async move { all_answers(&there, "name: late\nexec: [\"true\"]\n").await }
    });
    until("m2 leads", async || standby.leads()).await;
    let led_from = standby.state_hash().0;
    until("m2 takes jobs", async || {
        submit(&here, "name: next\nexec: [\"true\"]\n")
            .await
            .is_some()
    })
    .await;
    bus.servers[far].resume();

    for answer in late.await.unwrap() {
        assert!(answer.revision >= led_from, "{answer:?} is of the past");
    }
    until("m1 knows that it leads no more", async || !cut_off.leads()).await;
    until("both have the same state", async || {
        cut_off.state_hash() == standby.state_hash()
    })
    .await;
    assert!(standby.leads());
    let told = deposed(&here).await;
    assert_eq!(told, [name("m1")]);
}

async fn submit(bus: &Bus, text: &str) -> Option<Submitted> {
    let payload = bytes::Bytes::copy_from_slice(text.as_bytes());
    let reply = bus
        .call_bytes("orch.job.submit", payload, &[], Duration::from_secs(5))
        .await;
    reply.ok()?.decode().ok()
}

/// Every answer to a submission that says that it was taken in.
async fn all_answers(bus: &Bus, text: &str) -> Vec<Submitted> {
    let payload = bytes::Bytes::copy_from_slice(text.as_bytes());
    let wait = Duration::from_secs(15);
    let Ok(mut replies) = bus
        .call_many_bytes::<Submitted>("orch.job.submit", payload, &[], wait)
        .await
    else {
        return Vec::new();
    };
    let mut answers = Vec::new();
    while let Ok(Some(reply)) = timeout(Duration::from_secs(5), replies.next()).await {
        answers.extend(reply.ok());
    }
    answers
}

async fn deposed(bus: &Bus) -> Vec<Name> {
    let query = loom_schemas::wire::EventQuery {
        filter: Some("manager.*.deposed".to_owned()),
        ..loom_schemas::wire::EventQuery::default()
    };
    let list: loom_schemas::wire::EventList = bus
        .call("orch.api.event.list", &query, Duration::from_secs(5))
        .await
        .unwrap();
    list.events
        .into_iter()
        .filter_map(|row| row.event.manager)
        .collect()
}
