//! Managers on a real nats-server, with nodes that play the protocol and run nothing.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are not tests to clippy"
)]

mod bad;
mod cluster;
mod commands;
mod jobs;
mod leadership;
mod nodes;
mod queue;
mod recovery;
mod replicated;
mod space;
mod test_node;

/// Servers for the tests, as the bus's own tests have them.
#[allow(
    dead_code,
    unreachable_pub,
    reason = "used in parts, and made for another crate"
)]
#[path = "../../../../bus/tests/it/support.rs"]
mod support;
