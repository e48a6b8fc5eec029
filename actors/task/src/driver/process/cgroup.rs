//! Control groups of version 1 and 2: one group a run in every hierarchy that is needed.

mod limits;
mod mounts;
mod resize;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loom_schemas::spec::Resources;

use self::mounts::{Mount, mounts};
use crate::shim::tree::{Tree, TreeKind};

/// The controllers that limits need, by their names under version 2.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// What of version 1 there is beside them: who is paused and killed as a whole, and disks by the name
/// that they have there.
const OF_VERSION_1: [&str; 2] = ["freezer", "blkio"];

/// Where the shims are, outside of what is frozen and killed.
const SHIMS: &str = "shims";

/// How long a group may take to be empty before its removal is left to the next clean-up.
const REMOVE_PATIENCE: Duration = Duration::from_millis(100);

/// How often a group is made again when the one above it went meanwhile.
const MAKE_TRIES: usize = 10;

/// The groups of one agent: `loom/<tag>` in every hierarchy it may use.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    /// Stops and kills whole trees.
    tree: Option<Hierarchy>,
    cpu: Option<Hierarchy>,
    memory: Option<Hierarchy>,
    pids: Option<Hierarchy>,
    /// Entered only by runs that are held to a rate.
    io: Option<Hierarchy>,
    /// Why there is none where there is none.
    why: String,
}

/// A hierarchy, from this agent's group in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    path: PathBuf,
    version2: bool,
}

/// The groups of one run, and what its shim is told of them.
#[derive(Clone, Debug, Default)]
pub(super) struct RunGroups {
    pub groups: Vec<PathBuf>,
    pub enter: Vec<PathBuf>,
    pub leave: Vec<PathBuf>,
    pub tree: Option<Tree>,
    pub oom: Option<PathBuf>,
    pub unenforced: Vec<String>,
}

impl Cgroups {
    /// Finds what this kernel and this user's rights give, and makes the agent's own groups.
    pub(super) fn open(tag: &str) -> Self {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts(&text);
        let mut made = Vec::new();
        let mut why = String::from("no cgroup hierarchy is mounted");
        for mount in &mounts {
            match Hierarchy::make(mount, tag) {
                Ok(hierarchy) => made.push((mount, hierarchy)),
                Err(error) => why = format!("no cgroup: {}: {error}", mount.path.display()),
            }
        }
        let of = |name: &str| {
            made.iter()
                .find(|(mount, hierarchy)| hierarchy.has(mount, name))
                .map(|(_, h)| h.clone())
        };
        let version2 = made
            .iter()
            .find(|(mount, _)| mount.version2)
            .map(|(_, h)| h.clone());
        // Version 1's freezer first: it is entered without the wait of `Hierarchy::entry`.
        let tree = of("freezer")
            .or_else(|| version2.filter(|h| h.path.join(SHIMS).join("cgroup.freeze").exists()));
        let [cpu, memory, pids, io] = CONTROLLERS.map(of);
        let io = io.or_else(|| of("blkio"));
        let found = Self {
            tree,
            cpu,
            memory,
            pids,
            io,
            why,
        };
        let used: Vec<_> = found.used().filter_map(Hierarchy::identity).collect();
        for (_, hierarchy) in &made {
            if hierarchy.identity().is_some_and(|id| !used.contains(&id)) {
                hierarchy.leave();
            }
        }
        found
    }

    /// The hierarchies that are used, some of them more than once.
    fn used(&self) -> impl Iterator<Item = &Hierarchy> {
        [&self.tree, &self.cpu, &self.memory, &self.pids, &self.io]
            .into_iter()
            .flatten()
    }

    /// What of a run cannot be held to here, a word each, and in words what there is.
    pub(super) fn summary(&self) -> (String, Vec<&'static str>) {
        let controllers = [
            ("cpu", &self.cpu),
            ("memory", &self.memory),
            ("pids", &self.pids),
        ];
        let missing: Vec<_> = controllers
            .iter()
            .filter(|(_, found)| found.is_none())
            .map(|(name, _)| *name)
            .collect();
        let found = match &self.tree {
            Some(tree) if tree.version2 => "version 2".to_owned(),
            Some(_) => "version 1".to_owned(),
            None => self.reason().to_owned(),
        };
        (found, missing)
    }

