//! Why a program cannot be executed, said before or after it was tried.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid};

use crate::driver::DriverError;
use crate::shim::record::ShimLaunch;

/// Where programs are looked for if nobody says.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a program tells what it needs.
const HEAD: usize = 256;

/// Whom a program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
    pub home: Option<String>,
}

fn rejected<T>(text: String) -> Result<T, DriverError> {
    Err(DriverError::Rejected(text))
}

/// Reads `user` or `user:group`, by name or number.
pub(super) fn user(text: &str) -> Result<User, DriverError> {
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    let known = match name.parse::<u32>() {
        Ok(number) => nix::unistd::User::from_uid(Uid::from_raw(number)),
        Err(_) => nix::unistd::User::from_name(name),
    };
    let known = known.map_err(|error| DriverError::Failed {
        context: format!("look up user `{name}`"),
        source: error.into(),
    })?;
    let (uid, own_gid, home) = match (&known, name.parse::<u32>()) {
        (Some(user), _) => (
            user.uid.as_raw(),
            Some(user.gid.as_raw()),
            Some(user.dir.display().to_string()),
        ),
        // A number needs no entry anywhere.
        (None, Ok(number)) => (number, None, None),
        (None, Err(_)) => return rejected(format!("user `{name}` does not exist on this node")),
    };
    let gid = match group {
        Some(group) => gid(group)?,
        None => own_gid.unwrap_or(uid),
    };
    let own = Uid::effective();
    if !own.is_root() && (own.as_raw() != uid || Gid::effective().as_raw() != gid) {
        return rejected(format!(
            "user `{text}`: the node's agent runs as user {own} and only root may run tasks as \
             another"
        ));
    }
    Ok(User { uid, gid, home })
}

fn gid(text: &str) -> Result<u32, DriverError> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => rejected(format!("group `{text}` does not exist on this node")),
        Err(error) => Err(DriverError::Failed {
            context: format!("look up group `{text}`"),
            source: error.into(),
        }),
    }
}

/// Whether a program can start in this directory.
pub(super) fn workdir(path: &Path) -> Result<(), DriverError> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(data) if data.is_dir() => Ok(()),
        Ok(_) => rejected(format!("workdir `{shown}` is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            rejected(format!("workdir `{shown}` does not exist on this node"))
        }
        Err(error) => rejected(format!("workdir `{shown}`: {error}")),
    }
}

/// The path of the program: as it stands if it holds a slash, else the first in `PATH`.
pub(super) fn program(
    argv: &[OsString],
    path: &str,
    workdir: &Path,
) -> Result<PathBuf, DriverError> {
    let name = argv
        .first()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    if name.is_empty() {
        return rejected("there is no program to run: the command is empty".into());
    }
    let name = &*name;
    if name.contains('/') {
        let program = workdir.join(name);
        return match fs::metadata(&program) {
            Ok(data) if data.is_dir() => rejected(format!("program `{name}` is a directory")),
            Ok(data) if data.permissions().mode() & 0o111 == 0 => rejected(not_executable(name)),
            Ok(_) => Ok(program),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                rejected(format!("program `{name}` does not exist on this node"))
            }
            Err(error) => rejected(format!("program `{name}`: {error}")),
        };
    }
    let mut found = None;
    for directory in path.split(':') {
        let candidate = workdir.join(directory).join(name);
        match fs::metadata(&candidate) {
            Ok(data) if data.is_file() && data.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            Ok(data) if data.is_file() => found = Some(candidate),
            _ => {}
        }
    }
    rejected(match found {
        Some(candidate) => not_executable(&candidate.display().to_string()),
        None => format!("program `{name}` was not found on this node in PATH {path}"),
    })
}

fn not_executable(name: &str) -> String {
    format!("program `{name}` is not executable: run `chmod +x` on it, or name its interpreter")
}

/// What a shim's answer means that is not the record of a start.
pub(super) fn answer(answer: &[u8], launch: &ShimLaunch) -> DriverError {
    let text = String::from_utf8_lossy(answer);
    let text = text.trim();
    if let Some(number) = text
        .strip_prefix("exec ")
        .and_then(|number| number.parse().ok())
    {
        return exec(io::Error::from_raw_os_error(number), launch);
    }
    let source = match text.strip_prefix("failed ") {
        Some(why) => io::Error::other(why.to_owned()),
        None if text.is_empty() => io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the shim ended without an answer",
        ),
        None => io::Error::new(
            io::ErrorKind::InvalidData,
            "the shim's answer is not understood: is its executable one of Loom?",
        ),
    };
    DriverError::Failed {
        context: format!("start run {}", launch.run),
        source,
    }
}

