//! One attempt of an append, and how it is settled what became of it.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use loom_schemas::subject;
use tokio::time::Instant;

use super::{AppendError, Standing, Writer};
use crate::log::entry::{Checksum, Entry, EntryError};
use crate::log::replica::Committed;
use crate::log::store::STREAM;
use crate::stream::{MESSAGE_TOO_LARGE, StreamError, WRONG_LAST_SEQUENCE};

/// What a message costs in the stream beside its bytes.
const MESSAGE_OVERHEAD: u64 = 100;

/// How often it is said that an append has no answer.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// What one attempt came to.
pub(super) enum Attempt {
    /// It is in the log.
    Landed,
    /// It is not, for this reason.
    Refused(AppendError),
    /// Nobody knows yet: send the same bytes again.
    Again,
}

impl Writer {
    /// Sends the bytes once. Before it waits the attempt counts as unheard, so that a future
    /// dropped here leaves the truth behind.
    pub(super) async fn attempt(&mut self, entry: &Entry, raw: Bytes) -> Attempt {
        let wait = self.options.attempt;
        let known = self.position.sequence;
        if self.js.connected(wait).await.is_err() {
            return Attempt::Again;
        }
        let before = self
            .pending
            .as_mut()
            .is_some_and(|p| std::mem::replace(&mut p.unheard, true));
        let headers = HeaderMap::new();
        let sent = self
            .js
            .append(subject::LOG, headers, raw, Some(known), wait)
            .await;
        match sent {
            Ok(sequence) if sequence == known + 1 => Attempt::Landed,
            Ok(_) => self.who_is_next(entry).await,
            Err(error) if error.code() == Some(WRONG_LAST_SEQUENCE) => {
                self.who_is_next(entry).await
            }
            Err(error) => {
                // Refused for this attempt; what an earlier one came to is still open.
                let refused = matches!(
                    error,
                    StreamError::Refused { .. } | StreamError::NoResponders
                );
                if let Some(pending) = self.pending.as_mut().filter(|_| refused) {
                    pending.unheard = before;
                }
                self.not_taken(error).await
            }
        }
    }

    /// The server says that something else was appended: whose entry follows on what we know?
    async fn who_is_next(&mut self, entry: &Entry) -> Attempt {
        let known = self.position.sequence;
        let next = match self.js.message(STREAM, known + 1).await {
            Ok(Some(message)) => message,
            Ok(None) => return self.nobody_is_next().await,
            Err(_) => return Attempt::Again,
        };
        match Entry::decode(&next.payload) {
            Ok(next) if next.id == entry.id => Attempt::Landed,
            Ok(next) => Attempt::Refused(AppendError::Deposed {
                by: next.lead.map(|lead| lead.manager),
            }),
            Err(_) => Attempt::Refused(AppendError::Deposed { by: None }),
        }
    }

    /// Nothing lies where the entry belongs: it is on its way, or the log is another one.
    async fn nobody_is_next(&mut self) -> Attempt {
        let known = self.position.sequence;
        let state = match self.js.info(STREAM).await {
            Ok(info) => info.state,
            Err(StreamError::NoStream(_)) if known > 0 => return self.too_short(0),
            Err(_) => return Attempt::Again,
        };
        if state.last_seq < known {
            return self.too_short(state.last_seq);
        }
        self.short_since = None;
        if state.last_seq > known && state.first_seq > known + 1 {
            // Others have appended so much since that our place was purged.
            return Attempt::Refused(AppendError::Deposed { by: None });
        }
        Attempt::Again
    }

    /// The log ends before what was committed; of several copies one may only lag behind.
    fn too_short(&mut self, last: u64) -> Attempt {
        let since = *self.short_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.options.rewound_after() {
            return Attempt::Again;
        }
        let known = self.position.sequence;
        Attempt::Refused(AppendError::Rewound { known, last })
    }

    async fn not_taken(&mut self, error: StreamError) -> Attempt {
        if error.is_no_space() {
            let reason = error.to_string();
            return Attempt::Refused(AppendError::NoSpace { reason });
        }
        if error.code() == Some(MESSAGE_TOO_LARGE) {
            let bytes = self.pending.as_ref().map_or(0, |pending| pending.raw.len());
            return Attempt::Refused(AppendError::Entry(EntryError::TooLarge { bytes }));
        }
        self.warn_unheard(&error);
        match error {
            StreamError::TooLarge(bytes) => {
                Attempt::Refused(AppendError::Entry(EntryError::TooLarge { bytes }))
            }
            // A stream that is gone looks like a bus that is only just starting.
            StreamError::NoResponders => self.nobody_is_next().await,
            _ => Attempt::Again,
        }
    }

    /// It is tried for as long as it takes, and said now and then.
    fn warn_unheard(&mut self, error: &StreamError) {
        let sequence = self.position.sequence + 1;
        if self.warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            tracing::debug!(%error, sequence, "an append has no answer");
        } else {
            self.warned = Some(Instant::now());
            tracing::warn!(%error, sequence, "an append has no answer");
        }
    }

    pub(super) fn landed(&mut self) -> Option<Committed> {
        let pending = self.pending.take()?;
        let committed = Committed {
            sequence: self.position.sequence + 1,
            checksum: Checksum::of(&pending.raw),
            bytes: pending.raw.len() as u64,
            entry: pending.entry,
        };
        self.log_bytes = self
            .log_bytes
            .saturating_add(committed.bytes + MESSAGE_OVERHEAD);
        self.short_since = None;
        self.warned = None;
        self.position.note(&committed);
        Some(committed)
    }

    pub(super) fn refused(&mut self, error: AppendError) -> AppendError {
        match error {
            AppendError::NoSpace { .. } => {
                // An earlier attempt may still land: then only time tells.
                if self
                    .pending
                    .as_ref()
                    .is_some_and(|pending| !pending.unheard)
                {
                    self.pending = None;
                }
            }
            AppendError::Deposed { .. } | AppendError::Rewound { .. } => {
                self.pending = None;
                self.standing = Standing::Deposed;
            }
            _ => self.pending = None,
        }
        error
    }

    /// Commits leave the reserve free: the entries that make room again need some themselves.
    pub(super) async fn has_room(&mut self) -> Result<(), AppendError> {
        let most = self.options.max_bytes.saturating_sub(self.options.reserve);
        if self.log_bytes < most {
            return Ok(());
        }
        // If the stream does not answer now, the server itself refuses what does not fit.
        let Ok(info) = self.js.info(STREAM).await else {
            return Ok(());
        };
        self.log_bytes = info.state.bytes;
        if self.log_bytes < most {
            return Ok(());
        }
        let reason = format!("{} of {most} bytes are used", self.log_bytes);
        Err(AppendError::NoSpace { reason })
    }
}
