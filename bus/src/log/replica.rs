//! The state folded from the log, and how far it is folded.
//!
//! [`Replica::apply`] is pure: the same entries give the same replica on every manager, which
//! [`Replica::hash`] shows. Everything is checked before anything changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use jiff::Timestamp;
use loom_schemas::ids::{Epoch, Name, Revision};
use loom_schemas::wire::FORMAT;
use serde::{Deserialize, Serialize};

use super::entry::{
    Change, Checksum, Entry, EntryError, EntryKind, QueueCursor, Restored, SnapshotMark,
};

/// How many committed snapshots the log keeps.
pub const SNAPSHOTS_KEPT: usize = 2;

/// A state that records are folded into.
///
/// It must be cheap to clone (records behind `Arc`, persistent maps): a snapshot is taken of a
/// clone while the original goes on.
pub trait Fold: Clone + Default + Send + Sync + 'static {
    /// Puts a record in place of what was there. What it cannot read it keeps byte for byte.
    fn put(&mut self, key: &str, value: &[u8]);

    /// Deletes a record; nothing happens if there is none.
    fn delete(&mut self, key: &str);

    /// All records in key order, each with exactly the bytes it was put with.
    fn records(&self) -> Box<dyn Iterator<Item = (String, Bytes)> + '_>;
}

/// How far a replica has come, and what the log's own entries said on the way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// The cluster's id; empty before the first `lead` entry.
    pub cluster: String,
    /// Raised whenever the log was restored or rebuilt; 0 before the first `lead` entry.
    pub incarnation: u64,
    /// The last entry applied; 0 is none.
    pub sequence: u64,
    /// The checksum of that entry.
    pub checksum: Checksum,
    /// When it was written, by the leader's clock.
    pub at: Option<Timestamp>,
    /// The sequence of the last `lead` entry; 0 if nobody leads since the log was restored.
    pub lead_sequence: u64,
    /// Who leads by that entry.
    pub leader: Option<Name>,
    /// The queue message up to which everything has been taken in.
    pub queue_cursor: Option<QueueCursor>,
    /// How many events the log held so far: they are numbered from 1 without a gap.
    pub events: u64,
    /// The committed snapshots, newest last, at most [`SNAPSHOTS_KEPT`].
    pub snapshots: Vec<SnapshotMark>,
    /// The last restore, with the sequence of its entry.
    pub restored: Option<(u64, Restored)>,
    /// The newest format each manager reads, as it announced when it began to lead.
    pub formats: BTreeMap<Name, u32>,
    /// Bytes of entries since the last committed snapshot: tells when the next one is due.
    pub bytes_since_snapshot: u64,
}

/// An entry that is in the log.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its sequence.
    pub sequence: u64,
    /// The checksum of its bytes.
    pub checksum: Checksum,
    /// How many bytes it has in the log.
    pub bytes: u64,
    /// What it says.
    pub entry: Arc<Entry>,
}

impl Committed {
    /// Reads the entry with this sequence from the bytes it has in the log.
    pub fn read(sequence: u64, raw: &[u8]) -> Result<Self, ApplyError> {
        Ok(Self {
            sequence,
            checksum: Checksum::of(raw),
            bytes: raw.len() as u64,
            entry: Arc::new(read(sequence, raw)?),
        })
    }

    /// The revision of a state with this entry as the last one.
    pub fn revision(&self) -> Revision {
        Revision {
            incarnation: self.entry.incarnation,
            sequence: self.sequence,
        }
    }
}

impl Position {
    /// The epoch of the leader, on every command to a node.
    pub fn epoch(&self) -> Epoch {
        Epoch {
            incarnation: self.incarnation,
            sequence: self.lead_sequence,
        }
    }

    /// How far the replica has come.
    pub fn revision(&self) -> Revision {
        Revision {
            incarnation: self.incarnation,
            sequence: self.sequence,
        }
    }

    /// The format that everybody who led reads: what may be written.
    pub fn format(&self) -> u32 {
        self.formats.values().copied().fold(FORMAT, u32::min)
    }
}

/// A state with its position and its hash. Clones in constant time.
#[derive(Clone, Debug, Default)]
pub struct Replica<F> {
    /// The records, folded.
    pub state: F,
    /// How far.
    pub position: Position,
    ledger: Ledger,
}

