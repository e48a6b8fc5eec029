//! Other limits for a run that runs, in the files of its groups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use loom_schemas::spec::Resources;
use loom_schemas::units::Bytes;

use super::limits::{quota, share};
use super::{Cgroups, Hierarchy};
use crate::driver::disk;
use crate::driver::usage::held_in_memory;
use crate::shim::tree::Tree;

/// How often the processes of a run are looked over for such as were forked meanwhile.
const MOVES: usize = 20;

impl Cgroups {
    /// Holds a run to other limits; what of them it cannot be held to here, a phrase each. An error
    /// says in words what the kernel refused.
    ///
    /// `shim` is the process above the run's own.
    pub(in super::super) fn resize(
        &self,
        run: &str,
        wanted: &Resources,
        tree: Option<&Tree>,
        shim: Option<u32>,
    ) -> Result<Vec<String>, String> {
        let mut notes = Vec::new();
        // First what may be refused, so that then nothing has changed.
        if let Some(hierarchy) = self.group(self.memory.as_ref(), run, "memory limit", &mut notes) {
            let group = hierarchy.path.join(run);
            memory(&group, hierarchy.version2, wanted.memory)?;
        }
        if let Some(hierarchy) = self.group(self.cpu.as_ref(), run, "cpu share", &mut notes) {
            let group = hierarchy.path.join(run);
            let (file, value) = share(hierarchy.version2, wanted.cpu.0.into());
            put(&group, file, &value, "cpu share")?;
            let (file, value) = quota(hierarchy.version2, wanted.cpu_limit);
            put(&group, file, &value, "cpu limit")?;
        } else if wanted.cpu_limit.is_some() {
            notes.push(format!("cpu limit: {}", self.reason()));
        }
        if let Some(hierarchy) = self.group(self.pids.as_ref(), run, "pids limit", &mut notes) {
            let most = self.most_pids(hierarchy, wanted.most_pids());
            put(&hierarchy.path.join(run), "pids.max", &most, "pids limit")?;
        }
        notes.extend(self.resize_io(run, wanted.disk_rate, tree, shim)?);
        Ok(notes)
    }

    /// The hierarchy, if the run has a group in it; else it is noted that it has none.
    fn group<'a>(
        &self,
        found: Option<&'a Hierarchy>,
        run: &str,
        what: &str,
        notes: &mut Vec<String>,
    ) -> Option<&'a Hierarchy> {
        let found = found.filter(|hierarchy| hierarchy.path.join(run).is_dir());
        if found.is_none() {
            notes.push(format!("{what}: {}", self.reason()));
        }
        found
    }

    fn resize_io(
        &self,
        run: &str,
        rate: Option<Bytes>,
        tree: Option<&Tree>,
        shim: Option<u32>,
    ) -> Result<Vec<String>, String> {
        let Some(hierarchy) = &self.io else {
            let note = rate.map(|_| format!("disk rate: {}", self.reason()));
            return Ok(note.into_iter().collect());
        };
        let group = hierarchy.path.join(run);
        if !group.is_dir() {
            // Only runs with a rate enter one at their start.
            let Some(tree) = tree.filter(|_| rate.is_some()) else {
                let note = rate.map(|_| format!("disk rate: {}", self.reason()));
                return Ok(note.into_iter().collect());
            };
            fs::create_dir(&group).map_err(|error| refused("disk rate", &error))?;
            // Limited first: nobody in it is without a limit.
            let notes = disk::limit(&group, hierarchy.version2, rate);
            enter(&group, tree, shim).map_err(|error| refused("disk rate", &error))?;
            return Ok(notes);
        }
        Ok(disk::limit(&group, hierarchy.version2, rate))
    }

    /// The groups a run was started in, and those it may be moved into later.
    pub(in super::super) fn all_groups(&self, run: &str, started_in: &[PathBuf]) -> Vec<PathBuf> {
        let io = self.io.iter().map(|io| io.path.join(run));
        let later = io.filter(|group| !started_in.contains(group));
        started_in.iter().cloned().chain(later).collect()
    }
}

