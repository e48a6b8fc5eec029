//! The fenced writer: one append at a time, and every append has exactly one outcome.
//!
//! An append carries the sequence it follows on, so the server takes it only if nothing was
//! appended since. Its answer may get lost and an append that timed out may land later; so the
//! same bytes are sent again until the server has taken or refused them, and a refusal is settled
//! by reading who is in their place.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use loom_schemas::ids::{Epoch, Name};
use loom_schemas::wire::FORMAT;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::entry::{
    Change, Commit, Entry, EntryError, EntryKind, Lead, QueueCursor, SnapshotMark, event_message,
};
use super::replica::{Committed, Position};
use super::store::{Log, LogError, LogOptions};
use crate::connection::Bus;
use crate::events::EVENTS;
use crate::stream::JetStream;

mod attempt;

use attempt::Attempt;

/// Commits from so many bytes on are encoded beside the I/O threads: below, changing the thread
/// takes longer than the work.
const ENCODE_ASIDE_FROM: usize = 48 * 1024;
/// The pause after a first attempt without a result; it doubles.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Appends to the log on behalf of one leader.
///
/// It should have a connection of its own. Dropping the future of an append leaves the writer
/// [unresolved](Writer::is_unresolved): the entry may be in the log or not, and nothing else is
/// appended before [`Writer::settle`] has found out.
pub struct Writer {
    js: JetStream,
    options: Arc<LogOptions>,
    /// Where the log stands by what this writer knows for sure.
    position: Position,
    manager: Name,
    standing: Standing,
    pending: Option<Pending>,
    /// Bytes of the log, as last asked and counted on since; the first commit asks.
    log_bytes: u64,
    /// Since when the log looks shorter than what was committed.
    short_since: Option<Instant>,
    /// When it was last said that an append has no answer.
    warned: Option<Instant>,
}

/// Whether the writer leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Candidate,
    Leader,
    Deposed,
}

/// An append without an outcome yet.
struct Pending {
    entry: Arc<Entry>,
    raw: Bytes,
    /// Whether an attempt may still land though nobody heard of it.
    unheard: bool,
}

/// Why an append did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another manager leads, or this writer never did: stop leading, catch up. What was not
    /// committed before is not going to be.
    #[error("deposed: {}", by.as_ref().map_or("the log went on without us", Name::as_str))]
    Deposed {
        /// Who, if it could be seen.
        by: Option<Name>,
    },
    /// The log ends before what this writer knows to be in it: it was truncated or lost.
    #[error("the log was rewound: it ends at {last}, {known} was committed")]
    Rewound {
        /// The last entry known to have been there.
        known: u64,
        /// The last entry there is.
        last: u64,
    },
    /// There is no room. Nothing was appended, unless [`Writer::is_unresolved`].
    #[error("the log has no room: {reason}")]
    NoSpace {
        /// In words.
        reason: String,
    },
    /// It is larger than one entry may be. Nothing was appended.
    #[error("the commit cannot be written")]
    Entry(#[from] EntryError),
    /// An append before this one has no outcome yet: [`Writer::settle`] first.
    #[error("the append before this one has no outcome yet")]
    Unresolved,
    /// The work was cancelled because the program ends.
    #[error("encoding a commit was cancelled")]
    Cancelled(#[source] JoinError),
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("manager", &self.manager)
            .field("standing", &self.standing)
            .field("sequence", &self.position.sequence)
            .field("unresolved", &self.pending.is_some())
            .finish_non_exhaustive()
    }
}

impl Log {
    /// A writer that follows on what a replica has applied; it leads once [`Writer::lead`] has
    /// succeeded. Catch up right before, and give it a connection of its own.
    pub fn writer(&self, bus: &Bus, manager: Name, position: Position) -> Writer {
        Writer {
            js: JetStream::new(bus),
            options: Arc::clone(&self.options),
            position,
            manager,
            standing: Standing::Candidate,
            pending: None,
            log_bytes: u64::MAX,
            short_since: None,
            warned: None,
        }
    }

    /// Takes the lead from whoever has it: a writer and the entry it began with, to be applied.
    ///
    /// Dropping this future in mid-air may leave a `lead` entry of nobody in the log, which only
    /// means that nobody leads until the next one.
    pub async fn lead(
        &self,
        bus: &Bus,
        manager: Name,
        position: Position,
    ) -> Result<(Writer, Committed), AppendError> {
        let mut writer = self.writer(bus, manager, position);
        let committed = writer.lead().await?;
        Ok((writer, committed))
    }
}

impl Writer {
    /// Appends the `lead` entry: from then on every other leader's appends are refused.
    ///
    /// On [`AppendError::Deposed`] somebody was faster: catch up and wait before trying again.
    pub async fn lead(&mut self) -> Result<Committed, AppendError> {
        let first = self.position.incarnation == 0;
        if first {
            self.position.events = self.events_told().await;
        }
        let cluster = match self.position.cluster.as_str() {
            "" => Uuid::now_v7().simple().to_string(),
            known => known.to_owned(),
        };
        let lead = Lead {
            manager: self.manager.clone(),
            format: FORMAT,
            cluster,
        };
        let entry = Entry {
            kind: EntryKind::Lead,
            incarnation: if first { 1 } else { self.position.incarnation },
            epoch: self.position.sequence + 1,
            lead: Some(lead),
            ..self.next_entry()
        };
        let committed = self.append_entry(entry, Standing::Candidate).await?;
        self.standing = Standing::Leader;
        Ok(committed)
    }

