//! The server's process, from its start to its end.
//!
//! The kernel sends a process its parent-death signal when the *thread* that started it ends, so
//! the server is started by a thread of its own that then waits for it. The signal can only be
//! asked for by the child itself between fork and exec, which takes unsafe code; so the child is
//! first this program again, which asks for it and then becomes the server ([`exec_if_asked`]),
//! or `setpriv` of util-linux in programs that have no such beginning.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};
use tokio::sync::{oneshot, watch};

use super::lock::Lock;
use super::{ServerError, config, failed, reason};

/// Set in a child that shall become the server: the process id of its parent.
const ASKED: &str = "LOOM_BUS_PARENT";

/// Whether this program's `main` begins with [`exec_if_asked`].
static HAS_HOOK: AtomicBool = AtomicBool::new(false);

/// How long the server has to end by itself when told to.
const GRACE: Duration = Duration::from_secs(10);

/// Turns this process into the embedded server if it was started for that; else does nothing.
///
/// To be called first in `main`, before there are threads. Returns only if there is nothing to
/// do, or with the exit code if the server could not be executed.
pub fn exec_if_asked() -> Option<ExitCode> {
    HAS_HOOK.store(true, Ordering::Relaxed);
    let parent = std::env::var(ASKED).ok()?;
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next()?;
    let asked = set_parent_process_death_signal(Some(Signal::KILL));
    let still_there = getppid().map(|pid| pid.as_raw_nonzero().to_string()) == Some(parent);
    if asked.is_err() || !still_there {
        // The parent ended before the kernel was told to watch it.
        return Some(ExitCode::FAILURE);
    }
    let error = Command::new(program)
        .args(arguments)
        .env_remove(ASKED)
        .exec();
    say(&format!("nats-server: {error}"));
    Some(ExitCode::FAILURE)
}

/// Standard error is the file that the parent reads what went wrong from.
fn say(line: &str) {
    use std::io::Write;
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The running server; dropping it tells it to end.
#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    pidfd: OwnedFd,
    ended: watch::Receiver<Option<String>>,
}

struct Started {
    pid: u32,
    pidfd: OwnedFd,
}

impl Child {
    /// Starts the server on a thread of its own; the lock goes with it.
    pub(super) async fn spawn(
        binary: &Path,
        config: &Path,
        dir: &Path,
        mut lock: Lock,
    ) -> Result<Self, ServerError> {
        let output_path = output_path(dir);
        let output = File::create(&output_path).map_err(|e| failed(&output_path, e))?;
        let command = command(binary, config, output, &lock).map_err(|e| failed(dir, e))?;
        let (say_ended, ended) = watch::channel(None);
        let (say_started, started) = oneshot::channel();
        let thread = std::thread::Builder::new().name("nats-server".to_owned());
        let keeper = thread.spawn(move || keep(command, say_started, &say_ended));
        keeper.map_err(|e| failed(dir, e))?;
        let not_started = |error: std::io::Error| ServerError::NotAServer {
            path: binary.to_owned(),
            reason: reason(&error),
        };
        let Started { pid, pidfd } = started
            .await
            .unwrap_or_else(|_| Err(std::io::Error::other("its thread ended")))
            .map_err(not_started)?;
        lock.write_holder(pid)?;
        Ok(Self { pid, pidfd, ended })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn ended(&self) -> watch::Receiver<Option<String>> {
        self.ended.clone()
    }

    /// How it ended, if it did.
    pub(super) fn how_ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    pub(super) async fn stop(&self) {
        self.signal(Signal::TERM);
        let mut ended = self.ended();
        let stays = tokio::time::timeout(GRACE, ended.wait_for(Option::is_some))
            .await
            .is_err();
        if stays {
            tracing::warn!(
                pid = self.pid,
                "nats-server did not end when told to; killing it"
            );
            self.signal(Signal::KILL);
            // The keeper says so as soon as the kernel does.
            let _ = ended.wait_for(Option::is_some).await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.pidfd, signal) {
            tracing::debug!(pid = self.pid, "nats-server is gone already: {error}");
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.how_ended().is_none() {
            self.signal(Signal::TERM);
        }
    }
}

/// Starts the server and waits for its end; the thread lives exactly as long as the server.
fn keep(
    mut command: Command,
    started: oneshot::Sender<std::io::Result<Started>>,
    ended: &watch::Sender<Option<String>>,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // The other side is gone only if nobody wants a server any more.
            let _ = started.send(Err(error));
            return;
        }
    };
    // Holds the lock's file, which shall be the server's alone now.
    drop(command);
    let pidfd = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| std::io::Error::other("no process id"))
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).map_err(Into::into));
    let given = pidfd.map(|pidfd| Started {
        pid: child.id(),
        pidfd,
    });
    let unwanted = given.is_err();
    if started.send(given).is_err() || unwanted {
        // Nobody will ever stop it, so it is stopped now.
        let _ = child.kill();
    }
    let how = match child.wait() {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    ended.send_replace(Some(how));
}

fn output_path(dir: &Path) -> PathBuf {
    dir.join("nats-server.out")
}

fn command(binary: &Path, config: &Path, output: File, lock: &Lock) -> std::io::Result<Command> {
    let mut command = if HAS_HOOK.load(Ordering::Relaxed) {
        // The running program itself, also when its file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .env(ASKED, std::process::id().to_string())
            .arg(binary);
        command
    } else if let Some(setpriv) = setpriv() {
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
        command
    } else {
        tracing::warn!("nothing ends nats-server when this process is killed: no setpriv found");
        Command::new(binary)
    };
    command
        .arg("--config")
        .arg(config)
        .stdin(Stdio::from(lock.share()?))
        .stdout(output.try_clone()?)
        .stderr(output)
        // Ctrl-C in the terminal is for the parent, which stops the server after its own work.
        .process_group(0);
    Ok(command)
}

fn setpriv() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("setpriv"))
        .find(|candidate| candidate.is_file())
}

/// The last thing the server said that matters, from its log or its output.
pub(super) fn last_words(dir: &Path) -> String {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let (log, output) = (read(&config::log_path(dir)), read(&output_path(dir)));
    let fatal = log.lines().rev().find_map(|line| line.split_once("[FTL] "));
    let last = fatal
        .map(|(_, said)| said)
        .or_else(|| output.lines().rev().find(|line| !line.trim().is_empty()))
        .or_else(|| log.lines().next_back());
    crate::header::one_line(last.unwrap_or("it said nothing").trim())
}
