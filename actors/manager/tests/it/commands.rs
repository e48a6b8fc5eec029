//! Commands that are sent again because nobody heard what became of the first.

use loom_bus::call::CallError;
use loom_schemas::error::ErrorCode;
use loom_schemas::wire::{Committed, JobRequest, RebalanceRequest, RebalanceView, ScaleRequest};

use super::cluster::{Client, Cluster, name, until, whole_job};
use super::test_node::TestNode;

const WEB: &str = "name: web\nexec: [sleep, \"1000\"]\n";

async fn restart_orders(client: &Client) -> u32 {
    let view = client.job("web").await;
    view.slots[0].current.as_ref().unwrap().restart_orders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_sent_twice_is_carried_out_once_also_by_the_next_leader() {
    let (cluster, first, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    client.submit(WEB).await.unwrap();
    until("it runs", async || node.running().len() == 1).await;
    let restart = whole_job("web");
    for _ in 0..2 {
        let done: Committed = client
            .command("c-1", "orch.job.restart", &restart)
            .await
            .unwrap();
        assert!(done.changed);
    }
    assert_eq!(restart_orders(&client).await, 1);
    let second = cluster.manager("m2").await;
    first.stop().await;
    until("m2 leads", async || second.leads()).await;
    until("it answers the same", async || {
        let again: Result<Committed, _> = client.command("c-1", "orch.job.restart", &restart).await;
        again.is_ok_and(|done| done.changed)
    })
    .await;
    assert_eq!(restart_orders(&client).await, 1);
    let another: Committed = client
        .command("c-2", "orch.job.restart", &restart)
        .await
        .unwrap();
    assert!(another.changed);
    assert_eq!(restart_orders(&client).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebalance_sent_twice_is_carried_out_once() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let n1 = TestNode::start(cluster.own_bus().await, "n1").await;
    let text = "name: web\nreplicas: 4\nexec: [sleep, \"1000\"]\ncpu: 12\n";
    client.submit(text).await.unwrap();
    until("all run", async || n1.running().len() == 4).await;
    let _n2 = TestNode::start(cluster.own_bus().await, "n2").await;
    let asked = RebalanceRequest::default();
    let subject = "orch.admin.node.rebalance";
    let dry = RebalanceRequest {
        dry_run: true,
        ..RebalanceRequest::default()
    };
    until("there is something to move", async || {
        let found: RebalanceView = client.ask(subject, &dry).await.unwrap();
        !found.moves.is_empty()
    })
    .await;
    let first: RebalanceView = client.command("c-1", subject, &asked).await.unwrap();
    assert!(!first.moves.is_empty() && first.repeated.is_none());
    let again: RebalanceView = client.command("c-1", subject, &asked).await.unwrap();
    assert!(again.moves.is_empty());
    assert_eq!(
        again.repeated.map(|moves| moves > 0),
        Some(true),
        "{again:?}"
    );
    let last = again.last.as_ref().map(|it| it.at);
    assert_eq!(last, first.last.map(|it| it.at), "it is the same one");
    let other = RebalanceRequest {
        stop: true,
        ..asked
    };
    let refused: Result<RebalanceView, _> = client.command("c-1", subject, &other).await;
    assert!(matches!(refused, Err(CallError::Refused(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_stands_for_one_request_of_one_user() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    client.submit(WEB).await.unwrap();
    let scale = |replicas| ScaleRequest {
        job: name("web"),
        task: None,
        replicas,
    };
    let done: Committed = client
        .command("c-1", "orch.job.scale", &scale(3))
        .await
        .unwrap();
    assert!(done.changed);
    let other: Result<Committed, _> = client.command("c-1", "orch.job.scale", &scale(4)).await;
    match other {
        Err(CallError::Refused(error)) => assert_eq!(error.code, ErrorCode::Conflict),
        other => panic!("expected `conflict`, found {other:?}"),
    }
    assert_eq!(client.job("web").await.summary.wanted, 3);
    // Somebody else's id is another one.
    let own = cluster.own_client().await;
    let other: Committed = own
        .command("c-1", "orch.job.scale", &scale(4))
        .await
        .unwrap();
    assert!(other.changed);
    // What was refused was not carried out, so it may be tried again.
    let unknown = JobRequest {
        address: whole_job("none").address,
        reason: None,
    };
    let refused: Result<Committed, _> = client.command("c-3", "orch.job.stop", &unknown).await;
    assert!(matches!(refused, Err(CallError::Refused(_))), "{refused:?}");
    client
        .submit("name: none\nexec: [\"true\"]\n")
        .await
        .unwrap();
    let done: Committed = client
        .command("c-3", "orch.job.stop", &unknown)
        .await
        .unwrap();
    assert!(done.changed);
}
