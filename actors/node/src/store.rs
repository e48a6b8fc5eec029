//! A node's state file: one append-only file in its data directory, written off the actors.
//!
//! **What must be on disk before the node acts.** The assignment, before it is acknowledged and
//! before any of its runs starts; the id of a restart's run, before it starts. Otherwise an agent
//! started again could not tell its runs from strangers'. A report is written before it is sent, so
//! that a leader never hears from a new agent less than it heard from the old one; but a disk that
//! takes nothing does not keep it from being sent, because a leader that knows more is harmless.
//!
//! **What "on disk" means.** The agent's death, kill -9 included, loses nothing that write(2) took,
//! so records are not fsynced: at hundreds of short tasks a second the node would compete with the
//! bus, which fsyncs every commit, for the same disk. Loss of power loses up to some 30 seconds of
//! them, and with them every process; the boot id tells, the node starts nothing before it was
//! welcomed, and the leader's whole assignment repairs what was lost. Only a file that takes another's
//! place (the first one, and one written anew) is fsynced, with its directory, before the rename.
//!
//! The file is written anew when it has grown past a limit and to more than four times what a new
//! one holds. The data directory is locked against a second agent for as long as the store lives.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loom_schemas::ids::Name;
use loom_task::private::{OWN_FILE, PASSAGE, make_directory, tighten};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use crate::frame::{self, FrameError};
use crate::ledger::{Ledger, Record};
use crate::store_error::StoreError;

const FILE: &str = "state";
const TEMPORARY: &str = "state.new";

/// How long the lock of a data directory may be held on before another agent is taken to have it.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// How long before a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The writing end of a state file.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    path: Arc<Path>,
    orders: mpsc::UnboundedSender<Order>,
    shared: Arc<Shared>,
    journal_limit: usize,
}

#[derive(Debug)]
struct Shared {
    /// Past this length the file is written anew.
    limit: AtomicU64,
    length: AtomicU64,
    renewing: AtomicBool,
    least: u64,
    /// Holds the lock of the data directory.
    _directory: File,
    /// Dropped last: whoever has the other end sees that nothing is written any more.
    _alive: mpsc::Sender<()>,
}

enum Order {
    Append(Vec<u8>),
    Renew(Box<Ledger>),
    Tell(oneshot::Sender<()>),
}

impl Store {
    /// Opens the state file in a data directory, both made if they are not there, and locks it.
    /// `least` is the length below which the file is never written anew; `alive` is dropped when the
    /// lock is let go. Blocks.
    pub(crate) fn open(
        directory: &Path,
        node: &Name,
        journal_limit: usize,
        least: u64,
        alive: mpsc::Sender<()>,
    ) -> Result<(Self, Ledger), StoreError> {
        let io = |context| {
            move |source| StoreError::Io {
                path: directory.to_owned(),
                context,
                source,
            }
        };
        make_directory(directory, PASSAGE).map_err(io("making it"))?;
        let lock = File::open(directory).map_err(io("opening it"))?;
        lock_soon(&lock).map_err(|error| {
            if error == Errno::WOULDBLOCK {
                StoreError::Locked {
                    path: directory.to_owned(),
                }
            } else {
                io("locking it")(error.into())
            }
        })?;
        let path = directory.join(FILE);
        if !path.try_exists().map_err(io("looking for its state"))? {
            let empty = Ledger::new(node.clone(), journal_limit);
            renew(&path, &empty).map_err(io("writing its state"))?;
        }
        let (file, contents) = load(&path, journal_limit)?;
        if contents.node != *node {
            return Err(StoreError::OtherNode {
                path: directory.to_owned(),
                found: contents.node,
                wanted: node.clone(),
            });
        }
        // A build before this one may have left them open; it is this node's own by what it says.
        tighten(&path, OWN_FILE).map_err(io("closing its state to others"))?;
        tighten(directory, PASSAGE).map_err(io("closing it to others"))?;
        let length = contents.good as u64;
        let shared = Arc::new(Shared {
            limit: AtomicU64::new(least),
            length: AtomicU64::new(length),
            renewing: AtomicBool::new(false),
            least,
            _directory: lock,
            _alive: alive,
        });
        let (orders, queue) = mpsc::unbounded_channel();
        let path: Arc<Path> = Arc::from(path);
        let writer = Writer {
            path: Arc::clone(&path),
            file,
            length,
            shared: Arc::clone(&shared),
            orders: VecDeque::new(),
            pending: Vec::new(),
            waiting: Vec::new(),
        };
        tokio::spawn(write(writer, queue));
        Ok((
            Self {
                path,
                orders,
                shared,
                journal_limit,
            },
            contents.ledger,
        ))
    }

