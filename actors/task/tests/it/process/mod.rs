//! The process driver and its shim, with real processes.

mod agent;
mod ends;
mod figures;
mod kernel;
mod output;
mod refused;
mod rig;
