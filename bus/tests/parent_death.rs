//! The embedded server ends with its parent, also when that is killed with `kill -9`.
//!
//! A program of its own, for its `main` must begin as `loomctl`'s does. It plays three parts: the
//! test, the parent that is killed, and for a moment the child that becomes the server.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use loom_bus::connection::{Bus, ConnectOptions};
use loom_bus::server::{Embedded, EmbeddedOptions, exec_if_asked};

const PATIENCE: Duration = Duration::from_secs(20);

/// Set in the parent: the directory to use.
const PARENT_OF: &str = "LOOM_TEST_PARENT_OF";
/// Set where `main` shall not begin as it should, so that `setpriv` is used.
const NO_HOOK: &str = "LOOM_TEST_NO_HOOK";

fn main() -> ExitCode {
    if std::env::var_os(NO_HOOK).is_none()
        && let Some(code) = exec_if_asked()
    {
        return code;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(dir) = std::env::var_os(PARENT_OF) {
        runtime.block_on(be_parent(Path::new(&dir)));
        return ExitCode::SUCCESS;
    }
    for hook in [true, false] {
        ends_with_its_parent(hook);
        println!(
            "the server ends with its parent ({}): ok",
            if hook { "hook" } else { "setpriv" }
        );
    }
    runtime.block_on(killed_again_and_again());
    println!("a parent killed at any moment leaves a directory that starts: ok");
    ExitCode::SUCCESS
}

async fn be_parent(dir: &Path) {
    let mut options = EmbeddedOptions::new(dir);
    options.listen.set_port(0);
    let begun = Instant::now();
    let server = Embedded::start(options).await.unwrap();
    let ready = begun.elapsed();
    let begun = Instant::now();
    let connect = ConnectOptions {
        url: server.url().to_owned(),
        login: server.orch_login(),
        require_jetstream: true,
        ..ConnectOptions::default()
    };
    let bus = Bus::connect(connect).await.unwrap();
    let connected = begun.elapsed();
    println!("{} {ready:.1?} {connected:.1?}", server.pid());
    drop(bus);
    std::future::pending::<()>().await;
}

fn parent(dir: &Path, hook: bool) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(PARENT_OF, dir).stdout(Stdio::piped());
    if !hook {
        command.env(NO_HOOK, "1");
    }
    command.spawn().unwrap()
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie that nobody has waited for yet is dead.
    !stat.is_empty()
        && !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim()
            .starts_with('Z')
}

fn ends_with_its_parent(hook: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = parent(dir.path(), hook);
    let mut line = String::new();
    let mut output = BufReader::new(parent.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let mut parts = line.split_whitespace();
    let server: u32 = parts.next().expect("the server's pid").parse().unwrap();
    let (ready, connected) = (parts.next().unwrap(), parts.next().unwrap());
    println!("  ready after {ready}, first connection after another {connected}");
    assert!(is_alive(server));
    parent.kill().unwrap();
    let killed = Instant::now();
    parent.wait().unwrap();
    while is_alive(server) {
        assert!(
            killed.elapsed() < PATIENCE,
            "the server outlives its parent"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("  gone after {:?}", killed.elapsed());
}

/// `kill -9` at moments spread over the start, each time on the same directory.
async fn killed_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..12 {
        let mut parent = parent(dir.path(), true);
        std::thread::sleep(Duration::from_millis(round * 8));
        parent.kill().unwrap();
        parent.wait().unwrap();
    }
    let mut options = EmbeddedOptions::new(dir.path());
    options.listen.set_port(0);
    let server = Embedded::start(options).await.unwrap();
    server.stop().await;
}