    /// Writes records after those written before, in the order of the calls.
    pub(crate) fn append<'a>(&self, records: impl IntoIterator<Item = &'a Record>) {
        let mut bytes = Vec::new();
        for record in records {
            if let Err(error) = frame::push_record(&mut bytes, record) {
                tracing::error!(%error, "a record of the node's state cannot be encoded");
            }
        }
        self.order(Order::Append(bytes));
    }

    /// Resolves once everything written before is on disk; an error means the writer has ended.
    pub(crate) fn kept(&self) -> oneshot::Receiver<()> {
        let (told, kept) = oneshot::channel();
        self.order(Order::Tell(told));
        kept
    }

    /// Whether the file has grown enough to be written anew.
    pub(crate) fn wants_renewal(&self) -> bool {
        let shared = &self.shared;
        shared.length.load(Ordering::Relaxed) > shared.limit.load(Ordering::Relaxed)
            && !shared.renewing.load(Ordering::Relaxed)
    }

    /// Writes the file anew, so that it says what this ledger says and no more.
    pub(crate) fn renew(&self, ledger: Ledger) {
        self.shared.renewing.store(true, Ordering::Relaxed);
        self.order(Order::Renew(Box::new(ledger)));
    }

    /// Reads back everything written so far.
    pub(crate) async fn reload(&self) -> Result<Ledger, StoreError> {
        // An error means that the runtime is going down; the read then says what there is.
        let _ = self.kept().await;
        let (path, limit) = (Arc::clone(&self.path), self.journal_limit);
        let read = tokio::task::spawn_blocking(move || load(&path, limit));
        match read.await {
            Ok(loaded) => loaded.map(|(_, contents)| contents.ledger),
            Err(error) => Err(StoreError::Io {
                path: self.path.to_path_buf(),
                context: "reading its state",
                source: io::Error::other(error),
            }),
        }
    }

    fn order(&self, order: Order) {
        // The writer ends only with the runtime, or after the last of these was dropped.
        let _ = self.orders.send(order);
    }
}

struct Writer {
    path: Arc<Path>,
    file: File,
    length: u64,
    shared: Arc<Shared>,
    orders: VecDeque<Order>,
    pending: Vec<u8>,
    waiting: Vec<oneshot::Sender<()>>,
}

