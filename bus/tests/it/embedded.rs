//! The embedded server: started, started twice, killed, stopped and started again.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use async_nats::jetstream;
use loom_bus::connection::{Bus, ConnectOptions, Login};
use loom_bus::server::{Embedded, EmbeddedOptions, ServerError};

fn options(dir: &Path) -> EmbeddedOptions {
    let mut options = EmbeddedOptions::new(dir);
    options.listen.set_port(0);
    options
}

async fn orch(server: &Embedded) -> (Bus, jetstream::Context) {
    let login = server.orch_login();
    let options = ConnectOptions {
        url: server.url().to_owned(),
        login: login.clone(),
        require_jetstream: true,
        ..ConnectOptions::default()
    };
    let bus = Bus::connect(options).await.unwrap();
    let Login::User { name, password } = login else {
        panic!("managers have a password");
    };
    let raw = async_nats::ConnectOptions::new().user_and_password(name, password);
    let client = raw.connect(server.url()).await.unwrap();
    (bus, jetstream::new(client))
}

fn stream() -> jetstream::stream::Config {
    jetstream::stream::Config {
        name: "KEPT".to_owned(),
        subjects: vec!["kept".to_owned()],
        ..Default::default()
    }
}

#[tokio::test]
async fn the_second_start_on_a_directory_names_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::start(options(dir.path())).await.unwrap();
    let error = Embedded::start(options(dir.path())).await.unwrap_err();
    let own = std::process::id();
    assert!(
        matches!(error, ServerError::Locked { pid, .. } if pid == own),
        "{error}"
    );
    assert!(error.to_string().contains(&own.to_string()));
    first.stop().await;
    Embedded::start(options(dir.path()))
        .await
        .unwrap()
        .stop()
        .await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Embedded::start(options(dir.path())).await.unwrap();
    let mut second = options(other.path());
    second.listen = first.address();
    let error = Embedded::start(second).await.unwrap_err();
    assert!(matches!(error, ServerError::PortInUse { .. }), "{error}");
    assert!(error.to_string().contains(&first.address().to_string()));
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Embedded::start(options(&file.join("bus")))
        .await
        .unwrap_err();
    assert!(matches!(error, ServerError::Directory { .. }), "{error}");
    let line = error.to_string();
    assert!(
        line.contains("file/bus") && line.contains("not a directory"),
        "{line}"
    );
    // Not writable even for root.
    let error = Embedded::start(options(Path::new("/proc/loom")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/proc/loom"), "{error}");
}

#[tokio::test]
async fn what_is_no_nats_server_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (name, says) in [("old", "nats-server: v2.9.10"), ("other", "hello")] {
        let program = dir.path().join(name);
        std::fs::write(&program, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let mut options = options(&dir.path().join("bus"));
        options.binary = Some(program);
        let error = Embedded::start(options).await.unwrap_err();
        let line = error.to_string();
        assert!(line.contains(name), "{line}");
        assert_eq!(name == "old", line.contains("2.15.1"), "{line}");
    }
}

#[tokio::test]
async fn an_address_off_loopback_is_refused_unless_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut open = options(dir.path());
    open.listen = ([0, 0, 0, 0], 0).into();
    let error = Embedded::start(open.clone()).await.unwrap_err();
    assert!(matches!(error, ServerError::Exposed { .. }), "{error}");
    open.insecure = true;
    open.anonymous = false;
    let server = Embedded::start(open).await.unwrap();
    assert!(server.url().starts_with("nats://127.0.0.1:"));
    let anonymous = ConnectOptions {
        url: server.url().to_owned(),
        ..ConnectOptions::default()
    };
    assert!(Bus::connect(anonymous.clone()).await.is_err());
    let user = ConnectOptions {
        login: server.user_login(),
        ..anonymous
    };
    Bus::connect(user).await.unwrap();
}

#[tokio::test]
async fn a_broken_configuration_is_told_in_the_servers_words() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the server wants to make a directory.
    std::fs::write(dir.path().join("store"), "").unwrap();
    let error = Embedded::start(options(dir.path())).await.unwrap_err();
    assert!(matches!(error, ServerError::Ended { .. }), "{error}");
    assert!(error.to_string().contains("nats-server.log"), "{error}");
}

#[tokio::test]
async fn started_again_it_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::start(options(dir.path())).await.unwrap();
    let address = first.address();
    let (bus, context) = orch(&first).await;
    context.create_stream(stream()).await.unwrap();
    context
        .publish("kept", "x".into())
        .await
        .unwrap()
        .await
        .unwrap();
    let mut state = bus.state();
    first.stop().await;

    let second = Embedded::start(options(dir.path())).await.unwrap();
    assert_eq!(second.address(), address, "the port is remembered");
    let (_, context) = orch(&second).await;
    let info = context.get_stream("KEPT").await.unwrap().get_info().await;
    assert_eq!(info.unwrap().state.messages, 1);
    // The old connection finds its way back by itself: same port, same password.
    let connected = |state: &_| *state == loom_bus::connection::ConnectionState::Connected;
    state.wait_for(connected).await.unwrap();
    bus.round_trip().await.unwrap();
}

#[tokio::test]
async fn its_unexpected_end_is_noticed_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::start(options(dir.path())).await.unwrap();
    let (_, context) = orch(&first).await;
    context.create_stream(stream()).await.unwrap();
    for _ in 0..50 {
        context
            .publish("kept", "x".into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let died = tokio::spawn(first.died());
    let pid = first.pid().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid])
        .status();
    assert!(killed.unwrap().success());
    let how = died.await.unwrap();
    assert!(how.contains("signal: 9"), "{how}");
    assert_eq!(first.died().await, how, "it stays known");
    drop(first);

    let second = Embedded::start(options(dir.path())).await.unwrap();
    let (_, context) = orch(&second).await;
    let info = context.get_stream("KEPT").await.unwrap().get_info().await;
    assert_eq!(info.unwrap().state.messages, 50);
}

#[tokio::test]
async fn passwords_and_streams_are_for_the_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let bus = dir.path().join("bus");
    let server = Embedded::start(options(&bus)).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&bus), 0o700);
    for file in ["passwords.json", "nats-server.conf"] {
        assert_eq!(mode(&bus.join(file)), 0o600, "{file}");
    }
    assert!(!format!("{server:?}").contains("password:"));
}
