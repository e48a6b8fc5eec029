//! What a run is held to: the values that are written into its groups.

use std::fs;

use loom_schemas::spec::Resources;
use loom_schemas::units::MilliCores;

use super::{Cgroups, Hierarchy, RunGroups, set};
use crate::driver::disk;

/// The period of a cpu quota, in microseconds; the kernel's default.
const PERIOD_US: u64 = 100_000;

impl Cgroups {
    pub(super) fn limit_cpu(&self, run: &str, wanted: &Resources, made: &mut RunGroups) {
        let shares = u64::from(wanted.cpu.0);
        let cap = wanted.cpu_limit;
        let Some(hierarchy) = &self.cpu else {
            if shares > 0 {
                made.unenforced
                    .push(format!("cpu share: {}", self.reason()));
            }
            if cap.is_some() {
                made.unenforced
                    .push(format!("cpu limit: {}", self.reason()));
            }
            return;
        };
        let group = hierarchy.path.join(run);
        if shares > 0 {
            let (file, value) = share(hierarchy.version2, shares);
            set(&group, file, &value, "cpu share", made);
        }
        if let Some(cap) = cap {
            let (file, value) = quota(hierarchy.version2, Some(cap));
            set(&group, file, &value, "cpu limit", made);
        }
    }

    pub(super) fn limit_memory(&self, run: &str, wanted: &Resources, made: &mut RunGroups) {
        let Some(hierarchy) = &self.memory else {
            if wanted.memory.0 > 0 {
                made.unenforced
                    .push(format!("memory limit: {}", self.reason()));
            }
            return;
        };
        let group = hierarchy.path.join(run);
        let limit = wanted.memory.0.to_string();
        let (oom, file) = if hierarchy.version2 {
            ("memory.events", "memory.max")
        } else {
            ("memory.oom_control", "memory.limit_in_bytes")
        };
        if wanted.memory.0 > 0 {
            set(&group, file, &limit, "memory limit", made);
            // Swap would only make the limit later. Not every kernel counts it.
            let _ = if hierarchy.version2 {
                fs::write(group.join("memory.swap.max"), "0")
            } else {
                fs::write(group.join("memory.memsw.limit_in_bytes"), &limit)
            };
        }
        made.oom = Some(group.join(oom));
    }

    pub(super) fn limit_pids(&self, run: &str, wanted: &Resources, made: &mut RunGroups) {
        match &self.pids {
            Some(hierarchy) => {
                let limit = self.most_pids(hierarchy, wanted.most_pids());
                set(
                    &hierarchy.path.join(run),
                    "pids.max",
                    &limit,
                    "pids limit",
                    made,
                );
            }
            None => made
                .unenforced
                .push(format!("pids limit: {}", self.reason())),
        }
    }

    /// What is written for so many processes.
    pub(super) fn most_pids(&self, hierarchy: &Hierarchy, pids: u32) -> String {
        // Under version 1 the shim stays in the group and counts.
        let shim = u32::from(self.tree.as_ref() != Some(hierarchy));
        pids.saturating_add(shim).to_string()
    }

    pub(super) fn limit_io(&self, run: &str, wanted: &Resources, made: &mut RunGroups) {
        let Some(rate) = wanted.disk_rate else { return };
        match &self.io {
            Some(hierarchy) => {
                let group = hierarchy.path.join(run);
                let notes = disk::limit(&group, hierarchy.version2, Some(rate));
                made.unenforced.extend(notes);
            }
            None => made
                .unenforced
                .push(format!("disk rate: {}", self.reason())),
        }
    }
}

/// The file and the value for a share of processors, in thousandths of a core.
pub(super) fn share(version2: bool, cpu: u64) -> (&'static str, String) {
    let (file, value) = if version2 {
        // 100 is the default of a group, 1024 under version 1: both are one core here.
        ("cpu.weight", (cpu / 10).clamp(1, 10_000))
    } else {
        ("cpu.shares", (cpu * 1024 / 1000).clamp(2, 262_144))
    };
    (file, value.to_string())
}

/// The file and the value for a hard cap on cores, or for none.
pub(super) fn quota(version2: bool, cap: Option<MilliCores>) -> (&'static str, String) {
    let cap = cap.map(|cap| (u64::from(cap.0) * PERIOD_US / 1000).max(1000));
    match (version2, cap) {
        (true, Some(cap)) => ("cpu.max", format!("{cap} {PERIOD_US}")),
        (true, None) => ("cpu.max", format!("max {PERIOD_US}")),
        (false, Some(cap)) => ("cpu.cfs_quota_us", cap.to_string()),
        (false, None) => ("cpu.cfs_quota_us", "-1".to_owned()),
    }
}
