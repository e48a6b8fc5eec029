//! Programs run beside a run's own.

use std::time::{Duration, Instant};

use loom_task::driver::{Driver, DriverError, EXEC_OUTPUT_MAX, ExecOutcome};
use nix::sys::signal::Signal;

use super::rig::{PATIENCE, Rig, driver, is_alive, is_root, number, sh, until};

async fn exec(rig: &Rig, run: loom_schemas::ids::RunId, argv: &[&str]) -> ExecOutcome {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    rig.driver.exec(run, argv, PATIENCE).await.unwrap()
}

fn text(outcome: &ExecOutcome) -> String {
    String::from_utf8_lossy(&outcome.output).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_run_where_the_run_is() {
    let rig = Rig::new();
    let mut wanted = sh("sleep 300");
    wanted.env.insert("COLOUR".into(), "red".into());
    rig.start(&wanted).await;
    let script = "echo $COLOUR; echo problem >&2; pwd; cat /proc/self/cgroup; exit 3";
    let outcome = exec(&rig, wanted.run, &["sh", "-c", script]).await;
    assert_eq!((outcome.code, outcome.timed_out), (Some(3), false));
    assert!(!outcome.succeeded());
    let said = text(&outcome);
    assert!(said.starts_with("red\nproblem\n"), "{said}");
    let work = rig.directory_of(wanted.run).join("work");
    let work = work.canonicalize().unwrap();
    assert!(said.contains(&work.display().to_string()), "{said}");
    if rig.start(&wanted).await.unenforced.is_empty() {
        assert!(said.contains(&wanted.run.to_string()), "{said}");
    }
    // A later agent does the same.
    let second = driver(rig.directory.path(), true);
    let outcome = second
        .exec(wanted.run, vec!["true".into()], PATIENCE)
        .await
        .unwrap();
    assert!(outcome.succeeded(), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_has_the_user_of_the_run() {
    if !is_root() {
        return;
    }
    let rig = Rig::new();
    let mut wanted = sh("sleep 300");
    wanted.user = Some("65534:65534".into());
    rig.start(&wanted).await;
    let outcome = exec(&rig, wanted.run, &["id", "-u"]).await;
    assert_eq!(text(&outcome), "65534\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_be_executed_says_so() {
    let rig = Rig::new();
    let wanted = sh("sleep 300");
    rig.start(&wanted).await;
    let outcome = exec(&rig, wanted.run, &["no-such-program"]).await;
    assert_eq!(outcome.code, Some(127));
    assert!(text(&outcome).contains("no-such-program"), "{outcome:?}");
    let outcome = exec(&rig, wanted.run, &["/etc/passwd"]).await;
    assert_eq!(outcome.code, Some(126));
    let outcome = exec(&rig, wanted.run, &["sh", "-c", "kill -9 $$"]).await;
    assert_eq!((outcome.code, outcome.signal), (None, Some(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_takes_too_long_is_killed_with_its_children() {
    let rig = Rig::new();
    let wanted = sh("sleep 300");
    rig.start(&wanted).await;
    let script = "sleep 300 & echo $! > child; echo begun; wait";
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    let begun = Instant::now();
    let limit = Duration::from_millis(300);
    let outcome = rig.driver.exec(wanted.run, argv, limit).await.unwrap();
    assert!(outcome.timed_out && begun.elapsed() >= limit, "{outcome:?}");
    assert_eq!((outcome.code, text(&outcome).as_str()), (None, "begun\n"));
    let child = number(&rig.directory_of(wanted.run).join("work/child")).await;
    until("the child is gone", || !is_alive(child)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_beginning_of_a_flood_is_kept() {
    let rig = Rig::new();
    let wanted = sh("sleep 300");
    rig.start(&wanted).await;
    let outcome = exec(&rig, wanted.run, &["sh", "-c", "head -c 1000000 /dev/zero"]).await;
    assert!(outcome.succeeded());
    assert_eq!(outcome.output.len(), EXEC_OUTPUT_MAX);
    // One that leaves somebody behind with its output open has ended all the same.
    let outcome = exec(&rig, wanted.run, &["sh", "-c", "sleep 300 & echo done"]).await;
    assert_eq!(text(&outcome), "done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_run_beside_what_is_paused_or_over() {
    let rig = Rig::new();
    let wanted = sh("sleep 300");
    rig.start(&wanted).await;
    rig.driver.pause(wanted.run).await.unwrap();
    let argv = || vec!["true".to_owned()];
    let refused = rig.driver.exec(wanted.run, argv(), PATIENCE).await;
    assert!(matches!(refused, Err(DriverError::Failed { .. })));
    let (run, tree) = (wanted.run, true);
    rig.driver.signal(run, Signal::SIGKILL, tree).await.unwrap();
    rig.end(run).await;
    let refused = rig.driver.exec(run, argv(), PATIENCE).await;
    assert!(matches!(refused, Err(DriverError::Ended(_))));
}
