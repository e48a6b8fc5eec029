//! Connecting: what is refused, and in which words.

use std::time::Duration;

use loom_bus::connection::{Bus, ConnectError, ConnectOptions, ConnectionState, Login};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Server, free_port, until};

fn to(url: &str) -> ConnectOptions {
    ConnectOptions {
        url: url.to_owned(),
        timeout: Duration::from_secs(5),
        ..ConnectOptions::default()
    }
}

/// A socket that says it is a nats-server of some version, and pongs.
async fn pretender(info: &'static str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let hello = format!("INFO {info}\r\n");
                stream.write_all(hello.as_bytes()).await?;
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    stream.write_all(b"PONG\r\n").await?;
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    url
}

#[tokio::test]
async fn an_older_server_is_refused_in_one_line() {
    let url = pretender(r#"{"version":"2.9.10","max_payload":1048576,"headers":true}"#).await;
    let error = Bus::connect(to(&url)).await.unwrap_err();
    assert!(matches!(error, ConnectError::TooOld { .. }), "{error:?}");
    let line = error.to_string();
    assert!(line.contains("2.9.10") && line.contains("2.15.1"), "{line}");
    assert!(!line.contains('\n') && line.contains(&url), "{line}");
}

#[tokio::test]
async fn a_server_without_a_version_is_refused() {
    let url = pretender(r#"{"max_payload":1048576,"headers":true}"#).await;
    let error = Bus::connect(to(&url)).await.unwrap_err();
    assert!(matches!(error, ConnectError::TooOld { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_no_nats_server_is_refused() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let mut options = to(&url);
    options.timeout = Duration::from_millis(200);
    let error = Bus::connect(options).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let error = Bus::connect(to(&format!("nats://127.0.0.1:{}", free_port())))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.may_pass());
    assert!(error.to_string().contains("loomctl dev"), "{error}");
}

#[tokio::test]
async fn a_server_without_jetstream_is_refused_where_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let more = "# no jetstream\n";
    let server = Server::start_with(dir.path(), more).await;
    Bus::connect(to(&server.url)).await.unwrap();
    let mut options = to(&server.url);
    options.require_jetstream = true;
    let error = Bus::connect(options).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::NoJetStream { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_account_without_jetstream_is_refused_where_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let more = "accounts { A { jetstream: enabled, users: [{user: a, password: p}] }, \
                B { users: [{user: b, password: p}] } }";
    let jetstream = format!(
        "jetstream {{ store_dir: {:?} }}\n{more}",
        dir.path().join("js")
    );
    let server = Server::start_with(dir.path(), &jetstream).await;
    let login = |name: &str| ConnectOptions {
        login: Login::User {
            name: name.to_owned(),
            password: "p".to_owned(),
        },
        require_jetstream: true,
        ..to(&server.url)
    };
    let bus = Bus::connect(login("a")).await.unwrap();
    assert_eq!(bus.server().api_level, Some(5));
    let error = Bus::connect(login("b")).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::NoJetStream { .. }),
        "{error:?}"
    );
    let error = Bus::connect(login("c")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Denied { .. }), "{error:?}");
    assert!(!error.may_pass());
}

#[tokio::test]
async fn the_password_in_a_url_is_used_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let more = "authorization { users: [{user: ada, password: s3cret}] }";
    let server = Server::start_with(dir.path(), more).await;
    let url = server.url.replace("nats://", "nats://ada:s3cret@");
    Bus::connect(to(&url)).await.unwrap();
    let url = server.url.replace("nats://", "nats://ada:wr0ng@");
    let error = Bus::connect(to(&url)).await.unwrap_err();
    let all = format!("{error} {error:?}");
    assert!(all.contains("ada") && !all.contains("wr0ng"), "{all}");
}

