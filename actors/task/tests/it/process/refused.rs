//! Starts that cannot work: a clear line, and nothing left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use loom_task::driver::{Driver, DriverError};
use loom_task::launch::Word;

use super::rig::{Rig, is_root, launch, sh};

fn file(directory: &Path, name: &str, text: &[u8], mode: u32) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_refused() {
    let rig = Rig::new();
    let why = rig.refusal(&launch(&["no-such-program"])).await;
    assert!(
        why.starts_with("program `no-such-program` was not found"),
        "{why}"
    );
    let why = rig.refusal(&launch(&["/no/such/program"])).await;
    assert!(why.contains("`/no/such/program` does not exist"), "{why}");
    let why = rig.refusal(&launch(&[])).await;
    assert!(why.contains("command is empty"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_program_is_refused() {
    let rig = Rig::new();
    let there = rig.directory.path();
    let plain = file(there, "plain", b"#!/bin/sh\n", 0o644);
    let why = rig.refusal(&launch(&[plain.to_str().unwrap()])).await;
    assert!(
        why.contains("is not executable") && why.contains("chmod +x"),
        "{why}"
    );
    let why = rig.refusal(&launch(&[there.to_str().unwrap()])).await;
    assert!(why.contains("is a directory"), "{why}");
    let garbage = file(there, "garbage", b"\x7fELF garbage", 0o755);
    let why = rig.refusal(&launch(&[garbage.to_str().unwrap()])).await;
    assert!(why.contains("not one for this machine"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_interpreter_is_named() {
    let rig = Rig::new();
    let script = file(
        rig.directory.path(),
        "a",
        b"#! /no/such/python -u\nx\n",
        0o755,
    );
    let why = rig.refusal(&launch(&[script.to_str().unwrap()])).await;
    assert!(
        why.contains("needs the interpreter `/no/such/python`"),
        "{why}"
    );
    let script = file(rig.directory.path(), "b", b"#!/bin/sh\r\nx\r\n", 0o755);
    let why = rig.refusal(&launch(&[script.to_str().unwrap()])).await;
    assert!(why.contains("Windows line ends"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_or_directory_that_is_not_there_is_refused() {
    let rig = Rig::new();
    let mut wanted = sh("true");
    wanted.user = Some("nosuchuser".into());
    assert!(
        rig.refusal(&wanted)
            .await
            .contains("user `nosuchuser` does not exist")
    );
    let mut wanted = sh("true");
    wanted.workdir = Some("/no/such/dir".into());
    assert!(
        rig.refusal(&wanted)
            .await
            .contains("workdir `/no/such/dir` does not exist")
    );
    wanted.workdir = Some("/etc/passwd".into());
    assert!(rig.refusal(&wanted).await.contains("is not a directory"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_program_can_be_handed_is_refused() {
    let rig = Rig::new();
    let mut wanted = sh("true");
    wanted.argv.push(Word::Text("a\0b".into()));
    assert!(rig.refusal(&wanted).await.contains("NUL"));
    let mut wanted = sh("true");
    wanted.env.insert("A=B".into(), "c".into());
    assert!(rig.refusal(&wanted).await.contains("`A=B`"));
    let mut wanted = sh("true");
    wanted.argv.push(Word::Text("x".repeat(4 << 20)));
    assert!(rig.refusal(&wanted).await.contains("too long"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_may_be_kept_from_a_program() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    let secret = file(rig.directory.path(), "secret", b"#!/bin/sh\n", 0o700);
    let mut wanted = launch(&[secret.to_str().unwrap()]);
    wanted.user = Some("65534".into());
    let mode = |mode| fs::set_permissions(rig.directory.path(), fs::Permissions::from_mode(mode));
    mode(0o700).unwrap();
    let closed = format!(
        "user 65534 may not enter `{}`",
        rig.directory.path().display()
    );
    let why = rig.refusal(&wanted).await;
    assert!(
        why.starts_with(&closed) && why.contains("--data-dir"),
        "{why}"
    );
    mode(0o711).unwrap();
    let why = rig.refusal(&wanted).await;
    assert!(why.contains("may not be executed by user 65534"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_none_is_a_failure_and_not_a_refusal() {
    let rig = Rig::new();
    for (shim, word) in [
        ("/bin/true", "without an answer"),
        ("/no/such/shim", "No such file"),
    ] {
        let mut options =
            loom_task::driver::process::ProcessOptions::new(rig.directory.path().join("other"));
        options.shim = Some(shim.into());
        let driver = loom_task::driver::process::ProcessDriver::new(options).unwrap();
        match driver.start(sh("true")).await.unwrap_err() {
            DriverError::Failed { source, .. } => {
                assert!(source.to_string().contains(word), "{source}");
            }
            other => panic!("{other:?}"),
        }
    }
}
