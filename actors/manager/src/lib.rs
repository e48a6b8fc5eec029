//! The manager: state, reconcile, scheduler, log writer and the read API.

#[cfg(test)]
mod fixture;

pub mod decide;
pub mod plan;
pub mod reconcile;
pub mod scheduler;
pub mod state;
pub mod view;

mod options;
mod start;

pub use options::{Limits, ManagerOptions, Timings};
pub use start::{ManagerHandle, StartError, start};
