//! Submissions through the queue.

use bytes::Bytes;
use loom_bus::call::CallError;
use loom_bus::header::{COMMAND_ID, SET};
use loom_schemas::error::ErrorCode;
use loom_schemas::wire::EventRow;
use loom_schemas::words::JobStatus;

use super::cluster::{CALL, Cluster, until};
use super::test_node::TestNode;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_queued_without_a_leader_is_taken_in_once_there_is_one() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    manager.stop().await;
    let own = cluster.own_client().await;
    let put = async |text: &str, id: &str| {
        let headers = [("Nats-Msg-Id", id.to_owned())];
        let payload = Bytes::copy_from_slice(text.as_bytes());
        own.bus
            .call_bytes("orch.job.queue", payload, &headers, CALL)
            .await
            .unwrap();
    };
    put("name: one\nkind: batch\nexec: [\"true\"]\n", "first").await;
    put("name: two\nreplicas: many\nexec: [\"true\"]\n", "second").await;
    put("what is this", "third").await;
    put("name: one\nkind: batch\nexec: [\"true\"]\n", "first").await;
    let _node = TestNode::start(cluster.own_bus().await, "n1").await;
    let manager = cluster.manager("m1").await;
    until("it leads", async || manager.leads()).await;
    until("one completes", async || {
        let asked = client.send("orch.api.job.get", b"one").await;
        asked.is_ok() && client.status("one").await == JobStatus::Completed
    })
    .await;
    until("the outcomes are told", async || {
        client.told("queue.*.rejected").await.len() == 1
            && client.told("job.two.rejected").await.len() == 1
    })
    .await;
    let accepted = client.events("job.one.accepted").await;
    assert_eq!(accepted.len(), 1, "{accepted:?}");
    assert_eq!(accepted[0].event.request.as_deref(), Some("first"));
    let rejected = client.events("job.two.rejected").await;
    assert_eq!(rejected[0].event.request.as_deref(), Some("second"));
    assert!(
        rejected[0].event.reason.as_ref().unwrap().contains(":2:"),
        "{rejected:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_too_large_is_refused_of_the_queue_as_of_a_request() {
    let (cluster, _manager, client) = Cluster::with_leader().await;
    let own = cluster.own_client().await;
    let text = |job: &str, size| {
        let head = format!("name: {job}\nexec: [\"true\"]\n# ");
        Bytes::from(head.clone() + &"x".repeat(size - head.len()))
    };
    // What a request may not have either, by its text or by its size.
    for (job, size) in [("large", 3 << 20), ("huge", 5 << 20)] {
        let asked = client.send("orch.job.submit", &text(job, size)).await;
        let Err(CallError::Refused(error)) = asked else {
            panic!("{asked:?}");
        };
        assert_eq!(error.code, ErrorCode::TooLarge, "{error:?}");
        let put = text(job, size);
        let put = own.bus.call_bytes("orch.job.queue", put, &[], CALL).await;
        put.unwrap();
    }
    until("both are refused", async || {
        let rejected = client.events(">").await;
        let large = |row: &&EventRow| {
            let reason = row.event.reason.as_deref().unwrap_or_default();
            row.event.what == "rejected" && reason.contains("at most 2MiB are read")
        };
        rejected.iter().filter(large).count() == 2
    })
    .await;
    for job in ["large", "huge"] {
        let asked = client.send("orch.api.job.get", job.as_bytes()).await;
        assert!(asked.is_err(), "{job}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_twice_under_a_command_id_is_done_once_whoever_leads() {
    let (cluster, manager, client) = Cluster::with_leader().await;
    let own = cluster.own_client().await;
    let put = async |text: &str, set: &str| {
        let headers = [(COMMAND_ID, "c-1".to_owned()), (SET, set.to_owned())];
        let payload = Bytes::copy_from_slice(text.as_bytes());
        own.bus
            .call_bytes("orch.job.queue", payload, &headers, CALL)
            .await
            .unwrap();
    };
    let batch = "name: one\nkind: batch\nvars: {x: a}\nexec: [\"true\", \"${var.x}\"]\n";
    let _node = TestNode::start(cluster.own_bus().await, "n1").await;
    put(batch, "{}").await;
    until("it completes", async || {
        let asked = client.send("orch.api.job.get", b"one").await;
        asked.is_ok() && client.status("one").await == JobStatus::Completed
    })
    .await;
    manager.stop().await;
    let _second = cluster.manager("m2").await;
    until("the second answers", async || {
        client.send("orch.api.event.list", b"{}").await.is_ok()
    })
    .await;
    // A batch that has ended would run again if it were submitted again.
    put(batch, "{}").await;
    put(&batch.replace("true", "false"), "{}").await;
    put(batch, r#"{"x":"b"}"#).await;
    until("the outcomes are told", async || {
        client.told("job.one.rejected").await.len() == 2
    })
    .await;
    let accepted = client.events("job.one.accepted").await;
    assert_eq!(accepted.len(), 2, "{accepted:?}");
    for row in &accepted {
        assert_eq!(row.event.request.as_deref(), Some("c-1"));
    }
    let reason = accepted[1].event.reason.as_ref().unwrap();
    assert!(reason.contains("not done again"), "{reason}");
    let rejected = client.events("job.one.rejected").await;
    for row in &rejected {
        let reason = row.event.reason.as_ref().unwrap();
        assert!(reason.contains("another request"), "{reason}");
    }
    let job = client.job("one").await.summary.job;
    assert_eq!((job.version, job.round), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_read_once_whoever_leads() {
    let (cluster, first, client) = Cluster::with_leader().await;
    let second = cluster.manager("m2").await;
    let own = cluster.own_client().await;
    let mut first = Some(first);
    for n in 0..100 {
        let text = format!("name: job-{n}\nexec: [\"true\"]\n");
        own.bus
            .call_bytes("orch.job.queue", text.into(), &[], CALL)
            .await
            .unwrap();
        if n == 50 {
            drop(first.take());
        }
    }
    until("the second leads", async || second.leads()).await;
    until("all are taken in", async || {
        client.told("job.*.accepted").await.len() == 100
    })
    .await;
}
