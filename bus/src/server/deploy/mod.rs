//! A bus of several servers on several hosts: everything they and their clients need, in files.
//!
//! ```text
//! DIR/servers/NAME/   one server: configuration, certificate, key; copied to its host
//! DIR/clients/        the authority's certificate, and a credentials file a user
//! DIR/clients/nodes/  a credentials file a node
//! DIR/keys/           what signs all of that; stays where it is
//! ```
//!
//! The servers trust an operator's key and take whoever its accounts have signed, so a user is
//! added by signing a file: no server is told, and none keeps a password.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use loom_schemas::ids::Name;

use super::ServerError;
use super::secrets::write_private;

mod certificates;
mod identity;
mod member;
mod users;

use certificates::Authority;
use identity::Keys;
pub use users::Role;

/// Where clients connect where nobody says otherwise.
pub const PORT: u16 = 4222;

/// Where servers connect to each other where nobody says otherwise.
pub const ROUTE_PORT: u16 = 6222;

/// The file with the authority's certificate.
const AUTHORITY: &str = "ca.crt";

/// As whom managers connect.
const ORCH: &str = crate::caller::OWN;

/// As whom nodes connect.
pub const NODE: &str = crate::caller::NODE;

/// As whom one may ask the servers about themselves.
const SYSTEM: &str = "system";

/// Why the files cannot be made: one line.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A file or directory cannot be made, read or written.
    #[error("{path} cannot be used: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A name that cannot be a user's.
    #[error("`{0}` cannot be the name of a user: Loom uses it itself")]
    Reserved(Name),
    /// A user that is there already.
    #[error("{path} is there already: remove it to make a new one", path = path.display())]
    UserExists {
        /// Their file.
        path: PathBuf,
    },
    /// A user who was never made here, or whose key was not kept.
    #[error("{0} has no credentials made here that could be revoked")]
    NoUser(Name),
    /// A host that no certificate can be made for.
    #[error("`{host}` cannot be the host of a server: {reason}")]
    Host {
        /// As given.
        host: String,
        /// Why.
        reason: String,
    },
    /// Two servers of one name or at one address.
    #[error("two servers are {0}")]
    Twice(String),
    /// A key file holds no key.
    #[error("{path} holds no key: {reason}", path = path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something cannot be signed.
    #[error("cannot be signed: {0}")]
    Sign(String),
}

impl From<ServerError> for DeployError {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Directory { path, source } => Self::File { path, source },
            other => Self::File {
                path: PathBuf::new(),
                source: std::io::Error::other(other),
            },
        }
    }
}

/// One server, as `NAME=HOST[:PORT[:ROUTE_PORT]]` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Name,
    /// How clients and other servers reach it: a name or an address.
    pub host: String,
    /// Where clients connect.
    pub port: u16,
    /// Where other servers connect.
    pub route_port: u16,
}

impl Member {
    /// The host as it stands in an address: IPv6 in brackets.
    fn shown_host(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.host.clone(),
        }
    }

    /// What it listens on: its own address, or all of them where the host is a name.
    fn listens_on(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(_) => self.shown_host(),
            Err(_) => "0.0.0.0".to_owned(),
        }
    }

    /// `tls://HOST:PORT`.
    fn url(&self) -> String {
        format!("tls://{}:{}", self.shown_host(), self.port)
    }
}

