//! The engine stops while containers run, and comes back.

use loom_task::driver::{Adopted, Driver};
use loom_tests::docker::OwnEngine;
use nix::sys::signal::Signal;

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
    assert_eq!((again.pid, again.at), (started.pid, started.at));
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
