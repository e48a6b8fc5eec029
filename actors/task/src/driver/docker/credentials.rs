//! Logins of registries, from Docker's own configuration: `$DOCKER_CONFIG/config.json`, else that of
//! the agent's user.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use loom_schemas::spec::image::ImageName;
use serde_json::Value;

mod helper;

/// The name under which Docker keeps the login of its own registry.
const HUB: &str = "https://index.docker.io/v1/";

/// How long a credential helper may take, and whoever asks it before.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a login cannot be had.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The configuration is wrong: it is as wrong the next time.
    Configuration(String),
    /// A helper failed, or took too long: the next time it may not.
    Helper(String),
}

/// Where a login stands.
#[derive(Debug, PartialEq)]
enum Place {
    /// In the configuration, or nowhere.
    Here(Option<DockerCredentials>),
    /// With a helper of this name.
    Helper(String),
}

/// The login of the image's registry; none where nobody logged in.
pub(super) async fn of(name: &ImageName<'_>) -> Result<Option<DockerCredentials>, Trouble> {
    let server = name.registry.unwrap_or(HUB);
    let Some(path) = configuration() else {
        return Ok(None);
    };
    let wrong = |why: String| Trouble::Configuration(format!("{}: {why}", path.display()));
    let text = match tokio::fs::read(&path).await {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    match look(&text, server).map_err(wrong)? {
        Place::Here(login) => Ok(login),
        Place::Helper(helper) => helper::ask(&helper, server, PATIENCE).await,
    }
}

fn configuration() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
    directory.or_else(home).map(|path| path.join("config.json"))
}

/// Where the configuration has the login of a server: with its own helper, then in the file itself,
/// then with the helper for all.
fn look(text: &[u8], server: &str) -> Result<Place, String> {
    let mut config: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let named = |value: Option<&Value>| {
        let name = value
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty());
        name.map(str::to_owned)
    };
    if let Some(helper) = named(config["credHelpers"].get(server)) {
        return Ok(Place::Helper(helper));
    }
    let store = named(config.get("credsStore"));
    // The crate would wait for a helper as long as that takes: it is asked of the file alone.
    if let Some(config) = config.as_object_mut() {
        config.remove("credHelpers");
        config.remove("credsStore");
    }
    let bytes = config.to_string().into_bytes();
    match docker_credential::get_credential_from_reader(bytes.as_slice(), server) {
        Ok(found) => Ok(Place::Here(Some(login(server, found)))),
        Err(CredentialRetrievalError::NoCredentialConfigured) => {
            Ok(store.map_or(Place::Here(None), Place::Helper))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn login(server: &str, found: DockerCredential) -> DockerCredentials {
    let mut login = DockerCredentials {
        serveraddress: Some(server.to_owned()),
        ..DockerCredentials::default()
    };
    match found {
        DockerCredential::UsernamePassword(name, password) => {
            login.username = Some(name);
            login.password = Some(password);
        }
        DockerCredential::IdentityToken(token) => login.identitytoken = Some(token),
    }
    login
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_looked_for_by_registry() {
        let server = "r.example:5000";
        let found = |text: &str, server| look(text.as_bytes(), server).unwrap();
        // ada:secret
        let auths = r#""auths":{"r.example:5000":{"auth":"YWRhOnNlY3JldA=="}}"#;
        let Place::Here(Some(login)) = found(&format!("{{{auths}}}"), server) else {
            panic!("no login");
        };
        assert_eq!(login.username.as_deref(), Some("ada"));
        assert_eq!(login.password.as_deref(), Some("secret"));
        assert_eq!(login.serveraddress.as_deref(), Some(server));
        assert_eq!(
            found(&format!("{{{auths}}}"), "other.example"),
            Place::Here(None)
        );
        assert_eq!(found("{}", server), Place::Here(None));
        assert_eq!(found(r#"{"credsStore":""}"#, server), Place::Here(None));

        // Its own helper goes before the file, the helper for all after it.
        let both = format!(r#"{{{auths},"credsStore":"all","credHelpers":{{"{server}":"its"}}}}"#);
        assert_eq!(found(&both, server), Place::Helper("its".to_owned()));
        let store = format!(r#"{{{auths},"credsStore":"all"}}"#);
        assert!(matches!(found(&store, server), Place::Here(Some(_))));
        assert_eq!(
            found(&store, "other.example"),
            Place::Helper("all".to_owned())
        );
        for wrong in [
            "no json",
            "[]",
            r#"{"auths":{"r.example:5000":{"auth":"?"}}}"#,
        ] {
            assert!(look(wrong.as_bytes(), server).is_err(), "{wrong}");
        }
    }
}
