//! What a run leaves in the file that `$LOOM_RESULT` names.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use loom_schemas::spec::RESULT_MAX;
use loom_schemas::units::Bytes;
use rustix::fs::OFlags;

/// The name of the file, where the launch's own files are.
pub const RESULT: &str = ".loom-result.json";

/// What a run left for its result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Left {
    /// There is no file.
    #[default]
    Nothing,
    /// JSON text.
    Result(String),
    /// What is none, in words.
    Wrong(String),
}

impl Left {
    /// Judges what is in the file; at most one byte more than is taken has to be read of it.
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.len() > RESULT_MAX {
            let most = Bytes(RESULT_MAX as u64);
            return Self::Wrong(format!("its result has more than {most}"));
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Self::Wrong("its result is not JSON: it is not UTF-8".to_owned());
        };
        match serde_json::from_str::<serde_json::Value>(text) {
            Ok(_) => Self::Result(text.trim().to_owned()),
            Err(error) => Self::Wrong(format!("its result is not JSON: {error}")),
        }
    }

    /// Reads the file. The task could write to its directory: what it put there may be a link or a
    /// pipe, which is not followed and not waited for.
    pub(super) fn read(path: &Path) -> Self {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let read = opened.and_then(|file| {
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no plain file"));
            }
            let mut bytes = Vec::new();
            file.take(RESULT_MAX as u64 + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        match read {
            Ok(bytes) => Self::of(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Nothing,
            Err(error) => Self::Wrong(format!("its result cannot be read: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_json_of_a_bounded_size() {
        let text = |bytes: &[u8]| match Left::of(bytes) {
            Left::Nothing => String::new(),
            Left::Result(text) | Left::Wrong(text) => text,
        };
        assert_eq!(text(b" {\"a\": 1}\n"), "{\"a\": 1}");
        assert_eq!(
            text(b"{a: 1}"),
            "its result is not JSON: key must be a string at line 1 column 2"
        );
        assert_eq!(
            text(b""),
            "its result is not JSON: EOF while parsing a value at line 1 column 0"
        );
        assert_eq!(text(b"\xff"), "its result is not JSON: it is not UTF-8");
        let mut most = vec![b' '; RESULT_MAX];
        most[0] = b'1';
        assert_eq!(Left::of(&most), Left::Result("1".to_owned()));
        most.push(b' ');
        assert_eq!(text(&most), "its result has more than 64KiB");
        let deep = "[".repeat(10_000);
        assert!(text(deep.as_bytes()).contains("recursion limit"));
    }

    #[test]
    fn what_is_no_plain_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RESULT);
        assert_eq!(Left::read(&path), Left::Nothing);
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(matches!(Left::read(&path), Left::Wrong(_)));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(Left::read(&path), Left::Wrong(_)));
    }
}
