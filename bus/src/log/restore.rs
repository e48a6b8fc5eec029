//! Giving a log its state back after it was rewound, or from a backup.

use futures::StreamExt as _;
use jiff::Timestamp;
use loom_schemas::ids::Name;

use super::entry::{Checksum, Entry, EntryKind, Restored};
use super::replica::{ApplyError, Committed, Fold, Position, Replica};
use super::store::{Log, LogError};
use super::writer::Writer;
use crate::connection::Bus;

/// What a state is restored with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floor {
    /// The highest incarnation any node or manager has seen.
    pub incarnation: u64,
    /// The number of the last event in the history: numbering goes on from there.
    pub events: u64,
    /// Only if the log ends at this entry; where it ends, if none.
    pub end: Option<u64>,
}

impl Log {
    /// Appends `restored` to the log there is, fenced at its end: from there on the state of all
    /// followers is this one. Gives the replica as they will have it.
    ///
    /// The incarnation is one more than that of the state, of the floor, and now in milliseconds.
    /// Nobody leads after it; whoever wants to leads by the next entry.
    pub async fn restore<F: Fold>(
        &self,
        bus: &Bus,
        manager: Name,
        state: Replica<F>,
        floor: Floor,
    ) -> Result<Replica<F>, LogError> {
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let incarnation = state.position.incarnation.max(floor.incarnation).max(now) + 1;
        let uploaded = self
            .snapshots()
            .upload_restored(state.clone(), incarnation)
            .await?;
        let (object, digest) = uploaded;
        let last = match floor.end {
            Some(end) => end,
            None => self.last_sequence().await?,
        };
        let previous = self.raw_entry(last).await?;
        let end = Position {
            sequence: last,
            checksum: previous.map_or_else(Checksum::none, |raw| Checksum::of(&raw)),
            events: state.position.events.max(floor.events),
            incarnation,
            ..Position::default()
        };
        let restored = Restored {
            incarnation,
            object,
            digest,
        };
        let committed = self.writer(bus, manager, end).restored(restored).await?;
        let Committed { sequence, .. } = committed;
        let mut replica = state;
        let Some(raw) = self.raw_entry(sequence).await? else {
            return Err(LogError::Recovering { first: sequence });
        };
        let object = replica.clone();
        replica
            .restore(sequence, &raw, object)
            .map_err(LogError::Apply)?;
        Ok(replica)
    }
}

impl Log {
    /// What is left of a log whose beginning is gone and that no snapshot reaches: its entries,
    /// folded onto nothing. Records are whole, so those it has are as they were at its end; the
    /// others are missing. To be restored, never to be led on.
    pub async fn salvage<F: Fold>(&self) -> Result<Replica<F>, LogError> {
        let extent = self.extent().await?;
        let mut replica = Replica::default();
        let mut entries = Box::pin(self.raw_entries(extent.first, extent.last));
        while let Some(read) = entries.next().await {
            let (sequence, Some(raw)) = read? else {
                continue;
            };
            match Committed::read(sequence, &raw) {
                Ok(committed) => replica.salvage(&committed),
                // What is not understood is not lost: whoever wrote it can still be asked.
                Err(error @ ApplyError::Newer { .. }) => return Err(LogError::Apply(error)),
                Err(_) => {}
            }
        }
        Ok(replica)
    }
}

impl Writer {
    /// Appends the `restored` entry where nobody leads yet.
    async fn restored(&mut self, restored: Restored) -> Result<Committed, LogError> {
        let entry = Entry {
            kind: EntryKind::Restored,
            epoch: 0,
            restored: Some(restored),
            ..self.next_entry()
        };
        Ok(self.append_as_candidate(entry).await?)
    }
}
