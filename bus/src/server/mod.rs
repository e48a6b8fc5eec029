//! The embedded nats-server: found, configured, supervised as a child.

use std::path::PathBuf;

mod binary;

pub use binary::find_binary;

/// Why the embedded server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No nats-server anywhere.
    #[error(
        "no nats-server found: run scripts/nats-server in the checkout, put it on the PATH, or \
         name it with --nats-server or LOOM_NATS_SERVER"
    )]
    NotFound,
    /// The one that was named is not there or cannot be executed.
    #[error("{path} is no program: --nats-server and LOOM_NATS_SERVER name a nats-server",
            path = path.display())]
    NotAProgram {
        /// As named.
        path: PathBuf,
    },
}
