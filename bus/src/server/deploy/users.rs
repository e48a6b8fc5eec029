//! Users and nodes of a bus: given credentials, and taken them back.

use std::path::PathBuf;

use jiff::Timestamp;
use loom_schemas::ids::Name;

use super::identity::Revoked;
use super::{DeployError, Deployment, member, private_dir, read, write};
use crate::caller::RESERVED;

/// The directory of nodes' credentials beside those of users.
const NODES: &str = "nodes";

/// Who is taken no more.
const REVOKED: &str = "revoked.json";

/// Who somebody is on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who submits jobs.
    User,
    /// An agent that runs tasks.
    Node,
}

impl Role {
    /// Where public keys are kept by name, one file each, so that credentials need not stay here.
    fn known(self) -> &'static str {
        match self {
            Self::User => "users",
            Self::Node => "nodes",
        }
    }
}

impl Deployment {
    /// Makes somebody's credentials file and returns where it is.
    pub fn add(&self, role: Role, name: &Name) -> Result<PathBuf, DeployError> {
        if role == Role::User && RESERVED.contains(&name.as_str()) {
            return Err(DeployError::Reserved(name.clone()));
        }
        let path = self.credentials_of(role, name);
        if path.exists() {
            return Err(DeployError::UserExists { path });
        }
        let made = match role {
            Role::User => self.keys.user_credentials(name.as_str())?,
            Role::Node => {
                private_dir(self.dir.join("clients").join(NODES))?;
                self.keys.node_credentials(name.as_str())?
            }
        };
        // First the key: whoever gets in can be kept out again.
        let known = private_dir(self.dir.join("keys").join(role.known()))?;
        write(&known.join(name.as_str()), &made.public_key)?;
        write(&path, &made.text)?;
        Ok(path)
    }

    /// Where somebody's credentials are.
    pub fn credentials_of(&self, role: Role, name: &Name) -> PathBuf {
        match role {
            Role::User => self.credentials_path(name.as_str()),
            Role::Node => {
                let nodes = self.dir.join("clients").join(NODES);
                nodes.join(format!("{name}.creds"))
            }
        }
    }

    /// Takes somebody's credentials back: removes the file, if it is here, and tells it in the
    /// configuration of every server, which have to be given to them. Returns where those are.
    pub fn revoke(
        &self,
        role: Role,
        name: &Name,
        now: Timestamp,
    ) -> Result<Vec<PathBuf>, DeployError> {
        let known = self.dir.join("keys").join(role.known()).join(name.as_str());
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
        for path in [self.credentials_of(role, name), known] {
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
