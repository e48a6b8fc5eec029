//! Tasks: the run's state machine, the task actor, operators and drivers.

pub mod driver;
pub mod launch;
pub mod actor;
pub mod machine;
pub mod operator;
pub mod signals;
pub mod output;
pub mod shim;
