//! Events and output of the past.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::EventBody;
use crate::ids::{RunId, Slot};

/// The answer to `logs`, of a task or of the history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogLines {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// How far the history was read: what [`LogQuery::after`] takes to go on from there.
    #[serde(default)]
    pub last: u64,
    /// Whether there is more than fits into an answer: later lines behind `last` if the query had
    /// `after`, else earlier ones than those that were asked for.
    #[serde(default)]
    pub more: bool,
    /// Streams of runs that have ended, all of whose lines came before the mark that says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<LogEnd>,
}

/// The end of a stream of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// The run.
    pub run: RunId,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Where a further line would begin, in bytes of text: no line begins there or behind.
    pub offset: u64,
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written, by the node's clock.
    pub at: Timestamp,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The slot.
    pub slot: Slot,
    /// The run.
    pub run: RunId,
    /// Where the line begins in the run's stream, in bytes: tells doubled lines.
    pub offset: u64,
    /// The text, without the line break; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// `orch.api.event.list`: the history of events, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventQuery {
    /// A subject filter, relative to `orch.events.`; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Only those with a higher number; if there are more than the limit, the oldest of them, so
    /// that one can go on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Only those decided at or after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// At most so many: the newest ones, without `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The answer to [`EventQuery`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventList {
    /// Oldest first.
    pub events: Vec<EventRow>,
    /// Whether more lie beyond the limit.
    #[serde(default)]
    pub more: bool,
    /// How far the history was read: what [`EventQuery::after`] takes to go on from there. Events
    /// the query left out have a number as well, so it may lie behind the last row.
    #[serde(default)]
    pub last: u64,
}

/// One event of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRow {
    /// Its number in the history, from 1, without a gap.
    pub number: u64,
    /// The subject it was published on.
    pub subject: String,
    /// Its body.
    pub event: EventBody,
}

/// `orch.api.log.get`: output kept on the bus, also of runs long gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// A subject filter, relative to `orch.logs.`: `web.main.0.*.*`.
    pub filter: String,
    /// Only this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Only lines written at or after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// At most so many lines, the newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// A page: the oldest lines behind this place, which is the [`LogLines::last`] of an earlier
    /// answer, or 0 for the beginning. `tail` has no meaning then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}
