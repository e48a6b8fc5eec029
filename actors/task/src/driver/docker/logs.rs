//! The output of a container, copied from the engine's log into files like those of any other run.
//!
//! So `logs`, shipping and retention know one form, and the output outlives the container. The
//! engine keeps what comes while no agent is there; the next one goes on after the last line that
//! was copied, found in the files by its time: a stream's times grow, and lines of one time are
//! counted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures::StreamExt as _;
use jiff::Timestamp;
use loom_schemas::spec::LogSpec;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::engine::Engine;
use super::trouble;
use crate::output::Stream;
use crate::output::last::Last;
use crate::shim::lines::Piece;
use crate::shim::writer::Writer;

/// How long before the engine is asked again that gave no log.
const AGAIN: Duration = Duration::from_millis(500);

/// Lines that are written at once when they come at once.
const BATCH: usize = 256;

/// How often the file is tried whose lock a reader may hold for a moment.
const OPEN_TRIES: usize = 50;

/// The copying of one container's output; ends with this.
pub(super) struct Copying {
    done: watch::Receiver<Option<u64>>,
    task: JoinHandle<()>,
}

impl Copying {
    pub(super) fn start(
        engine: Arc<Engine>,
        container: String,
        writer: Writer,
        cursor: Cursor,
    ) -> Self {
        let (tell, done) = watch::channel(None);
        let copy = Copy {
            engine,
            container,
            writer,
            cursor,
        };
        let task = tokio::spawn(async move {
            let end = copy.all().await;
            let _ = tell.send(Some(end));
        });
        Self { done, task }
    }

    /// Resolves once all output of an ended container is copied, with the offset of its end; none if
    /// that failed.
    pub(super) async fn done(&self) -> Option<u64> {
        let mut done = self.done.clone();
        let end = done.wait_for(Option::is_some).await;
        end.ok().and_then(|end| *end)
    }
}

impl Copying {
    /// Ends it, and waits until its files are closed.
    pub(super) async fn stop(&self) {
        self.task.abort();
        // The sender goes with the task.
        let _ = self.done.clone().wait_for(|_| false).await;
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens the files of a run's output: where the task wants them, else in the run's directory. Also
/// what went wrong with the former.
pub(super) fn open(directory: &Path, logs: &LogSpec) -> (Writer, Option<String>) {
    let own = directory.join("output.log");
    let (size, keep) = (logs.max_size.0, logs.keep);
    let wanted = logs.to.as_ref().map_or_else(|| own.clone(), PathBuf::from);
    let error = match open_unlocked(&wanted, size, keep) {
        Ok(writer) => return (writer, None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            "another run writes to it".to_owned()
        }
        Err(error) => error.to_string(),
    };
    let note = format!("output to {}: {error}", wanted.display());
    let writer = Writer::open(own.clone(), size, keep);
    (
        writer.unwrap_or_else(|_| Writer::closed(own, size, keep)),
        Some(note),
    )
}

fn open_unlocked(path: &Path, size: u64, keep: u32) -> io::Result<Writer> {
    let mut tries = OPEN_TRIES;
    loop {
        tries -= 1;
        match Writer::open(path.to_path_buf(), size, keep) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries > 0 => {
                std::thread::sleep(Duration::from_millis(2));
            }
            opened => return opened,
        }
    }
}

struct Copy {
    engine: Arc<Engine>,
    container: String,
    writer: Writer,
    cursor: Cursor,
}

/// How a look at the engine's log ended.
enum Pass {
    /// The log ended: the container has, or the engine.
    End,
    /// The engine has no such container.
    Gone,
    /// It could not be read now.
    Failed,
}

impl Copy {
    /// Copies until the container has ended and all is here; returns the offset of the end.
    async fn all(mut self) -> u64 {
        loop {
            match self.pass(true).await {
                Pass::Gone => break,
                Pass::Failed => {}
                Pass::End => match self.is_over().await {
                    Some(true) => {
                        // What the engine wrote after the follower was let go.
                        self.pass(false).await;
                        break;
                    }
                    Some(false) => {}
                    None => self.engine.found().await,
                },
            }
            sleep(AGAIN).await;
        }
        self.writer.flush();
        self.writer.offset()
    }

    async fn pass(&mut self, follow: bool) -> Pass {
        let Ok(docker) = self.engine.docker().await else {
            return Pass::Failed;
        };
        let options = LogsOptions {
            follow,
            stdout: true,
            stderr: true,
            since: self.cursor.since(),
            timestamps: true,
            tail: "all".to_owned(),
            ..LogsOptions::default()
        };
        self.cursor.begin();
        let lines = docker.logs(&self.container, Some(options));
        let mut lines = Box::pin(lines.ready_chunks(BATCH));
        while let Some(batch) = lines.next().await {
            for line in batch {
                match line {
                    Ok(line) => self.take(line),
                    Err(error) => {
                        self.writer.flush();
                        if trouble::is_missing(&error) {
                            return Pass::Gone;
                        }
                        tracing::debug!(container = self.container, %error, "the log ended");
                        return Pass::Failed;
                    }
                }
            }
            self.writer.flush();
        }
        self.writer.rest();
        Pass::End
    }