/// The hash of a set of records: of each record 128 bits of BLAKE3, added up modulo 2^128.
///
/// So a change costs the same however large the state, and the order in which records came does
/// not matter. It finds replicas that differ; it does not stand up to somebody who forges one.
#[derive(Clone, Debug, Default)]
struct Ledger {
    hashes: OrdMap<Arc<str>, u128>,
    records: u64,
    sum: u128,
}

/// Why an entry was not applied; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is not the next one: reload from a snapshot, or drop it if it is an old one.
    #[error("entry {got} came where {expected} was expected")]
    OutOfOrder {
        /// The one that is next.
        expected: u64,
        /// The one that came.
        got: u64,
    },
    /// It does not follow on what was applied: the log is another one, or was rewound.
    #[error("entry {sequence} does not follow the one applied before it: {what}")]
    Chain {
        /// The entry.
        sequence: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// Its bytes are not an entry.
    #[error("entry {sequence} cannot be read")]
    Unreadable {
        /// The entry.
        sequence: u64,
        /// Why.
        #[source]
        source: EntryError,
    },
    /// A newer build wrote it.
    #[error("entry {sequence} has format {format}, this build reads up to {FORMAT}")]
    Newer {
        /// The entry.
        sequence: u64,
        /// Its format.
        format: u32,
    },
    /// It replaces the whole state: fetch the object, then [`Replica::restore`].
    #[error("entry {sequence} restores the state from `{}`", restored.object)]
    Restores {
        /// The entry.
        sequence: u64,
        /// What it says.
        restored: Box<Restored>,
    },
}

impl ApplyError {
    /// Whether the log is not the one that was applied: the state has to come from elsewhere.
    pub fn is_rewound(&self) -> bool {
        matches!(self, Self::Chain { .. })
    }
}

impl<F: Fold> Replica<F> {
    /// Applies the entry with this sequence from the bytes it has in the log.
    pub fn apply(&mut self, sequence: u64, raw: &[u8]) -> Result<Committed, ApplyError> {
        self.is_next(sequence)?;
        let committed = Committed::read(sequence, raw)?;
        self.apply_committed(&committed)?;
        Ok(committed)
    }

    /// Applies an entry that is already decoded, as the leader has it from its writer.
    pub fn apply_committed(&mut self, committed: &Committed) -> Result<(), ApplyError> {
        self.is_next(committed.sequence)?;
        self.follows(committed.sequence, &committed.entry)?;
        for change in &committed.entry.changes {
            self.change(change);
        }
        self.position.note(committed);
        Ok(())
    }

    /// Replaces the whole state by that of the object which a `restored` entry names.
    ///
    /// The entry needs no predecessor: it is a beginning, as good as a snapshot.
    pub fn restore(
        &mut self,
        sequence: u64,
        raw: &[u8],
        object: Self,
    ) -> Result<Committed, ApplyError> {
        let committed = Committed::read(sequence, raw)?;
        let Some(restored) = committed.entry.restored.clone() else {
            let what = "it does not restore the state";
            return Err(ApplyError::Chain { sequence, what });
        };
        if restored.incarnation <= object.position.incarnation {
            let what = "the incarnation does not rise";
            return Err(ApplyError::Chain { sequence, what });
        }
        *self = object;
        self.position.incarnation = restored.incarnation;
        self.position.lead_sequence = 0;
        self.position.leader = None;
        self.position.snapshots.clear();
        self.position.restored = Some((sequence, restored));
        self.position.note(&committed);
        Ok(committed)
    }

    /// Takes up what an entry says without asking what came before it.
    pub(super) fn salvage(&mut self, committed: &Committed) {
        for change in &committed.entry.changes {
            self.change(change);
        }
        self.position.note(committed);
        self.position.incarnation = committed.entry.incarnation;
    }

    /// The hash of the records, in hexadecimal: equal on all replicas at the same position.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.ledger.sum.to_le_bytes());
        hasher.update(&self.ledger.records.to_le_bytes());
        hasher.update(&self.position.incarnation.to_le_bytes());
        hasher.update(&self.position.events.to_le_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.ledger.hashes.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.ledger.hashes.is_empty()
    }

