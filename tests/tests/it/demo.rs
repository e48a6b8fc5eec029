//! The demonstration of the README, whole.

use std::fs;
use std::process::Command;

use loom_tests::cluster::{checkout, loomctl};

#[test]
fn the_demo_runs_twice_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    for round in 1..=2 {
        let said = Command::new("bash")
            .arg(checkout().join("scripts/demo.sh"))
            .env("LOOMCTL", loomctl())
            .env("TMPDIR", directory.path())
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env_remove("LOOM_BUS")
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&said.stdout);
        let err = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "round {round}: {out}\n{err}");
        for shown in [
            "web: running, 2/2",
            "web/0  node-1  ok",
            "job.web.accepted",
            "nothing was left behind",
        ] {
            let found = out.contains(shown) || err.contains(shown);
            assert!(found, "round {round}, {shown}: {out}\n{err}");
        }
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
}
