//! The process driver and its shim, with real processes.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::cast_precision_loss, reason = "figures")]

mod agent;
mod ends;
mod exec;
mod figures;
mod go;
mod kernel;
mod output;
mod refused;
mod resize;
mod rig;
mod values;
