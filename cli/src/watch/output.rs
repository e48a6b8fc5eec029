//! Task output: what was kept, page by page, and what is written.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use loom_bus::logs::{LogBlock, end_of, source_of};
use loom_bus::{Bus, Message};
use loom_schemas::ids::RunId;
use loom_schemas::subject;
use loom_schemas::wire::{LogEnd, LogLine, LogLines, LogQuery, TaskCommand};
use tokio::time::Instant;

use super::live::{Heard, Live};
use super::scope::Scope;
use crate::client;
use crate::exit::{Code, Failure};
use crate::fanout::{self, Row};
use crate::output::note;

mod seen;

use seen::{Ending, Place, Seen};

/// How many lines a task is asked for that is read from its files.
const FILE_LINES: u32 = 10_000;

/// How long the tasks have to answer.
const TASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a follower asks how far the history goes, so that it need not read all of it again.
const MARK_EVERY: Duration = Duration::from_secs(5);

/// How long it waits for that; it is no loss not to know.
const MARK_TIMEOUT: Duration = Duration::from_secs(1);

/// The output that was kept, with a place in it.
pub(crate) struct Kept {
    bus: Bus,
    scope: Scope,
    since: Option<Timestamp>,
    seen: Seen,
    /// How far each filter of the scope was read.
    marks: Vec<u64>,
}

impl Kept {
    /// Of whom, and since when; nothing is read yet.
    pub(crate) fn new(bus: &Bus, scope: Scope, since: Option<Timestamp>) -> Self {
        Self {
            bus: bus.clone(),
            marks: vec![0; scope.filters.len()],
            scope,
            since,
            seen: Seen::default(),
        }
    }

    /// Shows all of it, or the last lines: from the bus, or from the tasks themselves where the
    /// bus has none or no manager is there. True if there were any.
    pub(crate) async fn show(
        &mut self,
        tail: Option<u32>,
        show: &mut impl FnMut(&LogLine) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let mut any = false;
        for index in 0..self.marks.len() {
            let shown = match tail {
                Some(tail) => self.show_last(index, tail, show).await,
                None => self.show_all(index, show).await,
            };
            match shown {
                Ok(shown) => any |= shown,
                Err(failure) if failure.code == Code::NoAnswer && !any => {
                    return self.show_files(tail, show).await;
                }
                Err(failure) => return Err(failure),
            }
        }
        if any {
            return Ok(true);
        }
        // Nothing kept: the tasks may not ship their output, but still have it at hand.
        match self.show_files(tail, show).await {
            Err(failure) if matches!(failure.code, Code::NotFound | Code::TimedOut) => Ok(false),
            shown => shown,
        }
    }

    async fn show_all(
        &mut self,
        index: usize,
        show: &mut impl FnMut(&LogLine) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let mut any = false;
        loop {
            let (lines, more) = self.page(index).await?;
            for line in &lines {
                if self.seen.place(line) != Place::Known {
                    self.seen.take(line);
                    show(line)?;
                    any = true;
                }
            }
            if !more {
                return Ok(any);
            }
        }
    }

    async fn show_last(
        &mut self,
        index: usize,
        tail: u32,
        show: &mut impl FnMut(&LogLine) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let query = LogQuery {
            tail: Some(tail),
            ..self.query(index)
        };
        let answer: LogLines = self.ask(&query).await?;
        let mut lines = VecDeque::from(answer.lines);
        self.marks[index] = answer.last;
        if answer.more {
            // More than fits into one answer.
            lines.clear();
            self.marks[index] = 0;
            let count = usize::try_from(tail).unwrap_or(usize::MAX);
            self.show_all(index, &mut |line: &LogLine| {
                lines.push_back(line.clone());
                if lines.len() > count {
                    lines.pop_front();
                }
                Ok(())
            })
            .await?;
        }
        for line in &lines {
            self.seen.take(line);
            show(line)?;
        }
        Ok(!lines.is_empty())
    }

    /// The next lines behind the mark of a filter, which moves on; and whether there are more.
    async fn page(&mut self, index: usize) -> Result<(Vec<LogLine>, bool), Failure> {
        let query = LogQuery {
            after: Some(self.marks[index]),
            ..self.query(index)
        };
        let answer: LogLines = self.ask(&query).await?;
        if answer.last < self.marks[index] {
            // The stream was made anew; offsets tell what of it was seen.
            self.marks[index] = 0;
            return Ok((Vec::new(), true));
        }
        self.marks[index] = answer.last;
        answer
            .ends
            .into_iter()
            .for_each(|end| self.seen.take_end(end));
        Ok((answer.lines, answer.more))
    }

