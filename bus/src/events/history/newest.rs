//! Events read back: those after a number, or the newest.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use async_nats::jetstream::Message;
use jiff::Timestamp;
use loom_schemas::event::EventBody;
use loom_schemas::wire::{EventList, EventQuery, EventRow};

use super::super::{COMMANDS, EVENTS, HEADER_EVENT};
use super::{BYTES_MAX, History, HistoryError, Reading, Start, WINDOW, WINDOW_GROWTH, filter};
use crate::stream::StreamError;

/// How many events are answered if the query does not say, and at most.
const EVENTS_MAX: usize = 10_000;

/// Messages a consumer asks for at once.
const BATCH: usize = 1000;

impl History {
    /// Events that match, oldest first; if there are more than the limit, the newest of them, or
    /// the oldest of those after a number.
    pub async fn events(&self, query: &EventQuery) -> Result<EventList, HistoryError> {
        let filter = filter("orch.events.", query.filter.as_deref())?;
        let limit = query
            .limit
            .map_or(EVENTS_MAX, |limit| limit as usize)
            .min(EVENTS_MAX);
        // Known before it is read: what is told meanwhile may be missing from what was read.
        let end = self.last_event().await?;
        match query.after {
            Some(after) => self.events_after(query, filter, after, limit, end).await,
            None => self.newest_events(query, filter, limit, end).await,
        }
    }

    async fn events_after(
        &self,
        query: &EventQuery,
        filter: String,
        after: u64,
        limit: usize,
        end: u64,
    ) -> Result<EventList, HistoryError> {
        let start = Start::Sequence(self.sequence_after(after).await?);
        let mut list = EventList {
            last: end,
            ..EventList::default()
        };
        let mut bytes = 0;
        let keep = |message: Message| {
            let Some(row) = event_row(&message) else {
                return ControlFlow::Continue(());
            };
            if query.since.is_some_and(|since| row.event.at < since) || row.number <= after {
                return ControlFlow::Continue(());
            }
            let size = size_of(&message);
            if list.events.len() >= limit || bytes + size > BYTES_MAX {
                list.more = true;
                return ControlFlow::Break(());
            }
            bytes += size;
            list.events.push(row);
            ControlFlow::Continue(())
        };
        self.read(reading(EVENTS, filter, start), keep).await?;
        if let (true, Some(row)) = (list.more, list.events.last()) {
            list.last = row.number;
        }
        Ok(list)
    }

    async fn newest_events(
        &self,
        query: &EventQuery,
        filter: String,
        limit: usize,
        end: u64,
    ) -> Result<EventList, HistoryError> {
        let kind = filter.split('.').nth(2).unwrap_or_default();
        let speaks_of_commands = matches!(kind, "command" | "*" | ">");
        let mut newest = Newest::new(query.since, limit, event_row);
        self.take_newest(EVENTS, &filter, &mut newest).await?;
        let mut list = EventList {
            last: end,
            more: newest.more,
            events: newest.into_rows(),
        };
        if speaks_of_commands {
            // The nodes' own events, which have no number.
            let mut newest = Newest::new(query.since, limit, command_row);
            self.take_newest(COMMANDS, &filter, &mut newest).await?;
            list.more |= newest.more;
            list.events.extend(newest.into_rows());
            list.events.sort_by_key(|row| row.event.at);
            let surplus = list.events.len().saturating_sub(limit);
            list.more |= surplus > 0;
            list.events.drain(..surplus);
        }
        Ok(list)
    }

    /// Takes the newest that match: from the end of the stream, further back until there are enough.
    async fn take_newest(
        &self,
        stream: &'static str,
        filter: &str,
        newest: &mut Newest,
    ) -> Result<(), HistoryError> {
        let state = self.js.info(stream).await?.state;
        // One more than wanted tells that there are more.
        let mut window = (newest.limit as u64 + 1).max(WINDOW);
        loop {
            let before = state.last_seq.saturating_sub(window);
            let all = before <= state.first_seq;
            let start = match newest.since {
                _ if !all => Start::Sequence(before + 1),
                Some(since) => Start::Time(since),
                None => Start::All,
            };
            newest.clear();
            let keep = |message: Message| {
                newest.take(&message);
                ControlFlow::Continue(())
            };
            self.read(reading(stream, filter.to_owned(), start), keep)
                .await?;
            if all || newest.more || newest.reaches_since {
                return Ok(());
            }
            window = window.saturating_mul(WINDOW_GROWTH);
        }
    }

    /// The sequence in the stream of the first event after this number.
    async fn sequence_after(&self, number: u64) -> Result<u64, StreamError> {
        let last = self.js.info(EVENTS).await?.state.last_seq;
        let last_number = self.last_event().await?;
        // The two go in step; a history that lost some of its end may lag behind the numbers.
        Ok((number + 1)
            .saturating_sub(last_number.saturating_sub(last))
            .max(1))
    }
}

fn reading(stream: &'static str, filter: String, start: Start) -> Reading {
    Reading {
        stream,
        filter,
        start,
        batch: BATCH,
    }
}

/// What an event takes in an answer, in bytes.
fn size_of(message: &Message) -> usize {
    message.payload.len() + 128
}

/// The newest events that were seen, as many as are wanted and fit into an answer.
struct Newest {
    since: Option<Timestamp>,
    limit: usize,
    row: fn(&Message) -> Option<EventRow>,
    rows: VecDeque<(EventRow, usize)>,
    bytes: usize,
    /// Whether some that match had to go.
    more: bool,
    /// Whether one was too old for the query.
    reaches_since: bool,
}

impl Newest {
    fn new(since: Option<Timestamp>, limit: usize, row: fn(&Message) -> Option<EventRow>) -> Self {
        Self {
            since,
            limit,
            row,
            rows: VecDeque::new(),
            bytes: 0,
            more: false,
            reaches_since: false,
        }
    }

    fn clear(&mut self) {
        *self = Self::new(self.since, self.limit, self.row);
    }

    fn take(&mut self, message: &Message) {
        let Some(row) = (self.row)(message) else {
            return;
        };
        if self.since.is_some_and(|since| row.event.at < since) {
            self.reaches_since = true;
            return;
        }
        let size = size_of(message);
        self.bytes += size;
        self.rows.push_back((row, size));
        while self.rows.len() > self.limit || self.bytes > BYTES_MAX {
            self.bytes -= self.rows.pop_front().map_or(0, |(_, size)| size);
            self.more = true;
        }
    }

    fn into_rows(self) -> Vec<EventRow> {
        self.rows.into_iter().map(|(row, _)| row).collect()
    }
}

/// An event of a node about a command.
fn command_row(message: &Message) -> Option<EventRow> {
    Some(EventRow {
        number: 0,
        subject: message.subject.to_string(),
        event: serde_json::from_slice(&message.payload).ok()?,
    })
}

fn event_row(message: &Message) -> Option<EventRow> {
    let number = message
        .headers
        .as_ref()?
        .get(HEADER_EVENT)?
        .as_str()
        .parse()
        .ok()?;
    let event: EventBody = serde_json::from_slice(&message.payload).ok()?;
    Some(EventRow {
        number,
        subject: message.subject.to_string(),
        event,
    })
}
