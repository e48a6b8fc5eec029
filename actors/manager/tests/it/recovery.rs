//! A log that is older than what nodes know, or gone: nothing is stopped, and what can be known is
//! known again.

use bytes::Bytes;
use loom_bus::call::CallError;
use loom_bus::connection::Bus;
use loom_bus::log::{Entry, Log, LogOptions};
use loom_manager::{ManagerHandle, StartError};
use loom_schemas::error::ErrorCode;
use loom_schemas::ids::{Epoch, RunId};
use loom_schemas::record::NodeStatus;
use loom_schemas::wire::{Hello, JobGet, JobView, ManagerRole, NodeChanged, NodeRequest, Welcome};
use loom_schemas::words::{JobStatus, RunState};

use super::cluster::{CALL, Client, Cluster, name, until};
use super::test_node::{Seen, TestNode};

const WEB: &str = "name: web\nexec: [sleep, \"1000\"]\nreplicas: 2\n";

/// Two runs on a node.
async fn two_run(cluster: &Cluster, client: &Client) -> (TestNode, Vec<RunId>) {
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    client.submit(WEB).await.unwrap();
    until("two run", async || node.running().len() == 2).await;
    let runs = node.running();
    (node, runs)
}

fn lost(node: &str) -> NodeRequest {
    NodeRequest {
        node: name(node),
        reason: Some("burnt".to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_obeyed_a_later_leader_shows_that_the_log_was_rewound() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    let (node, before) = two_run(&cluster, &client).await;
    let info = client.nodes().await.nodes[0].node.info.clone();
    let hello = Hello {
        cluster: node.look(|seen| seen.cluster.clone()),
        info,
        epoch: Epoch {
            incarnation: 1,
            sequence: 1_000_000,
        },
        generation: 7,
        runs: Vec::new(),
        holdings: Vec::new(),
    };
    let own = cluster.own_client().await;
    let answer = own.ask::<_, Welcome>("orch.ctl.n2.hello", &hello).await;
    match answer {
        Err(CallError::Refused(error)) => assert_eq!(error.code, ErrorCode::Unavailable),
        other => panic!("expected `unavailable`, found {other:?}"),
    }
    until("the log has a later life", async || {
        manager.leads() && manager.state_hash().0.incarnation > 1
    })
    .await;
    // Every node of the state says hello, and then this one is welcome too.
    until("it is welcomed", async || {
        own.ask::<_, Welcome>("orch.ctl.n2.hello", &hello)
            .await
            .is_ok()
    })
    .await;
    assert_eq!(manager.role(), ManagerRole::Leader);
    assert_eq!(node.running(), before, "nothing was stopped");
    assert_eq!(client.status("web").await, JobStatus::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_outlives_the_leader_and_ends_by_a_persons_word() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    let (node, _) = two_run(&cluster, &client).await;
    let other = TestNode::start(cluster.own_bus().await, "n2").await;
    until("n2 is known", async || {
        client.nodes().await.nodes.len() == 2
    })
    .await;
    drop(node);
    let own = cluster.own_client().await;
    own.send("$JS.API.STREAM.DELETE.ORCH_LOG", b"")
        .await
        .unwrap();
    drop(client.submit(WEB).await);
    until("it recovers", async || {
        manager.role() == ManagerRole::Recovering
    })
    .await;
    drop(manager);
    let second = cluster.manager("m2").await;
    until("the next one still recovers", async || {
        second.role() == ManagerRole::Recovering
    })
    .await;
    let refused = client.submit("name: next\nexec: [\"true\"]\n").await;
    match refused {
        Err(CallError::Refused(error)) => {
            assert_eq!(error.code, ErrorCode::Unavailable);
            assert!(error.message.contains("node lost"), "{}", error.message);
        }
        other => panic!("expected `unavailable`, found {other:?}"),
    }
    assert_eq!(other.running(), Vec::<RunId>::new(), "nothing is moved");
    let done: NodeChanged = client
        .ask("orch.admin.node.lost", &lost("n1"))
        .await
        .unwrap();
    assert!(done.changed);
    until("it has recovered", async || {
        second.role() == ManagerRole::Leader
    })
    .await;
    until("its runs are elsewhere", async || {
        other.running().len() == 2
    })
    .await;
    let view = client.job("web").await;
    let ended = view.slots[0].ended.last().unwrap();
    assert_eq!(ended.state, RunState::Lost);
    assert!(
        ended.reason.as_ref().unwrap().contains("burnt"),
        "{ended:?}"
    );
    assert!(client.told("node.n1.*").await.contains(&"lost".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_silent_node_can_be_given_up() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let (node, _) = two_run(&cluster, &client).await;
    let refused: Result<NodeChanged, _> = client.ask("orch.admin.node.lost", &lost("n1")).await;
    match refused {
        Err(CallError::Refused(error)) => assert_eq!(error.code, ErrorCode::Conflict),
        other => panic!("expected `conflict`, found {other:?}"),
    }
    match client.send("orch.admin.node.lost", b"n9").await {
        Err(CallError::Refused(error)) => assert_eq!(error.code, ErrorCode::NotFound),
        other => panic!("expected `not-found`, found {other:?}"),
    }
    let seen = node.look(Clone::clone);
    drop(node);
    until("it is given up", async || {
        client.send("orch.admin.node.lost", b"n1").await.is_ok()
    })
    .await;
    until("its runs are lost", async || {
        let view = client.job("web").await;
        view.slots.iter().all(|slot| {
            let last = slot.ended.last();
            last.is_some_and(|run| run.state == RunState::Lost)
        })
    })
    .await;
    // It comes back all the same: what it has is not wanted, and it is as good as a new node.
    let node = TestNode::start_with(cluster.own_bus().await, "n1", seen).await;
    until("it is up", async || {
        let node = client.nodes().await.nodes.remove(0).node;
        node.status == NodeStatus::Up && !node.lost
    })
    .await;
    until("two others run", async || node.running().len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_gone_is_rebuilt_from_what_nodes_have() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    let (node, before) = two_run(&cluster, &client).await;
    let seen: Seen = node.look(Clone::clone);
    drop(node);
    let second = forget_all(&cluster, manager).await;
    let node = TestNode::start_with(cluster.own_bus().await, "n1", seen.clone()).await;
    until("it recovers the old cluster", async || {
        second.role() == ManagerRole::Recovering
    })
    .await;
    recovered_with_two(&second, &client).await;
    assert_eq!(node.running(), before, "nothing was stopped or started");
    assert_eq!(node.look(|now| now.cluster.clone()), seen.cluster);
    assert!(second.state_hash().0.incarnation > seen.epoch.incarnation);
    client
        .submit("name: next\nexec: [sleep, \"1000\"]\n")
        .await
        .unwrap();
    until("the next one runs", async || node.running().len() == 3).await;
}

/// The log and its snapshots are gone, and so is everybody who knew the state.
async fn forget_all(cluster: &Cluster, manager: ManagerHandle) -> ManagerHandle {
    drop(manager);
    let own = cluster.own_client().await;
    for stream in ["ORCH_LOG", "OBJ_ORCH_SNAPSHOTS"] {
        let delete = format!("$JS.API.STREAM.DELETE.{stream}");
        own.send(&delete, b"").await.unwrap();
    }
    let second = cluster.manager("m2").await;
    until("it leads", async || second.leads()).await;
    second
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_larger_than_a_commit_is_taken_up_in_several() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    let script = "x".repeat(437_000);
    for number in 0..9 {
        let text = format!("name: job-{number}\nbash: {script}\n");
        client.submit(&text).await.unwrap();
    }
    until("nine run", async || node.running().len() == 9).await;
    let (before, seen) = (node.running(), node.look(Clone::clone));
    drop(node);
    let second = forget_all(&cluster, manager).await;
    let node = TestNode::start_with(cluster.own_bus().await, "n1", seen).await;
    until("it recovers the old cluster", async || {
        second.role() == ManagerRole::Recovering
    })
    .await;
    until("it has recovered", async || {
        second.role() == ManagerRole::Leader
    })
    .await;
    client
        .submit("name: next\nexec: [sleep, \"1000\"]\n")
        .await
        .unwrap();
    until("the next one runs", async || node.running().len() >= 10).await;
    let running = node.running();
    assert!(
        before.iter().all(|run| running.contains(run)),
        "something was stopped"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_which_not_all_can_be_taken_up_is_awaited_on() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    let (node, before) = two_run(&cluster, &client).await;
    let mut seen: Seen = node.look(Clone::clone);
    drop(node);
    // Twice as large as anything that can be submitted: no commit holds it.
    for assigned in seen.assigned.values_mut() {
        assigned.task.args = vec!["x".repeat(4_000_000)];
    }
    // The test node sends its inventory whole.
    seen.assigned.retain(|placement, _| *placement == before[0]);
    let second = forget_all(&cluster, manager).await;
    let node = TestNode::start_with(cluster.own_bus().await, "n1", seen).await;
    until("it recovers the old cluster", async || {
        second.role() == ManagerRole::Recovering
    })
    .await;
    until("it is said why", async || match client.submit(WEB).await {
        Err(CallError::Refused(error)) => error
            .message
            .contains("n1 (version 1 of job web cannot be committed)"),
        _ => false,
    })
    .await;
    assert_eq!(second.role(), ManagerRole::Recovering);
    assert_eq!(node.running(), before, "nothing is stopped");
}

async fn recovered_with_two(manager: &ManagerHandle, client: &Client) {
    until("it has recovered", async || {
        manager.role() == ManagerRole::Leader
    })
    .await;
    let get = JobGet {
        job: name("web"),
        after: None,
    };
    until("the job is known again", async || {
        let view: Result<JobView, _> = client.ask("orch.api.job.get", &get).await;
        view.is_ok_and(|view| view.summary.running == 2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_beginning_and_snapshot_is_rebuilt_too() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    let (node, before) = two_run(&cluster, &client).await;
    let incarnation = node.look(|seen| seen.epoch.incarnation);
    drop(manager);
    let own = cluster.own_client().await;
    own.send("$JS.API.STREAM.PURGE.ORCH_LOG", b"{\"keep\": 1}")
        .await
        .unwrap();
    // What is left does not say whose log it was: the node does.
    let second = cluster.manager("m2").await;
    until("it leads", async || second.leads()).await;
    recovered_with_two(&second, &client).await;
    assert_eq!(node.running(), before, "nothing was stopped or started");
    assert!(second.state_hash().0.incarnation > incarnation);
}

/// Appends to the log what this build cannot read; gives where it is.
async fn append(log: &Log, bus: &Bus, raw: Bytes) -> u64 {
    let before = log.last_sequence().await.unwrap();
    bus.call_bytes("orch.log", raw, &[], CALL).await.unwrap();
    before + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_read_is_told_to_who_starts_and_waited_out_by_who_runs() {
    for newer in [true, false] {
        let (cluster, running, client) = Cluster::with_leader().await;
        running.begun().await.unwrap();
        client.submit(WEB).await.unwrap();
        let bus = cluster.own_bus().await;
        let log = Log::open(&bus, LogOptions::default()).await.unwrap();
        let last = log.last_sequence().await.unwrap();
        let entry = log.entry(last).await.unwrap().unwrap();
        let raw = if newer {
            let format = entry.format + 1;
            Entry { format, ..entry }.encode().unwrap()
        } else {
            Bytes::from("garbage")
        };
        let at = append(&log, &bus, raw).await;
        until("the leader met it", async || {
            let refused = client.submit("name: next\nexec: [\"true\"]\n").await;
            refused.is_err() && !running.leads()
        })
        .await;

        let started = cluster.manager("m2").await;
        let error = started.begun().await.unwrap_err();
        let StartError::Unreadable(why) = &error else {
            panic!("{error:?}");
        };
        assert_eq!(why.newer, newer);
        let words = format!(
            "entry {at} {}",
            if newer {
                "has format 2"
            } else {
                "cannot be read"
            }
        );
        assert!(why.to_string().contains(&words), "{why}");
        running.begun().await.unwrap();
        assert_eq!(client.job("web").await.summary.status, JobStatus::Pending);
    }
}
