//! Managers on a real nats-server, with nodes that play the protocol and run nothing.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are not tests to clippy"
)]

mod bad;
mod cluster;
mod jobs;
mod leadership;
mod nodes;
mod queue;
mod test_node;
