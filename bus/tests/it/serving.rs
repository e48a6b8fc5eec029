//! The other end: limits, forms, bad input, and an answer whatever happens.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use loom_bus::call::{CallError, Reply};
use loom_bus::codec::Form;
use loom_bus::connection::Bus;
use loom_bus::header;
use loom_bus::serve::{Requests, ServeLimits};
use loom_schemas::error::{ErrorCode, WireError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::Server;

const LONG: Duration = Duration::from_secs(20);

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Ask {
    #[serde(default)]
    signal: String,
}

async fn serve(server: &Server, limits: ServeLimits) -> (Bus, Requests) {
    let bus = server.connect().await;
    let requests = bus.serve("a.*", None, limits).await.unwrap();
    bus.round_trip().await.unwrap();
    (bus, requests)
}

/// Serves as a task would: a map, or one bare argument.
fn answer(mut requests: Requests) {
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let asked = match request.text() {
                Some(text) => Ok(Ask {
                    signal: text.to_owned(),
                }),
                None => request.decode::<Ask>(),
            };
            match asked {
                Ok(ask) => request.reply(&ask).await,
                Err(error) => request.refuse(error).await,
            }
        }
    });
}

async fn raw(bus: &Bus, payload: impl Into<Bytes>, head: &[(&str, String)]) -> Reply {
    bus.call_bytes("a.b", payload.into(), head, LONG)
        .await
        .unwrap()
}

async fn refused(bus: &Bus, payload: impl Into<Bytes>, head: &[(&str, String)]) -> WireError {
    match bus.call_bytes("a.b", payload.into(), head, LONG).await {
        Err(CallError::Refused(error)) => error,
        other => panic!("expected an error reply, got {other:?}"),
    }
}

