//! The manager: state, reconcile, scheduler, log writer and the read API.

mod options;
mod start;

pub use options::{Limits, ManagerOptions, Timings};
pub use start::{ManagerHandle, StartError, start};
