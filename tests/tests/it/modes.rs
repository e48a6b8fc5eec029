//! What other users of a host see of a cluster's files: nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use loom_tests::cluster::Dev;
use loom_tests::docker::{IMAGE, is_there};
use loom_tests::wait::until;

/// Everything below a directory that others may read, or a directory that they may list; not below
/// one that they may not even pass.
fn open_to_others(directory: &Path, found: &mut Vec<(PathBuf, u32)>, seen: &mut usize) {
    let mode =
        |path: &Path| fs::symlink_metadata(path).map(|data| data.permissions().mode() & 0o777);
    let own = mode(directory).unwrap();
    if own & 0o006 != 0 {
        found.push((directory.to_owned(), own));
    }
    *seen += 1;
    let others = own & 0o007;
    if others == 0 {
        return;
    }
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        // What is written anew right now has another name in a moment.
        let Ok(mode) = mode(&entry.path()) else {
            continue;
        };
        if entry.file_type().unwrap().is_dir() {
            open_to_others(&entry.path(), found, seen);
            continue;
        }
        *seen += 1;
        if mode & 0o007 != 0 {
            found.push((entry.path(), mode));
        }
    }
}

#[test]
fn nothing_of_a_cluster_is_open_to_other_users_of_the_host() {
    let mut dev = Dev::start(&[]);
    let ended = "name: ended\nkind: batch\nenv: {PASSWORD: secret}\nbash: |\n  umask 0\n  \
                 echo said\n  echo '{\"token\": 1}' > \"$LOOM_RESULT\"\n";
    dev.run(ended, &[]).expect_code(0);
    let runs = "name: runs\nstop: {grace: 1s}\nbash: echo up; while true; do sleep 0.05; done\n";
    dev.run(runs, &[]).expect_code(0);
    if is_there() {
        let job = format!(
            "name: contained\nstop: {{grace: 1s}}\nimage: {{name: '{IMAGE}', pull: never}}\n\
             network: none\ncommand: [sh, -c, 'echo up; exec sleep 1000']\n"
        );
        dev.run(&job, &[]).expect_code(0);
    }
    let look = |dev: &Dev| {
        let (mut found, mut seen) = (Vec::new(), 0);
        open_to_others(&dev.data_dir(), &mut found, &mut seen);
        assert!(seen > 12, "{seen} files and directories");
        found
    };
    assert_eq!(look(&dev), []);

    // What an earlier build left open is closed by the next start.
    dev.kill();
    let node = dev.data_dir().join("node-1");
    for path in ["", "state", "runs"] {
        let path = node.join(path);
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    for run in fs::read_dir(node.join("runs")).unwrap() {
        let output = run.unwrap().path().join("output.log");
        fs::set_permissions(&output, fs::Permissions::from_mode(0o644)).unwrap();
    }
    assert!(look(&dev).len() >= 4, "{:?}", look(&dev));
    dev.start_again();
    until("all is closed again", || match look(&dev) {
        found if found.is_empty() => Ok(()),
        found => Err(format!("{found:?}")),
    });
}
