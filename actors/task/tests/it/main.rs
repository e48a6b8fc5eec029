//! Tests with real processes and a real server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say so")]

mod actor;
mod counting;
mod docker;
mod health;
mod process;
mod whole;
mod world;