/// Why the kernel did not execute a program that is there.
fn exec(error: io::Error, launch: &ShimLaunch) -> DriverError {
    use rustix::io::Errno;

    let shown = launch.program.display();
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let reason = match errno {
        Some(Errno::NOENT) if launch.program.exists() => missing_part(&launch.program),
        Some(Errno::ACCESS) => denied(launch),
        Some(Errno::NOEXEC) => {
            format!("program `{shown}` is not one for this machine, and no script with a `#!` line")
        }
        Some(Errno::TOOBIG) => format!("program `{shown}`: its arguments are too long"),
        Some(Errno::NOENT | Errno::PERM | Errno::LOOP | Errno::NOTDIR | Errno::NAMETOOLONG) => {
            format!("program `{shown}`: {error}")
        }
        _ => {
            return DriverError::Failed {
                context: format!("execute `{shown}`"),
                source: error,
            };
        }
    };
    DriverError::Rejected(reason)
}

/// What keeps a user from a program: a directory above where it starts, or the program itself.
fn denied(launch: &ShimLaunch) -> String {
    let uid = launch.uid.unwrap_or_else(|| Uid::effective().as_raw());
    let gid = launch.gid.unwrap_or_else(|| Gid::effective().as_raw());
    let workdir = launch.workdir.display();
    let mut above: Vec<&Path> = launch.workdir.ancestors().collect();
    above.reverse();
    let closed = |path: &&Path| fs::metadata(path).is_ok_and(|data| !may_enter(&data, uid, gid));
    match above.into_iter().find(closed) {
        Some(closed) => format!(
            "user {uid} may not enter `{}`, in which its directory `{workdir}` is: let others pass \
             there (`chmod o+x`), or start the node with another `--data-dir`",
            closed.display()
        ),
        None => format!(
            "program `{}` may not be executed by user {uid} in directory `{workdir}`: permission \
             denied",
            launch.program.display()
        ),
    }
}

/// Whether the mode of a directory lets a user pass.
fn may_enter(directory: &fs::Metadata, uid: u32, gid: u32) -> bool {
    let bit = if directory.uid() == uid {
        0o100
    } else if directory.gid() == gid {
        0o010
    } else {
        0o001
    };
    uid == 0 || directory.mode() & bit != 0
}

/// What a program needs that is not there: the interpreter of a script, the loader of a binary.
fn missing_part(program: &Path) -> String {
    let shown = program.display();
    let mut head = Vec::new();
    let read = fs::File::open(program)
        .and_then(|file| file.take(HEAD as u64).read_to_end(&mut head))
        .is_ok();
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match line.strip_prefix(b"#!") {
        Some(rest) if read => {
            let rest = String::from_utf8_lossy(rest);
            let interpreter = rest
                .trim_start()
                .split([' ', '\t'])
                .next()
                .unwrap_or_default();
            if interpreter.ends_with('\r') {
                return format!(
                    "script `{shown}` has Windows line ends: its first line names `{}` with a \
                     carriage return",
                    interpreter.trim_end()
                );
            }
            format!(
                "script `{shown}` needs the interpreter `{interpreter}`, which does not exist on \
                 this node"
            )
        }
        _ => format!("program `{shown}` needs a loader or library that this node does not have"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why<T: std::fmt::Debug>(result: Result<T, DriverError>) -> String {
        match result.unwrap_err() {
            DriverError::Rejected(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_user_is_named_or_numbered() {
        assert!(why(user("nosuchuser")).contains("`nosuchuser` does not exist"));
        if Uid::effective().is_root() {
            let root = user("root").unwrap();
            assert_eq!(
                (root.uid, root.gid, root.home.as_deref()),
                (0, 0, Some("/root"))
            );
            assert_eq!(user("123456").unwrap().gid, 123_456);
            assert_eq!(user("0:7").unwrap().gid, 7);
            assert!(why(user("root:nosuchgroup")).contains("`nosuchgroup`"));
        }
    }

    #[test]
    fn a_program_is_found_or_the_reason_named() {
        let directory = tempfile::tempdir().unwrap();
        let find = |name: &str| program(&[name.into()], DEFAULT_PATH, directory.path());
        assert!(find("sh").unwrap().is_absolute());
        assert!(why(find("no-such-program")).contains("not found"));
        assert!(why(find("/no/such")).contains("does not exist"));
        assert!(why(find("/tmp")).contains("is a directory"));
        assert!(why(find("")).contains("empty"));
        fs::write(directory.path().join("plain"), "x").unwrap();
        assert!(why(find("./plain")).contains("chmod +x"));
    }
}
