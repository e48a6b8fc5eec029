//! What is in use on a node: of the whole host, or for a node that only plays, of its tasks.

use std::path::{Path, PathBuf};

use loom_schemas::record::Capacity;
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::wire::NodeUsage;
use loom_task::driver::docker::CONTAINERS;
use loom_task::driver::taken;
use sysinfo::System;

use crate::drivers::RUNS;
use crate::gpus::{NVIDIA, listed};
use crate::pids;

/// What of the memory is kept for the host and for Loom: an eighth, at most so much.
const MEMORY_KEPT_MAX: u64 = 1 << 30;

/// What this host can give to the tasks of a node that keeps its files in that directory; the ports
/// are left open. Blocks for some milliseconds.
pub fn host_capacity(directory: &Path) -> Capacity {
    Meter::new().capacity(directory)
}

/// Measures the host.
#[derive(Debug)]
pub(crate) struct Meter {
    /// None on a host that `sysinfo` does not know: it then seems to use and to have nothing.
    system: Option<System>,
}

impl Meter {
    /// A meter; its first figure of processor time is of the time since boot.
    pub(crate) fn new() -> Self {
        let mut system = System::new();
        match &mut system {
            Ok(system) => system.refresh_cpu_usage(),
            Err(error) => tracing::warn!(%error, "cannot measure this host"),
        }
        Self {
            system: system.ok(),
        }
    }

    /// What the host can give: its cores as this process may use them, its memory but for a
    /// reserve, the disk that is free where the node keeps its files, or taken by its runs, but for a
    /// twentieth. Nobody knows how fast a disk is: it is not counted where nobody tells.
    fn capacity(&mut self, directory: &Path) -> Capacity {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let memory = self.system.as_mut().map_or(0, |system| {
            system.refresh_memory();
            let of_group = system
                .cgroup_limits()
                .map_or(u64::MAX, |limits| limits.total_memory);
            system.total_memory().min(of_group)
        });
        // What runs of an earlier agent hold is reserved for them, and not lost to tasks.
        let free = disk(directory).map_or(0, |disk| disk.free + of_runs(directory));
        Capacity {
            cpu: MilliCores(
                u32::try_from(cores)
                    .unwrap_or(u32::MAX)
                    .saturating_mul(1000),
            ),
            memory: Bytes(coarse(memory - (memory / 8).min(MEMORY_KEPT_MAX), 8)),
            disk: Bytes(coarse(free - free / 20, 6)),
            disk_rate: None,
            pids: pids::most(),
            ports_from: 0,
            ports_to: 0,
            gpus: listed(Path::new(NVIDIA)),
        }
    }

    /// What is in use on the host; processor time since the last call. Blocks for some 0.1 ms.
    pub(crate) fn usage(&mut self, directory: &Path) -> NodeUsage {
        let disk = disk(directory).map_or(0, |disk| disk.used);
        let Some(system) = &mut self.system else {
            return NodeUsage {
                disk,
                ..NodeUsage::default()
            };
        };
        system.refresh_cpu_usage();
        system.refresh_memory();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a percentage of some thousand cores at most, never negative"
        )]
        let cpu_millis = system
            .cpus()
            .iter()
            .map(|cpu| cpu.usage() * 10.0)
            .sum::<f32>() as u32;
        NodeUsage {
            cpu_millis,
            memory: system.used_memory(),
            disk,
            runs: 0,
        }
    }
}

/// The first binary digits of a number, so many, and zeros: hosts that differ by little have as much,
/// and the scheduler has few sizes of nodes to look at.
fn coarse(number: u64, digits: u32) -> u64 {
    let others = (u64::BITS - number.leading_zeros()).saturating_sub(digits);
    number >> others << others
}

/// Bytes that the runs of a node, or of the nodes of one process beneath a directory, take.
fn of_runs(directory: &Path) -> u64 {
    let nodes = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let nodes = nodes.map(|node| node.path()).chain([directory.to_owned()]);
    let of_node = |node: PathBuf| -> u64 {
        let runs = [RUNS, CONTAINERS].map(|runs| taken(&node.join(runs)));
        runs.into_iter().sum()
    };
    nodes.map(of_node).sum()
}

struct Disk {
    free: u64,
    used: u64,
}

/// Of the file system of a directory, which need not be there yet.
fn disk(directory: &Path) -> Option<Disk> {
    let there = directory.ancestors().find(|there| there.exists())?;
    let facts = rustix::fs::statvfs(there).ok()?;
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    let used = facts
        .f_blocks
        .saturating_sub(facts.f_bfree)
        .saturating_mul(facts.f_frsize);
    Some(Disk { free, used })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_have_written_is_not_lost_to_tasks() {
        let place = tempfile::tempdir().unwrap();
        let write = |file: &str, mib: usize| {
            let path = place.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![1; mib << 20]).unwrap();
        };
        write("bus/store/log", 8);
        write("state/log", 8);
        assert_eq!(of_runs(place.path()), 0);
        write("runs/1/work/a", 2);
        write("containers/2/out", 1);
        write("node-2/runs/3/work/b/c", 4);
        let taken = of_runs(place.path());
        assert!((7 << 20..8 << 20).contains(&taken), "{taken}");
    }

    #[test]
    fn a_host_has_something_to_give_and_something_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let mut meter = Meter::new();
        let capacity = host_capacity(directory.path());
        assert!(capacity.cpu.0 >= 1000);
        assert!(capacity.memory > Bytes::mib(16) && capacity.disk > Bytes(0));
        let usage = meter.usage(directory.path());
        assert!(usage.memory > 0 && usage.disk > 0);
    }

    #[test]
    fn of_much_the_last_digits_do_not_count() {
        assert_eq!([0, 1, 63].map(|small| coarse(small, 6)), [0, 1, 63]);
        assert_eq!(coarse(0b1011_0111_1111, 6), 0b1011_0100_0000);
        assert_eq!(coarse(u64::MAX, 8), 0xff << 56);
        let (gib, near) = (23_u64 << 30, (23_u64 << 30) + 12_345_678);
        assert_eq!((coarse(gib, 8), coarse(near, 8)), (gib, gib));
    }
}
