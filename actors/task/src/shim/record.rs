//! The files between a shim and the agents: `launch`, `started`, `status`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::tree::Tree;
use crate::private;

/// The name of the file a shim is started from.
pub(crate) const LAUNCH: &str = "launch";
/// The name of the file that is there once the program was executed.
pub(crate) const STARTED: &str = "started";
/// The name of the file that is there once the main process has ended.
pub(crate) const STATUS: &str = "status";

/// What a shim is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShimLaunch {
    /// The run's id.
    pub run: String,
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments, with the name it was called by.
    pub argv: Vec<OsString>,
    /// `NAME=value`, all of them.
    pub env: Vec<OsString>,
    /// The directory it starts in.
    pub workdir: PathBuf,
    /// The user, if another than the shim's.
    pub uid: Option<u32>,
    /// The group, if another than the shim's.
    pub gid: Option<u32>,
    /// The current output file.
    pub output: PathBuf,
    /// A file is rotated before it is longer, in bytes.
    pub max_size: u64,
    /// How many output files are kept.
    pub keep: u32,
    /// Files of control groups to write `0` to before the program is executed.
    pub enter: Vec<PathBuf>,
    /// The same, for after that.
    pub leave: Vec<PathBuf>,
    /// The control group that is frozen and killed as one.
    pub tree: Option<Tree>,
    /// The file with the count of `oom_kill`.
    pub oom: Option<PathBuf>,
    /// Every control group of the run, to be removed after it.
    pub groups: Vec<PathBuf>,
    /// What the run is not held to, for the agents.
    pub unenforced: Vec<String>,
}

/// A process, told from a later one with the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, in ticks since boot.
    pub ticks: u64,
}

/// A program was executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StartedRecord {
    /// The shim.
    pub shim: Process,
    /// The program.
    pub main: Process,
    /// Which boot of the host.
    pub boot: String,
    /// When.
    pub at: Timestamp,
    /// The current output file.
    pub output: PathBuf,
    /// The offset in the output at which the run begins.
    pub base: u64,
    /// What the shim could not do.
    pub notes: Vec<String>,
}

/// The main process has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StatusRecord {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal it died of, if it did.
    pub signal: Option<i32>,
    /// The kernel killed it for memory.
    pub oom: bool,
    /// When.
    pub at: Timestamp,
    /// Where the output of the run ends, where other runs write to the same files.
    pub end: Option<u64>,
    /// What went wrong after that.
    pub notes: Vec<String>,
}

/// Entries of a file, as they stand in it.
struct Entries<'a>(Vec<&'a [u8]>);

impl<'a> Entries<'a> {
    /// The entries of a whole file of this kind; none of a torn or a foreign one.
    fn read(kind: &str, bytes: &'a [u8]) -> Option<Self> {
        let mut entries: Vec<_> = bytes
            .strip_suffix(b"\0end\0")?
            .split(|byte| *byte == 0)
            .collect();
        let head = entries.remove(0);
        (head == format!("loom-{kind} 1").as_bytes()).then_some(Self(entries))
    }

    fn all(&self, key: &'a str) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.0
            .iter()
            .filter_map(move |entry| entry.strip_prefix(key.as_bytes())?.strip_prefix(b"="))
    }

