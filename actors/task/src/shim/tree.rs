//! All processes of a run: frozen, thawed and killed as one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::record::stat_field;

/// How long a freeze may take to reach the last process.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);

/// The control group that holds the processes of a run, without its shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Its directory.
    pub path: PathBuf,
    /// What it understands.
    pub kind: TreeKind,
}

/// What a control group understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TreeKind {
    /// `cgroup.freeze` and, from Linux 5.14, `cgroup.kill`.
    V2,
    /// `freezer.state`.
    Freezer,
}

impl TreeKind {
    /// The word in the launch file.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Freezer => "freezer",
        }
    }
}

impl Tree {
    /// Reads it from the launch file; none if its kind is not known.
    pub(crate) fn of(path: PathBuf, kind: &str) -> Option<Self> {
        let kind = [TreeKind::V2, TreeKind::Freezer]
            .into_iter()
            .find(|k| k.as_str() == kind)?;
        Some(Self { path, kind })
    }

    /// The processes in it; none once it is gone.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Sends a signal to every process in it.
    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.pids(), signal);
    }

    /// Kills every process in it, frozen or not; those that are born meanwhile are caught by the
    /// next call.
    pub(crate) fn kill(&self) {
        match self.kind {
            TreeKind::V2 if fs::write(self.path.join("cgroup.kill"), "1").is_ok() => {}
            TreeKind::V2 => self.signal(Signal::KILL),
            TreeKind::Freezer => {
                // Frozen, none can fork between the reading of the list and the last signal.
                let _ = self.freeze();
                self.signal(Signal::KILL);
                let _ = self.thaw();
            }
        }
    }

    /// Stops every process in it from being scheduled; returns once the last one stands still.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        let (file, word) = self.switch(true);
        fs::write(self.path.join(file), word)?;
        let begun = Instant::now();
        while !self.stands_still()? {
            if begun.elapsed() > FREEZE_PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_micros(200));
            if self.kind == TreeKind::Freezer {
                // Version 1 freezes what is born meanwhile only when told again.
                fs::write(self.path.join(file), word)?;
            }
        }
        Ok(())
    }

    /// Undoes [`freeze`](Self::freeze).
    pub(crate) fn thaw(&self) -> io::Result<()> {
        let (file, word) = self.switch(false);
        fs::write(self.path.join(file), word)
    }

    /// Whether it was told to stand still.
    pub(crate) fn is_frozen(&self) -> bool {
        match self.kind {
            TreeKind::V2 => read(&self.path, "cgroup.freeze").starts_with('1'),
            TreeKind::Freezer => !read(&self.path, "freezer.state").starts_with("THAWED"),
        }
    }

    fn stands_still(&self) -> io::Result<bool> {
        Ok(match self.kind {
            TreeKind::V2 => fs::read_to_string(self.path.join("cgroup.events"))?
                .lines()
                .any(|line| line == "frozen 1"),
            TreeKind::Freezer => {
                fs::read_to_string(self.path.join("freezer.state"))?.starts_with("FROZEN")
            }
        })
    }

    fn switch(&self, frozen: bool) -> (&'static str, &'static str) {
        match (self.kind, frozen) {
            (TreeKind::V2, true) => ("cgroup.freeze", "1"),
            (TreeKind::V2, false) => ("cgroup.freeze", "0"),
            (TreeKind::Freezer, true) => ("freezer.state", "FROZEN"),
            (TreeKind::Freezer, false) => ("freezer.state", "THAWED"),
        }
    }
}

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_default()
}

/// Sends a signal to processes; those that are gone are no matter.
pub(crate) fn send(pids: &[u32], signal: Signal) {
    for pid in pids {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Every process below `root`, without it: children of all its threads, and theirs.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let text = read(&thread.path(), "children");
            let children = text
                .split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok());
            for child in children {
                if !found.contains(&child) {
                    found.push(child);
                    next.push(child);
                }
            }
        }
    }
    found
}

/// Processes of a run whose shim is gone and that has no control group: those of the shim's
/// session, and those that carry the run's id in their environment.
pub(crate) fn strays(shim: u32, run: &str) -> Vec<u32> {
    let mark = format!("LOOM_RUN={run}");
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id();
    let is_stray = |pid: u32| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read(process.join("stat")).unwrap_or_default();
        // Of the kernel's own threads, and of what no shim began, it is 0.
        let in_session = shim > 0 && stat_field(&stat, 6) == Some(u64::from(shim));
        in_session || {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == mark.as_bytes())
        }
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own && is_stray(*pid))
        .collect()
}
