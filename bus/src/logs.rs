//! Task output on the bus: what one message of `orch.logs.>` holds.
//!
//! A message carries whole lines of one slot and one stream. Its payload is text, one line of
//! output a line, each led by the time it was written: `<RFC 3339 time> <text>\n`. So any client
//! can read it. The headers say which run wrote it and where in the run's stream its first line
//! begins, counting the bytes of the text with its line breaks and without the times. The last
//! message of a stream has no line but the header `Orch-End`: the run has ended and wrote no more.
//!
//! Whoever publishes encodes with [`LogBlock::encode`]; whoever reads uses [`LogBlock::decode`].

use std::fmt::Write as _;
use std::str::FromStr;

use bytes::Bytes;
use jiff::Timestamp;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::wire::{LogEnd, LogLine};

/// Header: the run that wrote the lines.
pub const HEADER_RUN: &str = "Orch-Run";
/// Header: where the first line begins in the run's stream, in bytes.
pub const HEADER_OFFSET: &str = "Orch-Offset";
/// Header: when the first line was written, RFC 3339 in UTC.
pub const HEADER_TIME: &str = "Orch-Time";
/// Header: nothing follows in the run's stream; its offset is where a further line would begin.
pub const HEADER_END: &str = "Orch-End";
/// The most bytes of text in one message; a longer line stands alone.
pub const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// The longest line that is kept whole, in bytes; what is longer is cut there when it is read.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;

/// One message of output: lines of one run and one stream that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBlock {
    /// The run that wrote them.
    pub run: RunId,
    /// Where the first line begins in the run's stream, in bytes of text with line breaks.
    pub offset: u64,
    /// The lines, each with the time it was written, without the line break.
    pub lines: Vec<(Timestamp, String)>,
}

/// The headers of the message, without a payload, that ends a stream of a run.
pub fn end_headers(run: RunId, offset: u64) -> Vec<(&'static str, String)> {
    vec![
        (HEADER_RUN, run.to_string()),
        (HEADER_OFFSET, offset.to_string()),
        (HEADER_END, "true".to_owned()),
    ]
}

/// What a message that ends a stream says; none for every other message.
pub fn end_of<'h>(header: impl Fn(&str) -> Option<&'h str>, stream: &str) -> Option<LogEnd> {
    header(HEADER_END)?;
    Some(LogEnd {
        run: parsed(HEADER_RUN, header(HEADER_RUN)).ok()?,
        stream: stream.to_owned(),
        offset: parsed(HEADER_OFFSET, header(HEADER_OFFSET)).ok()?,
    })
}

/// Why a message of `orch.logs.>` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogBlockError {
    /// A header is missing.
    #[error("the header `{0}` is missing")]
    Missing(&'static str),
    /// A header does not say what it should.
    #[error("the header `{name}` says `{value}`")]
    Header {
        /// Which.
        name: &'static str,
        /// What it says.
        value: String,
    },
    /// The subject is not `orch.logs.<job>.<task>.<index>.<node>.<stream>`.
    #[error("`{0}` is not the subject of a slot's output")]
    Subject(String),
    /// A line does not begin with a time.
    #[error("line {0} does not begin with a time")]
    Line(usize),
}

impl LogBlock {
    /// The headers and the payload of the message; nothing to publish if there are no lines.
    ///
    /// A line break inside a line would make two of it, so it is replaced by a space.
    pub fn encode(&self) -> Option<(Vec<(&'static str, String)>, Bytes)> {
        let (first, _) = self.lines.first()?;
        let headers = vec![
            (HEADER_RUN, self.run.to_string()),
            (HEADER_OFFSET, self.offset.to_string()),
            (HEADER_TIME, first.to_string()),
        ];
        let size = self.lines.iter().map(|(_, text)| text.len() + 36).sum();
        let mut payload = String::with_capacity(size);
        for (at, text) in &self.lines {
            let _ = write!(payload, "{at} ");
            if text.contains('\n') {
                payload.push_str(&text.replace('\n', " "));
            } else {
                payload.push_str(text);
            }
            payload.push('\n');
        }
        Some((headers, Bytes::from(payload)))
    }

    /// Reads a message by its headers and payload; bytes that are not UTF-8 are replaced.
    pub fn decode<'h>(
        header: impl Fn(&str) -> Option<&'h str>,
        payload: &[u8],
    ) -> Result<Self, LogBlockError> {
        let run = parsed(HEADER_RUN, header(HEADER_RUN))?;
        let offset = parsed(HEADER_OFFSET, header(HEADER_OFFSET))?;
        let text = String::from_utf8_lossy(payload);
        let mut lines = Vec::new();
        for (number, line) in text.split_terminator('\n').enumerate() {
            let (at, text) = line.split_once(' ').unwrap_or((line, ""));
            let at = at.parse().map_err(|_| LogBlockError::Line(number + 1))?;
            lines.push((at, text.to_owned()));
        }
        Ok(Self { run, offset, lines })
    }

