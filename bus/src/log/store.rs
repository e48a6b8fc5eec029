//! The stream of the log: made as it must be, read entry by entry, folded up to its end.
//!
//! Whatever decides is read from the stream's leader, never from a copy that may lag behind.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use loom_schemas::ids::Revision;
use loom_schemas::subject;
use tokio::time::{Instant, sleep};

use super::entry::{Checksum, Entry};
use super::follow::Follower;
use super::replica::{ApplyError, Fold, Replica};
use super::snapshots::{SnapshotError, Snapshots};
use super::writer::AppendError;
use crate::connection::Bus;
use crate::stream::{JetStream, StreamError, StreamInfo};

/// The stream of the log.
pub const STREAM: &str = "ORCH_LOG";

/// The pause before a log that looks too short is asked again.
const PAUSE: Duration = Duration::from_millis(250);
/// How many entries are asked for at once while catching up.
const READ_AHEAD: usize = 16;

/// How the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// How many copies of each stream, see [`replicas_for`](crate::stream::replicas_for).
    pub replicas: usize,
    /// The most bytes the log may have.
    pub max_bytes: u64,
    /// Bytes of those which commits leave free: for what makes room again.
    pub reserve: u64,
    /// A snapshot is due after so many bytes of log, or after its own size if that is more.
    pub snapshot_after: u64,
    /// Bytes of one chunk of a snapshot.
    pub chunk_bytes: usize,
    /// Bytes a second that a snapshot is written and read back with; 0 is no limit.
    pub snapshot_rate: u64,
    /// How long a log of several copies must look shorter than it was before that counts as
    /// rewound: a leader just elected by the servers may not have applied all of it yet.
    pub rewound_after: Duration,
    /// How long one attempt of an append waits before the same bytes are sent again.
    pub attempt: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            replicas: 1,
            max_bytes: 2 << 30,
            reserve: 128 << 20,
            snapshot_after: 64 << 20,
            chunk_bytes: 1 << 20,
            snapshot_rate: 16 << 20,
            rewound_after: Duration::from_secs(20),
            attempt: Duration::from_secs(2),
        }
    }
}

impl LogOptions {
    /// A single copy has no excuse for being shorter than it was.
    pub(super) fn rewound_after(&self) -> Duration {
        match self.replicas {
            0 | 1 => Duration::ZERO,
            _ => self.rewound_after,
        }
    }
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    pub(super) js: JetStream,
    pub(super) options: Arc<LogOptions>,
    snapshots: Snapshots,
}

/// How far the stream reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The sequence of the first entry; one more than `last` if there is none.
    pub first: u64,
    /// The sequence of the last entry; 0 if there never was one.
    pub last: u64,
    /// Bytes of all entries.
    pub bytes: u64,
    /// When the stream was created.
    pub created: Timestamp,
}

