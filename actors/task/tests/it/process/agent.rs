//! Runs outlive the agent that started them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use loom_task::driver::process::{ProcessDriver, ProcessOptions};
use loom_task::driver::{Adopted, Driver};
use nix::sys::signal::Signal;

use super::rig::{PATIENCE, Rig, driver, is_alive, kill, pids, sh, until};

const DIRECTORY: &str = "LOOM_TEST_AGENT_DIRECTORY";

/// Not a test of its own: the agent that is killed in the one below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is started by another test"]
async fn an_agent_to_be_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let driver = driver(&directory, true);
    let wanted = sh("echo begun; while ! [ -e ../../../go ]; do sleep 0.01; done; echo on; exit 9");
    let started = driver.start(wanted.clone()).await.unwrap();
    let note = format!("{} {}\n", wanted.run, started.pid.unwrap());
    fs::write(directory.join("note.new"), note).unwrap();
    fs::rename(directory.join("note.new"), directory.join("note")).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_survives_its_agents_death_and_is_adopted_with_the_same_pid() {
    let rig = Rig::new();
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args([
            "process::agent::an_agent_to_be_killed",
            "--exact",
            "--ignored",
        ])
        .env(DIRECTORY, rig.directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let note = rig.directory.path().join("note");
    until("the agent's note", || note.exists()).await;
    let note = fs::read_to_string(note).unwrap();
    let (run, pid) = note.trim().split_once(' ').unwrap();
    let (run, pid) = (run.parse().unwrap(), pid.parse::<u32>().unwrap());
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(is_alive(pid));

    assert_eq!(rig.driver.inventory().await.unwrap(), [run]);
    match rig.driver.adopt(run).await.unwrap() {
        Adopted::Running {
            started,
            paused: false,
        } => assert_eq!(started.pid, Some(pid)),
        other => panic!("{other:?}"),
    }
    fs::write(rig.directory.path().join("go"), "").unwrap();
    assert_eq!(rig.end(run).await.exit.code, Some(9));
    assert_eq!(rig.text(run).await, ["begun", "on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_nobody_saw_is_found() {
    let rig = Rig::new();
    let wanted = sh("exit 4");
    let started = rig.start(&wanted).await;
    let ended = rig.end(wanted.run).await;
    let second = driver(rig.directory.path(), true);
    let adopted = second.adopt(wanted.run).await.unwrap();
    assert_eq!(
        adopted,
        Adopted::Ended {
            started: Some(started),
            ended
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_outlives_its_executable() {
    let rig = Rig::new();
    let shim = rig.directory.path().join("loomctl");
    fs::copy(env!("CARGO_BIN_EXE_loom-shim"), &shim).unwrap();
    let mut options = ProcessOptions::new(rig.directory.path());
    options.shim = Some(shim.clone());
    let old = ProcessDriver::new(options).unwrap();
    let wanted = sh("while ! [ -e ../../../go ]; do sleep 0.01; done; echo on; exit 6");
    let started = start_retrying(&old, &wanted).await;
    // An upgrade: another file takes the name.
    fs::write(rig.directory.path().join("new"), "another program").unwrap();
    fs::rename(rig.directory.path().join("new"), &shim).unwrap();
    match rig.driver.adopt(wanted.run).await.unwrap() {
        Adopted::Running { started: found, .. } => assert_eq!(found, started),
        other => panic!("{other:?}"),
    }
    fs::write(rig.directory.path().join("go"), "").unwrap();
    assert_eq!(rig.end(wanted.run).await.exit.code, Some(6));
    assert_eq!(rig.text(wanted.run).await, ["on"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_was_born_ignoring_the_program_does_not_ignore() {
    let mut rig = Rig::new();
    let shim = rig.directory.path().join("ignoring");
    let script = format!(
        "#!/bin/sh\ntrap '' INT QUIT HUP USR1\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_loom-shim")
    );
    fs::write(&shim, script).unwrap();
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
    rig.use_shim(&shim, true);
    let wanted = sh("grep SigIgn /proc/self/status; kill -QUIT $$; sleep 5");
    start_retrying(&rig.driver, &wanted).await;
    assert_eq!(rig.end(wanted.run).await.exit.signal, Some(3));
    let text = rig.text(wanted.run).await.remove(0);
    let mask = text.trim_start_matches("SigIgn:").trim();
    let mask = u64::from_str_radix(mask, 16).unwrap();
    assert_eq!(mask & 0x0fff_ffff, 0, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn removals_of_one_run_wait_for_each_other() {
    let rig = Rig::new();
    let wanted = sh("exit 4");
    rig.run(&wanted).await;
    let second = driver(rig.directory.path(), true);
    let removals = (0..8).map(|_| second.remove(wanted.run, true));
    for outcome in futures::future::join_all(removals).await {
        outcome.unwrap();
    }
    assert!(!rig.directory_of(wanted.run).exists());
}

/// A file just written cannot be executed while another test's fork still has it open.
async fn start_retrying(
    driver: &ProcessDriver,
    wanted: &loom_task::launch::Launch,
) -> loom_task::driver::Started {
    let begun = std::time::Instant::now();
    loop {
        match driver.start(wanted.clone()).await {
            Ok(started) => return started,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// A directory as an earlier agent might have left it.
fn leave(rig: &Rig, from: &Path) -> loom_schemas::ids::RunId {
    let run = sh("").run;
    let directory = rig.directory_of(run);
    fs::create_dir(&directory).unwrap();
    for name in ["launch", "started", "status"] {
        fs::copy(from.join(name), directory.join(name)).unwrap();
    }
    // The groups in it are gone and no other run's.
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn torn_and_foreign_records_are_never_trusted() {
    let rig = Rig::new();
    let wanted = sh("exit 4");
    rig.run(&wanted).await;
    let model = rig.directory_of(wanted.run);
    let second = || driver(rig.directory.path(), true);

    // How it ended is lost: it ended all the same, and the reason says what is known.
    for garbage in [&b""[..], b"loom-status 1\0code=0\0", b"\xff\xfe\0\0end\0"] {
        let run = leave(&rig, &model);
        fs::write(rig.directory_of(run).join("status"), garbage).unwrap();
        match second().adopt(run).await.unwrap() {
            Adopted::Ended {
                started: Some(_),
                ended,
            } => {
                assert_eq!(ended.exit.code, None);
                assert!(ended.reason.unwrap().contains("cannot be read"));
            }
            other => panic!("{other:?}"),
        }
    }
    // Another boot without a status: nothing runs and nothing is known.
    let run = leave(&rig, &model);
    let directory = rig.directory_of(run);
    fs::remove_file(directory.join("status")).unwrap();
    let started = fs::read(directory.join("started")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let other = replaced(&started, boot.trim(), "another-boot");
    fs::write(directory.join("started"), other).unwrap();
    assert_eq!(second().adopt(run).await.unwrap(), Adopted::Gone);
    // With a status it ended, whenever that was.
    fs::copy(model.join("status"), directory.join("status")).unwrap();
    assert!(matches!(
        second().adopt(run).await.unwrap(),
        Adopted::Ended { .. }
    ));
    // A launch that never came to a shim.
    let run = leave(&rig, &model);
    for name in ["started", "status"] {
        fs::remove_file(rig.directory_of(run).join(name)).unwrap();
    }
    assert_eq!(second().adopt(run).await.unwrap(), Adopted::Gone);
    // Nothing but a directory.
    fs::remove_file(rig.directory_of(run).join("launch")).unwrap();
    assert_eq!(second().adopt(run).await.unwrap(), Adopted::Gone);
    second().remove(run, true).await.unwrap();
    assert!(!rig.directory_of(run).exists());
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8(bytes.to_vec())
        .unwrap()
        .replace(from, to)
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_with_the_same_number_is_never_taken_for_ours() {
    let rig = Rig::new();
    let wanted = sh("exit 4");
    rig.run(&wanted).await;
    let model = rig.directory_of(wanted.run);
    let (shim, main) = pids(&model).unwrap();
    // Numbers do not come round within one tick of the kernel's clock; here it must be another.
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let mut stranger = Command::new("sleep").arg("300").spawn().unwrap();
    let run = leave(&rig, &model);
    let directory = rig.directory_of(run);
    fs::remove_file(directory.join("status")).unwrap();
    // The stranger's number, with the start time of ours.
    let started = fs::read(directory.join("started")).unwrap();
    let started = replaced(
        &started,
        &format!("shim={shim} "),
        &format!("shim={} ", stranger.id()),
    );
    let started = String::from_utf8(started).unwrap();
    let started = started.replace(
        &format!("main={main} "),
        &format!("main={} ", stranger.id()),
    );
    fs::write(directory.join("started"), started).unwrap();
    let adopted = driver(rig.directory.path(), true).adopt(run).await.unwrap();
    assert!(matches!(adopted, Adopted::Ended { .. }), "{adopted:?}");
    assert_eq!(stranger.try_wait().unwrap(), None, "it was left alone");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_record_was_destroyed_is_killed() {
    let rig = Rig::new();
    let wanted = sh("sleep 300");
    rig.start(&wanted).await;
    let directory = rig.directory_of(wanted.run);
    let (_, main) = pids(&directory).unwrap();
    fs::write(directory.join("started"), "garbage").unwrap();
    if !super::rig::has_cgroup("cgroup.procs") {
        kill(main, Signal::SIGKILL);
    }
    let adopted = driver(rig.directory.path(), true)
        .adopt(wanted.run)
        .await
        .unwrap();
    match adopted {
        Adopted::Ended {
            started: None,
            ended,
        } => assert_eq!(ended.exit.signal, Some(9)),
        other => panic!("{other:?}"),
    }
    until("it was killed", || !is_alive(main)).await;
}