/// Moves the processes of a run into a group, until none is forked outside of it any more.
fn enter(group: &Path, tree: &Tree, shim: Option<u32>) -> io::Result<()> {
    let procs = group.join("cgroup.procs");
    for _ in 0..MOVES {
        let inside = fs::read_to_string(&procs)?;
        let inside: Vec<&str> = inside.lines().collect();
        let all = tree.pids().into_iter().chain(shim);
        let outside = all.map(|pid| pid.to_string());
        let outside: Vec<_> = outside
            .filter(|pid| !inside.contains(&pid.as_str()))
            .collect();
        if outside.is_empty() {
            return Ok(());
        }
        for pid in outside {
            match fs::write(&procs, &pid) {
                // It has ended.
                Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
                other => other?,
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Sets what memory is limited to, where what is used already can be brought below it.
fn memory(group: &Path, version2: bool, limit: Bytes) -> Result<(), String> {
    if limit.0 == 0 {
        return Ok(());
    }
    let what = "memory limit";
    let value = limit.0.to_string();
    if version2 {
        // This kernel would kill what is above the limit; it is to go on.
        if let Some(held) = held_in_memory(group).filter(|held| *held > limit.0) {
            let held = Bytes(held);
            return Err(format!("{what}: it holds {held}, more than {limit}"));
        }
        // Not every kernel counts swap.
        let _ = fs::write(group.join("memory.swap.max"), "0");
        return put(group, "memory.max", &value, what);
    }
    let file = "memory.limit_in_bytes";
    let with_swap = || {
        let _ = fs::write(group.join("memory.memsw.limit_in_bytes"), &value);
    };
    // The limit with swap is never below the other one.
    with_swap();
    let set = fs::write(group.join(file), &value);
    with_swap();
    set.map_err(|error| {
        let used = fs::read_to_string(group.join("memory.usage_in_bytes")).ok();
        let used: Option<u64> = used.and_then(|text| text.trim().parse().ok());
        match used.filter(|used| *used > limit.0) {
            Some(used) => format!("{what}: it holds {}, more than {limit}", Bytes(used)),
            None => refused(what, &error),
        }
    })
}

fn put(group: &Path, file: &str, value: &str, what: &str) -> Result<(), String> {
    fs::write(group.join(file), value).map_err(|error| refused(what, &error))
}

fn refused(what: &str, error: &io::Error) -> String {
    format!("{what}: {error}")
}

#[cfg(test)]
mod tests {
    use loom_schemas::units::MilliCores;

    use super::*;

    /// The files of one version, as the kernel shows them of a run `r`.
    fn groups(version2: bool, files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroups) {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("r");
        fs::create_dir(&group).unwrap();
        for (file, text) in files {
            fs::write(group.join(file), text).unwrap();
        }
        let hierarchy = Some(Hierarchy {
            path: folder.path().to_path_buf(),
            version2,
        });
        let mut cgroups = Cgroups::default();
        cgroups.cpu.clone_from(&hierarchy);
        cgroups.memory.clone_from(&hierarchy);
        cgroups.pids.clone_from(&hierarchy);
        cgroups.tree = hierarchy;
        (folder, cgroups)
    }

    fn wanted() -> Resources {
        Resources {
            cpu: MilliCores(500),
            cpu_limit: Some(MilliCores(1500)),
            memory: Bytes::mib(64),
            pids: Some(9),
            ..Resources::default()
        }
    }

    #[test]
    fn every_limit_is_written_under_both_versions() {
        type Files = &'static [(&'static str, &'static str)];
        let tables: [(bool, Files, Files); 2] = [
            (
                false,
                &[
                    ("cpu.shares", "512"),
                    ("cpu.cfs_quota_us", "150000"),
                    ("memory.limit_in_bytes", "67108864"),
                    ("pids.max", "9"),
                ],
                &[("cpu.cfs_quota_us", "-1")],
            ),
            (
                true,
                &[
                    ("cpu.weight", "50"),
                    ("cpu.max", "150000 100000"),
                    ("memory.max", "67108864"),
                    ("memory.swap.max", "0"),
                    ("pids.max", "9"),
                ],
                &[("cpu.max", "max 100000")],
            ),
        ];
        for (version2, expected, without_cap) in tables {
            let stat = [("memory.stat", "anon 1048576\nshmem 0\n")];
            let (folder, cgroups) = groups(version2, &stat);
            let read = |file: &str| fs::read_to_string(folder.path().join("r").join(file)).unwrap();
            assert_eq!(cgroups.resize("r", &wanted(), None, None), Ok(Vec::new()));
            for (file, value) in expected {
                assert_eq!(read(file), *value, "{file}");
            }
            let free = Resources {
                cpu_limit: None,
                ..wanted()
            };
            cgroups.resize("r", &free, None, None).unwrap();
            for (file, value) in without_cap {
                assert_eq!(read(file), *value, "{file}");
            }
        }
    }

    #[test]
    fn what_would_be_killed_for_its_memory_is_left_as_it_is() {
        let stat = [
            ("memory.stat", "anon 62914560\nfile 9\nshmem 10485760\n"),
            ("memory.max", "134217728"),
        ];
        let (folder, cgroups) = groups(true, &stat);
        let error = cgroups.resize("r", &wanted(), None, None).unwrap_err();
        assert!(
            error.starts_with("memory limit: it holds 70MiB, more than 64MiB"),
            "{error}"
        );
        let group = folder.path().join("r");
        assert_eq!(
            fs::read_to_string(group.join("memory.max")).unwrap(),
            "134217728"
        );
        assert!(
            !group.join("cpu.weight").exists(),
            "nothing else has changed"
        );
    }

    #[test]
    fn what_has_no_group_is_noted_and_no_error() {
        let (_folder, cgroups) = groups(true, &[]);
        let rate = Resources {
            disk_rate: Some(Bytes::mib(1)),
            ..wanted()
        };
        let notes = cgroups.resize("other", &rate, None, None).unwrap();
        let of = [
            "memory limit",
            "cpu share",
            "cpu limit",
            "pids limit",
            "disk rate",
        ];
        assert_eq!(notes.len(), of.len(), "{notes:?}");
        for (note, what) in notes.iter().zip(of) {
            assert_eq!(*note, format!("{what}: no cgroup"));
        }
    }
}