#[tokio::test]
async fn patience_waits_for_a_bus_that_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    server.kill();
    let connecting = tokio::spawn(Bus::connect_patiently(to(&server.url), None));
    server.revive().await;
    connecting.await.unwrap().unwrap();

    server.kill();
    let patience = Some(Duration::from_millis(200));
    assert!(
        Bus::connect_patiently(to(&server.url), patience)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_connection_comes_back_and_its_subscriptions_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let bus = server.connect().await;
    let mut messages = bus.subscribe("a.*").await.unwrap();
    let mut state = bus.state();
    server.kill();
    state
        .wait_for(|state| *state == ConnectionState::Disconnected)
        .await
        .unwrap();
    assert!(!bus.is_connected());
    assert!(bus.round_trip().await.is_err());
    server.revive().await;
    state
        .wait_for(|state| *state == ConnectionState::Connected)
        .await
        .unwrap();
    bus.publish("a.b", "x".into(), &[]).await.unwrap();
    let message = messages.next().await.unwrap();
    assert_eq!(
        (message.subject.as_str(), &message.payload[..]),
        ("a.b", &b"x"[..])
    );
    bus.round_trip().await.unwrap();
}

/// At a fixed port: a nats-server of an old version that takes everything.
async fn old_server(port: u16) -> tokio::task::JoinHandle<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        let mut streams = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            streams.spawn(async move {
                let hello = b"INFO {\"version\":\"2.9.10\",\"max_payload\":1048576,\
                    \"headers\":true,\"jetstream\":true}\r\n";
                stream.write_all(hello).await?;
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    stream.write_all(b"PONG\r\n").await?;
                }
                Ok::<_, std::io::Error>(())
            });
        }
    })
}

#[tokio::test]
async fn a_server_that_came_back_older_is_sent_nothing_and_left_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let options = ConnectOptions {
        timeout: Duration::from_millis(500),
        ..to(&server.url)
    };
    let bus = Bus::connect(options).await.unwrap();
    let mut state = bus.state();
    server.kill();
    let port = server
        .address()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let old = old_server(port).await;
    until("it is found out", || async {
        bus.server().version == "2.9.10" && bus.publish("a", "x".into(), &[]).await.is_err()
    })
    .await;
    assert!(!bus.is_connected());
    assert!(bus.round_trip().await.is_err());
    old.abort();
    let _ = old.await;
    server.revive().await;
    state
        .wait_for(|state| *state == ConnectionState::Connected)
        .await
        .unwrap();
    until("it serves again", || async {
        bus.round_trip().await.is_ok()
    })
    .await;
    bus.publish("a", "x".into(), &[]).await.unwrap();
}

#[tokio::test]
async fn a_publish_ends_with_the_server_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path()).await;
    let options = ConnectOptions {
        timeout: Duration::from_millis(300),
        ..to(&server.url)
    };
    let bus = Bus::connect(options).await.unwrap();
    server.kill();
    until("the connection is seen to be down", || async {
        !bus.is_connected()
    })
    .await;
    let mut refused = 0;
    for _ in 0..2060 {
        if bus.publish("a", "x".into(), &[]).await.is_err() {
            refused += 1;
            break;
        }
    }
    assert_eq!(refused, 1, "more than the queue takes was taken");
}

#[tokio::test]
async fn dropped_messages_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let bus = server.connect().await;
    let mut messages = bus.subscribe("flood").await.unwrap();
    assert!(!messages.take_lagged());
    for _ in 0..loom_bus::connection::SUBSCRIPTION_CAPACITY + 2000 {
        bus.publish("flood", "x".into(), &[]).await.unwrap();
    }
    until("the loss is counted", || async { bus.dropped() > 0 }).await;
    assert!(messages.take_lagged());
    until("it is told once", || {
        let lagged = messages.take_lagged();
        async move { !lagged }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let bus = server.connect().await;
    for subject in ["", "a b", "a\r\nPUB b 0"] {
        assert!(
            bus.publish(subject, "x".into(), &[]).await.is_err(),
            "{subject:?}"
        );
    }
    for subject in ["", "a..b", "a b", ".a"] {
        assert!(bus.subscribe(subject).await.is_err(), "{subject:?}");
    }
    let header = [("a", "b\r\nc".to_owned())];
    assert!(bus.publish("a", "x".into(), &header).await.is_err());
    let large = vec![0; bus.server().max_payload + 1];
    assert!(bus.publish("a", large.into(), &[]).await.is_err());
    bus.round_trip().await.unwrap();
}

#[tokio::test]
async fn the_last_handle_dropped_closes_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let bus = server.connect().await;
    let mut state = bus.state();
    drop(bus);
    let closed = state.wait_for(|state| *state == ConnectionState::Closed);
    // Either the state says so, or nobody is left to say anything.
    let _ = tokio::time::timeout(Duration::from_secs(10), closed)
        .await
        .unwrap();
}
