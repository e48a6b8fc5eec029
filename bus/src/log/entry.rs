//! One entry of the log: what it holds and how it is written down.
//!
//! An entry is one message of the stream and lands whole or not at all. It is a MessagePack map
//! with field names behind one leading byte that says whether the map is compressed. It carries
//! effects, never commands, so replaying it decides nothing.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use loom_schemas::event::Event;
use loom_schemas::ids::{Epoch, Name};
use loom_schemas::wire::FORMAT;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most bytes one entry may have before compression: what one message can carry, with room.
pub const ENTRY_BYTES_MAX: usize = 6_000_000;

/// Entries from this size on are compressed, in bytes.
const COMPRESS_FROM: usize = 32 * 1024;
/// How deep the values of an entry may nest; a compressed or hostile one cannot blow the stack.
const DEPTH_MAX: usize = 32;
/// The leading byte of a plain entry.
const PLAIN: u8 = 1;
/// The leading byte of an entry compressed with zstd.
const ZSTD: u8 = 2;

/// One change of one record: put it, or delete it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which record: `job/web`. The log does not look inside.
    #[serde(rename = "k")]
    pub key: String,
    /// Its bytes from now on; none deletes it.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Bytes>,
}

impl Change {
    /// Puts a record in place of what was there.
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            value: Some(value.into()),
        }
    }

    /// Deletes a record; nothing happens if there is none.
    pub fn delete(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: None,
        }
    }
}

/// What shall be committed together: all of it lands or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Commit {
    /// Changes of records, carried out in this order.
    pub changes: Vec<Change>,
    /// What people and triggers are told once it is committed, in this order.
    pub events: Vec<Event>,
    /// The queue message up to which everything has been taken in.
    pub queue_cursor: Option<QueueCursor>,
}

impl Commit {
    /// Whether it says nothing: then it is committed as an empty entry.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.events.is_empty() && self.queue_cursor.is_none()
    }
}

/// A place in the queue, and in which life of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCursor {
    /// When the queue's stream was created: a stream made anew counts from 1 again.
    pub created: Timestamp,
    /// The sequence of the last message taken in.
    pub sequence: u64,
}

/// A checksum of the raw bytes of an entry: the first 16 bytes of their BLAKE3 hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Checksum(#[serde(with = "serde_bytes")] [u8; 16]);

impl Checksum {
    /// The checksum of the bytes of an entry as they lie in the stream.
    pub fn of(raw: &[u8]) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&blake3::hash(raw).as_bytes()[..16]);
        Self(short)
    }

    /// The checksum before the first entry.
    pub fn none() -> Self {
        Self::default()
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An event as it is published: ready made, so that a later build's events pass through an
/// earlier build unharmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventMessage {
    /// The subject.
    #[serde(rename = "s")]
    pub subject: String,
    /// The body, JSON.
    #[serde(rename = "b")]
    pub body: Bytes,
}

/// What kind of entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// Changes and events.
    Commit,
    /// A manager leads from here on.
    Lead,
    /// Nothing: it shows that the leader leads.
    Empty,
    /// A snapshot was uploaded and verified.
    Snapshot,
    /// The whole state is replaced by that of an object.
    Restored,
    /// A kind this build does not know, from a newer one: its changes and events count.
    #[serde(other)]
    Unknown,
}

/// What a `lead` entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// Who leads.
    pub manager: Name,
    /// The newest format it reads.
    pub format: u32,
    /// The cluster; the first `lead` of a log gives it its id.
    pub cluster: String,
}

/// What a `snapshot` entry says: which object holds the state up to which entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMark {
    /// The name of the object: `<incarnation>-<sequence>`.
    pub name: String,
    /// The incarnation of the log it was taken of.
    pub incarnation: u64,
    /// The last entry it holds.
    pub sequence: u64,
    /// The BLAKE3 hash of the object's bytes, in hexadecimal.
    pub digest: String,
    /// The size of the object, in bytes.
    pub bytes: u64,
}