    fn text(&self, key: &'a str) -> Option<&'a str> {
        std::str::from_utf8(self.all(key).next()?).ok()
    }

    fn number<T: std::str::FromStr>(&self, key: &'a str) -> Option<T> {
        self.text(key)?.parse().ok()
    }

    fn os(&self, key: &'a str) -> Vec<OsString> {
        self.all(key)
            .map(|value| OsString::from_vec(value.to_vec()))
            .collect()
    }

    fn paths(&self, key: &'a str) -> Vec<PathBuf> {
        self.os(key).into_iter().map(PathBuf::from).collect()
    }

    fn texts(&self, key: &'a str) -> Vec<String> {
        self.all(key)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    fn path(&self, key: &'a str) -> Option<PathBuf> {
        self.paths(key).into_iter().next()
    }

    fn process(&self, key: &'a str) -> Option<Process> {
        let (pid, ticks) = self.text(key)?.split_once(' ')?;
        Some(Process {
            pid: pid.parse().ok()?,
            ticks: ticks.parse().ok()?,
        })
    }

    fn at(&self) -> Option<Timestamp> {
        Timestamp::from_nanosecond(self.number("at")?).ok()
    }
}

/// A file being written.
struct Builder(Vec<u8>);

impl Builder {
    fn new(kind: &str) -> Self {
        Self(format!("loom-{kind} 1\0").into_bytes())
    }

    fn bytes(&mut self, key: &str, value: &[u8]) {
        self.0.extend_from_slice(key.as_bytes());
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(0);
    }

    fn text(&mut self, key: &str, value: impl std::fmt::Display) {
        self.bytes(key, value.to_string().as_bytes());
    }

    fn os(&mut self, key: &str, values: impl IntoIterator<Item = impl AsRef<OsStr>>) {
        for value in values {
            self.bytes(key, value.as_ref().as_bytes());
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"end\0");
        self.0
    }
}

impl ShimLaunch {
    /// Writes it out; no value may hold a NUL byte.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut file = Builder::new("launch");
        file.text("run", &self.run);
        file.os("program", [&self.program]);
        file.os("arg", &self.argv);
        file.os("env", &self.env);
        file.os("workdir", [&self.workdir]);
        for (key, id) in [("uid", self.uid), ("gid", self.gid)] {
            if let Some(id) = id {
                file.text(key, id);
            }
        }
        file.os("output", [&self.output]);
        file.text("max_size", self.max_size);
        file.text("keep", self.keep);
        file.os("enter", &self.enter);
        file.os("leave", &self.leave);
        if let Some(tree) = &self.tree {
            file.os("tree", [&tree.path]);
            file.text("tree_kind", tree.kind.as_str());
        }
        file.os("oom", &self.oom);
        file.os("group", &self.groups);
        file.os("unenforced", &self.unenforced);
        file.finish()
    }

    /// Reads it; none if it is torn or of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let file = Entries::read("launch", bytes)?;
        Some(Self {
            run: file.text("run")?.to_owned(),
            program: file.path("program")?,
            argv: file.os("arg"),
            env: file.os("env"),
            workdir: file.path("workdir")?,
            uid: file.number("uid"),
            gid: file.number("gid"),
            output: file.path("output")?,
            max_size: file.number("max_size")?,
            keep: file.number("keep")?,
            enter: file.paths("enter"),
            leave: file.paths("leave"),
            tree: file
                .path("tree")
                .and_then(|path| Tree::of(path, file.text("tree_kind")?)),
            oom: file.path("oom"),
            groups: file.paths("group"),
            unenforced: file.texts("unenforced"),
        })
    }
}

impl StartedRecord {
    /// Writes it out.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut file = Builder::new("started");
        for (key, process) in [("shim", self.shim), ("main", self.main)] {
            file.text(key, format_args!("{} {}", process.pid, process.ticks));
        }
        file.text("boot", &self.boot);
        file.text("at", self.at.as_nanosecond());
        file.os("output", [&self.output]);
        file.text("base", self.base);
        file.os("note", &self.notes);
        file.finish()
    }

    /// Reads it; none if it is torn or of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let file = Entries::read("started", bytes)?;
        Some(Self {
            shim: file.process("shim")?,
            main: file.process("main")?,
            boot: file.text("boot")?.to_owned(),
            at: file.at()?,
            output: file.path("output")?,
            base: file.number("base")?,
            notes: file.texts("note"),
        })
    }
}

impl StatusRecord {
    /// Writes it out.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut file = Builder::new("status");
        for (key, number) in [("code", self.code), ("signal", self.signal)] {
            if let Some(number) = number {
                file.text(key, number);
            }
        }
        file.text("oom", u8::from(self.oom));
        file.text("at", self.at.as_nanosecond());
        if let Some(end) = self.end {
            file.text("end_of_output", end);
        }
        file.os("note", &self.notes);
        file.finish()
    }

    /// Reads it; none if it is torn, of another version, or says neither code nor signal.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let file = Entries::read("status", bytes)?;
        let status = Self {
            code: file.number("code"),
            signal: file.number("signal"),
            oom: file.number::<u8>("oom")? != 0,
            at: file.at()?,
            end: file.number("end_of_output"),
            notes: file.texts("note"),
        };
        (status.code.is_some() != status.signal.is_some()).then_some(status)
    }
}

/// Puts a file in place whole; without a sync, see the module of the shim.
pub(crate) fn put(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    private::write(&temporary, bytes)?;
    fs::rename(temporary, directory.join(name))
}

/// When a process was started, in ticks since boot; none if there is no such process.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    stat_field(&stat, 22)
}

/// A field of `/proc/<pid>/stat` by its number in proc(5), from 3; the name, field 2, may hold
/// blanks and parentheses.
pub(crate) fn stat_field(stat: &[u8], number: usize) -> Option<u64> {
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 1..)?).ok()?;
    rest.split_ascii_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

/// Which boot of the host this is; empty where the kernel does not say.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests;
