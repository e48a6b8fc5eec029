//! Limits of containers that change while they run, as the kernel has them.

use loom_schemas::spec::Resources;
use loom_schemas::units::{Bytes, MilliCores};
use loom_task::driver::{Adopted, Driver, DriverError};
use loom_tests::cgroup::{has, limits};

use super::rig::{Rig, sh};

fn before() -> Resources {
    Resources {
        cpu: MilliCores(100),
        memory: Bytes::mib(64),
        pids: Some(20),
        ..Resources::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_changes_in_the_same_container_and_goes_back() {
    let Some(mut rig) = Rig::new() else { return };
    let mut wanted = sh("sleep 300");
    wanted.resources = before();
    let started = rig.start(&wanted).await;
    let pid = started.pid.unwrap();
    let at_first = limits(pid);
    assert_eq!((at_first.memory, at_first.pids), (Some(64 << 20), Some(20)));
    let rate: u64 = 3 << 20;
    let more = Resources {
        cpu: MilliCores(500),
        cpu_limit: Some(MilliCores(1500)),
        memory: Bytes::mib(256),
        pids: Some(40),
        disk_rate: Some(Bytes(rate)),
        ..before()
    };
    let notes = rig.driver.resize(wanted.run, more).await.unwrap();
    let now = limits(pid);
    assert_eq!((now.cpu, now.cpu_limit), (Some(500), Some(1500)));
    assert_eq!((now.memory, now.pids), (Some(256 << 20), Some(40)));
    if has("blkio") && !notes.iter().any(|note| note.contains("no disk")) {
        assert_eq!(
            (now.read_rate, now.write_rate),
            ([rate].into(), [rate].into())
        );
    }
    rig.next_agent();
    let notes = rig.driver.resize(wanted.run, before()).await.unwrap();
    assert_eq!(notes, [""; 0]);
    assert_eq!(limits(pid), at_first);
    match rig.driver.adopt(wanted.run).await.unwrap() {
        Adopted::Running { started: same, .. } => {
            assert_eq!((same.pid, same.container), (started.pid, started.container));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn less_memory_than_a_container_holds_is_refused() {
    let Some(rig) = Rig::new() else { return };
    // Files in memory cannot be given up.
    let hold = "dd if=/dev/zero of=/dev/shm/x bs=1M count=48 2>/dev/null; echo held; sleep 300";
    let mut wanted = sh(hold);
    wanted.resources = Resources {
        memory: Bytes::mib(512),
        ..before()
    };
    let started = rig.start(&wanted).await;
    rig.until_said(wanted.run, "held").await;
    let pid = started.pid.unwrap();
    let less = Resources {
        memory: Bytes::mib(16),
        ..before()
    };
    let error = rig.driver.resize(wanted.run, less).await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, DriverError::Rejected(_)), "{said}");
    assert!(said.starts_with("memory limit: it holds "), "{said}");
    assert!(said.ends_with(", more than 16MiB"), "{said}");
    assert_eq!(limits(pid).memory, Some(512 << 20));
    let missing = loom_schemas::ids::RunId(uuid::Uuid::now_v7());
    let error = rig.driver.resize(missing, before()).await.unwrap_err();
    assert!(matches!(error, DriverError::NotFound(_)), "{error:?}");
}
