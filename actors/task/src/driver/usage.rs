//! What a run uses, from the files of its control groups: five of them take a tenth of a millisecond,
//! where the engine's own figures take up to a second.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shim::record::stat_field;

/// Clock ticks of the kernel's process times, a second; the same on every Linux there is.
const TICKS: u64 = 100;

/// The size of a page, in bytes.
const PAGE: u64 = 4096;

/// A limit above this is none, in bytes: version 1 has a number of its own for that.
const NO_LIMIT: u64 = 1 << 60;

/// What the processes of a run use now, or have used so far; what the kernel does not tell is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time so far, in microseconds.
    pub cpu_us: Option<u64>,
    /// Memory, in bytes, without files that the kernel would give up at once.
    pub memory: Option<u64>,
    /// What memory is limited to, in bytes.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Read from block devices so far, in bytes.
    pub read: Option<u64>,
    /// Written to block devices so far, in bytes.
    pub written: Option<u64>,
}

/// The control groups that a run has to itself, by controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    /// Controllers of version 1 with their directory; `""` stands for the one group of version 2.
    found: Vec<(String, PathBuf)>,
}

impl Groups {
    /// Those groups of a process whose path holds `mark`: no other run is in them.
    pub(super) fn of(pid: u32, mark: &str) -> Self {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::read(&groups, &mounts, mark)
    }

    fn read(groups: &str, mounts: &str, mark: &str) -> Self {
        let mut found = Vec::new();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            if !path.split('/').any(|part| part.contains(mark)) {
                continue;
            }
            for controller in controllers.split(',') {
                if let Some(mount) = mount_of(mounts, controller) {
                    let path = mount.join(path.trim_start_matches('/'));
                    found.push((controller.to_owned(), path));
                }
            }
        }
        Self { found }
    }

    /// Whether it has any.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The directory of a controller; that of version 2 where it is in use.
    pub(super) fn path(&self, controller: &str) -> Option<&Path> {
        let of = |name: &str| {
            let found = self.found.iter().find(|(found, _)| found == name);
            found.map(|(_, path)| path.as_path())
        };
        of(controller).or_else(|| of(""))
    }

    /// Every process in it, also in groups below.
    pub(super) fn pids(&self) -> Vec<u32> {
        let top = ["pids", "freezer", "memory", "cpu"];
        let top = top.into_iter().find_map(|controller| self.path(controller));
        let mut pids = Vec::new();
        let mut open: Vec<PathBuf> = top.map(Path::to_path_buf).into_iter().collect();
        while let Some(group) = open.pop() {
            let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            let below = fs::read_dir(&group).into_iter().flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            open.extend(below.map(|entry| entry.path()));
        }
        pids
    }

    /// Whether it stands still.
    pub(super) fn is_frozen(&self) -> bool {
        let version1 = self.text("freezer", "freezer.state");
        let version2 = || self.text("", "cgroup.freeze");
        version1.or_else(version2).is_some_and(|state| {
            let state = state.trim();
            state == "FROZEN" || state == "FREEZING" || state == "1"
        })
    }

    /// What is used; what the groups do not tell is summed over their processes.
    pub(super) fn usage(&self) -> Usage {
        let pids = self.pids();
        let (read, written) = self.io().unzip();
        let memory = self.memory();
        Usage {
            cpu_us: self.cpu().or_else(|| sum(&pids, cpu_of)),
            memory: memory.or_else(|| sum(&pids, memory_of)),
            memory_limit: self.memory_limit(),
            pids: self
                .number("pids", "pids.current")
                .or_else(|| sum(&pids, threads_of)),
            read: read.or_else(|| sum(&pids, |pid| io_of(pid, "read_bytes: "))),
            written: written.or_else(|| sum(&pids, |pid| io_of(pid, "write_bytes: "))),
        }
    }

    /// As [`held_in_memory`]; none under version 1, which refuses a limit below that by itself.
    pub(super) fn held_in_memory(&self) -> Option<u64> {
        let group = self.path("")?;
        let limited = group.join("memory.max").exists();
        limited.then(|| held_in_memory(group))?
    }

    /// How many of its processes the kernel has killed for memory; none if it does not say, or the
    /// group is gone.
    pub(super) fn oom_kills(&self) -> Option<u64> {
        let version1 = self.text("memory", "memory.oom_control");
        let text = version1.or_else(|| self.text("memory", "memory.events"))?;
        field(&text, "oom_kill ")
    }

    fn text(&self, controller: &str, file: &str) -> Option<String> {
        fs::read_to_string(self.path(controller)?.join(file)).ok()
    }

    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        self.text(controller, file)?.trim().parse().ok()
    }

    fn cpu(&self) -> Option<u64> {
        let version1 = self.number("cpuacct", "cpuacct.usage");
        let version2 = || field(&self.text("cpu", "cpu.stat")?, "usage_usec ");
        version1.map(|nanos| nanos / 1000).or_else(version2)
    }

    fn memory(&self) -> Option<u64> {
        let version1 = self.number("memory", "memory.usage_in_bytes");
        let all = version1.or_else(|| self.number("memory", "memory.current"))?;
        let stat = self.text("memory", "memory.stat").unwrap_or_default();
        let idle = field(&stat, "total_inactive_file ").or_else(|| field(&stat, "inactive_file "));
        Some(all.saturating_sub(idle.unwrap_or(0)))
    }

    fn memory_limit(&self) -> Option<u64> {
        let version1 = self.number("memory", "memory.limit_in_bytes");
        let limit = version1.or_else(|| self.number("memory", "memory.max"));
        limit.filter(|limit| *limit < NO_LIMIT)
    }

    fn io(&self) -> Option<(u64, u64)> {
        let files = [
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ];
        let version1 = files.iter().find_map(|file| self.text("blkio", file));
        if let Some(text) = version1 {
            return Some((lines(&text, "Read"), lines(&text, "Write")));
        }
        let text = self.text("io", "io.stat")?;
        let all = |key: &str| {
            let words = text.split_ascii_whitespace();
            words
                .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
                .sum()
        };
        Some((all("rbytes="), all("wbytes=")))
    }
}

