//! Records as bytes: MessagePack maps with field names.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::State;
use super::key::{Key, name_order, slot_order};

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A value that MessagePack cannot hold.
    #[error("cannot encode the record `{key}`")]
    Encode {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: rmp_serde::encode::Error,
    },
}

impl State {
    /// Puts a record of the log in place; what cannot be read is kept as bytes.
    pub fn put_bytes(&mut self, key: &str, value: &[u8]) {
        let exact = Key::parse(key).is_some_and(|parsed| match parsed {
            Key::Cluster => decode(value).is_some_and(|(record, exact)| {
                self.cluster = Some(record);
                exact
            }),
            Key::Command(fingerprint) => decode(value).is_some_and(|(record, exact)| {
                self.set_command(&fingerprint, Some(record));
                exact
            }),
            Key::Job(name) => decode(value)
                .filter(|(record, _): &(Arc<loom_schemas::record::JobRecord>, _)| {
                    record.name == name
                })
                .is_some_and(|(record, exact)| {
                    self.set_job(&name, Some(record));
                    exact
                }),
            Key::Manager(name) => decode(value).is_some_and(|(record, exact)| {
                self.managers.insert(name, record);
                exact
            }),
            Key::Moves => decode(value).is_some_and(|(record, exact)| {
                self.moves = Some(record);
                exact
            }),
            Key::Node(name) => decode(value).is_some_and(|(record, exact)| {
                self.set_node(&name, Some(record));
                exact
            }),
            Key::Slot(slot) => decode(value)
                .filter(|(record, _): &(Arc<loom_schemas::record::SlotRecord>, _)| {
                    record.slot == slot
                })
                .is_some_and(|(record, exact)| {
                    self.set_slot(&slot, Some(record));
                    exact
                }),
            Key::Use(node) => decode(value).is_some_and(|(record, exact)| {
                self.uses.insert(node, record);
                exact
            }),
            Key::Version(job, version) => decode(value).is_some_and(|(record, exact)| {
                self.set_version(&job, version, Some(record));
                exact
            }),
        });
        if exact {
            self.raw.remove(key);
        } else {
            self.raw
                .insert(key.to_owned(), Bytes::copy_from_slice(value));
        }
    }

    /// Takes a record of the log away.
    pub fn delete_key(&mut self, key: &str) {
        self.raw.remove(key);
        if let Some(key) = Key::parse(key) {
            self.remove(&key);
        }
    }

    /// How many records this build keeps as bytes only, or besides what it read of them.
    pub fn foreign_records(&self) -> usize {
        self.raw.len()
    }

    /// The bytes of a record; none if there is none.
    pub fn encoded(&self, key: &Key) -> Result<Option<Bytes>, CodecError> {
        match key {
            Key::Cluster => self.cluster.as_ref().map(|r| encode(key, r)),
            Key::Command(print) => self.commands.get(print).map(|r| encode(key, r)),
            Key::Job(name) => self.jobs.record(name).map(|r| encode(key, r)),
            Key::Manager(name) => self.managers.get(name).map(|r| encode(key, r)),
            Key::Moves => self.moves.as_ref().map(|r| encode(key, r)),
            Key::Node(name) => self.nodes.get(name).map(|r| encode(key, r)),
            Key::Slot(slot) => self.jobs.slot(slot).map(|r| encode(key, r)),
            Key::Use(node) => self.uses.get(node).map(|r| encode(key, r)),
            Key::Version(job, version) => self.version(job, *version).map(|r| encode(key, r)),
        }
        .transpose()
    }

    /// Whether a record is the same in another state.
    pub(super) fn same_record(&self, other: &Self, key: &Key) -> bool {
        match key {
            Key::Cluster => self.cluster == other.cluster,
            Key::Command(print) => self.commands.get(print) == other.commands.get(print),
            Key::Job(name) => self.job(name) == other.job(name),
            Key::Manager(name) => self.managers.get(name) == other.managers.get(name),
            Key::Moves => self.moves == other.moves,
            Key::Node(name) => self.nodes.get(name) == other.nodes.get(name),
            Key::Slot(slot) => self.slot(slot) == other.slot(slot),
            Key::Use(node) => self.uses.get(node) == other.uses.get(node),
            Key::Version(job, version) => {
                self.version(job, *version) == other.version(job, *version)
            }
        }
    }

