//! Go programs: built, and then the run itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use loom_schemas::ids::{Name, RunId};
use loom_schemas::spec::{Operator, Script};
use loom_schemas::units::Bytes;
use loom_task::driver::Driver;
use loom_task::launch::Launch;
use loom_task::operator::{self, Place};
use nix::sys::signal::Signal;
use uuid::Uuid;

use super::rig::{Rig, until};
use crate::world;

/// `go build -o OUT FILE` where the source is a program already.
const FAKE: &str = r#"#!/bin/sh
[ "$#" = 4 ] && [ "$1 $2" = "build -o" ] || exit 2
cp "$4" "$3" && chmod +x "$3"
"#;

fn launch(program: &str, args: &[&str], path: &str) -> Launch {
    let mut assigned = world::bash("");
    assigned.task.operator = Operator::Go(Script {
        text: program.into(),
        file: None,
    });
    assigned.task.args = args.iter().map(|&arg| arg.to_owned()).collect();
    // Go's own tools need more than most programs.
    assigned.task.resources.memory = Bytes::mib(1024);
    assigned.task.resources.pids = Some(1000);
    let node = Name::new("node-1").unwrap();
    let place = Place {
        node: &node,
        address: "127.0.0.1",
        labels: &std::collections::BTreeMap::new(),
        log_dirs: &loom_task::LogDirs::default(),
    };
    let mut launch = operator::launch(&assigned, RunId(Uuid::now_v7()), place).unwrap();
    launch.env.insert("PATH".into(), path.into());
    launch
}

fn fake(directory: &Path) -> String {
    let go = directory.join("go");
    fs::write(&go, FAKE).unwrap();
    fs::set_permissions(&go, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", directory.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_is_the_program_that_was_built() {
    let rig = Rig::new();
    let tools = tempfile::tempdir().unwrap();
    let path = fake(tools.path());
    let program = "#!/bin/sh\necho \"$$ $1\"; trap 'exit 42' TERM; while :; do sleep 0.05; done";
    let wanted = launch(program, &["a; $(b) 'c'"], &path);
    let pid = rig.start(&wanted).await.pid.unwrap();
    let log = rig.directory_of(wanted.run).join("output.log");
    let said = format!("{pid} a; $(b) 'c'");
    until("it runs", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains(&said))
    })
    .await;
    rig.driver
        .signal(wanted.run, Signal::SIGTERM, false)
        .await
        .unwrap();
    let ended = rig.end(wanted.run).await;
    assert_eq!((ended.exit.code, ended.exit.signal), (Some(42), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_go_it_is_refused_by_name() {
    let rig = Rig::new();
    let empty = tempfile::tempdir().unwrap();
    let sh = empty.path().join("sh");
    std::os::unix::fs::symlink("/bin/sh", sh).unwrap();
    let wanted = launch("package main", &[], empty.path().to_str().unwrap());
    let why = rig.refusal(&wanted).await;
    assert!(why.starts_with("program `go` was not found"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_go_program_keeps_its_exit_code() {
    if Command::new("go").arg("version").output().is_err() {
        println!("SKIPPED: the Go toolchain is not installed here");
        return;
    }
    let rig = Rig::new();
    let program = "package main\nimport \"os\"\nfunc main() { os.Exit(len(os.Args) + 5) }\n";
    let mut wanted = launch(program, &["x"], &std::env::var("PATH").unwrap());
    let cache = rig.directory.path().join("cache");
    wanted
        .env
        .insert("GOCACHE".into(), cache.display().to_string());
    assert_eq!(rig.run(&wanted).await.exit.code, Some(7));
}
