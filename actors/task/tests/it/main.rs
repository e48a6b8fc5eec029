//! Tests with real processes and a real server.

mod actor;
mod process;
mod whole;
mod world;
