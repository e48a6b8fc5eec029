//! What others on a node's host see of its files: nothing.
//!
//! A task may run as another user, who has to get through to its work directory: the directories
//! above can be passed, but not listed, and what is in them is for the agent's own user.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Directories on the way to where a task works.
pub const PASSAGE: u32 = 0o711;

/// Directories for one user alone.
pub const OWN_DIRECTORY: u32 = 0o700;

/// Files for the agent's user alone.
pub const OWN_FILE: u32 = 0o600;

/// A task's output, which the agent's group may collect.
pub(crate) const OUTPUT: u32 = 0o640;

/// What the names of output files begin with.
const OUTPUT_NAME: &str = "output";

/// The bit of a directory which others use as well, such as `/tmp`.
const STICKY: u32 = 0o1000;

/// Makes a directory with this mode, whatever the umask says, and what is missing above it as usual;
/// one that is there stays as it is. True if it was made.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<bool> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the rights away that this mode does not have, and gives none. A directory that others use
/// as well stays as it is.
pub fn tighten(path: &Path, mode: u32) -> io::Result<()> {
    let found = fs::metadata(path)?.permissions().mode();
    if found & STICKY != 0 || found & 0o777 & !mode == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(found & mode))
}

/// Writes a file that only its owner reads.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    options.mode(OWN_FILE).open(path)?.write_all(bytes)
}

/// Makes the directory that holds those of runs, each of this mode as well; what an earlier build left
/// open in it is closed, except where the tasks themselves work.
pub(crate) fn make_runs(runs: &Path, mode: u32) -> io::Result<()> {
    let open =
        |path: &Path| fs::metadata(path).map(|data| data.permissions().mode() & 0o777 & !mode);
    if make_directory(runs, mode)? || open(runs)? == 0 {
        return Ok(());
    }
    for run in fs::read_dir(runs)? {
        let run = run?;
        if run.file_type()?.is_dir() {
            for file in fs::read_dir(run.path())? {
                let file = file?;
                let is_output = file.file_name().to_string_lossy().starts_with(OUTPUT_NAME);
                if file.file_type()?.is_file() {
                    tighten(&file.path(), if is_output { OUTPUT } else { OWN_FILE })?;
                }
            }
            tighten(&run.path(), mode)?;
        }
    }
    // Last: this is what says that the rest is done.
    tighten(runs, mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn open(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_is_made_with_its_mode_and_those_above_as_usual() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("above/it");
        assert!(make_directory(&path, PASSAGE).unwrap());
        assert_eq!(mode(&path), 0o711);
        open(&path, 0o750);
        assert!(!make_directory(&path, PASSAGE).unwrap());
        assert_eq!(mode(&path), 0o750);
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        make_directory(&file, PASSAGE).unwrap_err();
    }

    #[test]
    fn rights_are_taken_and_never_given() {
        let place = tempfile::tempdir().unwrap();
        for (before, after) in [
            (0o755, 0o711),
            (0o700, 0o700),
            (0o1777, 0o1777),
            (0o770, 0o710),
        ] {
            open(place.path(), before);
            tighten(place.path(), PASSAGE).unwrap();
            assert_eq!(mode(place.path()), after, "{before:o}");
        }
    }

    #[test]
    fn what_an_earlier_build_left_open_is_closed_once() {
        let place = tempfile::tempdir().unwrap();
        let runs = place.path().join("runs");
        let run = runs.join("1");
        fs::create_dir_all(run.join("work")).unwrap();
        for file in ["output.log", "output.log.20", "status", "work/result"] {
            fs::write(run.join(file), "x").unwrap();
            open(&run.join(file), 0o644);
        }
        for directory in [&runs, &run, &run.join("work")] {
            open(directory, 0o755);
        }
        make_runs(&runs, PASSAGE).unwrap();
        let modes = [
            ("", 0o711),
            ("output.log", 0o640),
            ("output.log.20", 0o640),
            ("status", 0o600),
            // A program that runs may need it as it was.
            ("work", 0o755),
            ("work/result", 0o644),
        ];
        for (path, wanted) in modes {
            assert_eq!(mode(&run.join(path)), wanted, "{path}");
        }
        assert_eq!(mode(&runs), 0o711);
        open(&run.join("status"), 0o644);
        make_runs(&runs, PASSAGE).unwrap();
        assert_eq!(mode(&run.join("status")), 0o644);
    }
}
