//! A bus address taken apart: where, as whom, and whether that may be risked.

use std::net::IpAddr;
use std::time::Duration;

use async_nats::{ConnectErrorKind, ServerAddr, rustls};
use rand::seq::SliceRandom;
use tokio::time::timeout;

use super::{ConnectError, ConnectOptions, Login};

/// How long the look-up of a server's name may take before it is taken to be elsewhere.
const LOOK_UP: Duration = Duration::from_millis(500);

/// Where to connect, and as whom.
pub(super) struct Target {
    pub(super) servers: Vec<String>,
    pub(super) login: Login,
    /// Whether TLS is demanded, whatever the server says.
    pub(super) encrypted: bool,
    /// For messages: without credentials.
    pub(super) shown: String,
}

impl Target {
    /// Takes credentials out of the URL, so that nothing logs them, and refuses what would show
    /// them, or the bus, to others.
    pub(super) fn read(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let mut servers = Vec::new();
        let mut login = options.login.clone();
        for part in options.url.split(',') {
            let (scheme, user, address) = parts(part);
            if let (Some(user), Login::None) = (user, &login) {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                login = Login::User {
                    name: name.to_owned(),
                    password: password.to_owned(),
                };
            }
            servers.push(format!("{scheme}://{address}"));
        }
        let shown = servers.join(",");
        let addresses = servers
            .iter()
            .map(|server| address(server, &shown))
            .collect::<Result<Vec<_>, _>>()?;
        let encrypted = options.tls.is_named() || addresses.iter().any(ServerAddr::tls_required);
        let target = Self {
            servers,
            login,
            encrypted,
            shown,
        };
        if !options.insecure && !addresses.iter().all(is_loopback) {
            target.check_exposure(options.tls.cert.is_some())?;
        }
        Ok(target)
    }

    /// Off this machine neither the bus nor a password is shown to everyone.
    fn check_exposure(&self, certificate: bool) -> Result<(), ConnectError> {
        let url = self.shown.clone();
        if !self.encrypted {
            return Err(ConnectError::NoTls { url });
        }
        if matches!(self.login, Login::None) && !certificate {
            return Err(ConnectError::NoCredentials { url });
        }
        Ok(())
    }

    /// The servers as the client takes them. Where TLS is demanded it is so of all of them, and
    /// then they have no scheme of their own: the ones a server tells of have none either, and
    /// would else be taken for others.
    pub(super) fn addresses(&self) -> Vec<ServerAddr> {
        let plain = |server: &String| match server.strip_prefix("tls://") {
            Some(address) if self.encrypted => format!("nats://{address}"),
            _ => server.clone(),
        };
        // They could be read before.
        let servers = self.servers.iter().map(plain);
        servers.filter_map(|server| server.parse().ok()).collect()
    }

    pub(super) fn failed(&self, error: &async_nats::ConnectError, limit: Duration) -> ConnectError {
        let url = self.shown.clone();
        if let Some(reason) = tls_reason(error) {
            return ConnectError::Tls { url, reason };
        }
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                let login = match &self.login {
                    Login::None => "none given".to_owned(),
                    Login::User { name, .. } => format!("user {name}"),
                    Login::CredentialsFile(path) => path.display().to_string(),
                };
                ConnectError::Denied { url, login }
            }
            ConnectErrorKind::TimedOut => ConnectError::NoAnswer { url, waited: limit },
            ConnectErrorKind::Tls => ConnectError::Tls {
                url,
                reason: root(error),
            },
            ConnectErrorKind::ServerParse
            | ConnectErrorKind::Dns
            | ConnectErrorKind::Io
            | ConnectErrorKind::MaxReconnects => ConnectError::Unreachable {
                url,
                reason: root(error),
            },
        }
    }
}

/// Scheme, user and password, host and port of one server.
fn parts(server: &str) -> (&str, Option<&str>, &str) {
    let server = server.trim();
    let (scheme, rest) = server.split_once("://").unwrap_or(("nats", server));
    match rest.rsplit_once('@') {
        Some((user, address)) => (scheme, Some(user), address),
        None => (scheme, None, rest),
    }
}

/// A URL as it may be shown.
pub(super) fn without_credentials(url: &str) -> String {
    let servers = url.split(',').map(|server| {
        let (scheme, _, address) = parts(server);
        format!("{scheme}://{address}")
    });
    servers.collect::<Vec<_>>().join(",")
}

fn address(server: &str, shown: &str) -> Result<ServerAddr, ConnectError> {
    let wrong = |source| ConnectError::Url {
        url: shown.to_owned(),
        source,
    };
    let address: ServerAddr = server.parse().map_err(wrong)?;
    if address.host().is_empty() {
        return Err(wrong(std::io::Error::other("no host")));
    }
    Ok(address)
}

