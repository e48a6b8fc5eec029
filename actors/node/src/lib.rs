//! A node: its assignment, its tasks, its reports and its commands.

mod options;
mod start;

pub use options::{
    BusAccess, CapacityOverride, Limits, NodeOptions, PORTS_FROM, PORTS_TO, Timings,
};
pub use start::{NodeHandle, StartError, TasksOnStop, start};
