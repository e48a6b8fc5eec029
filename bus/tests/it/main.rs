//! The bus against real servers.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::too_many_lines
)]

mod accounts;
mod calls;
mod connecting;
mod deploy;
mod dice;
mod embedded;
mod log;
mod messages;
mod serving;
mod support;
mod tls;