/// Whether it can only be this machine.
fn is_loopback(address: &ServerAddr) -> bool {
    let host = address.host().trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Puts servers on this very host before the others, and says whether there are both.
///
/// An agent that uses the server beside it is cut off together with it, or not at all.
pub(super) async fn nearest_first(servers: Vec<ServerAddr>) -> (Vec<ServerAddr>, bool) {
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for server in servers {
        if is_on_this_host(&server).await {
            near.push(server);
        } else {
            far.push(server);
        }
    }
    let ordered = !near.is_empty() && !far.is_empty();
    far.shuffle(&mut rand::rng());
    near.append(&mut far);
    (near, ordered)
}

/// Whether its address is one of ours: only those can be bound.
async fn is_on_this_host(server: &ServerAddr) -> bool {
    let host = server.host().trim_matches(['[', ']']).to_owned();
    let found = timeout(LOOK_UP, tokio::net::lookup_host((host, 0))).await;
    let Ok(Ok(addresses)) = found else {
        return false;
    };
    for address in addresses {
        if tokio::net::UdpSocket::bind(address).await.is_ok() {
            return true;
        }
    }
    false
}

/// What TLS itself did not like, in words for whoever has to mend it.
fn tls_reason(error: &async_nats::ConnectError) -> Option<String> {
    let io: &std::io::Error = std::error::Error::source(error)?.downcast_ref()?;
    let tls: &rustls::Error = io.get_ref()?.downcast_ref()?;
    Some(match tls {
        rustls::Error::InvalidMessage(_) => "the server does not speak it there".to_owned(),
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            "the server's certificate is by an unknown authority; see --tls-ca".to_owned()
        }
        rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired) => {
            "the server wants a client certificate; see --tls-cert and --tls-key".to_owned()
        }
        other => other.to_string(),
    })
}

/// The innermost cause: what the operating system said.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Tls;

    fn target(url: &str) -> Result<Target, ConnectError> {
        Target::read(&ConnectOptions {
            url: url.to_owned(),
            ..ConnectOptions::default()
        })
    }

    #[test]
    fn credentials_leave_the_url() {
        let target = target("nats://ada:s3cret@localhost:4222, 127.0.0.2:4223").unwrap();
        assert_eq!(target.shown, "nats://localhost:4222,nats://127.0.0.2:4223");
        assert_eq!(
            without_credentials("ada:pw@localhost:4222, b"),
            "nats://localhost:4222,nats://b"
        );
        assert!(matches!(
            &target.login,
            Login::User { name, password } if name == "ada" && password == "s3cret"
        ));
        assert!(!format!("{:?}", target.login).contains("s3cret"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in [
            "",
            "http://a:1",
            "nats://a:port",
            "a:4222,,b:4222",
            "nats://:4222",
        ] {
            assert!(
                matches!(target(url), Err(ConnectError::Url { .. })),
                "{url:?}"
            );
        }
    }

    #[test]
    fn off_this_machine_there_is_tls_and_a_login_or_no_connection() {
        for url in [
            "nats://[::1]:4222",
            "LOCALHOST",
            "127.1.2.3",
            "tls://127.0.0.1",
        ] {
            assert!(target(url).is_ok(), "{url}");
        }
        let away = [
            "10.0.0.7",
            "nats://bus.example:4222",
            "127.0.0.1,10.0.0.7",
            "[fe80::1]:4222",
        ];
        for url in away {
            assert!(
                matches!(target(url), Err(ConnectError::NoTls { .. })),
                "{url}"
            );
            let mut options = ConnectOptions {
                url: url.to_owned(),
                insecure: true,
                ..ConnectOptions::default()
            };
            assert!(!Target::read(&options).unwrap().encrypted, "{url}");
            options.insecure = false;
            options.tls.ca = Some("ca.crt".into());
            let refused = Target::read(&options);
            assert!(
                matches!(refused, Err(ConnectError::NoCredentials { .. })),
                "{url}"
            );
            options.login = Login::CredentialsFile("ada.creds".into());
            assert!(Target::read(&options).unwrap().encrypted, "{url}");
        }
        assert!(target("tls://ada:pw@10.0.0.7").unwrap().encrypted);
        // One password goes to all servers, so all of them are spoken to in TLS.
        assert!(
            target("tls://ada:pw@10.0.0.7,nats://10.0.0.8")
                .unwrap()
                .encrypted
        );
        let certificate = ConnectOptions {
            url: "10.0.0.7".to_owned(),
            tls: Tls {
                cert: Some("ada.crt".into()),
                key: Some("ada.key".into()),
                ca: None,
            },
            ..ConnectOptions::default()
        };
        assert!(Target::read(&certificate).unwrap().encrypted);
    }

    #[tokio::test]
    async fn a_server_on_this_host_comes_first() {
        let options = ConnectOptions {
            url: "tls://198.51.100.1,tls://127.0.0.1:4223,tls://198.51.100.2:4224".to_owned(),
            login: Login::CredentialsFile("ada.creds".into()),
            ..ConnectOptions::default()
        };
        let target = Target::read(&options).unwrap();
        let (servers, ordered) = nearest_first(target.addresses()).await;
        assert!(ordered);
        assert_eq!((servers.len(), servers[0].port()), (3, 4223));
        assert!(!servers.iter().any(ServerAddr::tls_required));
        let far = vec!["198.51.100.1".parse().unwrap()];
        assert!(!nearest_first(far).await.1);
    }
}