    /// A replica at this position that still lacks its records.
    pub(super) fn at(position: Position) -> Self {
        Self {
            position,
            ..Self::default()
        }
    }

    /// Puts a record that belongs to the position already.
    pub(super) fn put(&mut self, key: &str, value: &[u8]) {
        self.ledger.put(key, value);
        self.state.put(key, value);
    }

    /// Counts a record into the hash without keeping its key: good for one pass over records.
    pub(super) fn count(&mut self, key: &str, value: &[u8]) {
        self.ledger.count(key, value);
    }

    fn change(&mut self, change: &Change) {
        if let Some(value) = &change.value {
            self.put(&change.key, value);
        } else {
            self.ledger.delete(&change.key);
            self.state.delete(&change.key);
        }
    }

    fn is_next(&self, got: u64) -> Result<(), ApplyError> {
        let expected = self.position.sequence + 1;
        if got == expected {
            Ok(())
        } else {
            Err(ApplyError::OutOfOrder { expected, got })
        }
    }

    /// Whether the entry was written by somebody who had seen exactly what was applied here.
    fn follows(&self, sequence: u64, entry: &Entry) -> Result<(), ApplyError> {
        let position = &self.position;
        if let Some(restored) = &entry.restored {
            let restored = Box::new(restored.clone());
            return Err(ApplyError::Restores { sequence, restored });
        }
        let leads = entry.kind == EntryKind::Lead;
        let epoch = if leads {
            sequence
        } else {
            position.lead_sequence
        };
        let first = position.incarnation == 0 && leads;
        let what = if entry.previous != position.checksum {
            "the checksum of the entry before"
        } else if entry.events_before != position.events && !first {
            "the number of events"
        } else if entry.epoch != epoch {
            "the epoch"
        } else if entry.incarnation != position.incarnation && !first {
            "the incarnation"
        } else {
            return Ok(());
        };
        Err(ApplyError::Chain { sequence, what })
    }
}

impl Position {
    /// Takes down what an entry says about the log itself.
    pub(super) fn note(&mut self, committed: &Committed) {
        let entry = &committed.entry;
        self.sequence = committed.sequence;
        self.checksum = committed.checksum;
        self.bytes_since_snapshot += committed.bytes;
        self.at = Some(entry.at);
        self.events = entry.events_after();
        self.queue_cursor = entry.queue_cursor.or(self.queue_cursor);
        if let Some(lead) = &entry.lead {
            self.incarnation = entry.incarnation;
            self.lead_sequence = committed.sequence;
            self.leader = Some(lead.manager.clone());
            self.cluster.clone_from(&lead.cluster);
            self.formats.insert(lead.manager.clone(), lead.format);
        }
        if let Some(mark) = &entry.snapshot {
            self.bytes_since_snapshot = 0;
            self.snapshots.push(mark.clone());
            let spare = self.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
            self.snapshots.drain(..spare);
        }
    }
}

impl Ledger {
    fn put(&mut self, key: &str, value: &[u8]) {
        let hash = hash_of(key, value);
        let before = self.hashes.insert(Arc::from(key), hash);
        self.records += u64::from(before.is_none());
        self.sum = self
            .sum
            .wrapping_sub(before.unwrap_or(0))
            .wrapping_add(hash);
    }

    fn delete(&mut self, key: &str) {
        if let Some(before) = self.hashes.remove(key) {
            self.records -= 1;
            self.sum = self.sum.wrapping_sub(before);
        }
    }

    fn count(&mut self, key: &str, value: &[u8]) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(hash_of(key, value));
    }
}

fn hash_of(key: &str, value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key.as_bytes());
    hasher.update(value);
    let mut short = [0; 16];
    hasher.finalize_xof().fill(&mut short);
    u128::from_le_bytes(short)
}

fn read(sequence: u64, raw: &[u8]) -> Result<Entry, ApplyError> {
    let entry = Entry::decode(raw).map_err(|source| ApplyError::Unreadable { sequence, source })?;
    if entry.format > FORMAT {
        let format = entry.format;
        return Err(ApplyError::Newer { sequence, format });
    }
    Ok(entry)
}