#[tokio::test]
async fn the_answer_is_in_the_requests_form() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = server.connect().await;
    let (_bus, requests) = serve(&server, ServeLimits::default()).await;
    answer(requests);

    let reply = raw(&client, r#"{"signal":"HUP"}"#, &[]).await;
    assert_eq!(&reply.payload[..], br#"{"signal":"HUP"}"#);
    assert_eq!(
        reply.headers.get(header::CONTENT_TYPE),
        Some("application/json")
    );
    let reply = raw(&client, "HUP\n", &[]).await;
    assert_eq!(&reply.payload[..], br#"{"signal":"HUP"}"#);
    let reply = raw(&client, "", &[]).await;
    assert_eq!(&reply.payload[..], br#"{"signal":""}"#);
    let msgpack = loom_bus::codec::encode_msgpack(&json!({ "signal": "HUP" })).unwrap();
    let reply = raw(&client, msgpack.clone(), &[]).await;
    assert_eq!(
        (reply.form(), reply.payload),
        (Form::MessagePack, msgpack.clone())
    );
    let json = [(header::CONTENT_TYPE, "application/json".to_owned())];
    assert_eq!(
        refused(&client, msgpack, &json).await.code,
        ErrorCode::Invalid
    );
}

#[tokio::test]
async fn bad_payloads_are_answered_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = server.connect().await;
    let (bus, requests) = serve(&server, ServeLimits::default()).await;
    answer(requests);

    let deep = "[".repeat(500_000);
    let deep_msgpack = [vec![0x81, 0xa1, b'a'], vec![0x91; 500_000]].concat();
    let cases: Vec<(Vec<u8>, ErrorCode)> = vec![
        (b"{\"signal\":".to_vec(), ErrorCode::Invalid),
        (b"{\"signal\": 7}".to_vec(), ErrorCode::Invalid),
        (deep.into_bytes(), ErrorCode::TooLarge),
        (deep_msgpack, ErrorCode::TooLarge),
        (vec![0xdf, 0xff, 0xff, 0xff, 0xff], ErrorCode::Invalid),
        (vec![0x81, 0xa6, b's'], ErrorCode::Invalid),
        (vec![0xff, 0xfe, 0x00], ErrorCode::Invalid),
        (vec![0x8f; 1000], ErrorCode::Invalid),
    ];
    let count = cases.len() as u64;
    for (payload, code) in cases {
        let head: Vec<u8> = payload.iter().take(12).copied().collect();
        let error = refused(&client, payload, &[]).await;
        assert!(
            error.code == code || error.code == ErrorCode::TooLarge,
            "{head:x?}: {error:?}"
        );
    }
    assert_eq!(bus.counters().undecodable.load(Ordering::Relaxed), count);
    raw(&client, "HUP", &[]).await;
}

#[tokio::test]
async fn an_error_carries_the_micro_headers_and_a_body() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = server.connect().await;
    let (_bus, mut requests) = serve(&server, ServeLimits::default()).await;
    let mut inbox = client.subscribe("answers").await.unwrap();
    client.round_trip().await.unwrap();
    let raw = async_nats::connect(&server.url).await.unwrap();
    raw.publish_with_reply("a.b", "answers", "{}".into())
        .await
        .unwrap();
    let request = requests.next().await.unwrap();
    assert_eq!(request.token(1), Some("b"));
    request
        .refuse(WireError::not_found("no such\r\nthing"))
        .await;
    let message = inbox.next().await.unwrap();
    assert_eq!(message.headers.get(header::ERROR_CODE), Some("404"));
    assert_eq!(message.headers.get(header::ERROR), Some("no such  thing"));
    let body: Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(
        body,
        json!({ "code": "not-found", "message": "no such\r\nthing" })
    );
}

#[tokio::test]
async fn what_is_too_much_too_large_or_too_late_never_reaches_who_serves() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = server.connect().await;
    let limits = ServeLimits {
        max_in_flight: 2,
        max_payload: 1000,
        ..ServeLimits::default()
    };
    let (bus, mut requests) = serve(&server, limits).await;
    let (to, mut handed_out) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            to.send(request).unwrap();
        }
    });
    let large = " ".repeat(1001);
    assert_eq!(refused(&client, large, &[]).await.code, ErrorCode::TooLarge);
    let ask = |seconds: i64| {
        let at = Timestamp::now() + SignedDuration::from_secs(seconds);
        [(header::DEADLINE, at.to_string())]
    };
    assert_eq!(
        refused(&client, "{}", &ask(-1)).await.code,
        ErrorCode::Expired
    );

    let mut waiting = Vec::new();
    for _ in 0..2 {
        let client = client.clone();
        let head = ask(60);
        waiting.push(tokio::spawn(async move { raw(&client, "{}", &head).await }));
    }
    let first = handed_out.recv().await.unwrap();
    let second = handed_out.recv().await.unwrap();
    assert!(first.deadline().is_some());
    assert_eq!(refused(&client, "{}", &[]).await.code, ErrorCode::Busy);
    first.reply(&json!({})).await;
    let third = tokio::spawn({
        let client = client.clone();
        async move { raw(&client, "{}", &[]).await }
    });
    handed_out.recv().await.unwrap().reply(&json!({})).await;
    second.reply(&json!({})).await;
    third.await.unwrap();
    for call in waiting {
        call.await.unwrap();
    }

    // The leader's clock is an hour behind this host's: the deadline is not over there.
    bus.set_clock_offset(SignedDuration::from_hours(-1));
    let early = tokio::spawn({
        let client = client.clone();
        let head = ask(-1);
        async move { raw(&client, "{}", &head).await }
    });
    handed_out.recv().await.unwrap().reply(&json!({})).await;
    early.await.unwrap();

    let counters = bus.counters();
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(read(&counters.received), 7);
    assert_eq!(read(&counters.answered), 4);
    assert_eq!(
        (
            read(&counters.busy),
            read(&counters.too_large),
            read(&counters.expired)
        ),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn a_dropped_request_is_answered_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = server.connect().await;
    let (bus, mut requests) = serve(&server, ServeLimits::default()).await;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            // On a thread that is no part of the runtime, as where an actor's panic may end.
            std::thread::spawn(move || drop(request)).join().unwrap();
        }
    });
    assert_eq!(refused(&client, "{}", &[]).await.code, ErrorCode::Internal);
    assert_eq!(bus.counters().dropped.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_answer_too_large_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = server.connect().await;
    let (bus, mut requests) = serve(&server, ServeLimits::default()).await;
    let size = bus.server().max_payload + 1;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            request.reply(&"x".repeat(size)).await;
        }
    });
    assert_eq!(refused(&client, "{}", &[]).await.code, ErrorCode::TooLarge);
}

#[tokio::test]
async fn nobody_is_answered_on_a_subject_of_loom() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = server.connect().await;
    let (bus, mut requests) = serve(&server, ServeLimits::default()).await;
    let mut forged = client.subscribe("orch.>").await.unwrap();
    client.round_trip().await.unwrap();
    let raw = async_nats::connect(&server.url).await.unwrap();
    raw.publish_with_reply("a.b", "orch.heartbeat.n1", "{}".into())
        .await
        .unwrap();
    requests.next().await.unwrap().reply(&json!({})).await;
    assert_eq!(bus.counters().misdirected.load(Ordering::Relaxed), 1);
    bus.publish("orch.last", "x".into(), &[]).await.unwrap();
    assert_eq!(forged.next().await.unwrap().subject, "orch.last");
}

#[tokio::test]
async fn a_publish_is_served_and_has_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let client = server.connect().await;
    let (_bus, mut requests) = serve(&server, ServeLimits::default()).await;
    let id = [(header::COMMAND_ID, "c-1".to_owned())];
    client.publish("a.b", "HUP".into(), &id).await.unwrap();
    let request = requests.next().await.unwrap();
    assert!(!request.wants_reply());
    assert_eq!(
        (request.text(), request.command_id()),
        (Some("HUP"), Some("c-1"))
    );
    request.reply(&json!({})).await;
}
