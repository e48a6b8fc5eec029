//! What a container leaves, and what it does to disks.

use std::fs;
use std::time::Instant;

use loom_schemas::units::Bytes;
use loom_task::driver::{Adopted, Driver, Left};

use super::rig::{PATIENCE, Rig, sh};

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_taken_with_the_end_of_a_container() {
    let Some(mut rig) = Rig::new() else { return };
    for (script, result) in [
        (
            "echo '[1, 2]' > $LOOM_RESULT",
            Left::Result("[1, 2]".to_owned()),
        ),
        ("true", Left::Nothing),
        ("echo '{}' > $LOOM_RESULT; exit 1", Left::Nothing),
    ] {
        let mut wanted = sh(script);
        wanted.user = Some("1000".to_owned());
        wanted.result = true;
        rig.start(&wanted).await;
        assert_eq!(rig.end(wanted.run).await.left, result, "{script}");
        rig.next_agent();
        let adopted = rig.driver.adopt(wanted.run).await.unwrap();
        let Adopted::Ended { ended, .. } = adopted else {
            panic!("{adopted:?}");
        };
        assert_eq!(ended.left, result, "{script}");
    }
    let mut wrong = sh("seq 100000 > $LOOM_RESULT");
    wrong.result = true;
    rig.start(&wrong).await;
    let left = rig.end(wrong.run).await.left;
    assert_eq!(
        left,
        Left::Wrong("its result has more than 64KiB".to_owned())
    );
    // Where nobody asked for one there is nothing to leave it in.
    let plain = sh("test -z \"$LOOM_RESULT\" && test ! -e /loom");
    rig.start(&plain).await;
    let ended = rig.end(plain.run).await;
    assert_eq!((ended.exit.code, ended.left), (Some(0), Left::Nothing));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_measured_and_held_to_its_rate() {
    let Some(rig) = Rig::new() else { return };
    let rate = 3 << 20;
    let mut wanted = sh("dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null; sleep 300");
    wanted.resources.disk_rate = Some(Bytes(rate));
    let started = rig.start(&wanted).await;
    let begun = Instant::now();
    while rig.driver.disk(wanted.run).await.unwrap() < Some(8 << 20) {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let said = started.unenforced.join("; ");
    let groups = format!("/proc/{}/cgroup", started.pid.unwrap());
    let groups = fs::read_to_string(groups).unwrap();
    let group = groups.lines().find_map(|line| line.split_once(":blkio:"));
    let Some((_, group)) = group else {
        eprintln!("skipped: no control group for disks");
        return;
    };
    assert!(said.contains("direct and synchronous I/O alone"), "{said}");
    let file = format!("/sys/fs/cgroup/blkio{group}/blkio.throttle.write_bps_device");
    let limits = fs::read_to_string(file).unwrap();
    assert!(limits.contains(&format!(" {rate}\n")), "{limits}");
}
