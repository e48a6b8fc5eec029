//! A log without room.

use std::time::{Duration, Instant};

use loom_bus::call::CallError;
use loom_bus::log::LogOptions;
use loom_schemas::error::ErrorCode;

use super::cluster::{Cluster, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_is_told_made_room_in_and_goes_on() {
    let cluster = Cluster::start().await;
    let mut options = cluster.options("m1");
    options.log = LogOptions {
        max_bytes: 3 << 20,
        reserve: 2 << 20,
        // None would be due by itself.
        snapshot_after: 1 << 40,
        snapshot_rate: 0,
        ..LogOptions::default()
    };
    let manager = loom_manager::start(options).await.unwrap();
    until("it leads", async || manager.leads()).await;
    let client = cluster.client().await;
    let begun = Instant::now();
    let mut told = false;
    let mut jobs = 0;
    // The text does not compress, and each job replaces the former's: the state stays small.
    while !told && begun.elapsed() < Duration::from_secs(20) {
        jobs += 1;
        let noise: String = (0..3000).map(|_| noise()).collect();
        let text = format!("name: web\nexec: [\"true\"]\nlabels: {{ n: n{jobs} }}\n# {noise}\n");
        match client.submit(&text).await {
            Ok(_) => {}
            Err(CallError::Refused(error)) if error.code == ErrorCode::Unavailable => {
                assert!(error.message.contains("no room"), "{}", error.message);
                told = true;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(told, "{jobs} jobs fit");
    until("it goes on", async || {
        client
            .submit("name: next\nexec: [\"true\"]\n")
            .await
            .is_ok()
    })
    .await;
    assert!(manager.leads());
}

fn noise() -> String {
    format!("{:032x}", rand::random::<u128>())
}
