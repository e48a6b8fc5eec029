//! What a run wrote: the last lines of it, and new ones as they come.
//!
//! The files are written by the run's shim ([`crate::shim`] says in which form); readers only look.
//! At idle a reader costs nothing: it is woken by the kernel when the file grows.

mod dirs;
mod follow;
pub(crate) mod held;
pub(crate) mod last;
mod parse;
pub(crate) mod segment;
mod tail;
mod watch;

pub use dirs::LogDirs;
pub use follow::OutputReader;
pub use tail::tail;

pub use crate::shim::writer::Stream;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::shim::record::{STARTED, STATUS, StartedRecord, StatusRecord};

/// A line of output, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was written, by the node's clock.
    pub at: Timestamp,
    /// Where to.
    pub stream: Stream,
    /// Where it begins in the run's output, in bytes of its files; it grows with every line and
    /// never repeats in a run.
    pub offset: u64,
    /// The text without the line break; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Whether the line goes on in the next one of this stream: it was longer than 64 KiB, or was
    /// not ended for a while.
    pub partial: bool,
}

/// Where the output of a run is.
#[derive(Clone, Debug)]
struct Place {
    /// The current file.
    current: PathBuf,
    /// The offset at which the run begins.
    base: u64,
    /// The offset at which it ends, where that is known.
    end: Option<u64>,
}

/// Reads from the run's directory where its output is.
fn place(directory: &Path) -> io::Result<Place> {
    let bytes = fs::read(directory.join(STARTED))?;
    let started = StartedRecord::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    let end = fs::read(directory.join(STATUS))
        .ok()
        .and_then(|bytes| StatusRecord::decode(&bytes))
        .and_then(|status| status.end);
    Ok(Place {
        current: started.output,
        base: started.base,
        end,
    })
}