    fn take(&mut self, output: LogOutput) {
        let (stream, message) = match output {
            LogOutput::StdErr { message } => (Stream::Stderr, message),
            LogOutput::StdOut { message }
            | LogOutput::Console { message }
            | LogOutput::StdIn { message } => (Stream::Stdout, message),
        };
        let Some((at, text)) = timed(&message) else {
            return;
        };
        if self.cursor.is_new(stream, at) {
            let (text, piece) = match text.strip_suffix(b"\n") {
                Some(text) => (text, Piece::Last),
                None => (text, Piece::Part),
            };
            self.writer.line(at, stream, text, piece);
        }
    }

    /// Whether the container has ended; none if the engine cannot be asked.
    async fn is_over(&self) -> Option<bool> {
        let docker = self.engine.docker().await.ok()?;
        match docker.inspect_container(&self.container, None).await {
            Ok(found) => Some(found.state?.running != Some(true)),
            Err(error) => trouble::is_missing(&error).then_some(true),
        }
    }
}

/// Time and text of what the engine sent, the time as exact as the files have it.
fn timed(message: &[u8]) -> Option<(Timestamp, &[u8])> {
    let blank = message.iter().position(|byte| *byte == b' ')?;
    let at: Timestamp = std::str::from_utf8(&message[..blank]).ok()?.parse().ok()?;
    let at = Timestamp::from_microsecond(at.as_microsecond()).ok()?;
    Some((at, &message[blank + 1..]))
}

/// Up to where a container's output was copied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor([Place; 2]);

/// The same of one stream.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The time of the last line.
    at: Timestamp,
    /// How many lines of that time were copied.
    count: u32,
    /// How many of them were seen in this look.
    seen: u32,
    /// Whether something new was seen in this look; all that follows is.
    caught_up: bool,
}

impl Cursor {
    /// After what is in the files already.
    pub(super) fn after(last: Last) -> Self {
        // Older lines of a stream that has none in what was looked at were copied all the same.
        let before = last.oldest.unwrap_or_default();
        let place = |found: Option<(Timestamp, u32)>| {
            let (at, count) = found.unwrap_or((before, 0));
            Place {
                at,
                count,
                ..Place::default()
            }
        };
        Self([place(last.stdout), place(last.stderr)])
    }

    /// From which second on the engine is asked.
    fn since(&self) -> i32 {
        let first = self.0.iter().map(|place| place.at.as_second()).min();
        i32::try_from(first.unwrap_or(0)).unwrap_or(0)
    }

    fn begin(&mut self) {
        for place in &mut self.0 {
            place.seen = 0;
            place.caught_up = false;
        }
    }

    /// Whether a line was not copied before; it is from now on.
    fn is_new(&mut self, stream: Stream, at: Timestamp) -> bool {
        let place = &mut self.0[usize::from(stream == Stream::Stderr)];
        if !place.caught_up {
            if at < place.at {
                return false;
            }
            if at == place.at {
                place.seen += 1;
                if place.seen <= place.count {
                    return false;
                }
            }
            place.caught_up = true;
        }
        if at == place.at {
            place.count += 1;
        } else {
            place.at = at;
            place.count = 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: i64) -> Timestamp {
        Timestamp::from_microsecond(us).unwrap()
    }

    /// What of a log is copied that is looked at again and again, as far as it goes each time.
    fn copied(log: &[(Stream, i64)], looks: &[usize]) -> Vec<(Stream, i64)> {
        let mut cursor = Cursor::default();
        let mut copied = Vec::new();
        for look in looks {
            cursor.begin();
            for (stream, us) in &log[..*look] {
                if cursor.is_new(*stream, at(*us)) {
                    copied.push((*stream, *us));
                }
            }
        }
        copied
    }

    #[test]
    fn no_line_is_lost_or_doubled_however_often_the_log_is_looked_at() {
        use Stream::{Stderr, Stdout};
        let log = [
            (Stdout, 1),
            (Stdout, 1),
            (Stderr, 3),
            // Another stream's line may be written after one that is younger.
            (Stdout, 2),
            (Stdout, 3),
            (Stdout, 3),
            (Stdout, 3),
            (Stderr, 3),
        ];
        for first in 0..=log.len() {
            for second in first..=log.len() {
                assert_eq!(
                    copied(&log, &[first, second, log.len()]),
                    log,
                    "{first} {second}"
                );
            }
        }
    }

    #[test]
    fn lines_come_after_a_clock_was_set_back() {
        let log = [
            (Stream::Stdout, 9),
            (Stream::Stdout, 2),
            (Stream::Stdout, 3),
        ];
        assert_eq!(copied(&log, &[3]), log);
    }

    #[test]
    fn a_stream_without_lines_in_the_files_goes_on_where_they_begin() {
        let mut cursor = Cursor::after(Last {
            oldest: Some(at(2_000_005)),
            stdout: Some((at(3_000_000), 2)),
            stderr: None,
        });
        assert_eq!(cursor.since(), 2);
        assert!(!cursor.is_new(Stream::Stderr, at(2_000_004)));
        assert!(cursor.is_new(Stream::Stderr, at(2_000_006)));
        assert!(!cursor.is_new(Stream::Stdout, at(3_000_000)));
        assert!(!cursor.is_new(Stream::Stdout, at(3_000_000)));
        assert!(cursor.is_new(Stream::Stdout, at(3_000_000)));
    }

    #[test]
    fn what_the_engine_sends_begins_with_its_time() {
        let (time, text) = timed(b"2026-01-02T03:04:05.123456789Z a b\n").unwrap();
        assert_eq!(time.subsec_nanosecond(), 123_456_000);
        assert_eq!(text, b"a b\n");
        assert_eq!(timed(b"nonsense"), None);
        assert_eq!(timed(b"nonsense x"), None);
    }
}
