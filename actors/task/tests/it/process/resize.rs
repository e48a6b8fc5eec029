//! Limits of processes that change while they run, as the kernel has them.

use loom_schemas::spec::Resources;
use loom_schemas::units::{Bytes, MilliCores};
use loom_task::driver::{Driver, DriverError};
use loom_tests::cgroup::{Limits, has, limits};
use nix::sys::signal::Signal;

use super::rig::{Rig, driver, is_alive, pids, sh, until};

/// What a test begins with.
fn before() -> Resources {
    Resources {
        cpu: MilliCores(100),
        memory: Bytes::mib(64),
        pids: Some(20),
        ..Resources::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_changes_under_the_same_process_and_goes_back() {
    let rig = Rig::new();
    if !(has("cpu") && has("memory") && has("pids")) {
        eprintln!("SKIPPED: no control groups");
        return;
    }
    let mut wanted = sh("sleep 300 & sleep 300");
    wanted.resources = before();
    rig.start(&wanted).await;
    let (shim, main) = pids(&rig.directory_of(wanted.run)).unwrap();
    let at_first = limits(main);
    let extra = at_first.pids.unwrap() - 20;
    assert_eq!(at_first.memory, Some(64 << 20));
    let rate: u64 = 3 << 20;
    let more = Resources {
        cpu: MilliCores(500),
        cpu_limit: Some(MilliCores(1500)),
        memory: Bytes::mib(256),
        pids: Some(40),
        disk_rate: Some(Bytes(rate)),
        ..before()
    };
    let notes = rig.driver.resize(wanted.run, more.clone()).await.unwrap();
    let expected = Limits {
        cpu: Some(500),
        cpu_limit: Some(1500),
        memory: Some(256 << 20),
        pids: Some(40 + extra),
        ..limits(main)
    };
    assert_eq!(limits(main), expected);
    if has("blkio") && !notes.iter().any(|note| note.contains("no disk")) {
        assert_eq!(expected.read_rate, [rate].into(), "{notes:?}");
        assert_eq!(expected.write_rate, [rate].into());
        assert_eq!(
            limits(shim).write_rate,
            [rate].into(),
            "it writes the output"
        );
        let children = || children_of(main);
        assert!(
            children()
                .iter()
                .all(|child| limits(*child).write_rate == [rate].into())
        );
    }
    // The next agent changes what the one before has set.
    let next = driver(rig.directory.path(), true);
    next.resize(wanted.run, before()).await.unwrap();
    assert_eq!(limits(main), at_first);
    assert_eq!(pids(&rig.directory_of(wanted.run)), Some((shim, main)));
    assert!(is_alive(main));
    rig.driver
        .signal(wanted.run, Signal::SIGKILL, true)
        .await
        .unwrap();
    rig.end(wanted.run).await;
    let id = wanted.run.to_string();
    until("no group is left", || {
        !super::kernel::groups().contains(&id)
    })
    .await;
    let error = rig.driver.resize(wanted.run, more).await.unwrap_err();
    assert!(matches!(error, DriverError::Ended(_)), "{error:?}");
}

/// The processes that a process has begun.
fn children_of(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn less_memory_than_is_held_is_refused_and_nothing_else_changes() {
    let rig = Rig::new();
    if !has("memory") {
        eprintln!("SKIPPED: no control groups");
        return;
    }
    let mut wanted = sh("x=$(head -c 50000000 /dev/zero | tr '\\0' x); echo held; sleep 300");
    wanted.resources = Resources {
        memory: Bytes::mib(256),
        ..before()
    };
    rig.start(&wanted).await;
    let directory = rig.directory_of(wanted.run);
    until("it holds memory", || {
        let lines = loom_task::output::tail(&directory, 10).unwrap_or_default();
        lines.iter().any(|line| line.text == "held")
    })
    .await;
    let (_, main) = pids(&directory).unwrap();
    let held = limits(main);
    let less = Resources {
        memory: Bytes::mib(16),
        cpu: MilliCores(900),
        ..before()
    };
    let error = rig
        .driver
        .resize(wanted.run, less.clone())
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("memory limit: it holds "), "{said}");
    assert!(said.ends_with("MiB, more than 16MiB"), "{said}");
    assert_eq!(limits(main), held);
    assert!(is_alive(main), "it is not killed for it");
    let enough = Resources {
        memory: Bytes::mib(128),
        ..less
    };
    rig.driver.resize(wanted.run, enough).await.unwrap();
    assert_eq!(
        (limits(main).memory, limits(main).cpu),
        (Some(128 << 20), Some(900))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_control_groups_the_same_is_not_held_as_at_the_start() {
    let rig = Rig::with(false);
    let wanted = sh("sleep 300");
    rig.start(&wanted).await;
    let more = Resources {
        cpu_limit: Some(MilliCores(1500)),
        disk_rate: Some(Bytes::mib(1)),
        ..before()
    };
    let notes = rig.driver.resize(wanted.run, more).await.unwrap();
    for limit in [
        "cpu share",
        "cpu limit",
        "memory limit",
        "pids limit",
        "disk rate",
    ] {
        assert!(
            notes.iter().any(|note| note.starts_with(limit)),
            "{limit}: {notes:?}"
        );
    }
}