    /// Every record in the order of their keys.
    pub fn all_records(&self) -> impl Iterator<Item = (String, Bytes)> + '_ {
        let mut slots: Vec<_> = self.slots().map(|record| &record.slot).collect();
        slots.sort_by(|a, b| slot_order(a, b));
        let mut versions: Vec<_> = self.jobs.versions().collect();
        versions.sort_by(|a, b| name_order(a.0, b.0).then_with(|| a.1.cmp(&b.1)));
        let known = self
            .cluster
            .iter()
            .map(|_| Key::Cluster)
            .chain(self.commands.keys().map(|print| Key::Command(print.clone())))
            .chain(self.jobs.names().map(|name| Key::Job(name.clone())))
            .chain(self.managers.keys().map(|name| Key::Manager(name.clone())))
            .chain(self.moves.iter().map(|_| Key::Moves))
            .chain(self.nodes.keys().map(|name| Key::Node(name.clone())))
            .chain(slots.into_iter().map(|slot| Key::Slot(slot.clone())))
            .chain(self.uses.keys().map(|node| Key::Use(node.clone())))
            .chain(versions.into_iter().map(|(job, version)| Key::Version(job.clone(), version)))
            // A record that was read was written by the same rules, so it can be written again.
            .filter_map(|key| Some((key.to_string(), self.encoded(&key).ok()??)));
        Merged {
            known: known.peekable(),
            raw: self.raw.iter().peekable(),
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        match key {
            Key::Cluster => self.cluster = None,
            Key::Command(fingerprint) => self.set_command(fingerprint, None),
            Key::Job(name) => self.set_job(name, None),
            Key::Manager(name) => {
                self.managers.remove(name);
            }
            Key::Moves => self.moves = None,
            Key::Node(name) => self.set_node(name, None),
            Key::Slot(slot) => self.set_slot(slot, None),
            Key::Use(node) => {
                self.uses.remove(node);
            }
            Key::Version(job, version) => self.set_version(job, *version, None),
        }
    }
}

fn encode<T: Serialize>(key: &Key, record: &Arc<T>) -> Result<Bytes, CodecError> {
    rmp_serde::to_vec_named(record.as_ref())
        .map(Bytes::from)
        .map_err(|source| CodecError::Encode {
            key: key.to_string(),
            source,
        })
}

/// The record, and whether this build would write the same bytes again.
fn decode<T: Serialize + DeserializeOwned>(value: &[u8]) -> Option<(Arc<T>, bool)> {
    let record: T = rmp_serde::from_slice(value).ok()?;
    let exact = rmp_serde::to_vec_named(&record).is_ok_and(|bytes| bytes == value);
    Some((Arc::new(record), exact))
}

/// Two sequences in the order of keys as one; kept bytes win over what was read of them.
struct Merged<'a, K, R>
where
    K: Iterator<Item = (String, Bytes)>,
    R: Iterator<Item = (&'a String, &'a Bytes)>,
{
    known: std::iter::Peekable<K>,
    raw: std::iter::Peekable<R>,
}

impl<'a, K, R> Iterator for Merged<'a, K, R>
where
    K: Iterator<Item = (String, Bytes)>,
    R: Iterator<Item = (&'a String, &'a Bytes)>,
{
    type Item = (String, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        let take_raw = match (self.known.peek(), self.raw.peek()) {
            (Some((known, _)), Some((raw, _))) => *raw <= known,
            (None, Some(_)) => true,
            _ => false,
        };
        if !take_raw {
            return self.known.next();
        }
        let (key, bytes) = self.raw.next()?;
        if self.known.peek().is_some_and(|(known, _)| known == key) {
            self.known.next();
        }
        Some((key.clone(), bytes.clone()))
    }
}

impl loom_bus::log::Fold for State {
    fn put(&mut self, key: &str, value: &[u8]) {
        self.put_bytes(key, value);
    }

    fn delete(&mut self, key: &str) {
        self.delete_key(key);
    }

    fn records(&self) -> Box<dyn Iterator<Item = (String, Bytes)> + '_> {
        Box::new(self.all_records())
    }
}
