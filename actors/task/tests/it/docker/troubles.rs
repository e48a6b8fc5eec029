//! What goes wrong with a container, and what its user is told.

use std::os::unix::fs::PermissionsExt;

use loom_schemas::spec::Pull;
use loom_schemas::units::Bytes;
use loom_task::driver::Driver;
use loom_tests::docker::{IMAGE, OwnEngine, Registry, docker, is_there};
use nix::sys::signal::Signal;

use super::rig::{Rig, launch, sh};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_the_image_is_named() {
    let Some(rig) = Rig::new() else { return };
    let (hopeless, why) = rig.refusal(&launch(IMAGE, &["no-such-program"])).await;
    assert!(
        hopeless && why.contains("program `no-such-program` was not found in image"),
        "{why}"
    );
    let (hopeless, why) = rig.refusal(&launch(IMAGE, &["/etc"])).await;
    assert!(hopeless && why.contains("cannot be executed"), "{why}");
    let mut wanted = sh("true");
    wanted.user = Some("nobodyhere".into());
    let (hopeless, why) = rig.refusal(&wanted).await;
    assert!(hopeless && why.contains("nobodyhere"), "{why}");
    let mut wanted = launch("loom-test/nowhere:7", &[]);
    wanted.container.as_mut().unwrap().image.pull = Pull::Never;
    let (hopeless, why) = rig.refusal(&wanted).await;
    assert!(
        hopeless && why.contains("`loom-test/nowhere:7` is not on this node"),
        "{why}"
    );
    let mut wanted = sh("true");
    wanted.resources.memory = Bytes::mib(1);
    let (hopeless, why) = rig.refusal(&wanted).await;
    assert!(hopeless && why.contains("more memory"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_gives_no_gpus_says_so_and_what_to_do() {
    let Some(rig) = Rig::new() else { return };
    if docker(&["info"]).contains("nvidia") {
        eprintln!("SKIPPED: the engine here gives gpus");
        return;
    }
    let mut wanted = sh("true");
    wanted.container.as_mut().unwrap().gpus = vec!["0".into()];
    let (hopeless, why) = rig.refusal(&wanted).await;
    let expected = "gpus 0: the Docker Engine of this node cannot put them into a container";
    assert!(hopeless && why.contains(expected), "{why}");
    assert!(why.contains("NVIDIA Container Toolkit"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_is_told_of_the_main_process_and_of_a_child() {
    let Some(rig) = Rig::new() else { return };
    // tail keeps all of a line without an end.
    let ended = rig.run(&launch(IMAGE, &["tail", "/dev/zero"])).await;
    assert!(ended.exit.out_of_memory, "{ended:?}");
    assert_eq!(ended.exit.signal, Some(9), "{ended:?}");
    let ended = rig.run(&sh("tail /dev/zero; exit 0")).await;
    assert!(ended.exit.out_of_memory, "{ended:?}");
    assert_eq!(ended.exit.code, Some(0), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_removed_by_hand_has_ended() {
    let Some(mut rig) = Rig::new() else { return };
    let wanted = sh("echo hello; sleep 300");
    rig.start(&wanted).await;
    rig.until_said(wanted.run, "hello").await;
    let name = format!("loom-{}", wanted.run);
    docker(&["rm", "-f", &name]);
    let ended = rig.end(wanted.run).await;
    let reason = ended.reason.unwrap_or_default();
    assert!(
        reason.contains("somebody else") && reason.contains("`docker rm"),
        "{reason}"
    );
    assert_eq!(rig.text(wanted.run).await, ["hello"]);
    rig.driver.remove(wanted.run, false).await.unwrap();
    // The same while no agent was there.
    let wanted = sh("sleep 300");
    rig.start(&wanted).await;
    rig.driver = Rig::at(None).driver.clone();
    docker(&["rm", "-f", &format!("loom-{}", wanted.run)]);
    rig.next_agent();
    let reason = rig.end(wanted.run).await.reason.unwrap_or_default();
    assert!(reason.contains("was removed by somebody else"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_killed_a_container_is_told() {
    let Some(rig) = Rig::new() else { return };
    let wanted = sh("echo hello; sleep 300");
    rig.start(&wanted).await;
    rig.until_said(wanted.run, "hello").await;
    docker(&["kill", &format!("loom-{}", wanted.run)]);
    let ended = rig.end(wanted.run).await;
    assert_eq!(ended.exit.signal, Some(9));
    let reason = ended.reason.unwrap_or_default();
    assert!(reason.contains("SIGKILL that somebody else"), "{reason}");
    // What the driver itself had killed is not laid to anybody's charge, paused or not.
    for paused in [false, true] {
        let wanted = sh("sleep 300");
        rig.start(&wanted).await;
        if paused {
            rig.driver.pause(wanted.run).await.unwrap();
        }
        let killed = rig.driver.signal(wanted.run, Signal::SIGKILL, true).await;
        killed.unwrap();
        let ended = rig.end(wanted.run).await;
        assert_eq!((ended.exit.signal, ended.reason), (Some(9), None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_a_script_does_not_find_is_named() {
    let Some(rig) = Rig::new() else { return };
    let ended = rig.run(&sh("no-such-program --flag")).await;
    let reason = ended.reason.unwrap_or_default();
    let expected = format!("program `no-such-program` was not found in image `{IMAGE}`");
    assert!(
        reason.contains("exit code 127") && reason.contains(&expected),
        "{reason}"
    );
    let ended = rig.run(&sh("echo no such thing >&2; exit 1")).await;
    assert_eq!((ended.exit.code, ended.reason), (Some(1), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_what_to_do() {
    // Room for the image of the tests, twice, and not for more.
    let Some(engine) = OwnEngine::start_small(64 << 20) else {
        return;
    };
    let Some(registry) = Registry::start_beside(Some(&engine), None) else {
        return;
    };
    let rig = Rig::at(Some(&engine.socket()));
    let image = registry.push_new("team/app:1");
    let full = engine.fill(64 * 1024);
    let (hopeless, why) = rig.refusal(&launch(&image, &["true"])).await;
    let expected = format!("image `{image}`: no space left for it on this node");
    assert!(!hopeless && why.contains(&expected), "{why}");
    assert!(why.contains("docker image prune"), "{why}");
    drop(full);
    let full = engine.fill(0);
    let (hopeless, why) = rig.refusal(&sh("true")).await;
    assert!(
        !hopeless && why.contains("no space left on this node"),
        "{why}"
    );
    drop(full);
    // With room again the same is done.
    let prepared = rig
        .driver
        .prepare(launch(&image, &["true"]), Box::new(drop));
    prepared.await.unwrap();
    assert_eq!(rig.run(&sh("true")).await.exit.code, Some(0));
}

/// An image whose only program is for a 64-bit ARM machine, or for this one if this is such.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_for_another_machine_is_named() {
    let Some(rig) = Rig::new() else { return };
    let image = format!("loom-test/other-{}:1", std::process::id());
    let directory = tempfile::tempdir().unwrap();
    let machine = if cfg!(target_arch = "aarch64") {
        0x3e
    } else {
        0xb7
    };
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(64, 0);
    program[16] = 2;
    program[18] = machine;
    program[20] = 1;
    let path = directory.path().join("app");
    std::fs::write(&path, program).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let archive = directory.path().join("image.tar").display().to_string();
    let parent = directory.path().display().to_string();
    let mut tar = std::process::Command::new("tar");
    let packed = tar.args(["-C", &parent, "-cf", &archive, "app"]).status();
    assert!(packed.unwrap().success());
    docker(&["import", &archive, &image]);
    let wanted = launch(&image, &["/app"]);
    rig.driver
        .prepare(wanted.clone(), Box::new(drop))
        .await
        .unwrap();
    let why = match rig.driver.start(wanted.clone()).await {
        Ok(_) => rig.end(wanted.run).await.reason.unwrap_or_default(),
        Err(error) => error.to_string(),
    };
    rig.driver.remove(wanted.run, true).await.unwrap();
    docker(&["image", "rm", &image]);
    assert!(
        why.contains("exec format error") && why.contains(&image),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_there_is_named() {
    let rig = Rig::at(Some("/nonexistent/docker.sock".as_ref()));
    let (hopeless, why) = rig.refusal(&sh("true")).await;
    assert!(
        !hopeless && why.contains("no Docker Engine at /nonexistent/docker.sock"),
        "{why}"
    );
    let _ = is_there();
}
