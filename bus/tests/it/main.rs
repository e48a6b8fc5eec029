//! The bus against real servers.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod support;
