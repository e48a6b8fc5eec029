//! What the kernel holds a process to, read from the files of its control groups, version 1 or 2.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// The limits of a process; none where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Its share of processors, in thousandths of a core.
    pub cpu: Option<u64>,
    /// The hard cap on them, in thousandths of a core.
    pub cpu_limit: Option<u64>,
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// Processes and threads of its group; of a process task under version 1 its shim is one more.
    pub pids: Option<u64>,
    /// What is read from a disk in a second, in bytes, of every disk with a rate.
    pub read_rate: BTreeSet<u64>,
    /// What is written.
    pub write_rate: BTreeSet<u64>,
}

/// The limits of a process of this host.
pub fn limits(pid: u32) -> Limits {
    let groups = Groups::of(pid);
    let number = |controller: &str, file: &str| groups.number(controller, file);
    let quota = number("cpu", "cpu.cfs_quota_us").map(|quota| quota / 100);
    let share = number("cpu", "cpu.shares").map(|shares| (shares * 1000).div_ceil(1024));
    let weight = || number("cpu", "cpu.weight").map(|weight| weight * 10);
    let memory = number("memory", "memory.limit_in_bytes");
    let memory = memory.or_else(|| number("memory", "memory.max"));
    Limits {
        cpu: share.or_else(weight),
        cpu_limit: quota.or_else(|| groups.number("cpu", "cpu.max").map(|quota| quota / 100)),
        // Version 1 has a number of its own for no limit.
        memory: memory.filter(|memory| *memory < 1 << 60),
        pids: number("pids", "pids.max"),
        read_rate: groups.rates("blkio.throttle.read_bps_device", "rbps="),
        write_rate: groups.rates("blkio.throttle.write_bps_device", "wbps="),
    }
}

/// Whether the kernel here limits what a controller stands for: `cpu`, `memory`, `pids`, `blkio`.
pub fn has(controller: &str) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let version2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let word = if controller == "blkio" {
        "io"
    } else {
        controller
    };
    mount(&text, controller).is_some() || version2.split_whitespace().any(|found| found == word)
}

/// The directory of each controller; `""` stands for that of version 2.
struct Groups(Vec<(String, PathBuf)>);

impl Groups {
    fn of(pid: u32) -> Self {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut found = Vec::new();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next(), parts.next());
            let (Some(controllers), Some(path)) = (controllers, path) else {
                continue;
            };
            for controller in controllers.split(',') {
                if let Some(mount) = mount(&mounts, controller) {
                    let path = mount.join(path.trim_start_matches('/'));
                    found.push((controller.to_owned(), path));
                }
            }
        }
        Self(found)
    }

    fn text(&self, controller: &str, file: &str) -> Option<String> {
        let of = |name: &str| {
            let found = self.0.iter().find(|(found, _)| found == name);
            found.and_then(|(_, path)| fs::read_to_string(path.join(file)).ok())
        };
        of(controller).or_else(|| of(""))
    }

    /// The first number of a file; none for `max` and for less than nothing.
    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        let text = self.text(controller, file)?;
        text.split_whitespace().next()?.parse().ok()
    }

    /// The rates of all disks: lines `8:0 1048576`, or `8:0 rbps=1048576 wbps=max`.
    fn rates(&self, version1: &str, version2: &str) -> BTreeSet<u64> {
        if let Some(text) = self.text("blkio", version1) {
            let rates = text.lines().filter_map(|line| line.split_once(' '));
            return rates.filter_map(|(_, rate)| rate.parse().ok()).collect();
        }
        let text = self.text("", "io.max").unwrap_or_default();
        let words = text.split_whitespace();
        let rates = words.filter_map(|word| word.strip_prefix(version2)?.parse().ok());
        rates.collect()
    }
}

/// Where a controller is mounted; of version 2 for the empty name.
fn mount(mounts: &str, controller: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let kind = after.next()?;
        let mut options = after.nth(1)?.split(',');
        let fits = match kind {
            "cgroup2" => controller.is_empty(),
            "cgroup" => !controller.is_empty() && options.any(|option| option == controller),
            _ => false,
        };
        fits.then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}
