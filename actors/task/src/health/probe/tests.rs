//! Probes against listeners of the test.

use std::sync::Arc;

use loom_schemas::spec::HealthSpec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::driver::sim::SimDriver;
use crate::machine::samples::{assigned, health, id};

/// A listener that reads a little and answers with these bytes, or keeps silent.
async fn answers(bytes: Option<&'static [u8]>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                match bytes {
                    Some(bytes) => drop(stream.write_all(bytes).await),
                    None => std::future::pending().await,
                }
            });
        }
    });
    port
}

/// A port that nobody listens on.
async fn unused() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

fn checked(check: HealthCheck, port: u16) -> Assigned {
    let mut assigned = assigned();
    assigned.ports.insert(name("http"), port);
    assigned.task.health = Some(HealthSpec {
        check,
        timeout: Millis(300),
        ..health()
    });
    assigned
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn http(path: &str) -> HealthCheck {
    HealthCheck::Http {
        path: path.into(),
        port: name("http"),
    }
}

fn probe(assigned: &Assigned, kind: DriverKind) -> Result<Option<Probe>, String> {
    let node = name("node-1");
    let address = "127.0.0.1";
    let place = Place {
        node: &node,
        address,
        labels: &std::collections::BTreeMap::new(),
        log_dirs: &crate::output::LogDirs::default(),
    };
    Probe::new(assigned, place, kind)
}

/// What a probe of a process comes to.
async fn made(check: HealthCheck, port: u16) -> Outcome {
    made_of(check, port, DriverKind::Process).await
}

async fn made_of(check: HealthCheck, port: u16, kind: DriverKind) -> Outcome {
    let probe = probe(&checked(check, port), kind).unwrap().unwrap();
    match &probe.ask {
        Ask::Http { path, target } => probe.outcome(probe.http(target, path).await),
        Ask::Tcp { target } => probe.outcome(probe.tcp(target).await),
        Ask::Exec { .. } => panic!("a driver is asked"),
    }
}

fn failed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_is_healthy_from_200_to_399() {
    for (answer, good) in [
        (&b"HTTP/1.1 200 OK\r\n\r\nhello"[..], true),
        (
            b"HTTP/1.0 302 Found\r\nLocation: http://nowhere/\r\n\r\n",
            true,
        ),
        (b"HTTP/1.1 399 Odd\r\n\r\n", true),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", false),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
    ] {
        let port = answers(Some(answer)).await;
        let outcome = made(http("/up"), port).await;
        if good {
            assert_eq!(outcome, Outcome::Healthy, "{answer:?}");
        } else {
            let status = String::from_utf8_lossy(&answer[9..12]).into_owned();
            assert_eq!(
                failed(outcome),
                format!("http GET /up on port {port}: {status}")
            );
        }
    }
}

#[tokio::test]
async fn why_there_is_no_answer_is_told() {
    let silent = answers(None).await;
    let said = failed(made(http("/"), silent).await);
    assert!(said.ends_with(": no answer within 300ms"), "{said}");
    let mute = answers(Some(b"")).await;
    let said = failed(made(http("/"), mute).await);
    assert!(said.ends_with(": closed without an answer"), "{said}");
    let other = answers(Some(b"SSH-2.0-x\r\n")).await;
    let said = failed(made(http("/"), other).await);
    assert!(said.ends_with(": the answer is not HTTP"), "{said}");
    let gone = unused().await;
    let said = failed(made(http("/"), gone).await);
    assert_eq!(
        said,
        format!("http GET / on port {gone}: connection refused")
    );
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    assert_eq!(made(http("/"), port).await, Outcome::Healthy);
    tokio::time::timeout(Duration::from_secs(20), serving)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_connection_that_is_taken_is_healthy() {
    let tcp = || HealthCheck::Tcp { port: name("http") };
    let silent = answers(None).await;
    assert_eq!(made(tcp(), silent).await, Outcome::Healthy);
    let gone = unused().await;
    let said = failed(made(tcp(), gone).await);
    assert_eq!(said, format!("tcp on port {gone}: connection refused"));
}

#[tokio::test]
async fn a_proxy_with_nothing_behind_it_is_not_healthy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let tcp = || HealthCheck::Tcp { port: name("http") };
    // Whatever is neither a process nor played is a container's.
    let said = failed(made_of(tcp(), port, DriverKind::Unknown).await);
    assert!(said.contains("nothing listens"), "{said}");
    assert_eq!(made(tcp(), port).await, Outcome::Healthy);
    let silent = answers(None).await;
    assert_eq!(
        made_of(tcp(), silent, DriverKind::Unknown).await,
        Outcome::Healthy
    );
}

#[tokio::test]
async fn ipv6_loopback_is_asked_too() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move { listener.accept().await.map(drop) });
    let check = HealthCheck::Tcp { port: name("http") };
    assert_eq!(made(check, port).await, Outcome::Healthy);
    accepting.await.unwrap().unwrap();
}