/// What a `restored` entry says: which object the state is replaced by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The incarnation from here on.
    pub incarnation: u64,
    /// The name of the object.
    pub object: String,
    /// The BLAKE3 hash of the object's bytes, in hexadecimal.
    pub digest: String,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The format it is written in.
    pub format: u32,
    /// Raised whenever the log was restored or rebuilt.
    pub incarnation: u64,
    /// The sequence of the `lead` entry of whoever wrote it; its own in a `lead` entry.
    pub epoch: u64,
    /// Tells whose append it was when the answer got lost.
    pub id: Uuid,
    /// The checksum of the entry before.
    pub previous: Checksum,
    /// When it was written, by the leader's clock.
    pub at: Timestamp,
    /// How many events the log held before this entry: its first event has the next number.
    pub events_before: u64,
    /// What kind it is.
    pub kind: EntryKind,
    /// The queue message up to which everything has been taken in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_cursor: Option<QueueCursor>,
    /// Changes of records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// What is published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventMessage>,
    /// With [`EntryKind::Lead`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead: Option<Lead>,
    /// With [`EntryKind::Snapshot`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotMark>,
    /// With [`EntryKind::Restored`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// Why bytes are not an entry, or an entry cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// It is larger than one entry may be.
    #[error("an entry of {bytes} bytes is over the limit of {ENTRY_BYTES_MAX}")]
    TooLarge {
        /// Its size before compression.
        bytes: usize,
    },
    /// It is empty or its leading byte is none of ours.
    #[error("the leading byte is not that of an entry")]
    Leading,
    /// It cannot be decompressed.
    #[error("the entry cannot be decompressed")]
    Compression(#[source] std::io::Error),
    /// It is not the MessagePack it should be.
    #[error("the entry cannot be decoded")]
    Decode(#[source] rmp_serde::decode::Error),
    /// Bytes follow after its end.
    #[error("{0} bytes follow the entry")]
    Trailing(usize),
    /// It cannot be encoded.
    #[error("the entry cannot be encoded")]
    Encode(#[source] rmp_serde::encode::Error),
    /// An event's body cannot be encoded.
    #[error("the body of the event `{subject}` cannot be encoded")]
    Event {
        /// Where it would be published.
        subject: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Its kind wants a part that is missing.
    #[error("a `{0:?}` entry without what it should say")]
    Incomplete(EntryKind),
}

impl Entry {
    /// An empty entry: `at`, the numbers and the chain are for the caller to know.
    pub fn empty(at: Timestamp) -> Self {
        Self {
            format: FORMAT,
            incarnation: 0,
            epoch: 0,
            id: Uuid::now_v7(),
            previous: Checksum::none(),
            at,
            events_before: 0,
            kind: EntryKind::Empty,
            queue_cursor: None,
            changes: Vec::new(),
            events: Vec::new(),
            lead: None,
            snapshot: None,
            restored: None,
        }
    }

    /// The epoch it was written in.
    pub fn epoch(&self) -> Epoch {
        Epoch {
            incarnation: self.incarnation,
            sequence: self.epoch,
        }
    }

    /// How many events the log holds with this entry.
    pub fn events_after(&self) -> u64 {
        self.events_before + self.events.len() as u64
    }

    /// The bytes that are appended.
    pub fn encode(&self) -> Result<Bytes, EntryError> {
        let mut plain = vec![PLAIN];
        let mut serializer = rmp_serde::Serializer::new(&mut plain).with_struct_map();
        self.serialize(&mut serializer)
            .map_err(EntryError::Encode)?;
        if plain.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge { bytes: plain.len() });
        }
        if plain.len() < COMPRESS_FROM {
            return Ok(plain.into());
        }
        let packed = zstd::bulk::compress(&plain[1..], 1).map_err(EntryError::Compression)?;
        if packed.len() + 1 >= plain.len() {
            return Ok(plain.into());
        }
        let mut raw = Vec::with_capacity(packed.len() + 1);
        raw.push(ZSTD);
        raw.extend_from_slice(&packed);
        Ok(raw.into())
    }

    /// Reads the bytes of an entry, all of them or none.
    pub fn decode(raw: &[u8]) -> Result<Self, EntryError> {
        if raw.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge { bytes: raw.len() });
        }
        let entry = match raw.split_first() {
            Some((&PLAIN, plain)) => decode_plain(plain)?,
            Some((&ZSTD, packed)) => {
                let plain = zstd::bulk::decompress(packed, ENTRY_BYTES_MAX)
                    .map_err(EntryError::Compression)?;
                decode_plain(&plain)?
            }
            _ => return Err(EntryError::Leading),
        };
        let complete = match entry.kind {
            EntryKind::Lead => entry.lead.is_some(),
            EntryKind::Snapshot => entry.snapshot.is_some(),
            EntryKind::Restored => entry.restored.is_some(),
            EntryKind::Commit | EntryKind::Empty | EntryKind::Unknown => true,
        };
        if complete {
            Ok(entry)
        } else {
            Err(EntryError::Incomplete(entry.kind))
        }
    }
}

/// The message an event is published as.
pub(super) fn event_message(event: &Event) -> Result<EventMessage, EntryError> {
    let subject = event.subject();
    match serde_json::to_vec(&event.body()) {
        Ok(body) => Ok(EventMessage {
            subject,
            body: body.into(),
        }),
        Err(source) => Err(EntryError::Event { subject, source }),
    }
}

fn decode_plain(plain: &[u8]) -> Result<Entry, EntryError> {
    let mut rest = plain;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(DEPTH_MAX);
    let entry = Entry::deserialize(&mut deserializer).map_err(EntryError::Decode)?;
    if rest.is_empty() {
        Ok(entry)
    } else {
        Err(EntryError::Trailing(rest.len()))
    }
}
