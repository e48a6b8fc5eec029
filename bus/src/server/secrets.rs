//! The passwords of the embedded server's users: made once, kept for the owner's eyes only.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{ServerError, failed};

const FILE: &str = "passwords.json";

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Secrets {
    /// Of managers and nodes.
    pub(super) orch: String,
    /// Of the system account.
    pub(super) system: String,
    /// Of everybody else.
    pub(super) user: String,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    pub(super) fn load_or_make(dir: &Path) -> Result<Self, ServerError> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(&path, error.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let secrets = Self {
                    orch: password(),
                    system: password(),
                    user: password(),
                };
                let text =
                    serde_json::to_vec(&secrets).map_err(|error| failed(&path, error.into()))?;
                write_private(&path, &text)?;
                Ok(secrets)
            }
            Err(error) => Err(failed(&path, error)),
        }
    }
}

/// 192 bits in hexadecimal.
fn password() -> String {
    let bytes: [u8; 24] = rand::random();
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes a file whole or not at all, readable by its owner only.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), ServerError> {
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(|source| failed(path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn passwords_are_made_once_and_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secrets::load_or_make(dir.path()).unwrap();
        let second = Secrets::load_or_make(dir.path()).unwrap();
        assert_eq!(first.orch, second.orch);
        assert_ne!(first.orch, first.system);
        assert_eq!(first.orch.len(), 48);
        let meta = std::fs::metadata(dir.path().join(FILE)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(&first.orch));
    }

    #[test]
    fn a_spoilt_file_is_an_error_not_a_new_password() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        let error = Secrets::load_or_make(dir.path()).unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
    }
}