    fn query(&self, index: usize) -> LogQuery {
        LogQuery {
            filter: self.scope.filters[index].clone(),
            run: self.scope.run,
            since: self.since,
            ..LogQuery::default()
        }
    }

    async fn ask(&self, query: &LogQuery) -> Result<LogLines, Failure> {
        client::ask(&self.bus, &subject::api("log", "get"), query).await
    }

    /// How far the history goes now, for each filter.
    async fn ends(&self) -> Option<Vec<u64>> {
        let mut ends = Vec::new();
        for index in 0..self.marks.len() {
            let query = LogQuery {
                tail: Some(0),
                ..self.query(index)
            };
            let subject = subject::api("log", "get");
            let answer = self.bus.call::<_, LogLines>(&subject, &query, MARK_TIMEOUT);
            ends.push(answer.await.ok()?.last);
        }
        Some(ends)
    }

    async fn show_files(
        &mut self,
        tail: Option<u32>,
        show: &mut impl FnMut(&LogLine) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let command = TaskCommand {
            tail: tail.or(Some(FILE_LINES)),
            ..TaskCommand::default()
        };
        let address = &self.scope.address;
        let outcome = fanout::command(&self.bus, address, "logs", &command, TASK_TIMEOUT).await?;
        let mut lines = Vec::new();
        for row in outcome.rows {
            let Row::Answer(row) = row else { continue };
            let answer = row.value.map(serde_json::from_value::<LogLines>);
            let Some(Ok(answer)) = answer else { continue };
            let full = tail.is_none() && answer.lines.len() >= FILE_LINES as usize;
            if answer.more || full {
                note(&format!(
                    "loomctl: only the newest {} lines of {} are shown: no more fit into its \
                     answer; its files are on {} (loomctl inspect {} -o wide says where)",
                    answer.lines.len(),
                    row.slot,
                    row.node,
                    row.slot
                ));
            }
            lines.extend(answer.lines);
        }
        lines.retain(|line| {
            self.since.is_none_or(|since| line.at >= since)
                && self.scope.stream.as_ref().is_none_or(|s| *s == line.stream)
        });
        lines.sort_by_key(|line| line.at);
        for line in &lines {
            self.seen.take_from_file(line);
            show(line)?;
        }
        Ok(!lines.is_empty())
    }
}

/// Output as it is written, each line once and none left out.
pub(crate) struct Follow {
    kept: Kept,
    live: Live,
    /// Lines of the history that come first.
    behind: VecDeque<LogLine>,
    /// Lines that were heard.
    heard: VecDeque<LogLine>,
    /// Ends that were heard, behind those lines.
    heard_ends: Vec<LogEnd>,
    /// The filter whose history is to be read next, where something may be missing.
    filling: Option<usize>,
    /// Whether the history was read for what comes next: it has no more of it.
    filled: bool,
    /// How far the history went at [`marked_at`](Self::marked_at), if nothing was missed since.
    ends: Option<Vec<u64>>,
    marked_at: Instant,
}

impl Follow {
    /// Listens from now on; what was kept is to be shown next, by [`show_kept`](Self::show_kept),
    /// or passed over by [`pass_over_kept`](Self::pass_over_kept).
    pub(crate) async fn open(
        bus: &Bus,
        scope: Scope,
        since: Option<Timestamp>,
    ) -> Result<Self, Failure> {
        let live = Live::open(bus, &scope.subjects()).await?;
        Ok(Self {
            kept: Kept::new(bus, scope, since),
            live,
            behind: VecDeque::new(),
            heard: VecDeque::new(),
            heard_ends: Vec::new(),
            filling: None,
            filled: false,
            ends: None,
            marked_at: Instant::now(),
        })
    }

    /// Shows what was kept; true if there was any.
    pub(crate) async fn show_kept(
        &mut self,
        tail: Option<u32>,
        show: &mut impl FnMut(&LogLine) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        self.kept.show(tail, show).await
    }

    /// Passes over what was kept so far.
    pub(crate) async fn pass_over_kept(&mut self) -> Result<(), Failure> {
        for index in 0..self.kept.marks.len() {
            let query = LogQuery {
                tail: Some(0),
                ..self.kept.query(index)
            };
            self.kept.marks[index] = self.kept.ask(&query).await?.last;
        }
        Ok(())
    }

