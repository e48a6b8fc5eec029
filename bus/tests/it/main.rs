//! The bus against real servers.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod accounts;
mod calls;
mod connecting;
mod embedded;
mod log;
mod serving;
mod support;
