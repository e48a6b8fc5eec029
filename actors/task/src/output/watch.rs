//! Which files grow: one inotify instance and one sleeping thread for the whole process.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::sync::Notify;

/// Room for events between two looks.
const BUFFER: usize = 8 * 1024;

/// Growth, rotation (the file loses a name) and the end of its writer.
const EVENTS: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CLOSE_WRITE);

/// The one instance; the kernel allows few of them to a user, but many watches in each.
static WATCHER: OnceLock<Option<Arc<Watcher>>> = OnceLock::new();

struct Watcher {
    inotify: OwnedFd,
    readers: Mutex<HashMap<i32, Vec<Weak<Notify>>>>,
}

/// Tells of changes of one file for as long as it is held.
pub(super) struct Watch {
    watcher: Arc<Watcher>,
    number: i32,
    changed: Arc<Notify>,
}

impl Watch {
    /// Begins to watch a file; an error where the kernel allows no more.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let watcher = WATCHER
            .get_or_init(|| Watcher::start().ok())
            .clone()
            .ok_or(io::ErrorKind::Unsupported)?;
        let changed = Arc::new(Notify::new());
        // Under the lock, so that no other reader ends the same watch in between.
        let mut readers = watcher
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let number = inotify::add_watch(&watcher.inotify, path, EVENTS)?;
        readers
            .entry(number)
            .or_default()
            .push(Arc::downgrade(&changed));
        drop(readers);
        Ok(Self {
            watcher,
            number,
            changed,
        })
    }

    /// Resolves when the file changed since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut readers = self
            .watcher
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(list) = readers.get_mut(&self.number) else {
            return;
        };
        list.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(&self.changed)));
        if list.is_empty() {
            readers.remove(&self.number);
            // It fails where the file is gone, and the watch with it.
            let _ = inotify::remove_watch(&self.watcher.inotify, self.number);
        }
    }
}

impl Watcher {
    fn start() -> io::Result<Arc<Self>> {
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        let watcher = Arc::new(Self {
            inotify,
            readers: Mutex::default(),
        });
        let thread = Arc::clone(&watcher);
        std::thread::Builder::new()
            .name("output-watch".into())
            .stack_size(64 * 1024)
            .spawn(move || thread.run())?;
        Ok(watcher)
    }

    fn run(&self) {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            let (number, flags) = match reader.next() {
                Ok(event) => (event.wd(), event.events()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "output files are no longer watched");
                    return;
                }
            };
            let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                readers.values().flatten().for_each(wake);
            } else if flags.contains(ReadFlags::IGNORED) {
                // The file is gone; its number may come again.
                readers.remove(&number).iter().flatten().for_each(wake);
            } else {
                readers.get(&number).into_iter().flatten().for_each(wake);
            }
        }
    }
}

fn wake(reader: &Weak<Notify>) {
    if let Some(reader) = reader.upgrade() {
        reader.notify_one();
    }
}
