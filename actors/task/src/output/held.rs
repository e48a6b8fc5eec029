//! Output files, opened so that nobody can put another file in their place.
//!
//! Agent and shim may be root, and a task may own a directory on the way to where its output goes: no
//! name on that way is followed if it is a symbolic link, and nothing is taken for output that is not
//! a plain file. One who writes holds on to the directory and names all its files through that.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use super::parse;
use crate::private::OUTPUT;

/// So much of a file tells whether it is one of ours: time, stream and tag are shorter.
const HEAD: usize = 64;

/// The directory of output files, held open.
pub(crate) struct Held {
    directory: OwnedFd,
}

impl Held {
    /// Opens the directory of this file, made if need be.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            directory: directory_of(path, true)?,
        })
    }

    /// A file of this directory, by a path that leads there whatever is moved meanwhile.
    pub(crate) fn path(&self, name: &OsStr) -> PathBuf {
        let held = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        Path::new(&held).join(name)
    }
}

/// Opens the directory of a file, step by step, and makes what is not there.
fn directory_of(path: &Path, make: bool) -> io::Result<OwnedFd> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut steps = parent.components();
    if steps.next() != Some(Component::RootDir) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut here = openat(CWD, "/", flags, Mode::empty())?;
    for step in steps {
        let Component::Normal(name) = step else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut next = openat(&here, name, flags, Mode::empty());
        if make && matches!(next, Err(Errno::NOENT)) {
            match mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            next = openat(&here, name, flags, Mode::empty());
        }
        here = next?;
    }
    Ok(here)
}

/// Opens a file that is there, to be read.
pub(crate) fn read(path: &Path) -> io::Result<File> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = directory_of(path, false)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    plain(openat(&directory, name, flags, Mode::empty())?.into())
}

/// Opens a file to write behind what is in it; made if it is not there.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true);
    plain(options.mode(OUTPUT).custom_flags(flags).open(path)?)
}

/// Whether there is nothing in a file, or a task's output.
pub(crate) fn is_output(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let mut head = [0; HEAD];
    let count = file.read_at(&mut head, 0)?;
    let line = head[..count].split(|byte| *byte == b'\n').next();
    Ok(count == 0 || line.is_some_and(|line| parse::line(line, 0).is_some()))
}

fn plain(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no plain file"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_on_the_way_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let (own, other) = (place.path().join("own"), place.path().join("other"));
        fs::create_dir(&other).unwrap();
        fs::write(other.join("a.log"), "").unwrap();
        Held::open(&own.join("below/a.log")).unwrap();
        assert!(own.join("below").is_dir());
        symlink(&other, own.join("link")).unwrap();
        symlink(other.join("a.log"), own.join("a.log")).unwrap();
        for path in ["link/a.log", "below/../../other/a.log"] {
            assert!(Held::open(&own.join(path)).is_err(), "{path}");
            assert!(read(&own.join(path)).is_err(), "{path}");
        }
        assert!(read(&own.join("a.log")).is_err());
        assert!(append(&own.join("a.log")).is_err());
        read(&other.join("a.log")).unwrap();
        assert!(Held::open(Path::new("a.log")).is_err());
    }

    #[test]
    fn files_are_found_in_the_directory_that_is_held_wherever_its_name_leads_by_then() {
        let place = tempfile::tempdir().unwrap();
        let (own, moved) = (place.path().join("own"), place.path().join("moved"));
        let held = Held::open(&own.join("a.log")).unwrap();
        fs::rename(&own, &moved).unwrap();
        fs::create_dir(&own).unwrap();
        append(&held.path(OsStr::new("a.log"))).unwrap();
        assert!(moved.join("a.log").exists() && !own.join("a.log").exists());
    }

    #[test]
    fn what_is_no_output_is_told_from_output() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let long = "x".repeat(200);
        for (text, ours) in [
            (String::new(), true),
            ("2026-01-02T03:04:05.000006Z stdout F \n".to_owned(), true),
            (
                format!("2026-01-02T03:04:05.000006Z stderr P {long}\n"),
                true,
            ),
            ("root:x:0:0:root:/root:/bin/bash\n".to_owned(), false),
            (
                "2026-01-02T03:04:05.000006Z host sshd: \n".to_owned(),
                false,
            ),
            (long, false),
        ] {
            fs::write(&path, &text).unwrap();
            assert_eq!(
                is_output(&File::open(&path).unwrap()).unwrap(),
                ours,
                "{text}"
            );
        }
        let pipe = place.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(append(&pipe).is_err() && read(&pipe).is_err());
    }
}