    /// Reads the history again before the next line, in case something was not heard.
    pub(crate) fn look_back(&mut self) {
        self.filling = Some(0);
        self.ends = None;
    }

    /// The next line of the history, while it is read again; none once it was read to its end.
    pub(crate) async fn next_kept(&mut self) -> Result<Option<LogLine>, Failure> {
        loop {
            if let Some(line) = self.behind.pop_front() {
                if self.kept.seen.place(&line) != Place::Known {
                    self.kept.seen.take(&line);
                    return Ok(Some(line));
                }
            } else if let Some(index) = self.filling {
                self.fill(index).await?;
            } else {
                return Ok(None);
            }
        }
    }

    /// The next line. Cancelling loses none.
    pub(crate) async fn next(&mut self) -> Result<LogLine, Failure> {
        loop {
            // Output goes on for ever where no run has to end.
            if let Some(line) = self.next_until(None).await? {
                return Ok(line);
            }
        }
    }

    /// The next line, or none once all the output of these runs has come. Cancelling loses none.
    pub(crate) async fn next_of(
        &mut self,
        runs: &BTreeSet<RunId>,
    ) -> Result<Option<LogLine>, Failure> {
        self.next_until(Some(runs)).await
    }

    /// Whether all the output of these runs has come.
    pub(crate) fn is_whole(&self, runs: &BTreeSet<RunId>) -> bool {
        self.kept.seen.ending(runs) != Ending::Open
    }

    async fn next_until(
        &mut self,
        runs: Option<&BTreeSet<RunId>>,
    ) -> Result<Option<LogLine>, Failure> {
        loop {
            if let Some(line) = self.next_kept().await? {
                return Ok(Some(line));
            }
            if let Some(line) = self.heard.pop_front() {
                if let Some(line) = self.placed(line) {
                    return Ok(Some(line));
                }
                continue;
            }
            for end in self.heard_ends.drain(..) {
                self.kept.seen.take_end(end);
            }
            match runs.map(|runs| self.kept.seen.ending(runs)) {
                Some(Ending::Lacking) if !self.filled => {
                    self.look_back();
                    continue;
                }
                // What the history has not either, rotation took away.
                Some(Ending::Lacking | Ending::Whole) => return Ok(None),
                Some(Ending::Open) | None => {}
            }
            self.mark().await;
            match self.live.next().await? {
                Heard::Missed => self.look_back(),
                Heard::Message(message) => {
                    self.filled = false;
                    self.hear(&message);
                }
            }
        }
    }

    /// A line that was heard, unless it is known or the history has to be read before it.
    fn placed(&mut self, line: LogLine) -> Option<LogLine> {
        match self.kept.seen.place(&line) {
            Place::Known => None,
            Place::Beyond if !self.filled => {
                self.heard.push_front(line);
                self.look_back();
                None
            }
            // Offsets leave room for what rotation took away: nobody has it.
            Place::Next | Place::Beyond => {
                self.kept.seen.take(&line);
                Some(line)
            }
        }
    }

    /// Reads a page of the history of a filter.
    async fn fill(&mut self, index: usize) -> Result<(), Failure> {
        if index >= self.kept.marks.len() {
            self.filling = None;
            self.filled = true;
            return Ok(());
        }
        match self.kept.page(index).await {
            Ok((lines, more)) => {
                self.behind.extend(lines);
                self.filling = Some(if more { index } else { index + 1 });
            }
            Err(failure) if failure.code == Code::NoAnswer => {
                note(
                    "loomctl: no manager answers: what was written while the bus was away may be \
                     missing here",
                );
                self.filling = None;
                self.filled = true;
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Moves the marks on now and then: to where the history ended a while ago, all of which has
    /// been heard by now if nothing was missed.
    async fn mark(&mut self) {
        if self.marked_at.elapsed() < MARK_EVERY {
            return;
        }
        if let Some(ends) = self.ends.take() {
            self.kept.marks = ends;
        }
        self.marked_at = Instant::now();
        self.ends = self.kept.ends().await;
    }

    /// Takes note of the lines of a message, or of the end it says.
    fn hear(&mut self, message: &Message) {
        let header = |name: &str| message.headers.get(name);
        let block = LogBlock::decode(header, &message.payload);
        let (Ok((slot, _, stream)), Ok(block)) = (source_of(&message.subject), block) else {
            return;
        };
        let wanted = self.kept.scope.run;
        if wanted.is_none_or(|run| run == block.run) {
            self.heard.extend(block.into_lines(&slot, stream));
            self.heard_ends.extend(end_of(header, stream));
        }
    }
}
