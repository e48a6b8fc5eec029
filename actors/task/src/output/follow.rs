//! New lines of a run as they come.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::watch::Watch;
use super::{Line, Place, held, parse, place, segment};

/// The most that is read at once, and so about the size of a batch.
const CHUNK: usize = 64 * 1024;

/// How often a file is looked at that the kernel cannot watch.
const LOOK: Duration = Duration::from_millis(250);

/// How long after the writer's last close its lock may still be seen.
const LOCK_LAG: Duration = Duration::from_millis(2);

/// A cursor in the output of one run.
pub struct OutputReader {
    place: Place,
    /// Where the next line begins.
    offset: u64,
    /// What is read now.
    open: Option<Segment>,
    /// The beginning of a line that was read.
    begun: Vec<u8>,
    /// Looks at the writer's lock since the last change.
    looks: u32,
}

/// An open output file.
struct Segment {
    file: File,
    /// The offset at which it begins.
    begin: u64,
    /// None where the kernel cannot watch it.
    watch: Option<Watch>,
}

/// Where a read ended.
enum Read {
    Lines(Vec<Line>),
    /// At the end of what there is.
    Behind,
}

impl OutputReader {
    /// Begins at an offset of the output of the run in this directory: 0, or that of a line seen
    /// before, which then comes again. `NotFound` if the run never started.
    pub fn open(directory: &Path, offset: u64) -> io::Result<Self> {
        let place = place(directory)?;
        let offset = place.base + offset;
        Ok(Self {
            place,
            offset,
            open: None,
            begun: Vec::new(),
            looks: 0,
        })
    }

    /// The next lines, at least one; it waits for them. None when all was read and the writer has
    /// ended. Lines that were rotated away before they were read are left out, which the offsets
    /// show. It may be dropped while it waits without losing a line.
    pub async fn next_batch(&mut self) -> Option<Vec<Line>> {
        loop {
            if self.place.end.is_some_and(|end| self.offset >= end) {
                return None;
            }
            if self.open.is_none() && !self.open_next() {
                return None;
            }
            match self.read() {
                Read::Lines(lines) if !lines.is_empty() => {
                    self.looks = 0;
                    return Some(lines);
                }
                Read::Lines(_) => {}
                Read::Behind if self.was_rotated() => self.open = None,
                Read::Behind => {
                    if self.writer_has_ended() {
                        // What came between the last read and the look at the lock.
                        match self.read() {
                            Read::Lines(lines) if !lines.is_empty() => return Some(lines),
                            Read::Lines(_) => {}
                            Read::Behind => return None,
                        }
                    } else {
                        self.rest().await;
                    }
                }
            }
        }
    }

    async fn rest(&mut self) {
        match self.open.as_ref().and_then(|open| open.watch.as_ref()) {
            // A close is told a moment before the lock is let go: look once more after it.
            Some(watch) if self.looks > 0 => {
                let _ = tokio::time::timeout(LOCK_LAG * self.looks, watch.changed()).await;
                self.looks = if self.looks < 4 { self.looks + 1 } else { 0 };
            }
            Some(watch) => {
                watch.changed().await;
                self.looks = 1;
            }
            None => tokio::time::sleep(LOOK).await,
        }
    }

    /// Opens the file that holds the next byte, or the oldest after it. False if there is none.
    fn open_next(&mut self) -> bool {
        // The current file may be rotated between two looks, but not often in a row.
        for _ in 0..16 {
            let ends = segment::ends(&self.place.current);
            if let Some(end) = ends.iter().copied().find(|end| *end > self.position()) {
                let Ok(file) = held::read(&segment::name(&self.place.current, end)) else {
                    continue;
                };
                let Ok(data) = file.metadata() else { continue };
                self.enter(Segment {
                    file,
                    begin: end.saturating_sub(data.len()),
                    watch: None,
                });
                return true;
            }
            let Ok(file) = held::read(&self.place.current) else {
                return false;
            };
            let watch = Watch::new(&self.place.current).ok();
            let begin = ends.last().copied().unwrap_or(0);
            let segment = Segment { file, begin, watch };
            if segment.is(&self.place.current) && segment::ends(&self.place.current) == ends {
                self.enter(segment);
                return true;
            }
        }
        false
    }

    fn enter(&mut self, segment: Segment) {
        // What was begun there and not ended was torn by a full disk.
        if segment.begin >= self.position() {
            self.offset = segment.begin;
            self.begun.clear();
        }
        self.open = Some(segment);
    }

    /// The next byte to read.
    fn position(&self) -> u64 {
        self.offset + self.begun.len() as u64
    }

    fn read(&mut self) -> Read {
        let Some(open) = &self.open else {
            return Read::Behind;
        };
        let mut chunk = vec![0; CHUNK];
        let position = self.position() - open.begin;
        let count = match open.file.read_at(&mut chunk, position) {
            Ok(0) => return Read::Behind,
            Ok(count) => count,
            Err(error) => {
                tracing::warn!(%error, path = %self.place.current.display(), "output not read");
                return Read::Behind;
            }
        };
        self.begun.extend_from_slice(&chunk[..count]);
        let mut lines = Vec::new();
        let mut from = 0;
        while let Some(length) = self.begun[from..].iter().position(|byte| *byte == b'\n') {
            let offset = self.offset + from as u64;
            if self.place.end.is_none_or(|end| offset < end) {
                let text = &self.begun[from..from + length];
                lines.extend(parse::line(text, offset - self.place.base));
            }
            from += length + 1;
        }
        self.begun.drain(..from);
        self.offset += from as u64;
        Read::Lines(lines)
    }

    /// Whether the file that is open is no longer, or never was, the current one.
    fn was_rotated(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| !open.is(&self.place.current))
    }

    fn writer_has_ended(&self) -> bool {
        let Some(open) = &self.open else { return true };
        let free = flock(&open.file, FlockOperation::NonBlockingLockShared).is_ok();
        if free {
            let _ = flock(&open.file, FlockOperation::Unlock);
        }
        free
    }
}

impl Segment {
    fn is(&self, path: &Path) -> bool {
        let same = || {
            let (own, there) = (self.file.metadata().ok()?, fs::metadata(path).ok()?);
            Some(own.ino() == there.ino() && own.dev() == there.dev())
        };
        same() == Some(true)
    }
}
