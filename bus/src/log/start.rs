//! What a replica starts from: a snapshot, a restore, or the log's very beginning.

use futures::StreamExt as _;
use loom_schemas::ids::Revision;

use super::entry::{Checksum, Entry};
use super::replica::{Fold, Replica};
use super::snapshots::SnapshotError;
use super::store::{Extent, Log, LogError};

impl Log {
    /// What a new replica starts from: the newest snapshot that this log continues, or nothing
    /// if the log still has its beginning.
    pub(super) async fn base<F: Fold>(&self, extent: Extent) -> Result<Replica<F>, LogError> {
        let last_life = self.incarnation_at(extent.last).await?;
        for candidate in self.snapshots().candidates().await? {
            let Revision {
                incarnation,
                sequence,
            } = candidate.revision;
            let beyond = sequence > extent.last;
            if beyond && incarnation < last_life || sequence + 1 < extent.first {
                continue;
            }
            let replica: Replica<F> = match self.snapshots().load(&candidate.name, None).await {
                Ok(replica) => replica,
                Err(SnapshotError::Stream(error)) => return Err(error.into()),
                // Whoever wrote it writes a log that this build cannot read either.
                Err(error) if error.is_newer() => return Err(error.into()),
                Err(error) => {
                    let name = &candidate.name;
                    tracing::warn!(%name, error = &error as &dyn std::error::Error,
                        "a snapshot cannot be used");
                    continue;
                }
            };
            if beyond {
                return Err(LogError::Rewound {
                    applied: candidate.revision,
                    last: extent.last,
                    what: format!("it ends at {}", extent.last),
                });
            }
            if self.continues(&replica, extent).await? {
                return Ok(replica);
            }
            tracing::warn!(name = %candidate.name, "the log does not continue this snapshot");
        }
        if extent.first <= 1 {
            return Ok(Replica::default());
        }
        self.restored_base(extent).await
    }

    /// Whether the entry at the replica's end, or the one after it, knows the replica.
    async fn continues<F>(&self, replica: &Replica<F>, extent: Extent) -> Result<bool, LogError> {
        let position = &replica.position;
        if let Some(raw) = self.raw_entry(position.sequence).await? {
            return Ok(Checksum::of(&raw) == position.checksum);
        }
        if position.sequence == extent.last {
            return Ok(true);
        }
        let next = self.entry(position.sequence + 1).await?;
        Ok(next.is_none_or(|next| next.previous == position.checksum))
    }

    /// An entry that restores the state is a beginning too: the last one there is.
    async fn restored_base<F: Fold>(&self, extent: Extent) -> Result<Replica<F>, LogError> {
        let mut found = None;
        let mut entries = Box::pin(self.raw_entries(extent.first, extent.last));
        while let Some(read) = entries.next().await {
            if let (sequence, Some(raw)) = read? {
                let restores = Entry::decode(&raw).is_ok_and(|entry| entry.restored.is_some());
                found = if restores {
                    Some((sequence, raw))
                } else {
                    found
                };
            }
        }
        let Some((sequence, raw)) = found else {
            return Err(LogError::Recovering {
                first: extent.first,
            });
        };
        let mut replica = Replica::default();
        replica.position.sequence = sequence - 1;
        self.apply(&mut replica, sequence, &raw).await?;
        Ok(replica)
    }

    /// The incarnation of the entry with this sequence; 0 if there is none.
    pub(super) async fn incarnation_at(&self, sequence: u64) -> Result<u64, LogError> {
        let entry = self.entry(sequence).await?;
        Ok(entry.map_or(0, |entry| entry.incarnation))
    }
}
