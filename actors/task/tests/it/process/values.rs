//! What a run leaves, and what it does to disks.

use std::fs;
use std::time::Instant;

use loom_schemas::units::Bytes;
use loom_task::driver::{Adopted, Driver, Left};

use super::rig::{PATIENCE, Rig, driver, has_cgroup, pids, sh, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_taken_with_the_end() {
    let rig = Rig::new();
    let wanted = sh("echo '{\"rows\": 7}' > \"$LOOM_RESULT\"");
    let ended = rig.run(&wanted).await;
    assert_eq!(ended.left, Left::Result("{\"rows\": 7}".to_owned()));
    // The next agent finds the same.
    let second = driver(rig.directory.path(), true);
    let Adopted::Ended { ended: again, .. } = second.adopt(wanted.run).await.unwrap() else {
        panic!("it has ended");
    };
    assert_eq!(again.left, ended.left);
    for (script, left) in [
        ("true", None),
        ("echo '{}' > $LOOM_RESULT; exit 3", None),
        ("echo yes > $LOOM_RESULT", Some("is not JSON")),
        ("seq 100000 > $LOOM_RESULT", Some("has more than 64KiB")),
        ("ln -s /etc/passwd $LOOM_RESULT", Some("cannot be read")),
        ("mkfifo $LOOM_RESULT", Some("no plain file")),
    ] {
        let ended = rig.run(&sh(script)).await;
        match (ended.left, left) {
            (Left::Nothing, None) => {}
            (Left::Wrong(said), Some(wrong)) => assert!(said.contains(wrong), "{said}"),
            (other, _) => panic!("{script}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_files_take_is_measured() {
    let rig = Rig::new();
    let wanted = sh("dd if=/dev/zero of=big bs=1M count=8 2>&1; echo written; sleep 300");
    rig.start(&wanted).await;
    let begun = Instant::now();
    loop {
        let taken = rig.driver.disk(wanted.run).await.unwrap().unwrap();
        if taken >= 8 << 20 {
            assert!(taken < 10 << 20, "{taken}");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{taken}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_writes_is_held_to_its_rate() {
    let rig = Rig::new();
    // What the kernel has, and not what the driver made of it.
    if !has_cgroup("cgroup.procs") || !loom_tests::cgroup::has("blkio") {
        eprintln!("SKIPPED: no control group for disks");
        return;
    }
    let rate = 2 << 20;
    let mut wanted = sh(
        "dd if=/dev/zero of=big bs=256k count=1000 oflag=direct 2>/dev/null \
                         || echo refused; sleep 300",
    );
    wanted.resources.disk_rate = Some(Bytes(rate));
    let begun = Instant::now();
    let started = rig.start(&wanted).await;
    let said = started.unenforced.join("; ");
    assert!(said.contains("direct and synchronous I/O alone"), "{said}");
    let (_, main) = pids(&rig.directory_of(wanted.run)).unwrap();
    let groups = fs::read_to_string(format!("/proc/{main}/cgroup")).unwrap();
    let group = groups.lines().find_map(|line| line.split_once(":blkio:"));
    let group = format!("/sys/fs/cgroup/blkio{}", group.unwrap().1);
    let limits = fs::read_to_string(format!("{group}/blkio.throttle.write_bps_device")).unwrap();
    assert!(limits.contains(&format!(" {rate}\n")), "{limits}");
    let big = rig.directory_of(wanted.run).join("work/big");
    let size = || fs::metadata(&big).map_or(0, |data| data.len());
    until("it writes for a while, or cannot", || {
        let text = fs::read_to_string(rig.directory_of(wanted.run).join("output.log"));
        size() >= 4 * rate || text.is_ok_and(|text| text.contains("refused"))
    })
    .await;
    let (written, elapsed) = (size(), begun.elapsed());
    // However slow the disk or the test: never more than the rate, and what the kernel lets
    // through at once.
    let most = elapsed.as_millis() * u128::from(rate) / 1000 + u128::from(rate);
    assert!(u128::from(written) <= most, "{written} in {elapsed:?}");
}
