//! Snapshots in the bucket: taken of a clone, verified, committed, and what they make needless.
//!
//! Each step is a call of its own, in this order, and after a crash between any two of them the
//! next round takes up the rest: [`Snapshots::upload`], [`Snapshots::verify`], then the leader's
//! [`Writer::snapshot`](super::Writer::snapshot), [`Snapshots::purge_log`] and
//! [`Snapshots::delete_stale`].

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use loom_schemas::ids::Revision;
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};

use super::entry::SnapshotMark;
use super::objects::{ObjectInfo, Objects};
use super::replica::{Fold, Position, Replica, SNAPSHOTS_KEPT};
use super::snapshot::{self, FileError};
use super::store::{LogOptions, STREAM};
use crate::stream::{JetStream, StreamError};

/// Chunks that nothing names are swept after so long: no upload takes that long.
const SWEEP_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// Chunks between the encoder or decoder and the bus.
const CHUNKS_AHEAD: usize = 2;
/// What the object of a restore is called, before its incarnation.
const RESTORED: &str = "restored-";

/// The snapshots of the log. Cheap to clone.
#[derive(Clone)]
pub struct Snapshots {
    js: JetStream,
    objects: Objects,
    options: Arc<LogOptions>,
}

/// An object that claims to be a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// What its name says it holds.
    pub revision: Revision,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Why a snapshot could not be taken, read or committed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The bus does not answer or refuses.
    #[error("the bucket of snapshots cannot be used")]
    Stream(#[from] StreamError),
    /// It cannot be written or read, or is damaged.
    #[error("the snapshot cannot be used")]
    File(#[from] FileError),
    /// There is no such object.
    #[error("there is no object `{0}`")]
    Missing(String),
    /// What was read back is not what was written.
    #[error("the object `{name}` has the digest {found}, it should be {wanted}")]
    Digest {
        /// Which object.
        name: String,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// The work was cancelled because the program ends.
    #[error("taking or reading a snapshot was cancelled")]
    Cancelled(#[source] JoinError),
}

impl SnapshotError {
    /// Whether a newer build wrote it, who can still be asked.
    pub(super) fn is_newer(&self) -> bool {
        matches!(self, Self::File(FileError::Newer(_)))
    }
}

impl Snapshots {
    pub(super) async fn open(js: JetStream, options: Arc<LogOptions>) -> Result<Self, StreamError> {
        let objects = Objects::new(js.clone());
        objects.ensure(options.replicas).await?;
        Ok(Self {
            js,
            objects,
            options,
        })
    }

    /// Whether the log has grown enough since the last committed snapshot for the next one.
    pub fn is_due(&self, position: &Position) -> bool {
        let size = position.snapshots.last().map_or(0, |mark| mark.bytes);
        position.bytes_since_snapshot > self.options.snapshot_after.max(size)
    }

    /// Uploads a snapshot and reads it back: what may be committed.
    pub async fn take<F: Fold>(&self, replica: Replica<F>) -> Result<SnapshotMark, SnapshotError> {
        let mark = self.upload(replica).await?;
        self.verify(&mark).await?;
        Ok(mark)
    }

    /// Writes a snapshot of this clone into the bucket. Encoding runs beside the I/O threads.
    pub async fn upload<F: Fold>(
        &self,
        replica: Replica<F>,
    ) -> Result<SnapshotMark, SnapshotError> {
        let Revision {
            incarnation,
            sequence,
        } = replica.position.revision();
        let name = format!("{incarnation}-{sequence}");
        let info = self.put(&name, replica).await?;
        Ok(SnapshotMark {
            name,
            incarnation,
            sequence,
            digest: info.blake3().to_owned(),
            bytes: info.size,
        })
    }

    /// Reads a snapshot back and compares it with what was written.
    pub async fn verify(&self, mark: &SnapshotMark) -> Result<(), SnapshotError> {
        let object = self.info(&mark.name).await?;
        let (into, mut chunks) = mpsc::channel::<Bytes>(CHUNKS_AHEAD);
        let hash = async {
            let mut hash = blake3::Hasher::new();
            while let Some(chunk) = chunks.recv().await {
                hash.update(&chunk);
            }
            hash.finalize().to_hex().to_string()
        };
        let get = self.objects.get(&object, into, self.options.snapshot_rate);
        let (found, got) = futures::join!(hash, get);
        got?;
        is_digest(&mark.name, &mark.digest, found)
    }

    /// Loads an object into a replica; with a digest only if it has that one.
    pub async fn load<F: Fold>(
        &self,
        name: &str,
        digest: Option<&str>,
    ) -> Result<Replica<F>, SnapshotError> {
        let object = self.info(name).await?;
        if let Some(wanted) = digest {
            is_digest(name, wanted, object.blake3().to_owned())?;
        }
        let (into, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let decode = spawn_blocking(move || {
            let mut reader = ChunkReader {
                chunks,
                current: Bytes::new(),
                hash: blake3::Hasher::new(),
            };
            let read = match snapshot::read(&mut reader) {
                // A hurt byte is not another format: the digest of the whole tells.
                Err(newer @ FileError::Newer(_)) => {
                    io::copy(&mut reader, &mut io::sink())?;
                    Err(newer)
                }
                read => Ok(read?),
            };
            Ok::<_, FileError>((read, reader.hash.finalize().to_hex().to_string()))
        });
        let (got, decoded) = futures::join!(self.objects.get(&object, into, 0), decode);
        got?;
        let (read, found) = decoded.map_err(SnapshotError::Cancelled)??;
        is_digest(name, object.blake3(), found)?;
        Ok(read?)
    }

    /// What may be started from, the most advanced first. Whether an object is sound shows when
    /// it is loaded.
    pub async fn candidates(&self) -> Result<Vec<Candidate>, StreamError> {
        let objects = self.objects.list().await?;
        let mut candidates: Vec<_> = objects.iter().filter_map(candidate).collect();
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.revision));
        Ok(candidates)
    }

    /// The most advanced snapshot that is sound, whatever the log says: what a rewound log is
    /// restored from when no manager knows more.
    pub async fn newest<F: Fold>(&self) -> Result<Option<Replica<F>>, SnapshotError> {
        for candidate in self.candidates().await? {
            match self.load(&candidate.name, None).await {
                Ok(replica) => return Ok(Some(replica)),
                Err(SnapshotError::Stream(error)) => return Err(error.into()),
                Err(error) if error.is_newer() => return Err(error),
                Err(error) => {
                    tracing::warn!(name = %candidate.name, %error, "a snapshot cannot be used");
                }
            }
        }
        Ok(None)
    }

    /// Purges the log up to the older of the two committed snapshots, but nothing beyond
    /// `relayed`, the last entry whose events are safely in the history. Gives the first sequence
    /// kept.
    ///
    /// It only ever says what was committed, so a deposed leader may do it too.
    pub async fn purge_log(
        &self,
        position: &Position,
        relayed: Revision,
    ) -> Result<u64, StreamError> {
        if position.snapshots.len() < SNAPSHOTS_KEPT {
            return Ok(1);
        }
        let older = position.snapshots[0].sequence;
        let keep_from = older.min(relayed.sequence) + 1;
        if keep_from > 1 {
            self.js.purge_below(STREAM, keep_from).await?;
        }
        Ok(keep_from)
    }

    /// Deletes objects that neither committed snapshot names and old chunks that nothing names.
    ///
    /// Objects newer than the committed ones stay: somebody is just taking them, or leads by now.
    pub async fn delete_stale(&self, position: &Position) -> Result<(), StreamError> {
        let named = |name: &str| position.snapshots.iter().any(|mark| mark.name == name);
        let Some(newest) = position.snapshots.last() else {
            return Ok(());
        };
        let committed = Revision {
            incarnation: newest.incarnation,
            sequence: newest.sequence,
        };
        for info in self.objects.list().await? {
            let stale = match candidate(&info) {
                Some(candidate) => candidate.revision < committed && !named(&info.name),
                None => restored_incarnation(&info.name)
                    .is_some_and(|incarnation| incarnation < position.incarnation),
            };
            if stale {
                self.objects.delete(&info).await?;
            }
        }
        self.objects.sweep(Timestamp::now() - SWEEP_AFTER).await
    }

    /// Uploads and verifies the state that a log is restored to; gives its name and digest.
    pub(super) async fn upload_restored<F: Fold>(
        &self,
        replica: Replica<F>,
        incarnation: u64,
    ) -> Result<(String, String), SnapshotError> {
        let name = format!("{RESTORED}{incarnation}");
        let mark = SnapshotMark {
            name: name.clone(),
            incarnation,
            sequence: replica.position.sequence,
            digest: self.put(&name, replica).await?.blake3().to_owned(),
            bytes: 0,
        };
        self.verify(&mark).await?;
        Ok((name, mark.digest))
    }

    async fn put<F: Fold>(
        &self,
        name: &str,
        replica: Replica<F>,
    ) -> Result<ObjectInfo, SnapshotError> {
        let (into, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
        let full = self.options.chunk_bytes;
        let encode = spawn_blocking(move || {
            let mut writer = ChunkWriter {
                into,
                chunk: Vec::with_capacity(full),
                full,
            };
            snapshot::write(&replica, &mut writer)?;
            writer.send()?;
            Ok::<_, FileError>(())
        });
        let rate = self.options.snapshot_rate;
        let put = async {
            let done = self.objects.put(name, &mut chunks, rate).await;
            // The encoder must not wait for ever for somebody who has given up.
            chunks.close();
            done
        };
        let (put, encoded) = futures::join!(put, encode);
        let object = put?;
        encoded.map_err(SnapshotError::Cancelled)??;
        self.objects.publish(&object).await?;
        Ok(object)
    }

    async fn info(&self, name: &str) -> Result<ObjectInfo, SnapshotError> {
        let info = self.objects.info(name).await?;
        info.ok_or_else(|| SnapshotError::Missing(name.to_owned()))
    }
}

fn is_digest(name: &str, wanted: &str, found: String) -> Result<(), SnapshotError> {
    if wanted == found {
        return Ok(());
    }
    Err(SnapshotError::Digest {
        name: name.to_owned(),
        wanted: wanted.to_owned(),
        found,
    })
}

fn candidate(info: &ObjectInfo) -> Option<Candidate> {
    let (incarnation, sequence) = info.name.split_once('-')?;
    Some(Candidate {
        name: info.name.clone(),
        revision: Revision {
            incarnation: incarnation.parse().ok()?,
            sequence: sequence.parse().ok()?,
        },
        bytes: info.size,
    })
}

fn restored_incarnation(name: &str) -> Option<u64> {
    name.strip_prefix(RESTORED)?.parse().ok()
}

/// Cuts what is written into chunks of equal size and sends them; for blocking threads.
struct ChunkWriter {
    into: mpsc::Sender<Bytes>,
    chunk: Vec<u8>,
    full: usize,
}

impl ChunkWriter {
    fn send(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(self.full));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.into.blocking_send(chunk.into()).map_err(gone)
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.full - self.chunk.len();
        let taken = bytes.len().min(room);
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == self.full {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads chunks as they come; for blocking threads.
struct ChunkReader {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
    hash: blake3::Hasher,
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let Some(chunk) = self.chunks.blocking_recv() else {
                return Ok(0);
            };
            self.hash.update(&chunk);
            self.current = chunk;
        }
        let taken = into.len().min(self.current.len());
        into[..taken].copy_from_slice(&self.current.split_to(taken));
        Ok(taken)
    }
}
