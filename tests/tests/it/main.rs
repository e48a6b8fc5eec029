//! Tests of the whole program, and of the house it lives in.

#![allow(
    clippy::unwrap_used,
    clippy::large_stack_arrays,
    clippy::too_many_lines,
    reason = "all of it is tests"
)]

mod clients;
mod demo;
mod documents;
mod files;
mod follow;
mod forms;
mod health;
mod jobs;
mod kills;
mod parts;
mod stopping;
mod tidy;
mod troubles;
