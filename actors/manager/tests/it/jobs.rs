//! Jobs from submission to end.

use bytes::Bytes;
use loom_bus::call::CallError;
use loom_bus::connection::Bus;
use loom_bus::header::{IF_VERSION, MIN_REVISION, REVISION};
use loom_schemas::error::ErrorCode;
use loom_schemas::wire::{
    BusView, Committed, JobAddress, JobRequest, JobView, ScaleRequest, SubmitOutcome, Submitted,
    VersionList,
};
use loom_schemas::words::{JobStatus, RunState};

use super::cluster::{CALL, Cluster, name, until, whole_job};
use super::test_node::TestNode;

const WEB: &str = "name: web\nexec: [sleep, \"1000\"]\nreplicas: 2\n";
const BATCH: &str = "name: sums\nkind: batch\nexec: [\"true\"]\nreplicas: 3\n";

fn refused(error: CallError) -> loom_schemas::error::WireError {
    match error {
        CallError::Refused(error) => error,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_about_the_bus_cost_it_one_connection() {
    let cluster = Cluster::start().await;
    let mut options = cluster.options("m1");
    options.system = Some(cluster.system());
    let manager = loom_manager::start(options).await.unwrap();
    until("it leads", async || manager.leads()).await;
    let client = cluster.client().await;
    let system = Bus::connect(cluster.system()).await.unwrap();
    let connections = async || {
        let subject = "$SYS.REQ.SERVER.PING.VARZ";
        let said = system.call_bytes(subject, Bytes::new(), &[], CALL).await;
        let said: serde_json::Value = serde_json::from_slice(&said.unwrap().payload).unwrap();
        said["data"]["total_connections"].as_u64().unwrap()
    };
    let before = connections().await;
    let ask = || client.ask::<_, BusView>("orch.api.bus.get", &());
    let answers = futures::future::join_all((0..20).map(|_| ask())).await;
    for answer in answers {
        assert_eq!(answer.unwrap().sync_always, Some(true));
    }
    assert_eq!(connections().await, before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_taken_in_every_syntax_and_runs() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    let submitted = client.submit(WEB).await.unwrap();
    assert_eq!(
        (submitted.version, submitted.outcome),
        (1, SubmitOutcome::Created)
    );
    let json = r#"{"name": "json", "exec": ["sleep", "1000"]}"#;
    assert_eq!(client.submit(json).await.unwrap().job, name("json"));
    let map = serde_json::json!({ "name": "packed", "exec": ["sleep", "1000"] });
    let packed = loom_bus::codec::encode_msgpack(&map).unwrap();
    let reply = client.send("orch.job.submit", &packed).await.unwrap();
    let submitted: Submitted = reply.decode().unwrap();
    assert_eq!(submitted.job, name("packed"));
    until("all run", async || {
        client.status("web").await == JobStatus::Running
            && client.job("web").await.summary.running == 2
            && client.status("json").await == JobStatus::Running
            && client.status("packed").await == JobStatus::Running
    })
    .await;
    assert_eq!(node.running().len(), 4);
    assert_eq!(client.job("web").await.summary.job.owner, "dev");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_is_refused_with_its_place() {
    let (_cluster, _manager, client) = Cluster::with_leader().await;
    let error = refused(
        client
            .submit("name: web\nexec: [\"true\"]\nreplcas: 2\n")
            .await
            .unwrap_err(),
    );
    assert_eq!(error.code, ErrorCode::Invalid);
    assert!(error.message.contains(":3:1:"), "{}", error.message);
    assert!(error.message.contains("replicas"), "{}", error.message);
    let error = refused(client.submit("").await.unwrap_err());
    assert_eq!(error.code, ErrorCode::Invalid, "{}", error.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_again_is_nothing_and_a_change_is_a_version() {
    let (_cluster, _manager, client) = Cluster::with_leader().await;
    client.submit(WEB).await.unwrap();
    let again = client.submit(WEB).await.unwrap();
    assert_eq!(
        (again.version, again.outcome),
        (1, SubmitOutcome::Unchanged)
    );
    let changed = client.submit(&WEB.replace("1000", "2000")).await.unwrap();
    assert_eq!(
        (changed.version, changed.outcome),
        (2, SubmitOutcome::Updated)
    );
    let headers = [(IF_VERSION, "1".to_owned())];
    let late = client
        .bus
        .call_bytes("orch.job.submit", WEB.into(), &headers, CALL)
        .await;
    assert_eq!(refused(late.unwrap_err()).code, ErrorCode::Conflict);
    let versions: VersionList = client
        .send("orch.api.job.versions", b"web")
        .await
        .unwrap()
        .decode()
        .unwrap();
    assert_eq!(versions.versions.len(), 2);
    let text = client
        .send("orch.api.job.export", br#"{"job": "web", "version": 1}"#)
        .await;
    assert_eq!(text.unwrap().payload, WEB.as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_reads_its_own_write() {
    let (_cluster, _manager, client) = Cluster::with_leader().await;
    for round in 0..20 {
        let job = format!("name: job-{round}\nexec: [\"true\"]\n");
        let submitted = client.submit(&job).await.unwrap();
        let headers = [(MIN_REVISION, submitted.revision.to_string())];
        let asked = format!("job-{round}");
        let reply = client
            .bus
            .call_bytes("orch.api.job.get", asked.into(), &headers, CALL)
            .await;
        let reply = reply.unwrap();
        assert!(reply.headers.get(REVISION).is_some());
        let view: JobView = reply.decode().unwrap();
        assert_eq!(view.summary.job.name, submitted.job);
    }
    let headers = [(MIN_REVISION, "1.999999".to_owned())];
    let early = client
        .bus
        .call_bytes("orch.api.job.list", "".into(), &headers, CALL)
        .await;
    assert_eq!(refused(early.unwrap_err()).code, ErrorCode::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_scaled_restarted_and_stopped() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    client.submit(WEB).await.unwrap();
    until("two run", async || node.running().len() == 2).await;
    let scale = ScaleRequest {
        job: name("web"),
        task: None,
        replicas: 4,
    };
    let committed: Committed = client.ask("orch.job.scale", &scale).await.unwrap();
    assert!(committed.changed);
    until("four run", async || node.running().len() == 4).await;
    let committed: Committed = client.ask("orch.job.scale", &scale).await.unwrap();
    assert!(!committed.changed);
    let one = JobRequest {
        address: JobAddress {
            job: name("web"),
            task: None,
            index: Some(3.into()),
        },
        reason: None,
    };
    client
        .ask::<_, Committed>("orch.job.stop", &one)
        .await
        .unwrap();
    until("three run", async || node.running().len() == 3).await;
    client
        .ask::<_, Committed>("orch.job.restart", &one)
        .await
        .unwrap();
    until("four run again", async || node.running().len() == 4).await;
    client
        .ask::<_, Committed>("orch.job.restart", &whole_job("web"))
        .await
        .unwrap();
    until("restarts are ordered", async || {
        node.look(|seen| seen.assigned.values().all(|assigned| assigned.restart == 1))
    })
    .await;
    client
        .ask::<_, Committed>("orch.job.stop", &whole_job("web"))
        .await
        .unwrap();
    until("the job is killed", async || {
        client.status("web").await == JobStatus::Killed
    })
    .await;
    let job = client.job("web").await.summary.job;
    assert_eq!(job.reason.as_deref(), Some("stopped by dev: a test"));
    until("the node forgets them", async || {
        node.look(|seen| seen.assigned.is_empty())
    })
    .await;
    let error = client
        .ask::<_, Committed>("orch.job.stop", &whole_job("nothing"))
        .await;
    assert_eq!(refused(error.unwrap_err()).code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_report_is_told_in_order_in_the_history() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    client.submit(BATCH).await.unwrap();
    until("it completes", async || {
        client.status("sums").await == JobStatus::Completed
    })
    .await;
    until("its end is told", async || {
        client.told("job.sums.>").await.last().map(String::as_str) == Some("completed")
    })
    .await;
    // A batch so short may be over before it was seen to run.
    let told = client.told("job.sums.*").await;
    assert_eq!(
        told.first().map(String::as_str),
        Some("accepted"),
        "{told:?}"
    );
    assert!(told.len() <= 3, "{told:?}");
    for index in 0..3 {
        let told = client.told(&format!("task.sums.main.{index}.*")).await;
        assert!(told.contains(&"scheduled".to_owned()), "{told:?}");
        assert_eq!(
            told.last().map(String::as_str),
            Some("completed"),
            "{told:?}"
        );
    }
    let all = client.events(">").await;
    let numbers: Vec<u64> = all.iter().map(|row| row.number).collect();
    let wanted: Vec<u64> = (1..=all.len() as u64).collect();
    assert_eq!(numbers, wanted);
    let view = client.job("sums").await;
    assert_eq!(view.summary.job.exit_code, Some(0));
    assert!(view.slots.iter().all(|slot| {
        slot.current
            .as_ref()
            .is_some_and(|run| run.state == RunState::Completed)
    }));
    until("the node forgets them", async || {
        node.look(|seen| seen.assigned.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_submissions_at_once_are_all_answered() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let _node = TestNode::start(cluster.own_bus().await, "n1").await;
    let submissions = (0..300).map(|n| {
        let client = client.clone();
        async move {
            let job = format!("name: job-{n}\nkind: batch\nexec: [\"true\"]\n");
            client.submit(&job).await
        }
    });
    let begun = std::time::Instant::now();
    for answer in futures::future::join_all(submissions).await {
        assert_eq!(answer.unwrap().outcome, SubmitOutcome::Created);
    }
    let accepted = begun.elapsed();
    until("all complete", async || {
        let list: loom_schemas::wire::JobList = client.ask("orch.api.job.list", &()).await.unwrap();
        list.jobs
            .iter()
            .filter(|job| job.status == JobStatus::Completed)
            .count()
            == 300
    })
    .await;
    println!(
        "300 jobs: accepted in {accepted:?}, completed in {:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_larger_than_a_message_comes_in_parts() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    let script = "# ".to_owned() + &"x".repeat(900_000);
    let text = serde_json::json!({ "name": "big", "bash": script, "replicas": 12 });
    client.submit(&text.to_string()).await.unwrap();
    until("all wait for a node", async || {
        client.job("big").await.summary.waiting == 12
    })
    .await;
    // Eleven megabytes of it, by one change.
    let node = TestNode::start(cluster.own_bus().await, "n1").await;
    until("all run", async || node.running().len() == 12).await;
    assert!(node.look(|seen| seen.parts) > 3);
    let before = node.running();
    // And as a whole set: in the answer to a hello, and from the next leader.
    let seen = node.look(Clone::clone);
    drop(node);
    let node = TestNode::start_with(cluster.own_bus().await, "n1", seen).await;
    let second = cluster.manager("m2").await;
    // Before m2 leads: it may have sent all of it at once.
    let epoch = node.look(|seen| seen.epoch);
    manager.stop().await;
    until("m2 leads", async || second.leads()).await;
    until("the node has it all from m2", async || {
        node.look(|seen| seen.epoch > epoch && seen.assigned.len() == 12)
    })
    .await;
    assert_eq!(node.running(), before, "nothing was stopped on the way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leaders_writes_are_a_service_that_can_be_found() {
    let (_cluster, _manager, client) = Cluster::with_leader().await;
    client.submit(WEB).await.unwrap();
    client.submit("nonsense").await.unwrap_err();
    let ask = async |subject: &str| -> serde_json::Value {
        let reply = client.send(subject, b"").await.unwrap();
        serde_json::from_slice(&reply.payload).unwrap()
    };
    let pong = ask("$SRV.PING").await;
    assert_eq!(pong["type"], "io.nats.micro.v1.ping_response");
    assert_eq!(pong["name"], "orch-job");
    let id = pong["id"].as_str().unwrap();
    let stats = ask(&format!("$SRV.STATS.orch-job.{id}")).await;
    let endpoints = stats["endpoints"].as_array().unwrap();
    let submit = endpoints.iter().find(|e| e["name"] == "submit").unwrap();
    assert_eq!(
        (&submit["num_requests"], &submit["num_errors"]),
        (&2.into(), &1.into())
    );
    assert!(submit["processing_time"].as_u64().unwrap() > 0);
    let info = ask("$SRV.INFO.orch-job").await;
    assert_eq!(info["endpoints"].as_array().unwrap().len(), endpoints.len());
}
