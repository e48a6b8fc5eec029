//! Logins of registries, from Docker's own configuration: `$DOCKER_CONFIG/config.json`, else that of
//! the agent's user.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use loom_schemas::spec::image::ImageName;

use super::trouble::one_line;

/// The name under which Docker keeps the login of its own registry.
const HUB: &str = "https://index.docker.io/v1/";

/// How long a credential helper may take.
const HELPER: Duration = Duration::from_secs(20);

/// The login of the image's registry; none where nobody logged in.
pub(super) async fn of(name: &ImageName<'_>) -> Result<Option<DockerCredentials>, String> {
    let server = name.registry.unwrap_or(HUB).to_owned();
    let Some(path) = configuration() else {
        return Ok(None);
    };
    // A helper is a program, and may wait for whatever it asks.
    let read = tokio::task::spawn_blocking(move || read(&path, &server));
    match tokio::time::timeout(HELPER, read).await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("its credential helper took more than {HELPER:?}")),
    }
}

fn configuration() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
    directory.or_else(home).map(|path| path.join("config.json"))
}

fn read(path: &Path, server: &str) -> Result<Option<DockerCredentials>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let found = docker_credential::get_credential_from_reader(io::BufReader::new(file), server);
    let mut credentials = DockerCredentials {
        serveraddress: Some(server.to_owned()),
        ..DockerCredentials::default()
    };
    match found {
        Ok(DockerCredential::UsernamePassword(name, password)) => {
            credentials.username = Some(name);
            credentials.password = Some(password);
        }
        Ok(DockerCredential::IdentityToken(token)) => credentials.identitytoken = Some(token),
        Err(CredentialRetrievalError::NoCredentialConfigured) => return Ok(None),
        // What a helper answers that has no login of this registry: the pull goes on without.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found") =>
        {
            return Ok(None);
        }
        Err(CredentialRetrievalError::HelperFailure {
            helper,
            stdout,
            stderr,
        }) => {
            // By their protocol it stands on standard output; some write it where others do.
            let said = if stderr.trim().is_empty() {
                stdout
            } else {
                stderr
            };
            return Err(format!("`{helper}` failed: {}", one_line(&said)));
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            return Err(format!(
                "{} names a credential helper that cannot be run: put its `docker-credential-` \
                 program on the agent's PATH",
                path.display()
            ));
        }
        Err(error) => return Err(format!("{}: {error}", path.display())),
    }
    Ok(Some(credentials))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_login_is_read_by_registry() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        assert_eq!(read(&path, "r.example:5000"), Ok(None));
        // ada:secret
        let text = r#"{"auths":{"r.example:5000":{"auth":"YWRhOnNlY3JldA=="}}}"#;
        fs::write(&path, text).unwrap();
        let found = read(&path, "r.example:5000").unwrap().unwrap();
        assert_eq!(found.username.as_deref(), Some("ada"));
        assert_eq!(found.password.as_deref(), Some("secret"));
        assert_eq!(read(&path, "other.example"), Ok(None));
        fs::write(&path, "no json").unwrap();
        assert!(
            read(&path, "r.example:5000")
                .unwrap_err()
                .contains("config.json")
        );
        let text = r#"{"credHelpers":{"r.example:5000":"no-such-helper"}}"#;
        fs::write(&path, text).unwrap();
        assert!(read(&path, "r.example:5000").is_err());
    }
}
