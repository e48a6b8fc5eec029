//! Why a data directory cannot be used.

use std::io;
use std::path::PathBuf;

use loom_schemas::ids::Name;

use crate::frame;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be made, read or written.
    #[error("cannot use the data directory {path}: {context}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What was being done.
        context: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another agent uses it.
    #[error("the data directory {path} is in use by another node agent")]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// It belongs to a node of another name.
    #[error("the data directory {path} belongs to node `{found}`, not to `{wanted}`")]
    OtherNode {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        found: Name,
        /// Who asked.
        wanted: Name,
    },
    /// Another build wrote it.
    #[error(
        "{path} has format {found}, this build reads {}: use the loomctl that wrote it, or another \
         data directory",
        frame::FORMAT
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Its bytes are not those that were written.
    #[error("{path} {what}: move it away, and the node starts anew from its leader's word")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// In words.
        what: String,
    },
}