    /// The lines as the history answers them; `slot` and `stream` are those of the subject.
    pub fn into_lines(self, slot: &Slot, stream: &str) -> Vec<LogLine> {
        let run = self.run;
        let mut offset = self.offset;
        let line = |(at, text): (Timestamp, String)| {
            let here = offset;
            offset += text.len() as u64 + 1;
            LogLine {
                at,
                stream: stream.to_owned(),
                slot: slot.clone(),
                run,
                offset: here,
                text,
            }
        };
        self.lines.into_iter().map(line).collect()
    }

    /// Where the line after the last one begins.
    pub fn end(&self) -> u64 {
        let bytes = |(_, text): &(Timestamp, String)| text.len() as u64 + 1;
        self.offset + self.lines.iter().map(bytes).sum::<u64>()
    }
}

/// Who wrote what is published on this subject: the slot, the node and the stream.
pub fn source_of(subject: &str) -> Result<(Slot, Name, &str), LogBlockError> {
    let wrong = || LogBlockError::Subject(subject.chars().take(200).collect());
    let tokens: Vec<&str> = subject.split('.').collect();
    let ["orch", "logs", job, task, index, node, stream] = tokens.as_slice() else {
        return Err(wrong());
    };
    let name = |text: &str| Name::new(text).map_err(|_| wrong());
    let index = index.parse().map_err(|_| wrong())?;
    Ok((
        Slot::at(name(job)?, name(task)?, index),
        name(node)?,
        stream,
    ))
}

fn parsed<T: FromStr>(name: &'static str, value: Option<&str>) -> Result<T, LogBlockError> {
    let value = value.ok_or(LogBlockError::Missing(name))?;
    let wrong = |_| LogBlockError::Header {
        name,
        value: value.chars().take(80).collect(),
    };
    value.parse().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(offset: u64, texts: &[&str]) -> LogBlock {
        let at = |n: usize| {
            let n = i64::try_from(n).unwrap();
            Timestamp::from_millisecond(1_700_000_000_000 + n).unwrap()
        };
        LogBlock {
            run: RunId(uuid::Uuid::from_u128(7)),
            offset,
            lines: texts
                .iter()
                .enumerate()
                .map(|(n, t)| (at(n), (*t).to_owned()))
                .collect(),
        }
    }

    fn round_trip(block: &LogBlock) -> LogBlock {
        let (headers, payload) = block.encode().unwrap();
        let find = |name: &str| {
            headers
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.as_str())
        };
        LogBlock::decode(find, &payload).unwrap()
    }

    #[test]
    fn what_is_published_is_what_is_read() {
        let written = block(10, &["hello", "", "two words ", "ä"]);
        assert_eq!(round_trip(&written), written);
        assert_eq!(written.end(), 10 + 6 + 1 + 11 + 3);
    }

    #[test]
    fn every_line_says_where_it_begins() {
        let slot = Slot::new(Name::new("web").unwrap(), Name::main(), 0);
        let lines = block(100, &["ab", "c", ""]).into_lines(&slot, "stdout");
        let offsets: Vec<u64> = lines.iter().map(|line| line.offset).collect();
        assert_eq!(offsets, [100, 103, 105]);
    }

    #[test]
    fn nothing_is_not_published_and_nonsense_is_refused() {
        assert!(block(0, &[]).encode().is_none());
        assert!(LogBlock::decode(|_| None, b"").is_err());
        assert!(LogBlock::decode(|_| Some("x"), b"").is_err());
        assert!(source_of("orch.logs.sys.node-1").is_err());
        let (slot, node, stream) = source_of("orch.logs.web.main.3.n1.stderr").unwrap();
        assert_eq!(
            (slot.index, node.as_str(), stream),
            (3.into(), "n1", "stderr")
        );
    }
}
