//! Lines gathered into messages.

use std::collections::VecDeque;

use jiff::Timestamp;
use loom_bus::logs::{BLOCK_BYTES_MAX, LINE_BYTES_MAX, LogBlock};
use loom_schemas::ids::RunId;

use super::cursor::Cursor;
use crate::output::{Line, Stream};

/// More than the files add to the text of a line: its time, its stream and what parts them.
const OVERHEAD_MAX: u64 = 128;

/// The most lines in one message: short ones take more room in an answer than in the files.
const LINES_MAX: usize = 4096;

/// What has been read and not been sent.
pub(super) struct Blocks {
    run: RunId,
    stdout: Gathered,
    stderr: Gathered,
    /// The place before the last line that was taken, at which no line was begun.
    last: Cursor,
    /// The same place when the last message left nothing waiting.
    sent: Cursor,
    /// The greatest offset at which the next line begins if none is missing.
    expected: u64,
    /// Bytes of text that wait.
    waiting: usize,
}

#[derive(Default)]
struct Gathered {
    /// With the place of each in the stream's text.
    lines: VecDeque<(u64, Timestamp, String)>,
    /// A line that is not whole yet, with the place before its first piece.
    begun: Option<(Cursor, Timestamp, String)>,
    /// Where the next line begins in the stream's text.
    next: u64,
}

impl Gathered {
    fn push(&mut self, at: Timestamp, text: String) -> usize {
        let size = text.len() + 1;
        self.lines.push_back((self.next, at, text));
        self.next += size as u64;
        size
    }
}

impl Blocks {
    pub(super) fn new(run: RunId, from: Cursor) -> Self {
        let at = |next| Gathered {
            next,
            ..Gathered::default()
        };
        Self {
            run,
            stdout: at(from.stdout),
            stderr: at(from.stderr),
            last: from,
            sent: from,
            expected: from.file,
            waiting: 0,
        }
    }

    /// Takes lines as they were read.
    pub(super) fn take(&mut self, lines: Vec<Line>) {
        for line in lines {
            if line.offset > self.expected {
                self.say_gap(&line);
            }
            let here = Cursor {
                file: line.offset,
                stdout: self.stdout.next,
                stderr: self.stderr.next,
                done: false,
            };
            // From amid a line of the other stream only a part of that would come again.
            let begun = [&self.stdout, &self.stderr].map(|stream| stream.begun.as_ref());
            let begun = begun.into_iter().flatten().map(|(place, _, _)| *place);
            self.last = begun.min_by_key(|place| place.file).unwrap_or(here);
            self.expected = line.offset + line.text.len() as u64 + OVERHEAD_MAX;
            let place = self.last;
            let stream = match line.stream {
                Stream::Stdout => &mut self.stdout,
                Stream::Stderr => &mut self.stderr,
            };
            let begun = stream.begun.take();
            let (place, at, mut text) = begun.unwrap_or((place, line.at, String::new()));
            text.push_str(&line.text);
            if line.partial && text.len() < LINE_BYTES_MAX {
                stream.begun = Some((place, at, text));
            } else {
                self.waiting += stream.push(at, text);
            }
        }
    }

    /// Says in a line what rotation has outrun, and leaves room for it in the offsets.
    fn say_gap(&mut self, line: &Line) {
        let least = line.offset - self.expected;
        let text = format!(
            "loom: at least {least} bytes of output were rotated away before they were shipped"
        );
        self.end();
        let room = line.offset - self.last.file;
        let (stdout, stderr) = (self.stdout.next + room, self.stderr.next + room);
        self.waiting += self.stream(line.stream).push(line.at, text);
        self.stdout.next = self.stdout.next.max(stdout);
        self.stderr.next = self.stderr.next.max(stderr);
    }

    /// What was begun is all there will be of it.
    pub(super) fn end(&mut self) {
        for stream in [&mut self.stdout, &mut self.stderr] {
            if let Some((_, at, text)) = stream.begun.take() {
                self.waiting += stream.push(at, text);
            }
        }
    }

    /// Whether enough waits for a message.
    pub(super) fn is_full(&self) -> bool {
        self.waiting >= BLOCK_BYTES_MAX
    }

    /// The next message of a stream.
    pub(super) fn next(&mut self, stream: Stream) -> Option<LogBlock> {
        let block = self.take_block(stream);
        if self.stdout.lines.is_empty() && self.stderr.lines.is_empty() {
            self.sent = self.last;
        }
        block
    }

    fn take_block(&mut self, stream: Stream) -> Option<LogBlock> {
        let run = self.run;
        let waiting = &mut self.stream(stream).lines;
        let offset = waiting.front()?.0;
        let mut end = offset;
        let mut lines = Vec::new();
        while let Some((begin, _, text)) = waiting.front() {
            let size = text.len() as u64 + 1;
            let full = end + size - offset > BLOCK_BYTES_MAX as u64;
            if *begin != end || (full && !lines.is_empty()) || lines.len() >= LINES_MAX {
                break;
            }
            end += size;
            lines.extend(waiting.pop_front().map(|(_, at, text)| (at, text)));
        }
        let size = usize::try_from(end - offset).unwrap_or(usize::MAX);
        self.waiting = self.waiting.saturating_sub(size);
        Some(LogBlock { run, offset, lines })
    }

