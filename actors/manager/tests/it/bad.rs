//! Garbage on every subject a manager serves: an error, never silence, never a panic.

use loom_bus::call::CallError;
use loom_schemas::error::ErrorCode;

use super::cluster::Cluster;

/// Where something is asked for that has to be there.
const ASKING: [&str; 28] = [
    "orch.job.submit",
    "orch.job.stop",
    "orch.job.restart",
    "orch.job.scale",
    "orch.job.plan",
    "orch.job.rollback",
    "orch.job.update",
    "orch.job.dispatch",
    "orch.job.remove",
    "orch.admin.node.lost",
    "orch.admin.node.drain",
    "orch.admin.node.undrain",
    "orch.admin.node.label",
    "orch.admin.node.taint",
    "orch.admin.no.thing",
    "orch.ctl.n1.hello",
    "orch.ctl.n1.hello-part",
    "orch.ctl.n1.status",
    "orch.ctl.n1.bye",
    "orch.ctl.n1.dance",
    "orch.ctl.N1.hello",
    "orch.api.job.get",
    "orch.api.job.versions",
    "orch.api.job.export",
    "orch.api.run.get",
    "orch.api.node.get",
    "orch.api.log.get",
    "orch.api.no.thing",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_refused_on_every_subject() {
    let (cluster, manager, _client) = Cluster::with_leader().await;
    let own = cluster.own_client().await;
    let deep_json = "[".repeat(100_000);
    let deep_pack = vec![0x91_u8; 100_000];
    let garbage: Vec<Vec<u8>> = vec![
        b"\xff\xfe\xfd\x00\x01".to_vec(),
        b"{\"job\":".to_vec(),
        b"{}".to_vec(),
        b"[]".to_vec(),
        b"\xdf\xff\xff\xff\xff".to_vec(),
        deep_json.into_bytes(),
        deep_pack,
        vec![b'a'; 60_000],
    ];
    for subject in ASKING {
        for payload in &garbage {
            let answer = own.send(subject, payload).await;
            match answer {
                Err(CallError::Refused(_)) => {}
                other => panic!("{subject} with {} bytes: {other:?}", payload.len()),
            }
        }
    }
    // Asked nothing, these say everything: only what cannot be read is refused.
    for subject in [
        "orch.api.job.list",
        "orch.api.node.list",
        "orch.api.event.list",
    ] {
        for payload in &garbage {
            let answer = own.send(subject, payload).await;
            let is_kept = matches!(answer, Ok(_) | Err(CallError::Refused(_)));
            assert!(
                is_kept,
                "{subject} with {} bytes: {answer:?}",
                payload.len()
            );
        }
    }
    for subject in [
        "orch.heartbeat.n1",
        "orch.heartbeat.N1",
        "orch.manager.m1.bye",
    ] {
        for payload in &garbage {
            own.bus
                .publish(subject, payload.clone().into(), &[])
                .await
                .unwrap();
        }
    }
    assert!(own.send("orch.manager.m1.ping", b"\xff").await.is_ok());
    assert!(manager.leads());
    assert!(own.submit("name: web\nexec: [\"true\"]\n").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_built_yet_says_so() {
    let (cluster, _manager, _client) = Cluster::with_leader().await;
    let own = cluster.own_client().await;
    for subject in ["orch.job.remove", "orch.admin.cluster.snapshot"] {
        match own.send(subject, b"{}").await {
            Err(CallError::Refused(error)) => assert_eq!(error.code, ErrorCode::NotYet),
            other => panic!("{subject}: {other:?}"),
        }
    }
}
