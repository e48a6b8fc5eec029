//! One server to a directory.
//!
//! The lock is an `flock` on a file in it. The server inherits that file as its standard input,
//! so the lock is held until both are gone: a new parent cannot start a second server on the
//! streams while the one of a killed parent is still ending.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};

use super::{ServerError, failed};

/// How long the server of a parent that is gone may take to end.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

/// Who holds the lock, for whoever finds it taken.
#[derive(Default, Serialize, Deserialize)]
struct Holder {
    /// The process that started the server.
    holder: u32,
    /// The server, once it runs.
    #[serde(default)]
    server: u32,
}

impl Lock {
    /// Takes the lock of a directory; blocking for a moment if its last holder was just killed.
    pub(super) fn take(dir: &Path) -> Result<Self, ServerError> {
        let path = dir.join("lock");
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options
            .open(&path)
            .map_err(|source| failed(&path, source))?;
        let begun = Instant::now();
        let mut told_to_end = false;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(&path, error.into()));
            }
            let holder = read_holder(&mut file);
            let locked = || ServerError::Locked {
                path: dir.to_owned(),
                pid: holder.holder,
            };
            if is_alive(holder.holder) || begun.elapsed() > ORPHAN_PATIENCE {
                return Err(locked());
            }
            if !told_to_end && is_server_of(holder.server, dir) {
                // Only where nothing ties the server's life to its parent's.
                told_to_end = true;
                end(holder.server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut lock = Self { file, path };
        lock.write_holder(0)?;
        Ok(lock)
    }

    /// Notes the server in the lock file.
    pub(super) fn write_holder(&mut self, server: u32) -> Result<(), ServerError> {
        let holder = Holder {
            holder: std::process::id(),
            server,
        };
        let mut write = || -> std::io::Result<()> {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file
                .write_all(serde_json::to_string(&holder)?.as_bytes())
        };
        write().map_err(|source| failed(&self.path, source))
    }

    /// The file, to be inherited.
    pub(super) fn share(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }
}

fn read_holder(file: &mut File) -> Holder {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    // Nothing readable: the holder has the lock but has not written yet.
    read.ok()
        .and_then(|_| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

fn pid(raw: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(raw).ok()?)
}

fn is_alive(raw: u32) -> bool {
    // A process of another user is alive as well, but may not be signalled.
    pid(raw).is_some_and(
        |pid| !matches!(test_kill_process(pid), Err(error) if error == rustix::io::Errno::SRCH),
    )
}

/// Whether a process was started with the configuration in this directory.
fn is_server_of(raw: u32, dir: &Path) -> bool {
    let config = dir.join("nats-server.conf");
    std::fs::read(format!("/proc/{raw}/cmdline")).is_ok_and(|line| {
        line.split(|byte| *byte == 0)
            .any(|argument| argument == config.as_os_str().as_encoded_bytes())
    })
}

fn end(raw: u32) {
    if let Some(pid) = pid(raw) {
        tracing::warn!(raw, "a nats-server outlived its parent; ending it");
        if let Err(error) = kill_process(pid, Signal::TERM) {
            tracing::debug!("it is gone already: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_to_come_is_told_who_was_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).map(|_| ()).unwrap_err();
        let own = std::process::id();
        assert!(
            matches!(error, ServerError::Locked { pid, .. } if pid == own),
            "{error}"
        );
        let inherited = first.share().unwrap();
        drop(first);
        assert!(
            Lock::take(dir.path()).is_err(),
            "held as long as the child has it"
        );
        drop(inherited);
        Lock::take(dir.path()).unwrap();
    }
}