#[test]
fn a_container_is_not_asked_on_loopback_first() {
    let hosts = |address, kind| Target::new(80, address, kind).hosts;
    let process = hosts("10.0.0.7", DriverKind::Process);
    assert_eq!(process, ["127.0.0.1", "10.0.0.7", "::1"]);
    let container = hosts("10.0.0.7", DriverKind::Unknown);
    assert_eq!(container, ["10.0.0.7", "127.0.0.1", "::1"]);
    assert_eq!(hosts("[::1]", DriverKind::Process), ["127.0.0.1", "::1"]);
}

#[test]
fn references_are_filled_in() {
    let exec = ["check", "${port.http}", "${task.index}"]
        .map(str::to_owned)
        .to_vec();
    let probe = probe(&checked(HealthCheck::Exec(exec), 8080), DriverKind::Process);
    let argv = ["check", "8080", "0"].map(str::to_owned).to_vec();
    assert_eq!(probe.unwrap().unwrap().ask, Ask::Exec { argv });
    let mut without = checked(http("/"), 1);
    without.ports.clear();
    let said = super::tests::probe(&without, DriverKind::Process).unwrap_err();
    assert_eq!(said, "the run has no port `http`");
    without.task.health = None;
    assert_eq!(super::tests::probe(&without, DriverKind::Process), Ok(None));
}

#[tokio::test]
async fn what_is_played_is_not_asked() {
    let driver = Arc::new(SimDriver::new());
    let probe = probe(&checked(http("/"), 1), DriverKind::Sim)
        .unwrap()
        .unwrap();
    let said = failed(probe.make(&*driver, id(1)).await);
    assert!(said.starts_with("http GET / on port 1: "), "{said}");
}

#[test]
fn how_a_program_ended_is_told_in_a_line() {
    let exec = HealthCheck::Exec(vec!["/bin/check".into()]);
    let probe = probe(&checked(exec, 1), DriverKind::Process)
        .unwrap()
        .unwrap();
    let ending = |outcome: ExecOutcome| failed(probe.outcome(Err(probe.ending(&outcome))));
    let ended = |code, signal, output: &[u8]| ExecOutcome {
        code,
        signal,
        output: output.to_vec(),
        ..ExecOutcome::default()
    };
    let said = ending(ended(
        Some(3),
        None,
        b"trying\nno\x1b[0m such\xff table\n\n",
    ));
    assert_eq!(
        said,
        "exec /bin/check: exit code 3: no [0m such\u{fffd} table"
    );
    assert_eq!(
        ending(ended(Some(1), None, b"")),
        "exec /bin/check: exit code 1"
    );
    assert_eq!(
        ending(ended(None, Some(9), b"")),
        "exec /bin/check: ended by SIGKILL"
    );
    let late = ExecOutcome {
        timed_out: true,
        ..ExecOutcome::default()
    };
    assert_eq!(ending(late), "exec /bin/check: no answer within 300ms");
    let long = ending(ended(Some(1), None, &[b'x'; 5000]));
    assert!(long.len() < 250, "{long}");
}