    /// Makes the groups of a run and sets its limits.
    pub(super) fn make(&self, run: &str, wanted: &Resources) -> RunGroups {
        let mut made = RunGroups::default();
        let always = [&self.tree, &self.cpu, &self.memory, &self.pids];
        let io = self.io.iter().filter(|_| wanted.disk_rate.is_some());
        for hierarchy in always.into_iter().flatten().chain(io) {
            let group = hierarchy.path.join(run);
            if made.groups.contains(&group) {
                continue;
            }
            let mut created = fs::create_dir(&group);
            if matches!(&created, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                // Another driver on the same directory was the last to leave.
                created = make_directories(&hierarchy.path.join(SHIMS))
                    .and_then(|()| fs::create_dir(&group));
            }
            match created {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    made.unenforced
                        .push(format!("{}: {error}", group.display()));
                }
                _ => {
                    made.enter.push(group.join(hierarchy.entry()));
                    made.groups.push(group);
                }
            }
        }
        self.limit_cpu(run, wanted, &mut made);
        self.limit_memory(run, wanted, &mut made);
        self.limit_pids(run, wanted, &mut made);
        self.limit_io(run, wanted, &mut made);
        match &self.tree {
            Some(tree) if made.groups.contains(&tree.path.join(run)) => {
                let kind = if tree.version2 {
                    TreeKind::V2
                } else {
                    TreeKind::Freezer
                };
                made.tree = Some(Tree {
                    path: tree.path.join(run),
                    kind,
                });
                made.leave.push(tree.path.join(SHIMS).join(tree.entry()));
            }
            _ => made
                .unenforced
                .push(format!("pause: by SIGSTOP, {}", self.reason())),
        }
        made
    }

    fn reason(&self) -> &str {
        if self.why.is_empty() {
            "no cgroup"
        } else {
            &self.why
        }
    }

    /// Every run that has a group here.
    pub(super) fn runs(&self) -> BTreeSet<String> {
        self.used()
            .filter_map(|hierarchy| fs::read_dir(&hierarchy.path).ok())
            .flat_map(Iterator::flatten)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name != SHIMS)
            .collect()
    }

    /// Kills what is in the groups of a run of which nothing else is known, and removes them.
    pub(super) fn clear(&self, run: &str) {
        let groups: Vec<_> = self
            .used()
            .map(|hierarchy| hierarchy.path.join(run))
            .collect();
        if let Some(tree) = &self.tree {
            let kind = if tree.version2 {
                TreeKind::V2
            } else {
                TreeKind::Freezer
            };
            Tree {
                path: tree.path.join(run),
                kind,
            }
            .kill();
        }
        remove(&groups);
    }
}

/// The groups of an agent go with it, unless runs are left in them.
impl Drop for Cgroups {
    fn drop(&mut self) {
        self.used().for_each(Hierarchy::leave);
    }
}

impl Hierarchy {
    /// Tells the groups from others, also where one hierarchy is mounted twice.
    fn identity(&self) -> Option<(u64, u64)> {
        let group = fs::metadata(&self.path).ok()?;
        Some((group.dev(), group.ino()))
    }

    /// Removes the agent's groups; the kernel refuses while anything is in them.
    fn leave(&self) {
        let _ = fs::remove_dir(self.path.join(SHIMS));
        let _ = fs::remove_dir(&self.path);
        if let Some(all) = self.path.parent() {
            let _ = fs::remove_dir(all);
        }
    }

    /// Makes `loom/<tag>` at the top of a hierarchy, else below the agent's own group (where a
    /// user was given that).
    fn make(mount: &Mount, tag: &str) -> io::Result<Self> {
        let top = make_agents(&mount.path, tag, mount.version2);
        let path = match top {
            Err(_) if mount.version2 => {
                let own = own_group().ok_or(io::ErrorKind::NotFound)?;
                make_agents(&mount.path.join(own), tag, true)?
            }
            other => other?,
        };
        Ok(Self {
            path,
            version2: mount.version2,
        })
    }

    /// The file by which a process of one thread moves itself into a group.
    ///
    /// A move of a whole process waits for an RCU grace period when none was made lately, about
    /// 10 ms; that of the own thread does not, but version 2 does not allow it.
    fn entry(&self) -> &'static str {
        if self.version2 {
            "cgroup.procs"
        } else {
            "tasks"
        }
    }

    fn has(&self, mount: &Mount, controller: &str) -> bool {
        if mount.version2 {
            let text = fs::read_to_string(self.path.join("cgroup.subtree_control"));
            text.is_ok_and(|text| text.split_whitespace().any(|word| word == controller))
        } else {
            mount.options.iter().any(|option| option == controller)
        }
    }
}

/// Makes `loom/<tag>/shims` below `top`, with the controllers handed down where that is needed.
fn make_agents(top: &Path, tag: &str, version2: bool) -> io::Result<PathBuf> {
    let path = top.join("loom").join(tag);
    make_directories(&path.join(SHIMS))?;
    if version2 {
        for group in [top, &top.join("loom"), &path] {
            for controller in CONTROLLERS {
                // Each alone: one that is not there would take the others with it.
                let word = format!("+{controller}");
                let _ = fs::write(group.join("cgroup.subtree_control"), word);
            }
        }
    }
    Ok(path)
}

/// Makes a group and those above it, while others may remove these when they leave.
fn make_directories(path: &Path) -> io::Result<()> {
    let mut made = fs::create_dir_all(path);
    for _ in 0..MAKE_TRIES {
        match &made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                made = fs::create_dir_all(path);
            }
            _ => break,
        }
    }
    made
}

/// The agent's own group of version 2, relative to the mount.
fn own_group() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}

fn set(group: &Path, file: &str, value: &str, what: &str, made: &mut RunGroups) {
    if let Err(error) = fs::write(group.join(file), value) {
        made.unenforced.push(format!("{what}: {file}: {error}"));
    }
}

/// Removes the groups of a run that has ended; it waits a little for the last process to be gone.
pub(super) fn remove(groups: &[PathBuf]) {
    for group in groups {
        let begun = Instant::now();
        while let Err(error) = fs::remove_dir(group) {
            let busy = error.kind() == io::ErrorKind::ResourceBusy;
            if !busy || begun.elapsed() > REMOVE_PATIENCE {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(group = %group.display(), %error, "cgroup not removed");
                }
                break;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

#[cfg(test)]
mod tests;
