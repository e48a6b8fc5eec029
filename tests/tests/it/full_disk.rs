//! A disk that fills up under the bus, and has room again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use loom_tests::cluster::{Said, is_alive, run_alone};
use loom_tests::parts::Agent;
use loom_tests::skip::{skip, works};
use loom_tests::wait::until;
use serde_json::Value;
use tempfile::TempDir;

/// A small file system in memory; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this process may not mount.
    fn mount(path: &Path) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let target = path.to_str().unwrap();
        let options = ["-t", "tmpfs", "-o", "size=64m", "loom-test", target];
        works("mount", &options).then(|| Self(path.to_owned()))
    }

    /// Leaves not a byte.
    fn fill(&self) {
        let mut file = File::create(self.0.join("fill")).unwrap();
        let block = vec![7; 1 << 20];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..512]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        drop(unmounted);
    }
}

fn ctl(bus: &str, arguments: &[&str]) -> Said {
    let mut all = vec!["--bus", bus];
    all.extend(arguments);
    run_alone(&all)
}

#[test]
fn a_full_disk_is_said_loses_nothing_and_passes_with_room() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let Some(disk) = SmallDisk::mount(&path("m1")) else {
        let why = "no file system can be mounted here";
        return skip("a full disk", why, "LOOM_REQUIRE_MOUNTS");
    };
    let flags = ["--embedded-bus", "--listen", "127.0.0.1:0"];
    let mut manager = Agent::on("", "manager", "m1", path("m1"), &flags);
    let bus = manager.bus();
    let agents = fs::read_to_string(path("m1").join("agents.env")).unwrap();
    let agents = agents.trim().strip_prefix("LOOM_BUS=").unwrap();
    let flags = ["--allow-process", "--stop-tasks"];
    let mut node = Agent::on(agents, "node", "n1", path("n1"), &flags);
    let run = |name: &str, rest: &str| {
        let file = path(&format!("{name}.yaml"));
        fs::write(&file, format!("name: {name}\n{rest}")).unwrap();
        ctl(&bus, &["run", file.to_str().unwrap(), "--detach"])
    };
    let completed = |name: &str| {
        until("the batch completes", || {
            let said = ctl(&bus, &["status", name, "-o", "json"]);
            let view: Value = serde_json::from_str(&said.out).unwrap_or_default();
            let done = view["summary"]["job"]["status"] == "completed";
            done.then_some(()).ok_or_else(|| format!("{said:?}"))
        });
    };
    run("web", "bash: while true; do sleep 0.05; done\n").expect_code(0);
    run("before", "kind: batch\nbash: 'true'\n").expect_code(0);
    completed("before");
    let pid = || {
        let said = ctl(&bus, &["status", "web", "-o", "json"]);
        let view: Value = serde_json::from_str(&said.out).unwrap_or_default();
        let pid = view["slots"][0]["current"]["pid"].as_u64();
        pid.and_then(|pid| u32::try_from(pid).ok())
    };
    let web = until("the service runs", || pid().ok_or_else(String::new));

    disk.fill();
    let mut number = 0;
    until("what cannot be written is refused in words", || {
        number += 1;
        let said = run(&format!("during-{number}"), "kind: batch\nbash: 'true'\n");
        let clear = said.err.contains("no space left on device");
        (clear && said.code == 7)
            .then_some(())
            .ok_or_else(|| format!("{said:?}"))
    });
    assert!(
        manager
            .log()
            .contains("the bus cannot write: no space left")
    );
    assert!(is_alive(web));
    ctl(&bus, &["signal", "web", "WINCH"]).expect_code(0);
    ctl(&bus, &["status"]).expect_code(0);

    disk.make_room();
    until("it works again by itself", || {
        let said = run("after", "kind: batch\nbash: 'true'\n");
        (said.code == 0)
            .then_some(())
            .ok_or_else(|| format!("{said:?}"))
    });
    completed("after");
    assert_eq!(pid(), Some(web), "the service did not notice");
    let jobs = ctl(&bus, &["status", "-o", "name"]).expect_code(0);
    for job in ["web", "before", "after"] {
        assert!(jobs.out.lines().any(|line| line == job), "{}", jobs.out);
    }
    assert!(
        manager.log().contains("nats-server is started again"),
        "{}",
        manager.log()
    );

    // It starts on no full disk, and says so.
    assert_eq!(manager.interrupt(), 0, "{}", manager.log());
    disk.fill();
    let data = manager.data_dir().to_str().unwrap();
    let mut all = vec!["manager", "start", "--name", "m1", "--data-dir", data];
    all.extend(["--embedded-bus", "--listen", "127.0.0.1:0"]);
    let said = run_alone(&all).expect_code(1);
    assert!(
        said.err.contains("no room is left for the bus"),
        "{}",
        said.err
    );
    disk.make_room();
    manager.start_again();
    until("the service is known again", || {
        (pid() == Some(web)).then_some(()).ok_or_else(String::new)
    });
    assert_eq!(node.interrupt(), 0, "{}", node.log());
}
