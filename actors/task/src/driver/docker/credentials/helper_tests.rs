use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;

/// For what answers: far more than it takes.
const LONG: Duration = Duration::from_secs(20);

/// A helper that is a script, by its path after the prefix that all helpers have.
fn helper(directory: &Path, script: &str) -> String {
    let path = directory.join("docker-credential-test");
    fs::write(
        &path,
        format!("#!/bin/sh\ncd {}\n{script}\n", directory.display()),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

async fn asked(program: &str, patience: Duration) -> Result<Option<DockerCredentials>, Trouble> {
    ask_program(program.to_owned(), "r.example", patience).await
}

/// The processes whose working directory this is.
fn within(directory: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let cwd = |path: &PathBuf| fs::read_link(path.join("cwd")).ok();
    all.map(|entry| entry.path())
        .filter(|path| cwd(path).is_some_and(|cwd| cwd == directory))
        .collect()
}

#[tokio::test]
async fn a_helper_answers_has_none_or_fails() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path();
    let answers = "read server; echo '{\"Username\":\"ada\",\"Secret\":\"'$1-$server'\"}'";
    let login = asked(&helper(here, answers), LONG).await.unwrap().unwrap();
    assert_eq!(login.username.as_deref(), Some("ada"));
    assert_eq!(login.password.as_deref(), Some("get-r.example"));
    let token = "echo '{\"Username\":\"<token>\",\"Secret\":\"abc\"}'";
    let login = asked(&helper(here, token), LONG).await.unwrap().unwrap();
    assert_eq!(login.identitytoken.as_deref(), Some("abc"));
    let none = "echo credentials not found in native keychain; exit 1";
    assert_eq!(asked(&helper(here, none), LONG).await, Ok(None));
    for (script, why) in [
        (
            "echo the store is locked; exit 1",
            "failed: the store is locked",
        ),
        ("echo nobody >&2; exit 2", "failed: nobody"),
        ("echo hello", "answers what is no login"),
        ("yes", "failed: y"),
    ] {
        match asked(&helper(here, script), LONG).await {
            Err(Trouble::Helper(said)) => assert!(said.contains(why), "{said}"),
            other => panic!("{script}: {other:?}"),
        }
    }
    let missing = here.join("no-such").display().to_string();
    let refused = asked(&missing, LONG).await;
    assert!(
        matches!(refused, Err(Trouble::Configuration(_))),
        "{refused:?}"
    );
}

/// Waits until nothing runs in a directory any more.
async fn nothing_left(here: &Path) {
    let begun = Instant::now();
    while !within(here).is_empty() {
        assert!(begun.elapsed() < LONG, "left: {:?}", within(here));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn assert_late(outcome: Result<Option<DockerCredentials>, Trouble>) {
    let Err(Trouble::Helper(why)) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(why.ends_with("took more than 300ms"), "{why}");
}

/// A child of its own, which the death of the script alone would leave.
const HANGS: &str = "echo begun >> begun; sleep 1000 & sleep 1000";

#[tokio::test]
async fn one_that_hangs_is_given_up_and_nothing_of_it_is_left() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path().canonicalize().unwrap();
    let program = helper(&here, HANGS);
    assert_late(asked(&program, Duration::from_millis(300)).await);
    nothing_left(&here).await;
}

#[tokio::test]
async fn one_who_asks_while_another_does_waits_for_the_turn_no_longer_than_the_patience() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path().canonicalize().unwrap();
    let program = helper(&here, HANGS);
    let begun = here.join("begun");
    let first = async {
        let outcome = asked(&program, LONG).await;
        panic!("{outcome:?}");
    };
    let second = async {
        while !fs::read_to_string(&begun).is_ok_and(|lines| lines.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_late(asked(&program, Duration::from_millis(300)).await);
        assert_eq!(fs::read_to_string(&begun).unwrap(), "begun\n");
    };
    // The first is dropped here, as one is whose run is stopped.
    tokio::select! {
        () = first => {}
        () = second => {}
    }
    nothing_left(&here).await;
}
