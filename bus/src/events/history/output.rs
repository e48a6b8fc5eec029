//! Task output read back: the newest lines, or all of it page by page.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use async_nats::jetstream::Message;
use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::wire::{LogEnd, LogLine, LogLines, LogQuery};
use tokio::time::Instant;

use super::super::LOGS;
use super::{BYTES_MAX, History, HistoryError, Reading, Start, WINDOW, WINDOW_GROWTH, filter};
use crate::logs::{LogBlock, end_of, source_of};

/// The most lines in one answer.
const LINES_MAX: usize = 100_000;

/// What a line takes in an answer beside its text, in bytes.
const LINE_OVERHEAD: usize = 160;

/// A page is answered after so long with what it holds by then.
const PAGE_TIME: Duration = Duration::from_secs(4);

/// Messages asked for at once; one holds up to 64 KiB, so that they are about a page.
const BATCH: usize = 64;

impl History {
    /// Lines of output that match, oldest first: a page behind a place, or the newest ones. Lines
    /// that are in the history twice, because a node sent them again, are answered once in an
    /// answer; their offsets tell those of two answers.
    pub async fn logs(&self, query: &LogQuery) -> Result<LogLines, HistoryError> {
        let filter = filter("orch.logs.", Some(&query.filter))?;
        match (query.after, query.tail) {
            (Some(after), _) => self.page(query, filter, after).await,
            // Only how far it goes.
            (None, Some(0)) => Ok(LogLines {
                last: self
                    .js
                    .last_message(LOGS, &filter)
                    .await?
                    .map_or(0, |last| last.sequence),
                ..LogLines::default()
            }),
            (None, Some(tail)) => self.tail(query, filter, tail as usize).await,
            (None, None) => {
                let start = query.since.map_or(Start::All, Start::Time);
                let kept = self.newest(query, filter, start, usize::MAX).await?;
                Ok(kept.into_answer())
            }
        }
    }

    async fn page(
        &self,
        query: &LogQuery,
        filter: String,
        after: u64,
    ) -> Result<LogLines, HistoryError> {
        let start = match (after, query.since) {
            (0, Some(since)) => Start::Time(since),
            (0, None) => Start::All,
            (after, _) => Start::Sequence(after + 1),
        };
        let begun = Instant::now();
        let mut kept = Kept::default();
        let mut is_empty = true;
        let keep = |message: Message| {
            let (lines, end) = read_message(&message);
            let size: usize = lines.iter().map(size_of).sum();
            let full = kept.bytes + size > BYTES_MAX || kept.lines.len() + lines.len() > LINES_MAX;
            // At least one message a page, or it would never come further.
            if !is_empty && (full || begun.elapsed() > PAGE_TIME) {
                return ControlFlow::Break(());
            }
            is_empty = false;
            kept.take(query, lines, end);
            ControlFlow::Continue(())
        };
        let reached = self.read(reading(filter, start), keep).await?;
        kept.last = reached.last;
        kept.more = reached.more;
        Ok(kept.into_answer())
    }

    /// The last lines: from the end of the stream, further back until there are enough of them.
    async fn tail(
        &self,
        query: &LogQuery,
        filter: String,
        tail: usize,
    ) -> Result<LogLines, HistoryError> {
        let stream = self.js.info(LOGS).await?.state;
        let mut window = WINDOW;
        loop {
            let before = stream.last_seq.saturating_sub(window);
            let all = before <= stream.first_seq;
            let start = match query.since {
                _ if !all => Start::Sequence(before + 1),
                Some(since) => Start::Time(since),
                None => Start::All,
            };
            let kept = self.newest(query, filter.clone(), start, tail).await?;
            if all || kept.more || kept.reaches_since || kept.lines.len() >= tail {
                return Ok(kept.into_answer());
            }
            window = window.saturating_mul(WINDOW_GROWTH);
        }
    }

    async fn newest(
        &self,
        query: &LogQuery,
        filter: String,
        start: Start,
        count: usize,
    ) -> Result<Kept, HistoryError> {
        let mut kept = Kept::default();
        let keep = |message: Message| {
            let (lines, end) = read_message(&message);
            kept.take(query, lines, end);
            kept.cut(count);
            ControlFlow::Continue(())
        };
        kept.last = self.read(reading(filter, start), keep).await?.last;
        Ok(kept)
    }
}

fn reading(filter: String, start: Start) -> Reading {
    Reading {
        stream: LOGS,
        filter,
        start,
        batch: BATCH,
    }
}

/// Lines on their way into an answer, each with the time it is sorted by.
#[derive(Default)]
struct Kept {
    lines: VecDeque<(Timestamp, LogLine)>,
    bytes: usize,
    /// Whether lines that were asked for had to go.
    more: bool,
    /// Whether there were lines too old for the query.
    reaches_since: bool,
    /// How far the history was read.
    last: u64,
    /// Ends of streams.
    ended: Vec<LogEnd>,
    /// How far each stream of a run was taken, and until when it was written.
    ends: HashMap<(RunId, String), (u64, Timestamp)>,
}

impl Kept {
    fn take(&mut self, query: &LogQuery, lines: Vec<LogLine>, end: Option<LogEnd>) {
        let is_wanted = |end: &LogEnd| query.run.is_none_or(|run| end.run == run);
        self.ended.extend(end.filter(is_wanted));
        for line in lines {
            if query.run.is_some_and(|run| line.run != run) {
                continue;
            }
            if query.since.is_some_and(|since| line.at < since) {
                self.reaches_since = true;
                continue;
            }
            let key = (line.run, line.stream.clone());
            let (end, until) = self.ends.entry(key).or_insert((0, line.at));
            if line.offset < *end {
                continue;
            }
            *end = line.offset + line.text.len() as u64 + 1;
            // A clock that was set back must not turn a stream around.
            *until = line.at.max(*until);
            self.bytes += size_of(&line);
            self.lines.push_back((*until, line));
        }
    }

    /// Lets the oldest go: those beyond the count were not asked for, those beyond the size were.
    fn cut(&mut self, count: usize) {
        while self.lines.len() > count.min(LINES_MAX) || self.bytes > BYTES_MAX {
            self.more |= self.lines.len() <= count;
            let gone = self.lines.pop_front();
            self.bytes -= gone.map_or(0, |(_, line)| size_of(&line));
        }
    }

    fn into_answer(self) -> LogLines {
        let mut lines: Vec<_> = self.lines.into();
        lines.sort_by_key(|(at, _)| *at);
        LogLines {
            last: self.last,
            more: self.more,
            lines: lines.into_iter().map(|(_, line)| line).collect(),
            ends: self.ended,
        }
    }
}

fn size_of(line: &LogLine) -> usize {
    line.text.len() + LINE_OVERHEAD
}

/// The lines of a message, and the end of its stream if it is that.
fn read_message(message: &Message) -> (Vec<LogLine>, Option<LogEnd>) {
    let read = || {
        let (slot, _, stream) = source_of(&message.subject).ok()?;
        let headers = message.headers.as_ref()?;
        let header = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
        let block = LogBlock::decode(header, &message.payload).ok()?;
        Some((block.into_lines(&slot, stream), end_of(header, stream)))
    };
    read().unwrap_or_default()
}
