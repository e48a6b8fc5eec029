//! What a shim does, from its start to its end.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, WaitStatus, getpid, set_child_subreaper, setsid, wait};

use super::dispositions;
use super::lines::Splitter;
use super::record::{self, Process, STARTED, STATUS, ShimLaunch, StartedRecord, StatusRecord};
use super::tree::{self, descendants};
use super::writer::{Stream, Writer};
use crate::limits::restore_open_files;

/// How much is taken out of a pipe at once.
const CHUNK: usize = 16 * 1024;

/// After so long a killed process that does not go is left to the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

/// The kernel takes any other process of the group for memory before one with this score.
const SPARED: &str = "-999";

/// One of the program's two streams.
struct Pipe {
    stream: Stream,
    /// None once every writer has closed it.
    fd: Option<OwnedFd>,
    splitter: Splitter,
}

/// A running program and what the shim holds of it.
struct Shim {
    launch: ShimLaunch,
    main: u32,
    signals: SignalFd,
    pipes: [Pipe; 2],
    writer: Writer,
}

/// Runs the launch on standard input, to the end of every process of it.
pub(super) fn supervise(directory: &Path) -> io::Result<()> {
    // It may have been executed as a number, which tells nobody anything.
    let _ = rustix::thread::set_name(c"loom-shim");
    // Blocked, not ignored: what is ignored the program would inherit.
    SigSet::all().thread_block()?;
    restore_open_files();
    let mut signals = SigSet::empty();
    signals.add(NixSignal::SIGCHLD);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&signals, flags)?;

    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let launch = ShimLaunch::decode(&bytes).ok_or(io::ErrorKind::InvalidData);
    drop(bytes);
    let mut answer = io::stdout().lock();
    let launch = match launch {
        Ok(launch) => launch,
        Err(kind) => {
            writeln!(answer, "failed the launch file is not understood")?;
            return Err(kind.into());
        }
    };
    match Shim::start(directory, launch, signals) {
        Ok((shim, started)) => {
            // The agent may be gone by now; the program runs, and its shim has to stay with it.
            let _ = answer.write_all(&started).and_then(|()| answer.flush());
            drop(answer);
            let _ = let_go();
            shim.run(directory);
            Ok(())
        }
        Err(Refusal::Exec(error)) => {
            writeln!(answer, "exec {}", error.raw_os_error().unwrap_or(0))?;
            Err(error)
        }
        Err(Refusal::Other(what, error)) => {
            writeln!(answer, "failed {what}: {error}")?;
            Err(error)
        }
    }
}

/// Why there is no program.
enum Refusal {
    /// It could not be executed.
    Exec(io::Error),
    /// What came before.
    Other(String, io::Error),
}

impl Refusal {
    fn of(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Other(what.into(), error)
    }
}

/// Gives up what was the agent's: its pipe, and its directory, which somebody may unmount.
fn let_go() -> io::Result<()> {
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    std::env::set_current_dir("/")
}