impl FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}`: expected NAME=HOST, NAME=HOST:PORT or NAME=HOST:PORT:ROUTE_PORT");
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let name = Name::new(name).map_err(|error| error.to_string())?;
        let (host, ports) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, ports)) => (host, Some(ports.strip_prefix(':').ok_or_else(wrong)?)),
            None => match rest.split_once(':') {
                Some((host, ports)) => (host, Some(ports)),
                None => (rest, None),
            },
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
        if host.is_empty() || !host.chars().all(valid) {
            return Err(wrong());
        }
        let port = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(port) => Ok(port),
        };
        let (port, route_port) = match ports.map(|ports| ports.split_once(':').ok_or(ports)) {
            None => (PORT, ROUTE_PORT),
            Some(Err(client)) => (port(client)?, ROUTE_PORT),
            Some(Ok((client, route))) => (port(client)?, port(route)?),
        };
        Ok(Self {
            name,
            host: host.to_owned(),
            port,
            route_port,
        })
    }
}

/// A directory with the files of a bus.
#[derive(Debug)]
pub struct Deployment {
    dir: PathBuf,
    keys: Keys,
}

impl Deployment {
    /// Makes the keys that are not there yet, and the files of these servers anew.
    pub fn init(dir: &Path, members: &[Member]) -> Result<Self, DeployError> {
        check_members(members)?;
        let deployment = Self {
            dir: dir.to_owned(),
            keys: Keys::load_or_make(&private_dir(dir.join("keys"))?)?,
        };
        let revoked = deployment.revoked()?;
        let authority = Authority::load_or_make(&dir.join("keys"))?;
        let clients = private_dir(dir.join("clients"))?;
        write(&clients.join(AUTHORITY), authority.certificate())?;
        for member in members {
            let own = private_dir(dir.join("servers").join(member.name.as_str()))?;
            let (certificate, key) = authority.sign(&member.host)?;
            write(&own.join(AUTHORITY), authority.certificate())?;
            write(&own.join(member::CERTIFICATE), &certificate)?;
            write(&own.join(member::KEY), &key)?;
            let config = member::config(member, members, &deployment.keys, &revoked)?;
            write(&own.join(member::CONFIG), &config)?;
        }
        for (name, creds) in [
            (ORCH, deployment.keys.orch_credentials(ORCH)?),
            (SYSTEM, deployment.keys.system_credentials(SYSTEM)?),
        ] {
            let path = deployment.credentials_path(name);
            if !path.exists() {
                write(&path, &creds)?;
            }
        }
        Ok(deployment)
    }

    /// Opens a directory that [`init`](Self::init) made.
    pub fn open(dir: &Path) -> Result<Self, DeployError> {
        let keys = dir.join("keys");
        if let Err(source) = std::fs::metadata(&keys) {
            return Err(DeployError::File { path: keys, source });
        }
        Ok(Self {
            dir: dir.to_owned(),
            keys: Keys::load(&keys)?,
        })
    }

    /// Where the authority's certificate is, which clients need.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("clients").join(AUTHORITY)
    }

    /// Where somebody's credentials are.
    pub fn credentials_path(&self, name: &str) -> PathBuf {
        self.dir.join("clients").join(format!("{name}.creds"))
    }
}

/// Where clients connect: all of the servers.
pub fn url(members: &[Member]) -> String {
    let urls: Vec<String> = members.iter().map(Member::url).collect();
    urls.join(",")
}

fn check_members(members: &[Member]) -> Result<(), DeployError> {
    for (at, member) in members.iter().enumerate() {
        for other in &members[..at] {
            if other.name == member.name {
                return Err(DeployError::Twice(format!("called {}", member.name)));
            }
            let ports = |of: &Member| [of.port, of.route_port];
            if other.host == member.host
                && ports(other).iter().any(|port| ports(member).contains(port))
            {
                return Err(DeployError::Twice(format!("at a port of {}", member.host)));
            }
        }
        if member.port == member.route_port {
            let at = format!("at {}:{}", member.host, member.port);
            return Err(DeployError::Twice(at));
        }
    }
    Ok(())
}

fn private_dir(path: PathBuf) -> Result<PathBuf, DeployError> {
    super::make_private_dir(&path)?;
    Ok(path)
}

fn read(path: &Path) -> Result<String, DeployError> {
    std::fs::read_to_string(path).map_err(|source| DeployError::File {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, content: &str) -> Result<(), DeployError> {
    Ok(write_private(path, content.as_bytes())?)
}

/// The content of a key file, or what `make` makes, which is then kept there.
fn load_or_make(
    path: &Path,
    make: impl FnOnce() -> Result<String, DeployError>,
) -> Result<String, DeployError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = make()?;
            write(path, &text)?;
            Ok(text)
        }
        Err(source) => Err(DeployError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::RESERVED;

    #[test]
    fn a_server_is_a_name_and_where_it_is() {
        let member = |text: &str| text.parse::<Member>();
        let one = member("n1=10.0.0.1").unwrap();
        assert_eq!((one.port, one.route_port), (PORT, ROUTE_PORT));
        assert_eq!(one.url(), "tls://10.0.0.1:4222");
        let two = member("n2=bus.example:5222:7222").unwrap();
        assert_eq!((two.port, two.route_port), (5222, 7222));
        assert_eq!(two.listens_on(), "0.0.0.0");
        let three = member("n3=[fd00::1]:5222").unwrap();
        assert_eq!(three.url(), "tls://[fd00::1]:5222");
        assert_eq!(three.listens_on(), "[fd00::1]");
        for bad in [
            "",
            "n1",
            "n1=",
            "=h",
            "N=h",
            "n=h:",
            "n=h:0",
            "n=h:x",
            "n=h:1:2:3",
            "n=h\"",
            "n=[::1",
        ] {
            assert!(member(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_servers_are_two() {
        let all = |texts: &[&str]| -> Vec<Member> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert!(check_members(&all(&["a=h", "b=i"])).is_ok());
        assert!(check_members(&all(&["a=h:1:2", "b=h:3:4"])).is_ok());
        for bad in [
            ["a=h", "a=i"].as_slice(),
            &["a=h", "b=h"],
            &["a=h:1:2", "b=h:2:3"],
            &["a=h:6222"],
        ] {
            assert!(check_members(&all(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn made_again_the_keys_and_users_stay() {
        let dir = tempfile::tempdir().unwrap();
        let members = ["n1=127.0.0.1".parse().unwrap()];
        let first = Deployment::init(dir.path(), &members).unwrap();
        let ada = Name::new("ada").unwrap();
        let path = first.add(Role::User, &ada).unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let before = (read(&path), read(&first.authority()));
        let orch = read(&first.credentials_path(ORCH));
        let second = Deployment::init(dir.path(), &members).unwrap();
        assert_eq!(before, (read(&path), read(&second.authority())));
        assert_eq!(orch, read(&second.credentials_path(ORCH)));
        let again = Deployment::open(dir.path()).unwrap();
        assert!(matches!(
            again.add(Role::User, &ada),
            Err(DeployError::UserExists { .. })
        ));
        for name in RESERVED {
            let name = Name::new(name).unwrap();
            assert!(matches!(
                again.add(Role::User, &name),
                Err(DeployError::Reserved(_))
            ));
        }
        assert!(Deployment::open(&dir.path().join("nowhere")).is_err());
    }
}
