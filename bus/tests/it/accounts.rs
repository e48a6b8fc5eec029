//! The embedded server's accounts: what a user can do, cannot do, and cannot forge.

use std::time::Duration;

use async_nats::jetstream;
use loom_bus::call::CallError;
use loom_bus::connection::{Bus, ConnectOptions, Login};
use loom_bus::facts::system_facts;
use loom_bus::serve::ServeLimits;
use loom_bus::server::{Embedded, EmbeddedOptions};
use loom_bus::{caller, header};
use loom_schemas::error::{ErrorCode, WireError};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(400);

/// The test's own connections, and the server they go to.
struct Fixture {
    server: Embedded,
    orch: Bus,
    user: Bus,
    _dir: tempfile::TempDir,
}

async fn connect(server: &Embedded, login: Login, require_jetstream: bool) -> Bus {
    let options = ConnectOptions {
        url: server.url().to_owned(),
        login,
        name: "tester".to_owned(),
        require_jetstream,
        ..ConnectOptions::default()
    };
    Bus::connect(options).await.unwrap()
}

async fn start() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let mut options = EmbeddedOptions::new(dir.path().join("bus"));
    options.listen.set_port(0);
    let server = Embedded::start(options).await.unwrap();
    let orch = connect(&server, server.orch_login(), true).await;
    let user = connect(&server, server.user_login(), false).await;
    Fixture {
        server,
        orch,
        user,
        _dir: dir,
    }
}

/// Answers with who called, as the server knows them.
async fn say_caller(bus: &Bus, subject: &str, times: usize) {
    let limits = ServeLimits::default();
    let mut requests = bus.serve(subject, None, limits).await.unwrap();
    bus.round_trip().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let caller = request.caller.clone();
            assert_eq!(times, 1, "one answer a server here");
            request.reply(&caller).await;
        }
    });
}

fn forged() -> Vec<(&'static str, String)> {
    let info = r#"{"acc":"ORCH","user":"loom"}"#;
    vec![(header::REQUEST_INFO, info.to_owned())]
}

