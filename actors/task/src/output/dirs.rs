//! Where on a node the output of tasks may go beside the node's own directories.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The directories in which tasks may have their output; none by default. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogDirs(Arc<[LogDir]>);

#[derive(Debug, PartialEq, Eq)]
struct LogDir {
    /// As it was named.
    named: PathBuf,
    /// Without any link.
    real: PathBuf,
}

impl LogDirs {
    /// Finds each of them, made if it is not there. An error says which.
    pub fn open(named: &[PathBuf]) -> Result<Self, (PathBuf, io::Error)> {
        let open = |named: &PathBuf| {
            let found = || {
                std::fs::create_dir_all(named)?;
                Ok(LogDir {
                    named: std::path::absolute(named)?,
                    real: named.canonicalize()?,
                })
            };
            found().map_err(|error| (named.clone(), error))
        };
        named.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// As they were named.
    pub fn names(&self) -> Vec<String> {
        let names = self.0.iter().map(|dir| dir.named.display().to_string());
        names.collect()
    }

    /// The real place of a path that lies beneath one of them; none of any other.
    pub(crate) fn place(&self, path: &Path) -> Option<PathBuf> {
        self.0.iter().find_map(|LogDir { named, real }| {
            let below = path
                .strip_prefix(named)
                .or_else(|_| path.strip_prefix(real));
            let below = below.ok()?;
            let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
            let beneath = !below.as_os_str().is_empty() && below.components().all(plain);
            beneath.then(|| real.join(below))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_beneath_has_a_place() {
        let place = tempfile::tempdir().unwrap();
        let there = place.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&there, there.join("alias")).unwrap();
        let alias = there.join("alias/logs");
        let dirs = LogDirs::open(std::slice::from_ref(&alias)).unwrap();
        assert!(there.join("logs").is_dir());
        assert_eq!(dirs.names(), [alias.display().to_string()]);
        let real = there.join("logs/a/b.log");
        assert_eq!(dirs.place(&alias.join("a/b.log")), Some(real.clone()));
        assert_eq!(dirs.place(&real), Some(real.clone()));
        assert_eq!(dirs.place(&alias.join("a//./b.log")), Some(real));
        for path in ["", "../x", "a/../../x", "/etc/passwd"] {
            assert_eq!(dirs.place(&alias.join(path)), None, "{path}");
        }
        let sibling = there.join("logs-of-others/x");
        assert_eq!(dirs.place(&sibling), None);
        assert_eq!(LogDirs::default().place(&there.join("logs/a")), None);
    }

    #[test]
    fn one_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let wanted = file.path().join("logs");
        let (named, _) = LogDirs::open(std::slice::from_ref(&wanted)).unwrap_err();
        assert_eq!(named, wanted);
    }
}
