//! What was seen of the output of runs.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use loom_schemas::ids::RunId;
use loom_schemas::wire::{LogEnd, LogLine};

/// Where a line lies in what was seen of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It was seen.
    Known,
    /// It comes next.
    Next,
    /// Something is missing before it.
    Beyond,
}

/// How much of the output of ended runs was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A stream goes on, as far as is known.
    Open,
    /// All streams have ended, but lines before an end were not seen.
    Lacking,
    /// All of it.
    Whole,
}

/// What was seen of each stream of each run.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Where the next line begins.
    next: BTreeMap<(RunId, String), u64>,
    /// Until when it was read from a node's files, whose offsets count other bytes.
    until: BTreeMap<(RunId, String), Timestamp>,
    /// Where it ends.
    ends: BTreeMap<(RunId, String), u64>,
}

impl Seen {
    /// Takes note of the end of a stream.
    pub(super) fn take_end(&mut self, end: LogEnd) {
        self.ends.insert((end.run, end.stream), end.offset);
    }

    /// Whether all the output of these runs was seen.
    pub(super) fn ending(&self, runs: &BTreeSet<RunId>) -> Ending {
        let mut ending = Ending::Whole;
        for run in runs {
            for stream in ["stdout", "stderr"] {
                let key = (*run, stream.to_owned());
                let seen = self.next.get(&key).copied().unwrap_or(0);
                match self.ends.get(&key) {
                    None => return Ending::Open,
                    Some(end) if *end > seen => ending = Ending::Lacking,
                    Some(_) => {}
                }
            }
        }
        ending
    }

    /// Where a line lies.
    pub(super) fn place(&self, line: &LogLine) -> Place {
        let key = (line.run, line.stream.clone());
        if self.until.get(&key).is_some_and(|until| line.at <= *until) {
            return Place::Known;
        }
        match self.next.get(&key) {
            Some(next) if line.offset < *next => Place::Known,
            Some(next) if line.offset > *next => Place::Beyond,
            Some(_) | None => Place::Next,
        }
    }

    /// Takes note of a line.
    pub(super) fn take(&mut self, line: &LogLine) {
        let end = line.offset + line.text.len() as u64 + 1;
        self.next.insert((line.run, line.stream.clone()), end);
    }

    /// Takes note of a line that was read from a node's files.
    pub(super) fn take_from_file(&mut self, line: &LogLine) {
        self.until.insert((line.run, line.stream.clone()), line.at);
    }
}

#[cfg(test)]
mod tests {
    use loom_schemas::ids::{Name, Slot};

    use super::*;

    fn line(offset: u64, text: &str) -> LogLine {
        LogLine {
            at: Timestamp::from_millisecond(1_000 + i64::try_from(offset).unwrap()).unwrap(),
            stream: "stdout".to_owned(),
            slot: Slot::new(Name::new("web").unwrap(), Name::main(), 0),
            run: RunId(uuid::Uuid::from_u128(1)),
            offset,
            text: text.to_owned(),
        }
    }

    #[test]
    fn offsets_tell_what_is_known_next_or_missing() {
        let mut seen = Seen::default();
        // Nothing is known of a run whose first lines a tail cut off.
        assert_eq!(seen.place(&line(40, "ab")), Place::Next);
        seen.take(&line(40, "ab"));
        assert_eq!(seen.place(&line(40, "ab")), Place::Known);
        assert_eq!(seen.place(&line(43, "c")), Place::Next);
        assert_eq!(seen.place(&line(45, "d")), Place::Beyond);
        let mut other = line(0, "x");
        other.stream = "stderr".to_owned();
        assert_eq!(seen.place(&other), Place::Next);
    }

    #[test]
    fn output_is_whole_once_both_streams_have_ended_and_all_before_was_seen() {
        let mut seen = Seen::default();
        let runs = BTreeSet::from([RunId(uuid::Uuid::from_u128(1))]);
        let end = |stream: &str, offset| LogEnd {
            run: *runs.first().unwrap(),
            stream: stream.to_owned(),
            offset,
        };
        seen.take(&line(0, "ab"));
        assert_eq!(seen.ending(&runs), Ending::Open);
        seen.take_end(end("stdout", 6));
        assert_eq!(seen.ending(&runs), Ending::Open);
        seen.take_end(end("stderr", 0));
        assert_eq!(seen.ending(&runs), Ending::Lacking);
        seen.take(&line(3, "cd"));
        assert_eq!(seen.ending(&runs), Ending::Whole);
        assert_eq!(seen.ending(&BTreeSet::new()), Ending::Whole);
    }

    #[test]
    fn lines_of_files_are_known_by_their_time() {
        let mut seen = Seen::default();
        seen.take_from_file(&line(500, "from a file"));
        assert_eq!(seen.place(&line(100, "older")), Place::Known);
        assert_eq!(seen.place(&line(900, "newer")), Place::Next);
    }
}
