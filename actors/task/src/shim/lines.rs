//! Bytes from a pipe into lines, whole or in pieces.

use std::time::{Duration, Instant};

/// A longer line is written in pieces of this many bytes.
pub(crate) const PIECE_MAX: usize = 64 * 1024;

/// A line that is not ended is written as a piece after this time.
pub(crate) const PIECE_AGE: Duration = Duration::from_millis(200);

/// The beginning of a line, whose end has not been read.
#[derive(Default)]
pub(crate) struct Splitter {
    begun: Vec<u8>,
    since: Option<Instant>,
}

/// Whether a line ends with the piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// It does: `F` in the file.
    Last,
    /// It goes on in the next one: `P` in the file.
    Part,
}

impl Splitter {
    /// Takes bytes in and hands every line that ends in them on, and pieces of overlong ones.
    pub(crate) fn feed(&mut self, bytes: &[u8], now: Instant, mut emit: impl FnMut(&[u8], Piece)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if self.begun.is_empty() && end <= PIECE_MAX {
                emit(&rest[..end], Piece::Last);
            } else {
                self.gather(&rest[..end], &mut emit);
                emit(&self.begun, Piece::Last);
                self.begun = Vec::new();
            }
            self.since = None;
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() {
            self.gather(rest, &mut emit);
            self.since.get_or_insert(now);
        }
    }

    fn gather(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(&[u8], Piece)) {
        while self.begun.len() + bytes.len() > PIECE_MAX {
            let (now, later) = bytes.split_at(PIECE_MAX - self.begun.len());
            self.begun.extend_from_slice(now);
            emit(&self.begun, Piece::Part);
            self.begun.clear();
            bytes = later;
        }
        self.begun.extend_from_slice(bytes);
    }

    /// Hands the beginning of a line on if it waits since `PIECE_AGE`, or at the `end`.
    pub(crate) fn flush(&mut self, now: Instant, end: bool, emit: impl FnOnce(&[u8], Piece)) {
        let old = self
            .since
            .is_some_and(|since| now.duration_since(since) >= PIECE_AGE);
        if (old || end) && !self.begun.is_empty() {
            emit(&self.begun, Piece::Part);
            self.begun = Vec::new();
            self.since = None;
        }
    }

    /// When the beginning of a line is to be handed on.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + PIECE_AGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(splitter: &mut Splitter, bytes: &[u8]) -> Vec<(Vec<u8>, Piece)> {
        let mut lines = Vec::new();
        splitter.feed(bytes, Instant::now(), |text, piece| {
            lines.push((text.to_vec(), piece));
        });
        lines
    }

    #[test]
    fn a_line_may_come_in_any_portions() {
        let text = b"one\n\ntwo three\r\nfour\n";
        for portion in 1..text.len() {
            let mut splitter = Splitter::default();
            let lines: Vec<_> = text
                .chunks(portion)
                .flat_map(|part| fed(&mut splitter, part))
                .collect();
            let texts: Vec<_> = lines.iter().map(|(text, _)| text.as_slice()).collect();
            assert_eq!(texts, [&b"one"[..], b"", b"two three\r", b"four"]);
            assert!(lines.iter().all(|(_, piece)| *piece == Piece::Last));
            assert_eq!(splitter.due(), None);
        }
    }

    #[test]
    fn an_overlong_line_is_cut() {
        let mut text = vec![b'x'; PIECE_MAX * 2 + 5];
        text.push(b'\n');
        for portion in [1000, PIECE_MAX, text.len()] {
            let mut splitter = Splitter::default();
            let lines: Vec<_> = text
                .chunks(portion)
                .flat_map(|part| fed(&mut splitter, part))
                .collect();
            let lengths: Vec<_> = lines
                .iter()
                .map(|(text, piece)| (text.len(), *piece))
                .collect();
            let whole = [
                (PIECE_MAX, Piece::Part),
                (PIECE_MAX, Piece::Part),
                (5, Piece::Last),
            ];
            assert_eq!(lengths, whole);
        }
    }

    #[test]
    fn a_line_without_end_waits_for_a_time() {
        let mut splitter = Splitter::default();
        let begun = Instant::now();
        assert!(fed(&mut splitter, b"password: ").is_empty());
        let mut pieces = Vec::new();
        splitter.flush(begun, false, |text, piece| {
            pieces.push((text.to_vec(), piece));
        });
        assert!(pieces.is_empty());
        let later = begun + 2 * PIECE_AGE;
        splitter.flush(later, false, |text, piece| {
            pieces.push((text.to_vec(), piece));
        });
        assert_eq!(pieces, [(b"password: ".to_vec(), Piece::Part)]);
        splitter.flush(later, true, |_, _| unreachable!("nothing is left"));
        assert_eq!(fed(&mut splitter, b"\n"), [(Vec::new(), Piece::Last)]);
    }
}
