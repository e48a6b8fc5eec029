//! A snapshot: the records and the position of a replica, as one file.
//!
//! The same bytes lie in the bucket of the bus and outside it as a backup: a magic word, then a
//! zstd stream with a MessagePack header and, in key order, the records. The header holds their
//! number and hash, so a file that was cut short or changed is never taken for a state.

use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::ENTRY_BYTES_MAX;
use super::replica::{Fold, Position, Replica};

/// The first bytes of a snapshot; the version of the file's form follows.
const MAGIC: &[u8; 8] = b"LOOMSNAP";
/// The version of the file's form.
const FORM: u8 = 1;
/// The most bytes of a header.
const HEADER_BYTES_MAX: usize = 1024 * 1024;

/// What stands before the records.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// Where in the log the state stands.
    position: Position,
    /// How many records follow.
    records: u64,
    /// What [`Replica::hash`] says of them.
    hash: String,
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading or writing failed, or the file ends too early.
    #[error("the snapshot cannot be read or written")]
    Io(#[from] io::Error),
    /// It does not begin like a snapshot.
    #[error("this is not a snapshot of Loom")]
    Magic,
    /// A newer build wrote it.
    #[error("the snapshot has format {0}, this build reads up to {FORM}")]
    Newer(u8),
    /// Its header cannot be encoded.
    #[error("the header of the snapshot cannot be written")]
    Encode(#[source] rmp_serde::encode::Error),
    /// Its header cannot be decoded.
    #[error("the header of the snapshot cannot be read")]
    Decode(#[source] rmp_serde::decode::Error),
    /// A length in it is larger than any can be.
    #[error("the snapshot is damaged: a length of {0} bytes")]
    Length(u64),
    /// A key in it is not text.
    #[error("the snapshot is damaged: a key is not text")]
    Key,
    /// The records are not those the header speaks of.
    #[error("the snapshot is damaged: the hash of its records is {found}, it should be {wanted}")]
    Hash {
        /// What the header says.
        wanted: String,
        /// What it is.
        found: String,
    },
}

/// Writes a replica. Takes as long as there are records: never call it on an I/O thread.
pub fn write<F: Fold>(replica: &Replica<F>, mut to: impl Write) -> Result<(), FileError> {
    let header = Header {
        position: replica.position.clone(),
        records: replica.len() as u64,
        hash: replica.hash(),
    };
    to.write_all(MAGIC)?;
    to.write_all(&[FORM])?;
    let mut packed = zstd::stream::write::Encoder::new(to, 1)?;
    packed.include_checksum(true)?;
    let text = rmp_serde::to_vec_named(&header).map_err(FileError::Encode)?;
    write_block(&mut packed, &text)?;
    // The state must give back what the log put into it: a snapshot of anything else is refused.
    let mut check = Replica::<Nothing>::at(replica.position.clone());
    for (key, value) in replica.state.records() {
        write_block(&mut packed, key.as_bytes())?;
        write_block(&mut packed, &value)?;
        check.count(&key, &value);
    }
    matches(&header, &check)?;
    packed.finish()?.flush()?;
    Ok(())
}

/// Reads a replica and checks it whole. Never call it on an I/O thread.
pub fn read<F: Fold>(mut from: impl Read) -> Result<Replica<F>, FileError> {
    let mut begins = [0; MAGIC.len() + 1];
    from.read_exact(&mut begins)?;
    match begins.strip_prefix(MAGIC) {
        Some([FORM]) => {}
        Some([form]) if *form > FORM => return Err(FileError::Newer(*form)),
        _ => return Err(FileError::Magic),
    }
    let mut packed = zstd::stream::read::Decoder::new(from)?;
    let text = read_block(&mut packed, HEADER_BYTES_MAX)?;
    let header: Header = rmp_serde::from_slice(&text).map_err(FileError::Decode)?;
    let mut replica = Replica::<F>::at(header.position.clone());
    for _ in 0..header.records {
        let key = read_block(&mut packed, ENTRY_BYTES_MAX)?;
        let key = String::from_utf8(key).map_err(|_| FileError::Key)?;
        let value = read_block(&mut packed, ENTRY_BYTES_MAX)?;
        replica.put(&key, &value);
    }
    matches(&header, &replica)?;
    // The end of the stream carries its checksum.
    match packed.read(&mut [0])? {
        0 => Ok(replica),
        more => Err(FileError::Length(more as u64)),
    }
}

/// A fold that keeps nothing, to hash records without keeping them.
#[derive(Clone, Default)]
struct Nothing;

impl Fold for Nothing {
    fn put(&mut self, _: &str, _: &[u8]) {}
    fn delete(&mut self, _: &str) {}
    fn records(&self) -> Box<dyn Iterator<Item = (String, Bytes)> + '_> {
        Box::new(std::iter::empty())
    }
}

fn matches<F: Fold>(header: &Header, replica: &Replica<F>) -> Result<(), FileError> {
    let found = replica.hash();
    if header.hash == found {
        return Ok(());
    }
    let wanted = header.hash.clone();
    Err(FileError::Hash { wanted, found })
}

fn write_block(to: &mut impl Write, block: &[u8]) -> Result<(), FileError> {
    let length = u32::try_from(block.len()).map_err(|_| FileError::Length(block.len() as u64))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(block)?;
    Ok(())
}

fn read_block(from: &mut impl Read, most: usize) -> Result<Vec<u8>, FileError> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > most {
        return Err(FileError::Length(length as u64));
    }
    let mut block = Vec::with_capacity(length.min(64 * 1024));
    from.take(length as u64).read_to_end(&mut block)?;
    if block.len() < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(block)
}
