//! What a node is told to have for tasks, in place of what it measures.

use loom_node::CapacityOverride;
use loom_schemas::units::{Bytes, MilliCores};

/// The flags of `node start` for it.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "What it gives to tasks")]
pub(super) struct CapacityFlags {
    /// Cores [default: those of the host]
    #[arg(long, value_name = "CORES")]
    cpu: Option<MilliCores>,
    /// Memory [default: the host's but for an eighth, at most 1GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Disk [default: what is free at the start, or taken by runs, but for a twentieth]
    #[arg(long, value_name = "SIZE")]
    disk: Option<Bytes>,
    /// How much its disks read, and write, in a second: `500MiB/s` [default: not counted]
    #[arg(long, value_parser = Bytes::parse_rate, value_name = "RATE")]
    disk_rate: Option<Bytes>,
    /// Processes and threads [default: what the kernel allows but for an eighth, at most 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pids: Option<u32>,
}

impl CapacityFlags {
    /// What is told.
    pub(super) fn told(&self) -> CapacityOverride {
        CapacityOverride {
            cpu: self.cpu,
            memory: self.memory,
            disk: self.disk,
            disk_rate: self.disk_rate,
            pids: self.pids,
            gpus: None,
        }
    }
}