    /// Appends a commit, an empty entry if there is nothing in it, and waits for its outcome.
    ///
    /// It waits as long as the bus is away: bound it by dropping the future, which leaves the
    /// writer unresolved.
    pub async fn append(&mut self, commit: Commit) -> Result<Committed, AppendError> {
        if self.pending.is_some() {
            return Err(AppendError::Unresolved);
        }
        let kind = if commit.is_empty() {
            EntryKind::Empty
        } else {
            EntryKind::Commit
        };
        if kind == EntryKind::Commit {
            self.has_room().await?;
        }
        let mut entry = Entry {
            kind,
            queue_cursor: commit.queue_cursor,
            changes: commit.changes,
            ..self.next_entry()
        };
        for event in &commit.events {
            entry.events.push(event_message(event)?);
        }
        self.append_entry(entry, Standing::Leader).await
    }

    /// Appends an empty entry: it shows that the leader leads, and settles reads.
    pub async fn append_empty(&mut self) -> Result<Committed, AppendError> {
        self.append(Commit::default()).await
    }

    /// Commits a verified snapshot. One that is no newer than the last committed one is refused
    /// by doing nothing: none is returned.
    pub async fn snapshot(&mut self, mark: SnapshotMark) -> Result<Option<Committed>, AppendError> {
        let newest = self
            .position
            .snapshots
            .last()
            .map_or(0, |mark| mark.sequence);
        if mark.sequence <= newest || mark.incarnation != self.position.incarnation {
            return Ok(None);
        }
        let entry = Entry {
            kind: EntryKind::Snapshot,
            snapshot: Some(mark),
            ..self.next_entry()
        };
        self.append_entry(entry, Standing::Leader).await.map(Some)
    }

    /// Finds the outcome of an append whose future was dropped or that ran out of space halfway:
    /// the entry if it is in the log, none if there was nothing to find out.
    ///
    /// Safe to drop and call again.
    pub async fn settle(&mut self) -> Result<Option<Committed>, AppendError> {
        let mut pause = PAUSE;
        while let Some(pending) = &self.pending {
            let (entry, raw) = (Arc::clone(&pending.entry), pending.raw.clone());
            match self.attempt(&entry, raw).await {
                Attempt::Landed => return Ok(self.landed()),
                Attempt::Refused(error) => return Err(self.refused(error)),
                Attempt::Again => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        Ok(None)
    }

    /// How many events a history knows that is older than the log: numbers are not given twice.
    async fn events_told(&self) -> u64 {
        let history = self.js.info(EVENTS).await;
        history.map_or(0, |info| info.state.last_seq)
    }

    /// Whether an append has no outcome yet.
    pub fn is_unresolved(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether this writer leads, as far as it knows.
    pub fn is_leading(&self) -> bool {
        self.standing == Standing::Leader
    }

    /// The epoch of this leader; meaningful while it leads.
    pub fn epoch(&self) -> Epoch {
        self.position.epoch()
    }

    /// Where the log stands after the last append.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The queue message up to which everything has been taken in.
    pub fn queue_cursor(&self) -> Option<QueueCursor> {
        self.position.queue_cursor
    }

    /// An entry that follows on the last one.
    pub(super) fn next_entry(&self) -> Entry {
        Entry {
            format: self.position.format(),
            incarnation: self.position.incarnation,
            epoch: self.position.lead_sequence,
            previous: self.position.checksum,
            events_before: self.position.events,
            ..Entry::empty(Timestamp::now())
        }
    }

    /// Appends an entry on behalf of nobody who leads yet.
    pub(super) async fn append_as_candidate(
        &mut self,
        entry: Entry,
    ) -> Result<Committed, AppendError> {
        self.append_entry(entry, Standing::Candidate).await
    }

    async fn append_entry(
        &mut self,
        entry: Entry,
        allowed: Standing,
    ) -> Result<Committed, AppendError> {
        if self.pending.is_some() {
            return Err(AppendError::Unresolved);
        }
        if self.standing != allowed {
            return Err(AppendError::Deposed { by: None });
        }
        let (entry, raw) = encode(entry).await?;
        self.pending = Some(Pending {
            entry,
            raw,
            unheard: false,
        });
        let settled = self.settle().await?;
        settled.ok_or(AppendError::Unresolved)
    }
}

/// What takes long is encoded and compressed beside the I/O threads.
async fn encode(entry: Entry) -> Result<(Arc<Entry>, Bytes), AppendError> {
    let value = |change: &Change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len);
    let bytes = entry.changes.iter().map(value).sum::<usize>()
        + entry
            .events
            .iter()
            .map(|event| event.body.len())
            .sum::<usize>();
    if bytes < ENCODE_ASIDE_FROM {
        let raw = entry.encode()?;
        return Ok((Arc::new(entry), raw));
    }
    let encoded = spawn_blocking(move || {
        let raw = entry.encode()?;
        Ok::<_, EntryError>((Arc::new(entry), raw))
    });
    Ok(encoded.await.map_err(AppendError::Cancelled)??)
}

impl From<AppendError> for LogError {
    fn from(error: AppendError) -> Self {
        Self::Append(Box::new(error))
    }
}
