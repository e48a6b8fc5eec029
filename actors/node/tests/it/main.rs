//! The node against a real nats-server, with a leader that speaks the protocol and decides nothing.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod assigning;
mod commands;
mod directory;
mod engine;
mod leader;
mod leaving;
mod outages;
mod processes;
mod specs;
mod world;