impl Shim {
    /// Executes the program; also what `started` says.
    fn start(
        directory: &Path,
        launch: ShimLaunch,
        signals: SignalFd,
    ) -> Result<(Self, Vec<u8>), Refusal> {
        // Without a session of its own it would end with the agent's terminal.
        setsid().map_err(|error| Refusal::of("setsid")(error.into()))?;
        set_child_subreaper(Some(getpid())).map_err(|e| Refusal::of("subreaper")(e.into()))?;
        let mut notes = Vec::new();
        let writer = open_output(directory, &launch, &mut notes);
        for group in &launch.enter {
            let name = format!("enter {}", group.display());
            fs::write(group, "0").map_err(Refusal::of(name))?;
        }
        if let Err(error) = dispositions::stop_ignoring() {
            notes.push(format!("signals ignored since before the start: {error}"));
        }
        let spawned = spawn(&launch);
        for group in &launch.leave {
            // Left in it, the shim would be killed and frozen with the tree.
            let name = format!("enter {}", group.display());
            fs::write(group, "0").map_err(Refusal::of(name))?;
        }
        let mut child = spawned.map_err(Refusal::Exec)?;
        let at = Timestamp::now();
        // Only now, or the program would inherit it. Not allowed to every user.
        let _ = fs::write("/proc/self/oom_score_adj", SPARED);
        let main = child.id();
        let pipe = |stream, fd: Option<OwnedFd>| Pipe {
            stream,
            fd,
            splitter: Splitter::default(),
        };
        let pipes = [
            pipe(Stream::Stdout, child.stdout.take().map(OwnedFd::from)),
            pipe(Stream::Stderr, child.stderr.take().map(OwnedFd::from)),
        ];
        let process = |pid| Process {
            pid,
            ticks: record::start_ticks(pid).unwrap_or(0),
        };
        let started = StartedRecord {
            shim: process(std::process::id()),
            // Not yet reaped, so the number is still its own even if it has ended.
            main: process(main),
            boot: record::boot_id(),
            at,
            output: writer.path().to_path_buf(),
            base: writer.offset(),
            notes,
        }
        .encode();
        let shim = Self {
            launch,
            main,
            signals,
            pipes,
            writer,
        };
        if let Err(error) = record::put(directory, STARTED, &started) {
            shim.kill();
            return Err(Refusal::Other("write `started`".into(), error));
        }
        Ok((shim, started))
    }

    /// Until every process has ended.
    fn run(mut self, directory: &Path) {
        let mut chunk = vec![0; CHUNK];
        let status = loop {
            // Looked for before the first wait: a child may have ended while its signal was not held.
            self.read_pipes(&mut chunk);
            if let Some(status) = self.reap().0 {
                break status;
            }
            self.wait_for_news(None);
        };
        let mut status = self.status(status);
        // Recorded at once: what comes after may take long.
        let recorded = record::put(directory, STATUS, &status.encode());
        let left = self.kill_rest(&mut chunk);
        self.drain(&mut chunk);
        if left > 0 {
            status
                .notes
                .push(format!("{left} processes could not be killed"));
        }
        if !self.writer.path().starts_with(directory) {
            status.end = Some(self.writer.offset());
        }
        if recorded.is_err() || left > 0 || status.end.is_some() {
            let _ = record::put(directory, STATUS, &status.encode());
        }
    }

    /// Sleeps until a child ends, a pipe has something, a piece of a line is due, or `patience` ends.
    fn wait_for_news(&mut self, patience: Option<Duration>) {
        let now = Instant::now();
        let due = self
            .pipes
            .iter()
            .filter_map(|pipe| pipe.splitter.due())
            .min();
        let due = due.map(|due| due.saturating_duration_since(now));
        let limit = match (patience, due) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let open = self.pipes.iter().filter_map(|pipe| pipe.fd.as_ref());
        fds.extend(open.map(|fd| PollFd::new(fd, PollFlags::IN)));
        // An interrupted poll is news as well.
        let _ = poll(&mut fds, limit.as_ref());
    }

