//! Requests: one answer, many, none, and a server that dies under them.

use std::time::Duration;

use loom_bus::call::CallError;
use loom_bus::connection::Bus;
use loom_bus::serve::ServeLimits;
use loom_schemas::error::{ErrorCode, WireError};
use serde_json::{Value, json};

use crate::support::{Server, until};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

/// Answers every request on a subject with a value.
async fn echo(bus: &Bus, subject: &'static str, value: Value) {
    let limits = ServeLimits::default();
    let mut requests = bus.serve(subject, None, limits).await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            request.reply(&value).await;
        }
    });
    bus.round_trip().await.unwrap();
}

#[tokio::test]
async fn nobody_there_and_nobody_answering_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let (bus, other) = (server.connect().await, server.connect().await);
    let error = bus
        .call::<_, Value>("a", &json!({}), LONG)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::NoResponders), "{error:?}");

    let _silent = other
        .serve("a", None, ServeLimits::default())
        .await
        .unwrap();
    other.round_trip().await.unwrap();
    let error = bus
        .call::<_, Value>("a", &json!({}), SHORT)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Timeout), "{error:?}");
}

#[tokio::test]
async fn an_answer_comes_back_and_an_error_as_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let (bus, other) = (server.connect().await, server.connect().await);
    let limits = ServeLimits::default();
    let mut requests = other.serve("sum.*", None, limits).await.unwrap();
    other.round_trip().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            match request.decode::<Vec<u32>>() {
                Ok(numbers) => request.reply(&numbers.iter().sum::<u32>()).await,
                Err(error) => request.refuse(error).await,
            }
        }
    });
    let sum: u32 = bus.call("sum.a", &[1, 2, 3], LONG).await.unwrap();
    assert_eq!(sum, 6);
    let error = bus.call::<_, u32>("sum.a", "HUP", LONG).await.unwrap_err();
    assert!(
        matches!(
            &error,
            CallError::Refused(WireError {
                code: ErrorCode::Invalid,
                ..
            })
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn every_answer_of_many_is_collected() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let bus = server.connect().await;
    let mut others = Vec::new();
    for number in 0..5 {
        let other = server.connect().await;
        echo(&other, "all", json!({ "number": number })).await;
        others.push(other);
    }
    let mut replies = bus
        .call_many::<_, Value>("all", &json!({}), LONG)
        .await
        .unwrap();
    let mut numbers = Vec::new();
    for _ in 0..5 {
        let reply = replies.next().await.unwrap().unwrap();
        numbers.push(reply["number"].as_i64().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);

    let mut replies = bus
        .call_many::<_, Value>("all", &json!({}), SHORT)
        .await
        .unwrap();
    let mut count = 0;
    while let Some(reply) = replies.next().await {
        reply.unwrap();
        count += 1;
    }
    assert_eq!(count, 5, "it ends by itself at the timeout");

    let error = bus.call_many::<_, Value>("none", &json!({}), LONG).await;
    assert!(matches!(error.map(|_| ()), Err(CallError::NoResponders)));
}

#[tokio::test]
async fn a_server_killed_under_a_call_ends_it_and_later_calls_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let (bus, other) = (server.connect().await, server.connect().await);
    let _silent = other
        .serve("silent", None, ServeLimits::default())
        .await
        .unwrap();
    echo(&other, "echo", json!({ "a": 1 })).await;
    other.round_trip().await.unwrap();

    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.call::<_, Value>("silent", &json!({}), LONG).await }
    });
    until("the request was sent", || async {
        other
            .counters()
            .received
            .load(std::sync::atomic::Ordering::Relaxed)
            > 0
            || bus.round_trip().await.is_ok()
    })
    .await;
    server.kill();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Disconnected), "{error:?}");
    let error = bus
        .call::<_, Value>("echo", &json!({}), SHORT)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Disconnected), "{error:?}");

    // One call waits through the outage within its time.
    let through = tokio::spawn({
        let bus = bus.clone();
        async move {
            loop {
                match bus.call::<_, Value>("echo", &json!({}), LONG).await {
                    // The other side is not back yet.
                    Err(CallError::NoResponders) => tokio::task::yield_now().await,
                    answer => return answer,
                }
            }
        }
    });
    server.revive().await;
    assert_eq!(through.await.unwrap().unwrap(), json!({ "a": 1 }));
}

#[tokio::test]
async fn a_request_the_server_denies_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let more = "authorization { users: [{user: a, password: p, permissions: \
                {publish: [\"ok\"], subscribe: [\"_INBOX.>\"]}}] }";
    let server = Server::start_with(dir.path(), more).await;
    let url = server.url.replace("nats://", "nats://a:p@");
    let options = loom_bus::connection::ConnectOptions {
        url,
        ..Default::default()
    };
    let bus = Bus::connect(options).await.unwrap();
    let error = bus
        .call::<_, Value>("secret", &json!({}), LONG)
        .await
        .unwrap_err();
    assert!(
        matches!(
            &error,
            CallError::Refused(WireError {
                code: ErrorCode::Denied,
                ..
            })
        ),
        "{error:?}"
    );
}