/// Runs until the last [`Store`] is dropped. A write that fails is tried again without end: nothing
/// new is begun meanwhile, because everybody who begins something waits for it.
async fn write(mut writer: Writer, mut queue: mpsc::UnboundedReceiver<Order>) {
    let mut taken = Vec::new();
    while queue.recv_many(&mut taken, 1024).await > 0 {
        writer.orders.extend(taken.drain(..));
        let mut failed = false;
        loop {
            let done = tokio::task::spawn_blocking(move || {
                let outcome = writer.carry_out();
                (writer, outcome)
            });
            let Ok((back, outcome)) = done.await else {
                return;
            };
            writer = back;
            let path = writer.path.display();
            match outcome {
                Ok(()) if failed => tracing::info!(%path, "the node's state is written again"),
                Ok(()) => {}
                Err(error) if failed => tracing::debug!(%path, %error, "still cannot write"),
                Err(error) => {
                    tracing::error!(%path, %error, "cannot write the node's state, trying again");
                }
            }
            failed = !writer.is_done();
            if !failed {
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

impl Writer {
    fn is_done(&self) -> bool {
        self.orders.is_empty() && self.pending.is_empty()
    }

    fn carry_out(&mut self) -> io::Result<()> {
        while let Some(order) = self.orders.pop_front() {
            match order {
                Order::Append(bytes) => self.pending.extend(bytes),
                Order::Tell(port) => self.waiting.push(port),
                Order::Renew(ledger) => {
                    if let Err(error) = self.flush() {
                        self.orders.push_front(Order::Renew(ledger));
                        return Err(error);
                    }
                    self.renew(&ledger);
                }
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Err(error) = self.file.write_all(&self.pending) {
            // What a failed write left behind must not stand before what the next one writes.
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.length += self.pending.len() as u64;
        self.shared.length.store(self.length, Ordering::Relaxed);
        self.pending.clear();
        for port in self.waiting.drain(..) {
            // Who no longer waits does not need to know.
            let _ = port.send(());
        }
        Ok(())
    }

    /// A file that cannot be written anew goes on growing, up to twice as far before the next try.
    fn renew(&mut self, ledger: &Ledger) {
        let limit = match renew(&self.path, ledger) {
            Ok((file, length)) => {
                self.file = file;
                self.length = length;
                self.shared.length.store(length, Ordering::Relaxed);
                self.shared.least.max(length.saturating_mul(4))
            }
            Err(error) => {
                let path = self.path.display();
                tracing::error!(%path, %error, "cannot write the node's state anew");
                self.length.saturating_mul(2)
            }
        };
        self.shared.limit.store(limit, Ordering::Relaxed);
        self.shared.renewing.store(false, Ordering::Relaxed);
    }
}

/// Locks, and does not give up at once: a child that an agent forked holds the agent's lock as well,
/// for the moment until it executes its program, also when the agent was killed meanwhile.
fn lock_soon(directory: &File) -> Result<(), Errno> {
    let begun = Instant::now();
    loop {
        match flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PATIENCE / 50);
            }
            outcome => return outcome,
        }
    }
}

/// Writes a state file beside its place and moves it there.
fn renew(path: &Path, ledger: &Ledger) -> io::Result<(File, u64)> {
    let bytes = frame::whole(ledger).map_err(io::Error::other)?;
    let temporary = path.with_file_name(TEMPORARY);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        // What is assigned may hold secrets.
        .mode(OWN_FILE)
        .open(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok((file, bytes.len() as u64))
}

/// Reads a state file and cuts off what was not written to its end.
fn load(path: &Path, journal_limit: usize) -> Result<(File, frame::Contents), StoreError> {
    let io = |context| {
        move |source| StoreError::Io {
            path: path.to_owned(),
            context,
            source,
        }
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(io("opening its state"))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(io("reading its state"))?;
    let contents = frame::read(&bytes, journal_limit).map_err(|error| match error {
        FrameError::Format(found) => StoreError::Format {
            path: path.to_owned(),
            found,
        },
        FrameError::NotOurs | FrameError::Damaged(_) => StoreError::Damaged {
            path: path.to_owned(),
            what: strip_it(&error),
        },
    })?;
    if contents.good < bytes.len() {
        let cut = bytes.len() - contents.good;
        tracing::warn!(path = %path.display(), cut, "cut off a record that was not written whole");
        file.set_len(contents.good as u64)
            .map_err(io("cutting its state"))?;
    }
    file.seek(SeekFrom::Start(contents.good as u64))
        .map_err(io("reading its state"))?;
    Ok((file, contents))
}

fn strip_it(error: &FrameError) -> String {
    let text = error.to_string();
    text.strip_prefix("it ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