    /// Takes what is in the pipes now, a chunk of each; whether there was anything.
    fn read_pipes(&mut self, chunk: &mut [u8]) -> bool {
        let mut any = false;
        for pipe in &mut self.pipes {
            let Some(fd) = &pipe.fd else { continue };
            let stream = pipe.stream;
            let at = Timestamp::now();
            let now = Instant::now();
            match rustix::io::read(fd, &mut *chunk) {
                Ok(0) => pipe.fd = None,
                Ok(count) => {
                    any = true;
                    let emit = |text: &[u8], piece| self.writer.line(at, stream, text, piece);
                    pipe.splitter.feed(&chunk[..count], now, emit);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => pipe.fd = None,
            }
            let end = pipe.fd.is_none();
            let emit = |text: &[u8], piece| self.writer.line(at, stream, text, piece);
            pipe.splitter.flush(now, end, emit);
        }
        if any {
            self.writer.flush();
        } else {
            self.writer.rest();
        }
        any
    }

    /// Takes in every child that has ended: how the main process did if it is one of them, and
    /// whether none is left.
    fn reap(&mut self) -> (Option<WaitStatus>, bool) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let mut main = None;
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status)))
                    if pid.as_raw_nonzero().get().cast_unsigned() == self.main =>
                {
                    main = Some(status);
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return (main, false),
                Err(_) => return (main, true),
            }
        }
    }

    fn status(&self, status: WaitStatus) -> StatusRecord {
        let signal = status.terminating_signal();
        StatusRecord {
            code: status.exit_status(),
            signal,
            oom: signal == Some(NixSignal::SIGKILL as i32) && self.oom_kills() > 0,
            at: Timestamp::now(),
            ..StatusRecord::default()
        }
    }

    /// How many processes of the run the kernel has killed for memory.
    fn oom_kills(&self) -> u64 {
        let text = self
            .launch
            .oom
            .as_ref()
            .and_then(|path| fs::read_to_string(path).ok());
        let text = text.unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }

    fn kill(&self) {
        if let Some(tree) = &self.launch.tree {
            tree.kill();
        }
        // As the reaper it is above every process of the run, whatever these did.
        tree::send(
            &descendants(std::process::id()),
            rustix::process::Signal::KILL,
        );
    }

    /// Kills until nothing is left; returns how many could not be killed.
    fn kill_rest(&mut self, chunk: &mut [u8]) -> usize {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !self.reap().1 {
            self.kill();
            if begun.elapsed() > KILL_PATIENCE {
                return descendants(std::process::id()).len();
            }
            if self.reap().1 {
                break;
            }
            self.wait_for_news(Some(pause));
            self.read_pipes(chunk);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        0
    }

    /// Takes what is left in the pipes; nobody of the run can write any more.
    fn drain(&mut self, chunk: &mut [u8]) {
        while self.read_pipes(chunk) {}
        for pipe in &mut self.pipes {
            pipe.fd = None;
        }
        let (at, now) = (Timestamp::now(), Instant::now());
        for pipe in &mut self.pipes {
            let stream = pipe.stream;
            let emit = |text: &[u8], piece| self.writer.line(at, stream, text, piece);
            pipe.splitter.flush(now, true, emit);
        }
        self.writer.flush();
    }
}

/// The output where the launch wants it, else in the run's directory, else nowhere.
fn open_output(directory: &Path, launch: &ShimLaunch, notes: &mut Vec<String>) -> Writer {
    let (size, keep) = (launch.max_size, launch.keep);
    // A reader may hold the lock of an ended writer's file for a moment.
    let wanted = (0..5).find_map(
        |attempt| match Writer::open(launch.output.clone(), size, keep) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && attempt < 4 => {
                std::thread::sleep(Duration::from_millis(2));
                None
            }
            result => Some(result),
        },
    );
    let error = match wanted {
        Some(Ok(writer)) => return writer,
        Some(Err(error)) => error,
        None => io::ErrorKind::WouldBlock.into(),
    };
    let why = if error.kind() == io::ErrorKind::WouldBlock {
        "another run writes to it".to_owned()
    } else {
        error.to_string()
    };
    notes.push(format!("output to {}: {why}", launch.output.display()));
    let own = directory.join("output.log");
    Writer::open(own.clone(), size, keep).unwrap_or_else(|_| Writer::closed(own, size, keep))
}

fn spawn(launch: &ShimLaunch) -> io::Result<std::process::Child> {
    let mut command = Command::new(&launch.program);
    if let Some(name) = launch.argv.first() {
        command.arg0(name);
    }
    command.args(launch.argv.iter().skip(1));
    super::environment(&mut command, launch);
    command.current_dir(&launch.workdir).process_group(0);
    if let Some(gid) = launch.gid {
        command.gid(gid);
    }
    if let Some(uid) = launch.uid {
        command.uid(uid);
    }
    let null = File::open("/dev/null")?;
    command
        .stdin(null)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // The program inherits the mask of the thread that starts it, and must be born with none.
    SigSet::empty().thread_set_mask()?;
    let spawned = command.spawn();
    SigSet::all().thread_block()?;
    let child = spawned?;
    let pipes = [
        child.stdout.as_ref().map(AsFd::as_fd),
        child.stderr.as_ref().map(AsFd::as_fd),
    ];
    for fd in pipes.into_iter().flatten() {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    Ok(child)
}
