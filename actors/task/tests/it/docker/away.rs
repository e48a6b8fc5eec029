//! The engine stops while containers run, and comes back.

use std::path::Path;

use loom_task::driver::{Adopted, Driver, DriverError};
use loom_tests::docker::OwnEngine;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::rig::{PATIENCE, Rig, sh};

#[tokio::test(flavor = "multi_thread")]
async fn with_live_restore_a_container_is_unknown_and_found_again() {
    let Some(mut engine) = OwnEngine::start(true) else {
        return;
    };
    let rig = Rig::at(Some(&engine.socket()));
    let wanted = sh("i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done");
    let started = rig.start(&wanted).await;
    rig.until_said(wanted.run, "line 10").await;
    let waiting = rig.driver.clone();
    let run = wanted.run;
    let waits = tokio::spawn(async move { waiting.wait(run).await });
    tokio::task::block_in_place(|| engine.stop());
    let outcome = tokio::time::timeout(PATIENCE, waits)
        .await
        .expect("it is told")
        .unwrap();
    let why = outcome.unwrap_err().to_string();
    assert!(
        why.contains("is away") && why.contains("not known"),
        "{why}"
    );
    assert!(rig.driver.adopt(run).await.is_err(), "nobody can say");
    // Signals go on: the kernel needs no engine for them.
    rig.driver
        .signal(run, Signal::SIGWINCH, false)
        .await
        .unwrap();
    tokio::task::block_in_place(|| engine.start_again());
    let adopted = rig.driver.adopt(run).await.unwrap();
    let Adopted::Running { started: again, .. } = adopted else {
        panic!("{adopted:?}");
    };
    assert_eq!(again, started, "nothing about it has changed");
    let seen = rig.so_far(run).len();
    rig.until_said(run, &format!("line {}", seen + 50)).await;
    rig.driver.signal(run, Signal::SIGKILL, true).await.unwrap();
    assert_eq!(rig.end(run).await.exit.signal, Some(9));
    let text = rig.text(run).await;
    let expected: Vec<_> = (0..text.len())
        .map(|number| format!("line {number}"))
        .collect();
    assert_eq!(text, expected, "no line is lost or doubled");
    rig.driver.remove(run, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_live_restore_a_container_ends_with_its_engine() {
    let Some(mut engine) = OwnEngine::start(false) else {
        return;
    };
    let rig = Rig::at(Some(&engine.socket()));
    let wanted = sh("trap 'exit 9' TERM; while :; do sleep 0.05; done");
    rig.start(&wanted).await;
    let waiting = rig.driver.clone();
    let run = wanted.run;
    let waits = tokio::spawn(async move { waiting.wait(run).await });
    tokio::task::block_in_place(|| engine.stop());
    let outcome = tokio::time::timeout(PATIENCE, waits)
        .await
        .expect("it is told")
        .unwrap();
    tokio::task::block_in_place(|| engine.start_again());
    // Whether the engine could still say how it ended is its own affair; afterwards it can.
    let ended = match outcome {
        Ok(ended) => ended,
        Err(_) => rig.end(run).await,
    };
    assert_eq!(ended.exit.code, Some(9), "{ended:?}");
    rig.driver.remove(run, true).await.unwrap();
}

/// Hands everything on to the engine, but breaks off in the middle of a start.
fn breaks_off_starts(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut engine = UnixStream::connect("/var/run/docker.sock").await.unwrap();
                let mut head = vec![0; 64 * 1024];
                let read = client.read(&mut head).await.unwrap_or(0);
                engine.write_all(&head[..read]).await.unwrap();
                let first = String::from_utf8_lossy(&head[..read]).into_owned();
                let line = first.lines().next().unwrap_or_default();
                if line.starts_with("POST") && line.contains("/start") {
                    // The engine has done it once it answers.
                    let _ = engine.read(&mut head).await;
                    return;
                }
                let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_nobody_answers_is_asked_after_and_not_done_again() {
    let Some(whole) = Rig::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    breaks_off_starts(&socket);
    let rig = Rig::of_cluster(&socket, &whole.cluster);
    let wanted = sh("sleep 300");
    rig.driver
        .prepare(wanted.clone(), Box::new(drop))
        .await
        .unwrap();
    let started = rig.driver.start(wanted.clone()).await;
    let Err(DriverError::Uncertain(why)) = started else {
        panic!("{started:?}");
    };
    assert!(why.contains("while a container was being started"), "{why}");
    let adopted = rig.driver.adopt(wanted.run).await.unwrap();
    assert!(matches!(adopted, Adopted::Running { .. }), "{adopted:?}");
}