/// The bytes of memory of a group of version 2 that the kernel could not give up without killing.
pub(super) fn held_in_memory(group: &Path) -> Option<u64> {
    let stat = fs::read_to_string(group.join("memory.stat")).ok()?;
    Some(field(&stat, "anon ")? + field(&stat, "shmem ").unwrap_or(0))
}

/// What is used by processes that have no group of their own.
pub(super) fn of_processes(pids: &[u32]) -> Usage {
    Usage {
        cpu_us: sum(pids, cpu_of),
        memory: sum(pids, memory_of),
        memory_limit: None,
        pids: sum(pids, threads_of),
        read: sum(pids, |pid| io_of(pid, "read_bytes: ")),
        written: sum(pids, |pid| io_of(pid, "write_bytes: ")),
    }
}

/// Where a controller is mounted; of version 2 for the empty name.
fn mount_of(mounts: &str, controller: &str) -> Option<PathBuf> {
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

/// The number after a key that begins a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.trim().parse().ok()
}

/// The sum over lines `8:0 Read 4096`.
fn lines(text: &str, word: &str) -> u64 {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.split(' ').skip(1);
            (parts.next() == Some(word)).then(|| parts.next()?.parse::<u64>().ok())?
        })
        .sum()
}

/// The sum over processes that still are there; none where none is.
fn sum(pids: &[u32], of: impl Fn(u32) -> Option<u64>) -> Option<u64> {
    let known: Vec<u64> = pids.iter().filter_map(|pid| of(*pid)).collect();
    (!known.is_empty()).then(|| known.iter().sum())
}

fn stat(pid: u32, fields: &[usize]) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    fields.iter().map(|number| stat_field(&stat, *number)).sum()
}

/// Own time and that of children it has waited for, in microseconds.
fn cpu_of(pid: u32) -> Option<u64> {
    stat(pid, &[14, 15, 16, 17]).map(|ticks| ticks * (1_000_000 / TICKS))
}

fn memory_of(pid: u32) -> Option<u64> {
    stat(pid, &[24]).map(|pages| pages * PAGE)
}

fn threads_of(pid: u32) -> Option<u64> {
    stat(pid, &[20])
}

fn io_of(pid: u32, key: &str) -> Option<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/io")).ok()?, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
33 25 0:29 / /proc rw - proc proc rw";

    #[test]
    fn only_the_groups_with_the_mark_are_a_runs_own() {
        let groups = "\
3:cpu,cpuacct:/docker/abc
2:memory:/docker/abc
1:pids:/
0::/";
        let found = Groups::read(groups, MOUNTS, "abc");
        let path = |controller| {
            found
                .path(controller)
                .map(|path| path.display().to_string())
        };
        assert_eq!(path("memory").unwrap(), "/sys/fs/cgroup/memory/docker/abc");
        assert_eq!(
            path("cpuacct").unwrap(),
            "/sys/fs/cgroup/cpu,cpuacct/docker/abc"
        );
        assert_eq!(path("pids"), None);
        assert!(Groups::read(groups, MOUNTS, "abcd").is_empty());
        let found = Groups::read("0::/system.slice/docker-abc.scope", MOUNTS, "abc");
        let path = found.path("memory").unwrap();
        assert_eq!(
            path,
            Path::new("/sys/fs/cgroup/unified/system.slice/docker-abc.scope")
        );
    }

    #[test]
    fn this_process_uses_something() {
        let usage = of_processes(&[std::process::id()]);
        assert!(usage.memory.unwrap() > 1 << 20, "{usage:?}");
        assert!(usage.pids.unwrap() >= 1);
        assert_eq!(of_processes(&[]), Usage::default());
    }

    #[test]
    fn figures_are_summed_over_devices() {
        let text = "8:0 Read 100\n8:0 Write 20\n8:16 Read 11\n8:0 Total 131\nTotal 131\n";
        assert_eq!((lines(text, "Read"), lines(text, "Write")), (111, 20));
        assert_eq!(field("a 1\ninactive_file 7\n", "inactive_file "), Some(7));
    }
}
