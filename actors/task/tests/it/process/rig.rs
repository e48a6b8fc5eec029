//! What the tests of the process driver share.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::spec::{LogSpec, Resources};
use loom_schemas::units::{Bytes, MilliCores};
use loom_task::driver::process::{ProcessDriver, ProcessOptions};
use loom_task::driver::{Driver, DriverError, Ended, Started};
use loom_task::launch::{Launch, Word};
use loom_task::output::{Line, OutputReader};
use tempfile::TempDir;
use uuid::Uuid;

/// How long a test waits for what must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A driver in a directory of its own; every process of it is killed with it.
pub(super) struct Rig {
    pub(super) driver: ProcessDriver,
    pub(super) directory: TempDir,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(true)
    }

    pub(super) fn with(cgroups: bool) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("loom-task-")
            .tempdir()
            .unwrap();
        let driver = driver(directory.path(), cgroups);
        Self { driver, directory }
    }

    /// Another executable as the shim.
    pub(super) fn use_shim(&mut self, shim: &Path, cgroups: bool) {
        let mut options = ProcessOptions::new(self.directory.path());
        options.shim = Some(shim.into());
        options.cgroups = cgroups;
        self.driver = ProcessDriver::new(options).unwrap();
    }

    pub(super) async fn start(&self, launch: &Launch) -> Started {
        self.driver.start(launch.clone()).await.unwrap()
    }

    /// Starts and waits for the end.
    pub(super) async fn run(&self, launch: &Launch) -> Ended {
        self.start(launch).await;
        self.end(launch.run).await
    }

    pub(super) async fn end(&self, run: RunId) -> Ended {
        tokio::time::timeout(PATIENCE, self.driver.wait(run))
            .await
            .expect("the end")
            .unwrap()
    }

    /// Why it was refused.
    pub(super) async fn refusal(&self, launch: &Launch) -> String {
        let error = self.driver.start(launch.clone()).await.unwrap_err();
        let directory = self.directory_of(launch.run);
        assert!(!directory.exists(), "a refused run leaves nothing behind");
        match error {
            DriverError::Rejected(text) => text,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn directory_of(&self, run: RunId) -> PathBuf {
        self.directory.path().join("runs").join(run.to_string())
    }

    /// Everything it wrote, after its end.
    pub(super) async fn output(&self, run: RunId) -> Vec<Line> {
        let mut reader = OutputReader::open(&self.directory_of(run), 0).unwrap();
        let mut all = Vec::new();
        let read = async {
            while let Some(lines) = reader.next_batch().await {
                all.extend(lines);
            }
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("the end of the output");
        all
    }

    pub(super) async fn text(&self, run: RunId) -> Vec<String> {
        self.output(run)
            .await
            .into_iter()
            .map(|line| line.text)
            .collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let Ok(runs) = fs::read_dir(self.directory.path().join("runs")) else {
            return;
        };
        for run in runs.flatten() {
            if let Some((_, main)) = pids(&run.path()) {
                kill(main, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

pub(super) fn driver(directory: &Path, cgroups: bool) -> ProcessDriver {
    let mut options = ProcessOptions::new(directory);
    options.shim = Some(env!("CARGO_BIN_EXE_loom-shim").into());
    options.cgroups = cgroups;
    ProcessDriver::new(options).unwrap()
}

pub(super) fn launch(argv: &[&str]) -> Launch {
    Launch {
        run: RunId(Uuid::now_v7()),
        slot: Slot::new(Name::new("web").unwrap(), Name::main(), 0),
        argv: argv
            .iter()
            .map(|word| Word::Text((*word).to_owned()))
            .collect(),
        needs: Vec::new(),
        env: BTreeMap::new(),
        container: None,
        files: Vec::new(),
        workdir: None,
        user: None,
        resources: Resources {
            cpu: MilliCores(100),
            cpu_limit: None,
            memory: Bytes::mib(128),
            disk: Bytes(0),
            disk_rate: None,
            pids: Some(64),
            gpus: None,
        },
        logs: LogSpec {
            max_size: Bytes::mib(10),
            keep: 5,
            ship: true,
            to: None,
        },
        result: false,
        filled: BTreeMap::new(),
        sim: None,
    }
}

/// A launch of a shell script, which carries the run's id as every task does.
pub(super) fn sh(script: &str) -> Launch {
    let mut launch = launch(&["sh", "-c", script]);
    launch.env.insert("LOOM_RUN".into(), launch.run.to_string());
    launch
}

/// The shim and the main process of a run.
pub(super) fn pids(directory: &Path) -> Option<(u32, u32)> {
    let text = String::from_utf8(fs::read(directory.join("started")).ok()?).ok()?;
    let of = |key: &str| {
        let entry = text.split('\0').find_map(|entry| entry.strip_prefix(key))?;
        entry.split(' ').next()?.parse().ok()
    };
    Some((of("shim=")?, of("main=")?))
}

pub(super) fn kill(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    let _ = nix::sys::signal::kill(pid, signal);
}

/// Whether a process runs; a zombie does not.
pub(super) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits for a condition.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The number a script wrote to a file in its work directory, once it is there.
pub(super) async fn number(path: &Path) -> u32 {
    let read = || {
        fs::read_to_string(path)
            .ok()?
            .strip_suffix('\n')?
            .parse()
            .ok()
    };
    until("a number in a file", || read().is_some()).await;
    read().unwrap()
}

/// Whether this user may make control groups here with this file in them.
pub(super) fn has_cgroup(file: &str) -> bool {
    let found = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .any(|line| {
            let path = line.split(' ').nth(4).unwrap_or_default();
            let tree = fs::read_dir(Path::new(path).join("loom"));
            line.contains(" - cgroup")
                && tree.is_ok_and(|mut tags| {
                    tags.any(|tag| tag.unwrap().path().join("shims").join(file).exists())
                })
        });
    if !found {
        eprintln!("SKIPPED: no cgroup with {file} may be made here");
    }
    found
}

pub(super) fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        eprintln!("SKIPPED: not root");
    }
    root
}
