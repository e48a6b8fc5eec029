//! The form of a node's state file: a head, then records, each with its length and a checksum. Pure.
//!
//! ```text
//! head    "LOOMNODE", format: u32
//! frame   length of the payload: u32, first 8 bytes of BLAKE3(length, payload), payload
//! ```
//! Numbers are little-endian. The first frame's payload is the node's name as text, those after it
//! are [`Record`]s in MessagePack.

use loom_schemas::ids::Name;

use crate::ledger::{Ledger, Record};

/// The format this build writes and reads.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"LOOMNODE";
const HEAD: usize = MAGIC.len() + 4;
const FRAME_HEAD: usize = 4 + 8;

/// No record comes near: an assignment is bounded by the largest message of the bus.
const FRAME_MAX: usize = 64 << 20;

/// Why a state file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// It is something else.
    #[error("it is not the state of a Loom node")]
    NotOurs,
    /// Another build wrote it.
    #[error("it has format {0}, this build reads {FORMAT}")]
    Format(u32),
    /// Its bytes are not those that were written.
    #[error("it is damaged at byte {0}")]
    Damaged(usize),
}

/// What a state file holds.
#[derive(Debug)]
pub(crate) struct Contents {
    /// Whose it is.
    pub(crate) node: Name,
    /// What it says.
    pub(crate) ledger: Ledger,
    /// How many of its bytes are good; what follows was not written to its end.
    pub(crate) good: usize,
}

/// The head and the first frame of a state file.
pub(crate) fn head(node: &Name) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORMAT.to_le_bytes());
    push(&mut bytes, node.as_str().as_bytes());
    bytes
}

/// Puts a record after others.
pub(crate) fn push_record(
    bytes: &mut Vec<u8>,
    record: &Record,
) -> Result<(), rmp_serde::encode::Error> {
    push(bytes, &rmp_serde::to_vec_named(record)?);
    Ok(())
}

/// A whole state file that says what a ledger says.
pub(crate) fn whole(ledger: &Ledger) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let mut bytes = head(&ledger.node);
    for record in ledger.records() {
        push_record(&mut bytes, &record)?;
    }
    Ok(bytes)
}

/// Reads a state file. A last frame that was not written to its end is left out; damage anywhere
/// else is an error.
pub(crate) fn read(bytes: &[u8], journal_limit: usize) -> Result<Contents, FrameError> {
    let format = bytes
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.first_chunk::<4>())
        .ok_or(FrameError::NotOurs)?;
    let format = u32::from_le_bytes(*format);
    if format != FORMAT {
        return Err(FrameError::Format(format));
    }
    let mut at = HEAD;
    let name = frame(bytes, at)?.ok_or(FrameError::Damaged(at))?;
    let node = std::str::from_utf8(name)
        .ok()
        .and_then(|name| Name::new(name).ok());
    let node = node.ok_or(FrameError::Damaged(at))?;
    at += FRAME_HEAD + name.len();
    let mut ledger = Ledger::new(node.clone(), journal_limit);
    while let Some(payload) = frame(bytes, at)? {
        let record = rmp_serde::from_slice(payload).map_err(|_| FrameError::Damaged(at))?;
        ledger.apply(record);
        at += FRAME_HEAD + payload.len();
    }
    Ok(Contents {
        node,
        ledger,
        good: at,
    })
}

fn push(bytes: &mut Vec<u8>, payload: &[u8]) {
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    bytes.extend(length);
    bytes.extend(checksum(length, payload));
    bytes.extend(payload);
}

/// The payload of the frame that begins there; none at the end, or before a frame that is cut off.
fn frame(bytes: &[u8], at: usize) -> Result<Option<&[u8]>, FrameError> {
    let rest = &bytes[at..];
    // Some file systems give a file its length before its bytes, and lose power in between.
    if rest.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let Some((length, rest)) = rest.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let Some((sum, rest)) = rest.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let size = u32::from_le_bytes(*length) as usize;
    if size > FRAME_MAX {
        return Err(FrameError::Damaged(at));
    }
    let Some(payload) = rest.get(..size) else {
        return Ok(None);
    };
    if checksum(*length, payload) == *sum {
        return Ok(Some(payload));
    }
    // The very last frame may have its length on disk and not yet all of its bytes.
    if rest.len() == size {
        Ok(None)
    } else {
        Err(FrameError::Damaged(at))
    }
}

fn checksum(length: [u8; 4], payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    let mut sum = [0; 8];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    sum
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
