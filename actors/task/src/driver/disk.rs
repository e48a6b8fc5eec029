//! What runs do to disks: how much of one their files take, and how fast they may use it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use loom_schemas::units::Bytes;

/// Blocks as the kernel counts them in a file's metadata.
const BLOCK: u64 = 512;

/// Devices that are no disks of their own.
const NO_DISKS: [&str; 5] = ["loop", "ram", "zram", "sr", "fd"];

/// What is said of every rate under version 1.
const VERSION_1: &str = "disk rate: of direct and synchronous I/O alone, the rest is written later \
                         (control groups version 1)";

/// The bytes that the files below a directory take on its disk; what cannot be looked at counts
/// nothing. It takes a moment for each file.
pub fn taken(directory: &Path) -> u64 {
    let Ok(top) = fs::symlink_metadata(directory) else {
        return 0;
    };
    let device = top.dev();
    let mut linked = HashSet::new();
    let mut total = 0;
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            // Of links themselves, never of what they lead to.
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.dev() != device {
                continue;
            }
            if found.is_dir() {
                open.push(entry.path());
            } else if found.nlink() > 1 && !linked.insert(found.ino()) {
                continue;
            }
            total += found.blocks() * BLOCK;
        }
    }
    total
}

/// Holds a group to a rate on every disk of the host, reads and writes apart, or to none any more;
/// returns what it is not held to, a phrase each.
pub(super) fn limit(group: &Path, version2: bool, rate: Option<Bytes>) -> Vec<String> {
    let disks = disks(Path::new("/sys/block"));
    if disks.is_empty() && rate.is_some() {
        return vec!["disk rate: the host has no disk of its own".to_owned()];
    }
    let mut notes = Vec::new();
    // Version 1 takes a rate of 0 for none.
    let none = if version2 { "max" } else { "0" };
    let text = rate.map_or_else(|| none.to_owned(), |rate| rate.0.to_string());
    let mut set = |file: &str, line: String| {
        if let Err(error) = fs::write(group.join(file), line) {
            notes.push(format!("disk rate: {file}: {error}"));
        }
    };
    for disk in &disks {
        if version2 {
            set("io.max", format!("{disk} rbps={text} wbps={text}"));
        } else {
            set("blkio.throttle.read_bps_device", format!("{disk} {text}"));
            set("blkio.throttle.write_bps_device", format!("{disk} {text}"));
        }
    }
    if notes.is_empty() && !version2 && rate.is_some() {
        notes.push(VERSION_1.to_owned());
    }
    notes.dedup();
    notes
}

/// The numbers of the host's disks: `254:0`. Limits hold for whole disks, not for their partitions.
fn disks(sys_block: &Path) -> Vec<String> {
    let entries = fs::read_dir(sys_block).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        if NO_DISKS.iter().any(|kind| name.starts_with(kind)) {
            return None;
        }
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
        let number = read("dev")?.trim().to_owned();
        (read("size")?.trim() != "0").then_some(number)
    };
    let mut disks: Vec<String> = entries.filter_map(number).collect();
    disks.sort();
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_once_and_links_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert_eq!(taken(&path("none")), 0);
        fs::create_dir(path("below")).unwrap();
        let empty = taken(folder.path());
        fs::write(path("below/a"), vec![1; 1 << 20]).unwrap();
        let one = taken(folder.path());
        assert!((1 << 20..2 << 20).contains(&(one - empty)), "{one}");
        fs::hard_link(path("below/a"), path("b")).unwrap();
        std::os::unix::fs::symlink("/", path("c")).unwrap();
        let linked = taken(folder.path());
        assert!(linked - one < 1 << 16, "{linked}");
    }

    #[test]
    fn disks_are_known_by_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for (name, number, size) in [
            ("sda", "8:0", "100"),
            ("nvme0n1", "259:0", "100"),
            ("sdb", "8:16", "0"),
            ("loop0", "7:0", "100"),
            ("zram0", "253:0", "100"),
        ] {
            let disk = folder.path().join(name);
            fs::create_dir(&disk).unwrap();
            fs::write(disk.join("dev"), format!("{number}\n")).unwrap();
            fs::write(disk.join("size"), format!("{size}\n")).unwrap();
        }
        assert_eq!(disks(folder.path()), ["259:0", "8:0"]);
    }

    #[test]
    fn a_group_that_is_not_there_is_said_not_to_hold() {
        let folder = tempfile::tempdir().unwrap();
        let notes = limit(&folder.path().join("none"), false, Some(Bytes::mib(1)));
        assert!(notes.iter().all(|note| note.starts_with("disk rate: ")));
        assert!(!notes.is_empty());
    }
}
