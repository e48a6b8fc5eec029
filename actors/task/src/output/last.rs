//! Where the output of a run ends: what a writer that goes on has to know.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use jiff::Timestamp;

use super::{Stream, held, parse, segment};

/// How much of the newest files is looked at, in bytes.
const WINDOW: u64 = 1024 * 1024;

/// The last lines of each stream in what was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Last {
    /// The time of the oldest line.
    pub oldest: Option<Timestamp>,
    /// Of standard output the time of the last line, and how many lines have it.
    pub stdout: Option<(Timestamp, u32)>,
    /// The same of standard error.
    pub stderr: Option<(Timestamp, u32)>,
}

/// Looks at the end of the output that begins at the offset `base`; it blocks on the disk.
pub(crate) fn last(current: &Path, base: u64) -> Last {
    let ends = segment::ends(current);
    let begin = ends.last().copied().unwrap_or(0);
    let mut found = Last::default();
    let mut room = WINDOW;
    let mut windows = Vec::new();
    // Newest first.
    let older = ends
        .iter()
        .rev()
        .map(|end| (segment::name(current, *end), Some(*end)));
    for (path, end) in std::iter::once((current.to_path_buf(), None)).chain(older) {
        if room == 0 {
            break;
        }
        let Ok(file) = held::read(&path) else {
            continue;
        };
        let size = file.metadata().map_or(0, |data| data.len());
        let first = end.map_or(begin, |end| end.saturating_sub(size));
        let from = size.saturating_sub(room);
        let mut bytes = vec![0; usize::try_from(size - from).unwrap_or(0)];
        if file.read_exact_at(&mut bytes, from).is_err() {
            break;
        }
        room = room.saturating_sub(size);
        windows.push((bytes, first + from, from > 0));
    }
    for (bytes, begin, torn) in windows.into_iter().rev() {
        found.take(&bytes, begin, torn, base);
    }
    found
}

impl Last {
    fn take(&mut self, bytes: &[u8], begin: u64, torn: bool, base: u64) {
        let mut offset = begin;
        for (number, text) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let at = offset;
            offset += text.len() as u64;
            let whole = text.strip_suffix(b"\n").filter(|_| number > 0 || !torn);
            let Some(line) = whole.and_then(|text| parse::line(text, at)) else {
                continue;
            };
            if at < base {
                continue;
            }
            self.oldest.get_or_insert(line.at);
            let last = match line.stream {
                Stream::Stdout => &mut self.stdout,
                Stream::Stderr => &mut self.stderr,
            };
            *last = match *last {
                Some((before, count)) if before == line.at => Some((before, count + 1)),
                _ => Some((line.at, 1)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_of_each_stream_is_found_over_files() {
        let directory = tempfile::tempdir().unwrap();
        let current = directory.path().join("output.log");
        assert_eq!(last(&current, 0), Last::default());
        let older =
            "2026-01-02T03:04:05.000001Z stderr F a\n2026-01-02T03:04:05.000002Z stdout F b\n";
        std::fs::write(segment::name(&current, older.len() as u64), older).unwrap();
        let newer = "2026-01-02T03:04:05.000003Z stdout P c\n2026-01-02T03:04:05.000003Z stdout F d\n\
                     2026-01-02T03:04:05.000004Z std";
        std::fs::write(&current, newer).unwrap();
        let at = |us: i64| Timestamp::from_microsecond(1_767_323_045_000_000 + us).unwrap();
        let found = last(&current, 0);
        assert_eq!(found.oldest, Some(at(1)));
        assert_eq!(found.stdout, Some((at(3), 2)));
        assert_eq!(found.stderr, Some((at(1), 1)));
        // What is older than the run is another's.
        let found = last(&current, older.len() as u64);
        assert_eq!((found.oldest, found.stderr), (Some(at(3)), None));
    }
}