#[tokio::test]
async fn a_user_reaches_what_is_served_and_is_known_by_the_servers_word() {
    let fixture = start().await;
    for subject in [
        "orch.job.submit",
        "orch.job.stop",
        "orch.admin.node.drain",
        "orch.api.job.list",
        "orch.task.web.main.0.signal",
        "orch.run.0198c0de.pause",
        "orch.find.signal",
    ] {
        say_caller(&fixture.orch, subject, 1).await;
        let caller: Value = fixture
            .user
            .call_with(subject, &json!({}), LONG, &forged())
            .await
            .unwrap();
        assert_eq!(caller["user"], "dev", "{subject}");
        assert!(caller["detail"].as_str().unwrap().contains("tester"));
        // From within, the header is the client's own word.
        let head = [(header::REQUEST_INFO, r#"{"user":"ada"}"#.to_owned())];
        let caller: Value = fixture
            .orch
            .call_with(subject, &json!({}), LONG, &head)
            .await
            .unwrap();
        assert_eq!(caller["user"], caller::OWN, "{subject}");
    }
}

#[tokio::test]
async fn a_users_publish_without_a_reply_is_known_as_well() {
    let fixture = start().await;
    let limits = ServeLimits::default();
    let mut requests = fixture
        .orch
        .serve("orch.job.*", None, limits)
        .await
        .unwrap();
    fixture.orch.round_trip().await.unwrap();
    let head = forged();
    let publish = fixture.user.publish("orch.job.stop", "{}".into(), &head);
    publish.await.unwrap();
    let request = requests.next().await.unwrap();
    assert_eq!(request.caller.user, "dev");
    assert!(!request.wants_reply());
}

#[tokio::test]
async fn nobody_serving_is_known_at_once_through_an_import() {
    let fixture = start().await;
    for subject in ["orch.job.submit", "orch.task.web.main.0.signal"] {
        let answer = fixture
            .user
            .call::<_, Value>(subject, &json!({}), LONG)
            .await;
        assert!(
            matches!(answer, Err(CallError::NoResponders)),
            "{subject}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_user_can_forge_nothing() {
    let fixture = start().await;
    let mut all = fixture.orch.subscribe(">").await.unwrap();
    fixture.orch.round_trip().await.unwrap();
    for subject in [
        "orch.heartbeat.n1",
        "orch.ctl.n1.status",
        "orch.assign.n1",
        "orch.log",
        "orch.events.job.web.completed",
        "orch.events.command.web.main.0",
        "orch.logs.web.main.0.n1.stdout",
        "orch.metrics.node.n1",
        "orch.manager.m1.ping",
        "orch.session.abc.out",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.DELETE.ORCH_LOG",
        "$JS.API.STREAM.PURGE.ORCH_QUEUE",
        "_INBOX.somebody",
    ] {
        let answer = fixture
            .user
            .call::<_, Value>(subject, &json!({}), LONG)
            .await;
        assert!(
            matches!(
                &answer,
                Err(CallError::Refused(WireError {
                    code: ErrorCode::Denied,
                    ..
                }))
            ),
            "{subject}: {answer:?}"
        );
    }
    let publish = fixture.user.publish("orch.job.stop", "last".into(), &[]);
    publish.await.unwrap();
    loop {
        let message = all.next().await.unwrap();
        // What the server is asked by this connection itself is seen as well.
        if message.subject.starts_with("orch.") {
            assert_eq!(
                message.subject, "orch.job.stop",
                "nothing else came through"
            );
            break;
        }
    }
}

#[tokio::test]
async fn a_user_cannot_listen_to_requests_or_answer_them() {
    let fixture = start().await;
    let mut spy = fixture.user.subscribe("orch.job.*").await.unwrap();
    let _served = fixture
        .user
        .serve("orch.task.>", None, ServeLimits::default())
        .await
        .unwrap();
    fixture.user.round_trip().await.unwrap();
    let other = connect(&fixture.server, fixture.server.user_login(), false).await;
    let answer = other
        .call::<_, Value>("orch.job.submit", &json!({}), LONG)
        .await;
    assert!(matches!(answer, Err(CallError::NoResponders)), "{answer:?}");
    let answer = other
        .call::<_, Value>("orch.task.a.b.0.signal", &json!({}), LONG)
        .await;
    assert!(matches!(answer, Err(CallError::NoResponders)), "{answer:?}");
    let heard = tokio::time::timeout(SHORT, spy.next()).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn a_user_hears_events_logs_and_metrics() {
    let fixture = start().await;
    for (filter, subject) in [
        ("orch.events.>", "orch.events.job.web.accepted"),
        ("orch.logs.>", "orch.logs.web.main.0.n1.stdout"),
        ("orch.metrics.>", "orch.metrics.node.n1"),
    ] {
        let mut messages = fixture.user.subscribe(filter).await.unwrap();
        fixture.user.round_trip().await.unwrap();
        fixture
            .orch
            .publish(subject, "{}".into(), &[])
            .await
            .unwrap();
        assert_eq!(messages.next().await.unwrap().subject, subject);
    }
}

#[tokio::test]
async fn all_answers_of_many_come_through_to_a_user() {
    let fixture = start().await;
    for subject in [
        "orch.task.web.main.all.signal",
        "orch.find.signal",
        "orch.api.manager.list",
        "$SRV.PING",
    ] {
        let mut servers = Vec::new();
        for _ in 0..4 {
            let bus = connect(&fixture.server, fixture.server.orch_login(), false).await;
            say_caller(&bus, subject, 1).await;
            servers.push(bus);
        }
        let ask = json!({});
        let call = fixture.user.call_many::<_, Value>(subject, &ask, LONG);
        let mut replies = call.await.unwrap();
        for _ in 0..4 {
            assert_eq!(
                replies.next().await.unwrap().unwrap()["user"],
                "dev",
                "{subject}"
            );
        }
    }
}

#[tokio::test]
async fn a_users_submission_is_durably_queued() {
    let fixture = start().await;
    let raw = async_nats::ConnectOptions::new();
    let Login::User { name, password } = fixture.server.orch_login() else {
        panic!("managers have a password");
    };
    let raw = raw.user_and_password(name, password);
    let client = raw.connect(fixture.server.url()).await.unwrap();
    let context = jetstream::new(client);
    let stream = context
        .create_stream(jetstream::stream::Config {
            name: "ORCH_QUEUE".to_owned(),
            subjects: vec!["orch.job.queue".to_owned()],
            ..Default::default()
        })
        .await
        .unwrap();
    let payload = r#"{"name":"web"}"#;
    let reply = fixture
        .user
        .call_bytes("orch.job.queue", payload.into(), &forged(), LONG)
        .await
        .unwrap();
    let ack: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(
        (ack["stream"].as_str(), ack["seq"].as_u64()),
        (Some("ORCH_QUEUE"), Some(1))
    );
    // As `nats pub` does, without asking for the acknowledgement.
    let publish = fixture.user.publish("orch.job.queue", payload.into(), &[]);
    publish.await.unwrap();
    fixture.user.round_trip().await.unwrap();
    for sequence in [1, 2] {
        let message = stream.get_raw_message(sequence).await.unwrap();
        assert_eq!(&message.payload[..], payload.as_bytes());
        // The server's word is not kept, nor is the forged one: see `caller::of_queued`.
        assert!(message.headers.get(header::REQUEST_INFO).is_none());
    }
    let kept = stream.get_info().await.unwrap().state.messages;
    assert_eq!(kept, 2, "each came once");
}

#[tokio::test]
async fn the_system_account_tells_how_writes_reach_the_disk() {
    let fixture = start().await;
    let system = connect(&fixture.server, fixture.server.system_login(), false).await;
    let facts = system_facts(&system, SHORT).await.unwrap();
    assert_eq!(facts.len(), 1);
    assert!(facts[0].sync_always);
    assert!(facts[0].store_dir.as_deref().unwrap().contains("bus/store"));
    let server = fixture.orch.server();
    assert_eq!(server.max_payload, 8 * 1024 * 1024);
    assert_eq!(
        (server.servers, server.jetstream, server.tls),
        (1, true, false)
    );
}
