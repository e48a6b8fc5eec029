//! Nodes that come, hang, die and come back.

use loom_bus::call::CallError;
use loom_schemas::ids::RunId;
use loom_schemas::record::NodeStatus;
use loom_schemas::wire::{HelloPart, StatusTaken, Welcome};
use loom_schemas::words::{JobStatus, RunState};

use super::cluster::{Client, Cluster, until};
use super::test_node::{Seen, TestNode};

const WEB: &str = "name: web\nexec: [sleep, \"1000\"]\n";

async fn status_of(client: &Client, node: &str) -> Option<NodeStatus> {
    let nodes = client.nodes().await.nodes;
    nodes
        .into_iter()
        .find(|view| view.node.name.as_str() == node)
        .map(|view| view.node.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_waits_for_a_node_and_says_why() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    client.submit(WEB).await.unwrap();
    until("it says why", async || {
        let view = client.job("web").await;
        let why = view.slots.first().and_then(|slot| slot.waiting.clone());
        why.is_some_and(|why| why.contains("no node fits"))
    })
    .await;
    let _node = TestNode::start(cluster.own_bus().await, "n1").await;
    until("it runs", async || {
        client.status("web").await == JobStatus::Running
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_down_then_lost_and_its_runs_are_replaced() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let first = TestNode::start(cluster.own_bus().await, "n1").await;
    client.submit(WEB).await.unwrap();
    until("it runs", async || first.running().len() == 1).await;
    let second = TestNode::start(cluster.own_bus().await, "n2").await;
    until("n2 is up", async || {
        status_of(&client, "n2").await == Some(NodeStatus::Up)
    })
    .await;
    first.mute();
    until("n1 is down", async || {
        status_of(&client, "n1").await == Some(NodeStatus::Down)
    })
    .await;
    until("n2 runs it", async || second.running().len() == 1).await;
    until("it is told", async || {
        let told = client.told("task.web.main.0.*").await;
        let at = |what: &str| told.iter().position(|word| word == what);
        at("unknown").is_some() && at("unknown") < at("lost")
    })
    .await;
    let view = client.job("web").await;
    let ended = &view.slots[0].ended;
    assert_eq!(ended.last().map(|run| run.state), Some(RunState::Lost));
    assert_eq!(client.told("node.n1.*").await, ["up", "down"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_run_was_replaced_is_told_to_stop_it() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let first = TestNode::start(cluster.own_bus().await, "n1").await;
    client.submit(WEB).await.unwrap();
    until("it runs", async || first.running().len() == 1).await;
    let run = first.running()[0];
    let report = first.look(|seen| seen.reports[&run].clone());
    let second = TestNode::start(cluster.own_bus().await, "n2").await;
    until("n2 is up", async || {
        status_of(&client, "n2").await == Some(NodeStatus::Up)
    })
    .await;
    drop(first);
    until("n2 runs it", async || second.running().len() == 1).await;
    // The same node comes back with the run it had.
    let bus = cluster.own_client().await;
    let hello = |info: loom_schemas::record::NodeInfo, cluster: String| loom_schemas::wire::Hello {
        cluster: Some(cluster),
        info,
        epoch: loom_schemas::ids::Epoch::default(),
        generation: 0,
        runs: vec![report.clone()],
        holdings: Vec::new(),
    };
    let nodes = client.nodes().await.nodes;
    let info = nodes
        .iter()
        .find(|n| n.node.name.as_str() == "n1")
        .unwrap()
        .node
        .info
        .clone();
    let id = second.look(|seen| seen.cluster.clone().unwrap());
    let welcome: loom_schemas::wire::Welcome = bus
        .ask("orch.ctl.n1.hello", &hello(info, id))
        .await
        .unwrap();
    let kept = welcome
        .assignment
        .put
        .iter()
        .find(|put| put.placement == run);
    let stopped = kept.is_none_or(|put| put.order != loom_schemas::record::Order::Run);
    assert!(stopped, "{kept:?}");
    assert_eq!(second.running().len(), 1);
}

/// A hello in parts: what runs is kept, what no part names is lost, and a leader that did not hear
/// the beginning has it said anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_in_parts_is_taken_whole_by_whoever_leads() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    let web = WEB.replace("exec", "replicas: 3\nexec");
    client.submit(&web).await.unwrap();
    until("they run", async || node.running().len() == 3).await;
    let runs = node.running();
    until("the leader knows", async || {
        client.status("web").await == JobStatus::Running
    })
    .await;
    let info = client.nodes().await.nodes[0].node.info.clone();
    let part = |number: u32, told: &RunId| HelloPart {
        greeting: 7,
        part: number,
        last: number == 1,
        hello: node.look(|seen| loom_schemas::wire::Hello {
            cluster: seen.cluster.clone(),
            info: info.clone(),
            epoch: seen.epoch,
            generation: seen.generation,
            runs: vec![seen.reports[told].clone()],
            holdings: Vec::new(),
        }),
    };
    let (first, second) = (part(0, &runs[0]), part(1, &runs[1]));
    node.mute();
    let own = cluster.own_client().await;
    let subject = "orch.ctl.n1.hello-part";
    own.ask::<_, StatusTaken>(subject, &first).await.unwrap();
    manager.stop().await;
    let _second = cluster.manager("m2").await;
    until("the next leader asks for the beginning", async || match own
        .ask::<_, Welcome>(subject, &second)
        .await
    {
        Err(CallError::Refused(error)) => error.message.contains("say hello anew"),
        _ => false,
    })
    .await;
    own.ask::<_, StatusTaken>(subject, &first).await.unwrap();
    let current = async |index: usize| {
        let view = client.job("web").await;
        view.slots[index].current.clone().unwrap()
    };
    let is_kept = async |run: &RunId| {
        let view = client.job("web").await;
        let current = view.slots.iter().filter_map(|slot| slot.current.as_ref());
        current.into_iter().any(|found| found.run == *run)
    };
    assert!(is_kept(&runs[2]).await, "not all was told yet");
    let welcome: Welcome = own.ask(subject, &second).await.unwrap();
    assert!(is_kept(&runs[0]).await && is_kept(&runs[1]).await);
    until("what no part named is replaced", async || {
        !is_kept(&runs[2]).await && current(2).await.state.rank() < RunState::Running.rank()
    })
    .await;
    assert!(welcome.assignment.put.len() >= 2);
    assert_eq!(
        welcome.lost_after_ms,
        Some(3_000),
        "as the tests' managers are started"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_service_is_started_again_after_a_pause() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    client.submit(WEB).await.unwrap();
    until("it runs", async || node.running().len() == 1).await;
    let first = node.running()[0];
    node.end(first, 3);
    until("another runs", async || {
        node.running().first().is_some_and(|run| *run != first)
    })
    .await;
    let view = client.job("web").await;
    let ended = view.slots[0].ended.last().unwrap();
    assert_eq!(ended.exit.as_ref().and_then(|exit| exit.code), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    until("n1 is up", async || {
        status_of(&client, "n1").await == Some(NodeStatus::Up)
    })
    .await;
    let info = client.nodes().await.nodes[0].node.info.clone();
    drop(node);
    let hello = loom_schemas::wire::Hello {
        cluster: Some("another".to_owned()),
        info,
        epoch: loom_schemas::ids::Epoch::default(),
        generation: 0,
        runs: Vec::new(),
        holdings: Vec::new(),
    };
    let bus = cluster.own_client().await;
    let answer = bus
        .ask::<_, loom_schemas::wire::Welcome>("orch.ctl.n9.hello", &hello)
        .await;
    assert!(
        matches!(answer, Err(loom_bus::call::CallError::Refused(_))),
        "{answer:?}"
    );
    assert_eq!(status_of(&client, "n9").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hears_how_far_the_leaders_clock_is_ahead() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    until("n1 is up", async || {
        status_of(&client, "n1").await == Some(NodeStatus::Up)
    })
    .await;
    let id = node.look(|seen| seen.cluster.clone().unwrap());
    drop(node);
    let own = cluster.own_client().await;
    let an_hour_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let beat = loom_schemas::wire::Heartbeat {
        at: an_hour_ago,
        epoch: loom_schemas::ids::Epoch::default(),
        generation: 0,
        usage: loom_schemas::wire::NodeUsage::default(),
    };
    let payload = loom_bus::codec::encode_msgpack(&beat).unwrap();
    let report = loom_schemas::wire::StatusReport {
        cluster: id,
        runs: Vec::new(),
    };
    // Those of the node itself, whose clock is right, have to be forgotten first.
    until("it is an hour", async || {
        let subject = "orch.heartbeat.n1";
        own.bus
            .publish(subject, payload.clone(), &[])
            .await
            .unwrap();
        let taken: Result<loom_schemas::wire::StatusTaken, _> =
            own.ask("orch.ctl.n1.status", &report).await;
        let ahead = taken.ok().and_then(|taken| taken.ahead_ms);
        ahead.is_some_and(|ms| (3_600_000..3_700_000).contains(&ms))
    })
    .await;
    // Who asks for the nodes is told as well.
    let listed = own.nodes().await.nodes[0].ahead_ms;
    assert!(
        listed.is_some_and(|ms| (3_600_000..3_700_000).contains(&ms)),
        "{listed:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_says_it_is_busy_is_the_second_choice() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    // Three quarters of its cores; by its name it would be the first.
    let busy = Seen {
        busy: 48_000,
        ..Seen::default()
    };
    let first = TestNode::start_with(cluster.own_bus().await, "n1", busy).await;
    let second = TestNode::start(cluster.own_bus().await, "n2").await;
    until(
        "both are up, and it is heard how busy they are",
        async || {
            let nodes = client.nodes().await.nodes;
            let said = nodes.iter().map(|node| {
                let heartbeat = node.heartbeat.as_ref();
                heartbeat.map(|heartbeat| heartbeat.usage.cpu_millis)
            });
            let up = nodes.iter().filter(|it| it.node.status == NodeStatus::Up);
            up.count() == 2 && said.eq([Some(48_000), Some(0)])
        },
    )
    .await;
    client.submit(WEB).await.unwrap();
    until("it runs", async || {
        client.status("web").await == JobStatus::Running
    })
    .await;
    assert_eq!([first.running().len(), second.running().len()], [0, 1]);
}
