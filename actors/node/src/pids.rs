//! How many processes and threads the host lets its tasks have.

use std::fs;
use std::path::Path;

/// What of them is kept for the host and for Loom: an eighth, at most so many.
const KEPT_MAX: u32 = 4096;

/// What tasks may have of them on this host; none if it does not say.
pub(crate) fn most() -> Option<u32> {
    let all = allowed(Path::new("/proc"), Path::new("/sys/fs/cgroup"))?;
    Some(all - (all / 8).min(KEPT_MAX))
}

/// The least of what the kernel allows in all, and what it allows this process's control groups, one
/// above the other.
fn allowed(proc: &Path, cgroups: &Path) -> Option<u32> {
    let kernel = ["pid_max", "threads-max"].map(|name| number(&proc.join("sys/kernel").join(name)));
    let own = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
    let groups = own.lines().filter_map(|line| group(cgroups, line));
    let groups = groups.flat_map(|(root, group)| {
        let of = group.ancestors().filter(|above| above.starts_with(&root));
        of.map(|above| number(&above.join("pids.max")))
            .collect::<Vec<_>>()
    });
    kernel.into_iter().chain(groups).flatten().min()
}

/// Where the hierarchy of a line of `/proc/self/cgroup` is mounted, and the process's group in it; none
/// if it counts no processes. Of version 1 each controller has a hierarchy.
fn group(cgroups: &Path, line: &str) -> Option<(std::path::PathBuf, std::path::PathBuf)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let root = match controllers {
        "" => cgroups.to_path_buf(),
        _ => cgroups.join(controllers.split(',').find(|name| *name == "pids")?),
    };
    let group = root.join(path.trim_start_matches('/'));
    Some((root, group))
}

/// The number in a file; none if there is none, as in `max`.
fn number(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let number: u64 = text.trim().parse().ok()?;
    Some(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that allows 32,768, and what control groups there are.
    fn host(own: &str, limits: &[(&str, &str)]) -> Option<u32> {
        let host = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = host.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/sys/kernel/pid_max", "32768\n");
        put("proc/sys/kernel/threads-max", "192730\n");
        put("proc/self/cgroup", own);
        for (group, limit) in limits {
            put(&format!("cgroup/{group}/pids.max"), limit);
        }
        allowed(&host.path().join("proc"), &host.path().join("cgroup"))
    }

    #[test]
    fn the_least_of_kernel_and_groups_counts() {
        assert_eq!(host("", &[]), Some(32_768));
        let version1 = "9:cpu,cpuacct:/\n4:pids:/system/loom\n1:name=systemd:/a\n";
        let limits = [
            ("pids/system/loom", "max\n"),
            ("pids/system", "9000\n"),
            ("cpu", "1\n"),
        ];
        assert_eq!(host(version1, &limits), Some(9000));
        let version2 = "0::/system.slice/loom.service\n";
        let limits = [
            ("system.slice/loom.service", "4915\n"),
            ("system.slice", "max\n"),
            ("user.slice", "1\n"),
        ];
        assert_eq!(host(version2, &limits), Some(4915));
    }

    #[test]
    fn a_host_that_says_nothing_is_not_counted() {
        let nothing = tempfile::tempdir().unwrap();
        assert_eq!(allowed(nothing.path(), nothing.path()), None);
        assert!(most().is_some_and(|most| most > 100));
    }
}
