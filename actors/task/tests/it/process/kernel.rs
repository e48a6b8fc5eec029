//! Limits, pauses and what the kernel says of them.

use std::time::Duration;

use loom_schemas::units::{Bytes, MilliCores};
use loom_task::driver::{Adopted, Driver};
use nix::sys::signal::Signal;

use super::rig::{Rig, driver, has_cgroup, pids, sh, until};

/// A number that grows for as long as the run is scheduled.
fn beat(rig: &Rig, run: loom_schemas::ids::RunId) -> u64 {
    std::fs::metadata(rig.directory_of(run).join("work/beat")).map_or(0, |data| data.len())
}

async fn a_paused_run_stands_still(cgroups: bool) {
    let rig = Rig::with(cgroups);
    let wanted = sh("while :; do echo >> beat; sleep 0.005; done & wait");
    let started = rig.start(&wanted).await;
    let said = started
        .unenforced
        .iter()
        .any(|phrase| phrase.contains("SIGSTOP"));
    assert!(cgroups || said, "{started:?}");
    until("it beats", || beat(&rig, wanted.run) > 0).await;
    rig.driver.pause(wanted.run).await.unwrap();
    let still = beat(&rig, wanted.run);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(beat(&rig, wanted.run), still);
    let second = driver(rig.directory.path(), cgroups);
    let adopted = second.adopt(wanted.run).await.unwrap();
    assert!(
        matches!(adopted, Adopted::Running { paused: true, .. }),
        "{adopted:?}"
    );
    rig.driver.resume(wanted.run).await.unwrap();
    until("it beats again", || beat(&rig, wanted.run) > still).await;
    let adopted = second.adopt(wanted.run).await.unwrap();
    assert!(
        matches!(adopted, Adopted::Running { paused: false, .. }),
        "{adopted:?}"
    );
    rig.driver.pause(wanted.run).await.unwrap();
    rig.driver
        .signal(wanted.run, Signal::SIGKILL, true)
        .await
        .unwrap();
    assert_eq!(rig.end(wanted.run).await.exit.signal, Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_paused_resumed_and_killed_while_paused() {
    a_paused_run_stands_still(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_paused_resumed_and_killed_while_paused_without_cgroups() {
    a_paused_run_stands_still(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_main_process_can_be_killed_alone() {
    let rig = Rig::new();
    let wanted = sh("sleep 300");
    rig.start(&wanted).await;
    rig.driver.pause(wanted.run).await.unwrap();
    rig.driver
        .signal(wanted.run, Signal::SIGKILL, false)
        .await
        .unwrap();
    assert_eq!(rig.end(wanted.run).await.exit.signal, Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_limits_are_not_held_is_said() {
    let rig = Rig::with(false);
    let mut wanted = sh("true");
    wanted.resources.cpu_limit = Some(MilliCores(500));
    let unenforced = rig.start(&wanted).await.unenforced;
    for limit in [
        "cpu share",
        "cpu limit",
        "memory limit",
        "pids limit",
        "pause",
    ] {
        assert!(
            unenforced.iter().any(|phrase| phrase.starts_with(limit)),
            "{limit}"
        );
    }
    rig.end(wanted.run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_is_said_of_the_main_process() {
    let rig = Rig::new();
    if !has_cgroup("memory.limit_in_bytes") && !has_cgroup("memory.max") {
        return;
    }
    let mut wanted = sh("x=$(head -c 300000000 /dev/zero | tr '\\0' x)");
    wanted.resources.memory = Bytes::mib(32);
    assert_eq!(rig.start(&wanted).await.unenforced, [""; 0]);
    let ended = rig.end(wanted.run).await;
    let expected = (Some(9), true);
    assert_eq!(
        (ended.exit.signal, ended.exit.out_of_memory),
        expected,
        "{ended:?}"
    );

    // A child alone: the main process goes on and exits as it likes.
    let mut wanted = sh("(x=$(head -c 300000000 /dev/zero | tr '\\0' x)); exit 0");
    wanted.resources.memory = Bytes::mib(32);
    let ended = rig.run(&wanted).await;
    assert_eq!(
        (ended.exit.code, ended.exit.out_of_memory),
        (Some(0), false)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_processes_than_allowed() {
    let rig = Rig::new();
    if !has_cgroup("pids.max") {
        return;
    }
    // The shell and three more.
    let mut wanted = sh("for i in 1 2 3 4 5 6; do sleep 300 & done 2>/dev/null; echo all");
    wanted.resources.pids = Some(4);
    let ended = rig.run(&wanted).await;
    assert_ne!(ended.exit.code, Some(0), "the fourth fork fails");
    let mut wanted = sh("for i in 1 2 3; do sleep 300 & done; echo all");
    wanted.resources.pids = Some(4);
    rig.run(&wanted).await;
    assert_eq!(rig.text(wanted.run).await, ["all"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_has_control_groups_of_its_own_until_it_ends() {
    let rig = Rig::new();
    if !has_cgroup("cgroup.procs") {
        return;
    }
    let wanted = sh("cat /proc/self/cgroup; sleep 300");
    rig.start(&wanted).await;
    let directory = rig.directory_of(wanted.run);
    let id = wanted.run.to_string();
    let lines = || loom_task::output::tail(&directory, 100).unwrap();
    until("its groups", || {
        lines().iter().any(|line| line.text.contains(&id))
    })
    .await;
    let (shim, _) = pids(&directory).unwrap();
    let tree = lines()
        .iter()
        .find(|line| line.text.contains(&id))
        .unwrap()
        .text
        .clone();
    assert!(tree.contains("/loom/"), "{tree}");
    let of_shim = std::fs::read_to_string(format!("/proc/{shim}/cgroup")).unwrap();
    assert!(
        of_shim.contains("/shims"),
        "it is not frozen with the tree: {of_shim}"
    );
    rig.driver
        .signal(wanted.run, Signal::SIGKILL, true)
        .await
        .unwrap();
    rig.end(wanted.run).await;
    assert!(!groups().contains(&id), "they are removed after it");
}

pub(super) fn groups() -> String {
    let found = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-path", "*/loom/*"])
        .output()
        .unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_without_a_run_are_killed_and_removed() {
    let rig = Rig::new();
    if !has_cgroup("cgroup.procs") {
        return;
    }
    let wanted = sh("sleep 300");
    rig.start(&wanted).await;
    let (_, main) = pids(&rig.directory_of(wanted.run)).unwrap();
    std::fs::remove_dir_all(rig.directory_of(wanted.run)).unwrap();
    let second = driver(rig.directory.path(), true);
    assert_eq!(second.inventory().await.unwrap(), []);
    until("it was killed", || !super::rig::is_alive(main)).await;
    let id = wanted.run.to_string();
    until("no group is left", || !groups().contains(&id)).await;
}