    /// The place from which shipping would go on, once all messages given out so far are confirmed.
    /// What has gathered since comes after it. The last line before it may come once more; its
    /// offset tells.
    pub(super) fn sent(&self) -> Cursor {
        self.sent
    }

    /// Where the next line of a stream would begin.
    pub(super) fn taken(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout.next,
            Stream::Stderr => self.stderr.next,
        }
    }

    fn stream(&mut self, stream: Stream) -> &mut Gathered {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use loom_schemas::ids::{Name, Slot};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const RUN: RunId = RunId(Uuid::from_u128(1));

    fn line(offset: u64, stream: Stream, text: &str, partial: bool) -> Line {
        let at = Timestamp::UNIX_EPOCH;
        Line {
            at,
            stream,
            offset,
            text: text.into(),
            partial,
        }
    }

    /// Everything that is shipped, by stream and offset.
    fn ship(blocks: &mut Blocks, shipped: &mut BTreeMap<(&'static str, u64), String>) {
        let slot = Slot::new(Name::new("web").unwrap(), Name::main(), 0);
        for stream in [Stream::Stdout, Stream::Stderr] {
            while let Some(block) = blocks.next(stream) {
                for line in block.into_lines(&slot, stream.as_str()) {
                    let place = (stream.as_str(), line.offset);
                    let doubled = shipped.insert(place, line.text.clone());
                    assert!(
                        doubled.is_none_or(|text| text == line.text),
                        "an offset is one line"
                    );
                }
            }
        }
    }

    #[test]
    fn pieces_of_a_line_are_one_line() {
        let mut blocks = Blocks::new(RUN, Cursor::default());
        blocks.take(vec![
            line(0, Stream::Stdout, "ab", true),
            line(40, Stream::Stderr, "x", false),
            line(80, Stream::Stdout, "cd", false),
        ]);
        let stdout = blocks.next(Stream::Stdout).unwrap();
        assert_eq!((stdout.offset, stdout.lines[0].1.as_str()), (0, "abcd"));
        assert_eq!(blocks.next(Stream::Stderr).unwrap().lines.len(), 1);
        assert!(blocks.next(Stream::Stdout).is_none());
    }

    #[test]
    fn what_rotation_outran_is_said_in_a_line_and_offsets_stay_apart() {
        let mut blocks = Blocks::new(RUN, Cursor::default());
        blocks.take(vec![
            line(0, Stream::Stdout, "first", false),
            line(90_000, Stream::Stdout, "later", false),
        ]);
        let first = blocks.next(Stream::Stdout).unwrap();
        assert_eq!(first.lines.len(), 2);
        assert!(
            first.lines[1]
                .1
                .contains("bytes of output were rotated away")
        );
        let later = blocks.next(Stream::Stdout).unwrap();
        assert!(later.offset >= first.end());
        assert_eq!(later.lines[0].1, "later");
    }

    proptest! {
        #[test]
        fn shipping_that_begins_again_anywhere_ships_the_same_lines_at_the_same_offsets(
            texts in proptest::collection::vec(
                (any::<bool>(), "[a-z]{0,12}", proptest::bool::weighted(0.3)), 1..30),
            cuts in proptest::collection::vec((1_usize..8, 0_usize..8), 0..8),
        ) {
            let mut lines = Vec::new();
            let mut offset = 0;
            for (stderr, text, partial) in &texts {
                let stream = if *stderr { Stream::Stderr } else { Stream::Stdout };
                lines.push(line(offset, stream, text, *partial));
                offset += text.len() as u64 + 41;
            }
            let mut whole = BTreeMap::new();
            let mut blocks = Blocks::new(RUN, Cursor::default());
            blocks.take(lines.clone());
            blocks.end();
            ship(&mut blocks, &mut whole);

            let mut pieces = BTreeMap::new();
            let mut cursor = Cursor::default();
            for (cut, unsent) in cuts {
                let mut rest = lines.iter().filter(|l| l.offset >= cursor.file).cloned();
                let mut blocks = Blocks::new(RUN, cursor);
                blocks.take(rest.by_ref().take(cut).collect());
                ship(&mut blocks, &mut pieces);
                // Lines that gather while what was sent is confirmed are lost with the agent.
                blocks.take(rest.take(unsent).collect());
                cursor = blocks.sent();
            }
            let mut blocks = Blocks::new(RUN, cursor);
            blocks.take(lines.iter().filter(|l| l.offset >= cursor.file).cloned().collect());
            blocks.end();
            ship(&mut blocks, &mut pieces);
            prop_assert_eq!(whole, pieces);
        }
    }
}
