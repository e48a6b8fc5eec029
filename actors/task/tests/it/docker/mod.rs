//! The docker driver on a real engine; skipped aloud where there is none.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod away;
mod held;
mod lives;
mod pulls;
mod resize;
mod rig;
mod troubles;
