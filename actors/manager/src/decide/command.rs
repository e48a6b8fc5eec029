//! Commands with an id: done once, however often they are sent.
//!
//! A client that does not hear the outcome of a write sends it again under the same id. What was
//! carried out is in the log together with what it did, so a repeat finds it, whoever leads by
//! then. A refusal changed nothing and is not remembered: its repeat is decided anew.

use std::time::Duration;

use jiff::Timestamp;
use loom_bus::log::Checksum;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::record::{COMMANDS_KEPT, CommandOutcome, CommandRecord};

use crate::state::{Draft, Key, State};

/// How long a command is remembered at least, unless there are too many.
const KEPT_FOR: Duration = Duration::from_mins(15);

/// At most so many are forgotten with one command, so that one commit stays small.
const FORGOTTEN_AT_ONCE: usize = 16;

/// The longest id, in bytes.
const ID_MAX: usize = 256;

/// A write that somebody sent with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its key: made of who sent it and the id.
    fingerprint: String,
    by: String,
    /// A checksum of all that was asked.
    request: String,
}

impl Command {
    /// A command by this user under this id; `asked` is all that tells it from another.
    pub fn new(by: &str, id: &str, asked: &[&[u8]]) -> Result<Self, WireError> {
        if id.is_empty() || id.len() > ID_MAX {
            let message = format!("a command's id of {} bytes: 1 to {ID_MAX}", id.len());
            return Err(WireError::invalid(message));
        }
        Ok(Self {
            fingerprint: checksum(&[by.as_bytes(), id.as_bytes()]),
            by: by.to_owned(),
            request: checksum(asked),
        })
    }
}

/// What the command came to when it was first sent; none if it was not carried out yet, `conflict`
/// if its id stood for something else.
pub fn repeated(state: &State, command: &Command) -> Result<Option<CommandOutcome>, WireError> {
    match state.command(&command.fingerprint) {
        None => Ok(None),
        Some(first) if first.request == command.request => Ok(Some(first.outcome.clone())),
        Some(_) => Err(WireError::new(
            ErrorCode::Conflict,
            "this command id was used for another request: take a new one for each command",
        )),
    }
}

/// Remembers a command with the changes it made, and forgets old ones.
pub fn remember(draft: &mut Draft, command: &Command, outcome: &CommandOutcome, now: Timestamp) {
    let record = CommandRecord {
        by: command.by.clone(),
        request: command.request.clone(),
        at: now,
        outcome: outcome.clone(),
    };
    draft.put_command(&command.fingerprint, record);
    let state = draft.state();
    let over = state.command_count().saturating_sub(COMMANDS_KEPT);
    let is_old = |at: &Timestamp| now.duration_since(*at).unsigned_abs() > KEPT_FOR && *at < now;
    let old: Vec<String> = state
        .commands_by_age()
        .take(FORGOTTEN_AT_ONCE)
        .enumerate()
        .take_while(|(place, (at, _))| *place < over || is_old(at))
        .map(|(_, (_, fingerprint))| fingerprint.clone())
        .collect();
    for fingerprint in old {
        draft.delete(Key::Command(fingerprint));
    }
}

/// The parts with their lengths, so that no two lists of parts look alike.
fn checksum(parts: &[&[u8]]) -> String {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    Checksum::of(&bytes).to_string()
}
