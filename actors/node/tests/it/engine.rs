//! A Docker Engine that is started after the node.

use std::path::Path;
use std::time::Duration;

use loom_node::NodeOptions;
use loom_schemas::words::DriverKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::world::World;

/// What of an engine a node asks that has no containers: one of this version, until it is dropped.
struct Engine(JoinHandle<()>);

impl Drop for Engine {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Engine {
    fn start(socket: &Path, version: &'static str) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        Self(tokio::spawn(async move {
            // Dropped with the loop, as an engine's connections end with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(answer(client, version));
            }
        }))
    }
}

async fn answer(mut client: UnixStream, version: &str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let body = match path {
        "/_ping" => "OK".to_owned(),
        path if path.contains("/info") => {
            format!(
                r#"{{"ServerVersion":"{version}","LiveRestoreEnabled":true,"Driver":"overlay2"}}"#
            )
        }
        path if path.contains("/events") => return std::future::pending().await,
        _ => "[]".to_owned(),
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nContent-Length: \
         {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = client.write_all(answer.as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_comes_later_is_offered_then_and_as_it_is_when_it_comes_again() {
    let world = World::new().await;
    let socket = world.directory.path().join("docker.sock");
    let options = NodeOptions {
        drivers: vec![DriverKind::Sim],
        find_docker: true,
        docker_socket: Some(socket.clone()),
        ..world.options("node-1")
    };
    let node = world.start(options).await;
    let first = world.leader.said().hellos[0].info.clone();
    assert_eq!(first.drivers, [DriverKind::Sim]);
    for version in ["20.10.24", "29.0.1"] {
        let engine = Engine::start(&socket, version);
        world
            .until("it offers containers", |said| {
                let info = &said.hellos.last().unwrap().info;
                let told = info.attributes.get("docker.version");
                info.drivers.contains(&DriverKind::Docker) && told.is_some_and(|it| it == version)
            })
            .await;
        drop(engine);
    }
    tokio::time::timeout(Duration::from_secs(30), node.kill())
        .await
        .unwrap();
}
