//! TLS: the files it needs, and when it is demanded.

use std::path::{Path, PathBuf};

use super::target::Target;
use super::{ConnectError, ConnectOptions};

/// Certificates, in PEM files; they are read again whenever the connection is made again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities that may have signed the server's certificate; the system's if none.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, where the server wants one.
    pub cert: Option<PathBuf>,
    /// The key of that.
    pub key: Option<PathBuf>,
}

impl Tls {
    /// Whether TLS is wanted by naming files for it.
    pub fn is_named(&self) -> bool {
        *self != Self::default()
    }
}

/// Says to the client which files to use, and to speak TLS or not at all where it must.
pub(super) async fn apply(
    nats: async_nats::ConnectOptions,
    options: &ConnectOptions,
    target: &Target,
) -> Result<async_nats::ConnectOptions, ConnectError> {
    let tls = &options.tls;
    let mut nats = nats;
    if let Some(ca) = &tls.ca {
        look_into(ca, "-----BEGIN CERTIFICATE-----", "a certificate").await?;
        nats = nats.add_root_certificates(ca.clone());
    }
    match (&tls.cert, &tls.key) {
        (None, None) => {}
        (Some(cert), Some(key)) => {
            look_into(cert, "-----BEGIN CERTIFICATE-----", "a certificate").await?;
            look_into(key, "PRIVATE KEY-----", "a private key").await?;
            nats = nats.add_client_certificate(cert.clone(), key.clone());
        }
        (Some(path), None) | (None, Some(path)) => {
            let reason = "a client certificate needs both --tls-cert and --tls-key".to_owned();
            let path = path.clone();
            return Err(ConnectError::TlsFile { path, reason });
        }
    }
    if target.encrypted {
        // Also for servers heard of later, whose addresses come without a scheme.
        return Ok(nats.require_tls(true));
    }
    // A server may name others, on other machines: nobody has said that these may be used.
    Ok(if options.insecure {
        nats
    } else {
        nats.ignore_discovered_servers()
    })
}

/// A file that is not there or holds something else is named before anything is sent.
async fn look_into(path: &Path, mark: &str, what: &str) -> Result<(), ConnectError> {
    let wrong = |reason: String| ConnectError::TlsFile {
        path: path.to_owned(),
        reason,
    };
    let content = tokio::fs::read(path).await;
    let content = content.map_err(|error| wrong(error.to_string()))?;
    if String::from_utf8_lossy(&content).contains(mark) {
        Ok(())
    } else {
        Err(wrong(format!("there is not {what} in PEM in it")))
    }
}
