//! Tests of the whole program, and of the house it lives in.

#![allow(
    clippy::unwrap_used,
    clippy::large_stack_arrays,
    clippy::too_many_lines,
    reason = "all of it is tests"
)]

mod clients;
mod compose;
mod containers;
mod cut_off;
mod demo;
mod documents;
mod evictions;
mod examples;
mod fields;
mod files;
mod follow;
mod forms;
mod full_disk;
mod gangs;
mod health;
mod hosts;
mod jobs;
mod kills;
mod kinds;
mod machines;
mod modes;
mod own_bus;
mod parts;
mod paused;
mod resizes;
mod shim;
mod stopping;
mod tidy;
mod troubles;
mod updates;
mod values;