/// Why the log cannot be read or folded.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The bus does not answer, refuses, or has the stream otherwise than it must be.
    #[error("the log cannot be read")]
    Stream(#[from] StreamError),
    /// An entry cannot be applied.
    #[error("the log cannot be applied")]
    Apply(#[source] ApplyError),
    /// A snapshot or an object of a restore cannot be read.
    #[error("the log needs an object that cannot be read")]
    Snapshot(#[from] SnapshotError),
    /// An entry that restores the state cannot be appended.
    #[error("the log cannot be restored")]
    Append(#[source] Box<AppendError>),
    /// The log is not the one that was applied: truncated, lost or replaced. Nothing may be
    /// stopped, and nothing appended, before the state is restored from the most advanced copy.
    #[error("the log was rewound: {applied} is known, but {what}")]
    Rewound {
        /// What was applied, or is held by a verified snapshot.
        applied: Revision,
        /// The last sequence of the log.
        last: u64,
        /// How it shows.
        what: String,
    },
    /// The log begins later than its beginning and no snapshot reaches it: the state has to be
    /// rebuilt, it must not be folded from nothing.
    #[error("the log begins at {first} and there is no snapshot that reaches it")]
    Recovering {
        /// The first entry there is.
        first: u64,
    },
}

impl LogError {
    /// Whether the state is beyond what the log says: see [`LogError::Rewound`].
    pub fn is_rewound(&self) -> bool {
        matches!(self, Self::Rewound { .. })
    }

    /// Whether a newer build wrote what this one would have to read.
    pub fn is_newer(&self) -> bool {
        match self {
            Self::Apply(error) => matches!(error, ApplyError::Newer { .. }),
            Self::Snapshot(error) => error.is_newer(),
            _ => false,
        }
    }

    /// Whether the log is shorter than it was, as far as its leader knows at this moment.
    fn is_shorter(&self) -> bool {
        matches!(self, Self::Rewound { applied, last, .. } if *last < applied.sequence)
    }
}

impl Log {
    /// Opens the log, making its streams if they are not there, and checks their settings.
    pub async fn open(bus: &Bus, mut options: LogOptions) -> Result<Self, LogError> {
        let js = JetStream::new(bus);
        let must = [
            "subjects",
            "retention",
            "storage",
            "discard",
            "max_age",
            "deny_delete",
            "allow_direct",
        ];
        let info = js.ensure(&stream_config(&options), &must).await?;
        // A log that was made before keeps the copies it was made with.
        let replicas = info
            .config
            .get("num_replicas")
            .and_then(serde_json::Value::as_u64);
        let replicas = replicas.and_then(|count| usize::try_from(count).ok());
        options.replicas = replicas.unwrap_or(options.replicas);
        let options = Arc::new(options);
        let snapshots = Snapshots::open(js.clone(), Arc::clone(&options)).await?;
        Ok(Self {
            js,
            options,
            snapshots,
        })
    }

    /// How the log is kept.
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// The snapshots of the log.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// How far the stream reaches, as its leader says.
    pub async fn extent(&self) -> Result<Extent, StreamError> {
        Ok(extent_of(&self.js.info(STREAM).await?))
    }

    /// The sequence of the last entry.
    pub async fn last_sequence(&self) -> Result<u64, StreamError> {
        Ok(self.extent().await?.last)
    }

    /// The bytes of the entry with this sequence; none if there is none (yet, or any more).
    pub async fn raw_entry(&self, sequence: u64) -> Result<Option<Bytes>, StreamError> {
        let message = self.js.message(STREAM, sequence).await?;
        Ok(message.map(|message| message.payload))
    }

    /// The entry with this sequence; none if there is none (yet, or any more).
    pub async fn entry(&self, sequence: u64) -> Result<Option<Entry>, LogError> {
        let Some(raw) = self.raw_entry(sequence).await? else {
            return Ok(None);
        };
        let unreadable = |source| LogError::Apply(ApplyError::Unreadable { sequence, source });
        Entry::decode(&raw).map(Some).map_err(unreadable)
    }

    /// The entries from `first` to `last` as bytes, in order, some asked for ahead.
    pub(crate) fn raw_entries(
        &self,
        first: u64,
        last: u64,
    ) -> impl stream::Stream<Item = Result<(u64, Option<Bytes>), StreamError>> + Send + use<> {
        let log = self.clone();
        let read = move |sequence| {
            let log = log.clone();
            async move { Ok((sequence, log.raw_entry(sequence).await?)) }
        };
        stream::iter(first..=last).map(read).buffered(READ_AHEAD)
    }

    /// Follows the log from the entry after this one; `name` shows in the server's lists.
    pub fn follow(&self, name: &str, after: u64) -> Follower {
        Follower::start(self.clone(), name, after)
    }

    /// Brings a replica up to the end the log had when this was called, and perhaps further.
    ///
    /// A new replica starts from the newest usable snapshot. Before anything is applied the log
    /// is compared with what was: one that was rewound changes nothing and is told as such. If it
    /// was rewound and somebody has restored it since, the replica is loaded anew.
    pub async fn catch_up<F: Fold>(&self, replica: &mut Replica<F>) -> Result<(), LogError> {
        let begun = Instant::now();
        loop {
            match self.catch_up_or_reload(replica).await {
                Err(error) if error.is_shorter() => {
                    if begun.elapsed() >= self.options.rewound_after() {
                        return Err(error);
                    }
                    sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn catch_up_or_reload<F: Fold>(&self, replica: &mut Replica<F>) -> Result<(), LogError> {
        let known = replica.position.incarnation;
        match self.catch_up_once(replica).await {
            Err(error) if error.is_rewound() && known > 0 => {
                let last = self.last_sequence().await?;
                if self.incarnation_at(last).await? <= known {
                    return Err(error);
                }
                let mut anew = Replica::default();
                self.catch_up_once(&mut anew).await?;
                *replica = anew;
                Ok(())
            }
            done => done,
        }
    }

    async fn catch_up_once<F: Fold>(&self, replica: &mut Replica<F>) -> Result<(), LogError> {
        loop {
            let extent = self.extent().await?;
            let position = &replica.position;
            if position.sequence > 0 {
                self.is_same_log(replica, extent).await?;
            }
            if position.sequence == 0 || position.sequence + 1 < extent.first {
                let base = self.base(extent).await?;
                if position.sequence > base.position.sequence {
                    return Err(LogError::Recovering {
                        first: extent.first,
                    });
                }
                *replica = base;
            }
            if self.apply_until(replica, extent.last).await? {
                return Ok(());
            }
        }
    }

    /// Applies one entry that came by following; fetches the object if it restores the state.
    pub async fn apply<F: Fold>(
        &self,
        replica: &mut Replica<F>,
        sequence: u64,
        raw: &[u8],
    ) -> Result<(), LogError> {
        match replica.apply(sequence, raw) {
            Ok(_) => Ok(()),
            Err(ApplyError::Restores { restored, .. }) => {
                let object = self
                    .snapshots
                    .load(&restored.object, Some(&restored.digest))
                    .await?;
                replica
                    .restore(sequence, raw, object)
                    .map(drop)
                    .map_err(LogError::Apply)
            }
            Err(error) if error.is_rewound() => Err(LogError::Rewound {
                applied: replica.position.revision(),
                last: sequence,
                what: error.to_string(),
            }),
            Err(error) => Err(LogError::Apply(error)),
        }
    }

    /// Applies entries up to `last`; false if some of them were purged meanwhile.
    async fn apply_until<F: Fold>(
        &self,
        replica: &mut Replica<F>,
        last: u64,
    ) -> Result<bool, LogError> {
        self.apply_in_bulk(replica, last).await?;
        let mut entries = Box::pin(self.raw_entries(replica.position.sequence + 1, last));
        while let Some(read) = entries.next().await {
            let (sequence, raw) = read?;
            let Some(raw) = raw else { return Ok(false) };
            self.apply(replica, sequence, &raw).await?;
        }
        Ok(true)
    }

    /// Whether the log still holds what was applied, as far as it still says.
    async fn is_same_log<F>(&self, replica: &Replica<F>, extent: Extent) -> Result<(), LogError> {
        let position = &replica.position;
        let rewound = |what: String| LogError::Rewound {
            applied: position.revision(),
            last: extent.last,
            what,
        };
        if extent.last < position.sequence {
            return Err(rewound(format!("it ends at {}", extent.last)));
        }
        match self.raw_entry(position.sequence).await? {
            Some(raw) if Checksum::of(&raw) != position.checksum => Err(rewound(format!(
                "entry {} is another one",
                position.sequence
            ))),
            _ => Ok(()),
        }
    }
}

pub(super) fn extent_of(info: &StreamInfo) -> Extent {
    Extent {
        first: if info.state.messages == 0 {
            info.state.last_seq + 1
        } else {
            info.state.first_seq
        },
        last: info.state.last_seq,
        bytes: info.state.bytes,
        created: info.created,
    }
}

fn stream_config(options: &LogOptions) -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: vec![subject::LOG.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_bytes: i64::try_from(options.max_bytes).unwrap_or(i64::MAX),
        num_replicas: options.replicas,
        deny_delete: true,
        allow_direct: false,
        ..Config::default()
    }
}
