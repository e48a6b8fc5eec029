//! Which program runs become: the small one beside `loomctl`, or `loomctl` itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use loom_tests::cluster::{Dev, checkout, loomctl};

const JOB: &str = "name: web\nbash: while true; do sleep 0.1; done\n";

/// The program that is the parent of the task's main process.
fn shim_of(program: &Path) -> (PathBuf, String) {
    let server = checkout().join(".loom/bin/nats-server");
    let dev = Dev::start_program(program, &["--nats-server", server.to_str().unwrap()]);
    dev.run(JOB, &[]).expect_code(0);
    let view = dev.job("web");
    let pid = view["slots"][0]["current"]["pid"].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim();
    let program = fs::read_link(format!("/proc/{parent}/exe")).unwrap();
    (program, dev.log())
}

#[test]
fn runs_get_the_small_shim_where_it_is_of_this_version_and_loomctl_itself_elsewhere() {
    let folder = tempfile::tempdir_in(loomctl().parent().unwrap()).unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let program = folder.join("loomctl");
    let small = folder.join("loom-shim");
    // Not a link: the program asks where it lies.
    fs::hard_link(loomctl(), &program).unwrap();

    assert_eq!(shim_of(&program).0, program, "there is no other");

    fs::write(&small, "#!/bin/sh\necho loom-shim 0.0.0 1\n").unwrap();
    fs::set_permissions(&small, fs::Permissions::from_mode(0o755)).unwrap();
    let (shim, log) = shim_of(&program);
    assert_eq!(shim, program, "that one is another version's");
    assert!(log.contains("not this version's"), "{log}");

    fs::remove_file(&small).unwrap();
    fs::hard_link(loomctl().with_file_name("loom-shim"), &small).unwrap();
    assert_eq!(shim_of(&program).0, small);
}
