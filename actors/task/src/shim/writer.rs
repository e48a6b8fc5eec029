//! The output files of a run: one writer, rotated, never a reason for the task to stop.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use super::lines::Piece;
use crate::output::held::{self, Held};
use crate::output::segment;

/// What has gathered is written at this size, or when nothing more is in the pipes.
const BATCH: usize = 32 * 1024;

/// A stream of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As in the files and on the bus.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The writer of the output files.
pub(crate) struct Writer {
    path: PathBuf,
    /// The directory of the files; none of a writer that has not come to it yet.
    held: Option<Held>,
    max_size: u64,
    keep: u32,
    file: Option<File>,
    /// Bytes in the current file.
    size: u64,
    /// Offset at which the current file begins.
    base: u64,
    batch: Vec<u8>,
    /// The time of the last line and its text: many lines come at one time.
    at: (Timestamp, String),
    /// Lines lost since the last that was written, and why.
    dropped: u64,
    why: String,
    /// Whether the file ends in the middle of a line.
    torn: bool,
}

impl Writer {
    /// Opens the current file, after what an earlier run left in it.
    pub(crate) fn open(path: PathBuf, max_size: u64, keep: u32) -> io::Result<Self> {
        let mut writer = Self::closed(path, max_size, keep);
        let current = writer.current()?;
        let file = held::append(&current)?;
        if !held::is_output(&file)? {
            let why = "a file is there that is no task's output";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        writer.size = file.metadata()?.len();
        writer.base = segment::ends(&current).last().copied().unwrap_or(0);
        writer.torn = writer.size > 0 && !segment::ends_with_line_break(&current);
        writer.file = Some(file);
        Ok(writer)
    }

    /// A writer that tries to open its file whenever there is something to write.
    pub(crate) fn closed(path: PathBuf, max_size: u64, keep: u32) -> Self {
        // The names of full files carry the offsets, so there is always one: of a single file
        // two halves.
        let (max_size, keep) = if keep < 2 {
            (max_size / 2, 2)
        } else {
            (max_size, keep)
        };
        Self {
            path,
            held: None,
            max_size: max_size.max(1),
            keep,
            file: None,
            size: 0,
            base: 0,
            batch: Vec::new(),
            at: (Timestamp::UNIX_EPOCH, String::new()),
            dropped: 0,
            why: String::new(),
            torn: false,
        }
    }

    /// The current file, by a path that nobody can bend; its directory is made if need be.
    fn current(&mut self) -> io::Result<PathBuf> {
        let name = self.path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let held = match &mut self.held {
            Some(held) => held,
            none => none.insert(Held::open(&self.path)?),
        };
        Ok(held.path(name))
    }

    /// The current file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The offset of the next line.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.size
    }

    /// Adds a piece of a line; it is on disk after the next [`flush`](Self::flush).
    pub(crate) fn line(&mut self, at: Timestamp, stream: Stream, text: &[u8], piece: Piece) {
        let tag = match piece {
            Piece::Last => 'F',
            Piece::Part => 'P',
        };
        let room = usize::try_from(self.max_size).unwrap_or(BATCH).min(BATCH);
        if !self.batch.is_empty() && self.batch.len() + text.len() > room {
            self.flush();
        }
        if self.at.0 != at {
            self.at = (at, format!("{at:.6}"));
        }
        // Writing to memory does not fail.
        let _ = write!(self.batch, "{} {} {tag} ", self.at.1, stream.as_str());
        self.batch.extend_from_slice(text);
        self.batch.push(b'\n');
    }

    /// Writes what has gathered; what cannot be written is dropped and counted.
    pub(crate) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let lines = count_lines(&batch);
        if let Err(error) = self.write(&batch) {
            self.why = error.0.to_string();
            self.dropped += lines - error.1;
        }
        // A flood's buffer is kept for the next batch, a burst's is given back.
        if batch.capacity() <= 2 * BATCH {
            batch.clear();
            self.batch = batch;
        }
    }

    /// Gives the buffer back while nothing is written.
    pub(crate) fn rest(&mut self) {
        self.flush();
        self.batch = Vec::new();
    }

    /// On failure the error and how many lines were written whole before it.
    fn write(&mut self, batch: &[u8]) -> Result<(), (io::Error, u64)> {
        if self.file.is_none() {
            let current = self.current().map_err(|error| (error, 0))?;
            let file = held::append(&current).map_err(|error| (error, 0))?;
            // Another writer's lock only means that no reader is told of our end.
            let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
            self.size = file.metadata().map_or(0, |data| data.len());
            self.file = Some(file);
        }
        if self.size > 0 && self.size + batch.len() as u64 > self.max_size {
            self.rotate().map_err(|error| (error, 0))?;
        }
        if self.torn {
            self.write_all(b"\n").map_err(|(error, _)| (error, 0))?;
            self.torn = false;
        }
        if self.dropped > 0 {
            let now = Timestamp::now();
            let note = format!(
                "{now:.6} stderr F loom: {} lines dropped: {}\n",
                self.dropped, self.why
            );
            self.write_all(note.as_bytes())
                .map_err(|(error, _)| (error, 0))?;
            self.dropped = 0;
        }
        self.write_all(batch)
            .map_err(|(error, done)| (error, count_lines(&batch[..done])))
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), (io::Error, usize)> {
        let mut done = 0;
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        while !bytes.is_empty() {
            match file.write(bytes) {
                Ok(0) => return Err((io::ErrorKind::WriteZero.into(), done)),
                Ok(count) => {
                    done += count;
                    self.size += count as u64;
                    self.torn = bytes[count - 1] != b'\n';
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((error, done)),
            }
        }
        Ok(())
    }

    /// Puts the full file aside under the offset of its end, and removes the oldest beyond `keep`.
    fn rotate(&mut self) -> io::Result<()> {
        let end = self.base + self.size;
        let current = self.current()?;
        let aside = segment::name(&current, end);
        // First the room, then the new file: on a full disk the other order would stop here.
        let ends = segment::ends(&current);
        let kept = self.keep.saturating_sub(2) as usize;
        for old in &ends[..ends.len().saturating_sub(kept)] {
            let _ = fs::remove_file(segment::name(&current, *old));
        }
        let fresh = segment::fresh(&current);
        let _ = fs::remove_file(&fresh);
        let file = held::append(&fresh)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        if fs::hard_link(&current, &aside).is_err() {
            // Without hard links there is a moment without a current file.
            fs::rename(&current, &aside)?;
        }
        // The old file loses a name by this, which is how readers notice.
        fs::rename(&fresh, &current)?;
        self.file = Some(file);
        self.base = end;
        self.size = 0;
        self.torn = false;
        Ok(())
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}
