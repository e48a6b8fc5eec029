//! The names of output files: the current one, and full ones named by the offset of their end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Digits of an offset in a name, so that names sort by age.
const DIGITS: usize = 15;

/// The full file that ends at this offset.
pub(crate) fn name(current: &Path, end: u64) -> PathBuf {
    with_suffix(current, &format!(".{end:0DIGITS$}"))
}

/// The file that is about to become the current one.
pub(crate) fn fresh(current: &Path) -> PathBuf {
    with_suffix(current, ".new")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The offsets at which the full files end, ascending.
pub(crate) fn ends(current: &Path) -> Vec<u64> {
    let directory = current.parent().unwrap_or_else(|| Path::new("."));
    let Some(stem) = current.file_name().and_then(|name| name.to_str()) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut ends: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let digits = name.to_str()?.strip_prefix(stem)?.strip_prefix('.')?;
            (digits.len() == DIGITS).then(|| digits.parse().ok())?
        })
        .collect();
    ends.sort_unstable();
    ends
}

/// Whether the last line of a file is whole.
pub(crate) fn ends_with_line_break(path: &Path) -> bool {
    let last = || {
        let mut file = File::open(path).ok()?;
        file.seek(SeekFrom::End(-1)).ok()?;
        let mut byte = [0];
        file.read_exact(&mut byte).ok()?;
        Some(byte[0])
    };
    last() == Some(b'\n')
}
