//! Where control groups are mounted.

use std::path::PathBuf;

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) path: PathBuf,
    pub(super) version2: bool,
    pub(super) options: Vec<String>,
}

/// The cgroup mounts among all.
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut after = after.split(' ');
            let version2 = match after.next()? {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            let options = after.nth(1)?.split(',').map(str::to_owned).collect();
            let path = PathBuf::from(before.split(' ').nth(4)?);
            Some(Mount { path, version2, options })
        })
        // Others (devices, systemd's own) are none of ours.
        .filter(|mount| {
            let ours = |option: &String| {
                let mut names = super::CONTROLLERS.iter().chain(&super::OF_VERSION_1);
                names.any(|name| option == name)
            };
            mount.version2 || mount.options.iter().any(ours)
        })
        .collect()
}
