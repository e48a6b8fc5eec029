//! Users of a bus: given credentials, and taken them back.

use std::path::PathBuf;

use jiff::Timestamp;
use loom_schemas::ids::Name;

use super::identity::Revoked;
use super::{DeployError, Deployment, member, private_dir, read, write};
use crate::caller::RESERVED;

/// Public keys of users by name, one file each, so that their credentials need not stay here.
const USERS: &str = "users";

/// Who is taken no more.
const REVOKED: &str = "revoked.json";

impl Deployment {
    /// Makes a user's credentials file and returns where it is.
    pub fn add_user(&self, name: &Name) -> Result<PathBuf, DeployError> {
        if RESERVED.contains(&name.as_str()) {
            return Err(DeployError::Reserved(name.clone()));
        }
        let path = self.credentials_path(name.as_str());
        if path.exists() {
            return Err(DeployError::UserExists { path });
        }
        let made = self.keys.user_credentials(name.as_str())?;
        // First the key: whoever gets in can be kept out again.
        let known = private_dir(self.dir.join("keys").join(USERS))?;
        write(&known.join(name.as_str()), &made.public_key)?;
        write(&path, &made.text)?;
        Ok(path)
    }

    /// Takes a user's credentials back: removes the file, if it is here, and tells it in the
    /// configuration of every server, which have to be given to them. Returns where those are.
    pub fn revoke_user(&self, name: &Name, now: Timestamp) -> Result<Vec<PathBuf>, DeployError> {
        let known = self.dir.join("keys").join(USERS).join(name.as_str());
        let key = match std::fs::read_to_string(&known) {
            Ok(key) => key,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(DeployError::NoUser(name.clone()));
            }
            Err(source) => {
                return Err(DeployError::File {
                    path: known,
                    source,
                });
            }
        };
        let mut revoked = self.revoked()?;
        revoked.insert(key.trim().to_owned(), now.as_second());
        let text = serde_json::to_string_pretty(&revoked);
        let text = text.map_err(|error| DeployError::Sign(error.to_string()))?;
        write(&self.dir.join("keys").join(REVOKED), &text)?;
        let accounts = self.keys.tokens(&revoked)?.accounts;
        let configs = self.configs()?;
        for path in &configs {
            write(path, &member::with_accounts(&read(path)?, &accounts))?;
        }
        for path in [self.credentials_path(name.as_str()), known] {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DeployError::File { path, source });
                }
                _ => {}
            }
        }
        Ok(configs)
    }

    /// Who is taken no more.
    pub(super) fn revoked(&self) -> Result<Revoked, DeployError> {
        let path = self.dir.join("keys").join(REVOKED);
        if !path.exists() {
            return Ok(Revoked::new());
        }
        serde_json::from_str(&read(&path)?).map_err(|error| DeployError::Key {
            path,
            reason: error.to_string(),
        })
    }

    /// The configuration of every server, by name.
    fn configs(&self) -> Result<Vec<PathBuf>, DeployError> {
        let servers = self.dir.join("servers");
        let listed = std::fs::read_dir(&servers).map_err(|source| DeployError::File {
            path: servers,
            source,
        })?;
        let configs = listed
            .flatten()
            .map(|entry| entry.path().join(member::CONFIG));
        let mut configs: Vec<PathBuf> = configs.filter(|path| path.exists()).collect();
        configs.sort();
        Ok(configs)
    }
}
