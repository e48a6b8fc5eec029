//! When the server is ready, and on which ports.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::child::{Child, last_words};
use super::secrets::write_private;
use super::{ServerError, config};

/// How often it is looked whether the server is ready: its own start takes about 10 ms.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What the server listens on.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) clients: u16,
    pub(super) monitoring: SocketAddr,
}

/// The server's own file: where it listens, as URLs.
#[derive(Deserialize)]
struct PortsFile {
    nats: Vec<String>,
    monitoring: Vec<String>,
}

/// Removes what a server that was killed left: its ports file, and its log of the last time.
pub(super) fn sweep(dir: &Path) {
    for path in files(dir, ".ports") {
        // One that stays is told from the new one by its process id.
        let _ = std::fs::remove_file(path);
    }
    let log = config::log_path(dir);
    // Kept for one more time, so that what it says is about this start.
    let _ = std::fs::rename(&log, log.with_extension("log.last"));
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}

fn port_path(dir: &Path) -> PathBuf {
    dir.join("port")
}

/// The port to listen on: as told, else the one of the last time if it is free, else any (0).
pub(super) fn choose_port(listen: SocketAddr, dir: &Path) -> Result<u16, ServerError> {
    if listen.port() != 0 {
        return match TcpListener::bind(listen) {
            Ok(_) => Ok(listen.port()),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                Err(ServerError::PortInUse { address: listen })
            }
            Err(source) => Err(ServerError::Listen {
                address: listen,
                source,
            }),
        };
    }
    let text = std::fs::read_to_string(port_path(dir)).unwrap_or_default();
    let remembered: u16 = text.trim().parse().unwrap_or(0);
    let free = TcpListener::bind(SocketAddr::new(listen.ip(), remembered)).is_ok();
    Ok(if free { remembered } else { 0 })
}

/// Notes the port for the next time.
pub(super) fn remember_port(dir: &Path, port: u16) -> Result<(), ServerError> {
    write_private(&port_path(dir), format!("{port}\n").as_bytes())
}

/// Waits until the server listens and says that it is healthy.
pub(super) async fn wait(
    child: &Child,
    dir: &Path,
    patience: Duration,
) -> Result<Ports, ServerError> {
    let begun = Instant::now();
    let ending = format!("_{}.ports", child.pid());
    loop {
        let listening = files(dir, &ending)
            .first()
            .and_then(|path| read_ports(path));
        if let Some(ports) = listening
            && is_healthy(ports.monitoring).await
        {
            return Ok(ports);
        }
        if child.how_ended().is_some() {
            return Err(ServerError::Ended {
                said: last_words(dir),
                log: config::log_path(dir),
            });
        }
        if begun.elapsed() > patience {
            return Err(ServerError::NotReady {
                waited: patience,
                said: last_words(dir),
                log: config::log_path(dir),
            });
        }
        sleep(LOOK_EVERY).await;
    }
}

/// None while it is not written, or only half.
fn read_ports(path: &Path) -> Option<Ports> {
    let file: PortsFile = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let monitoring = file.monitoring.first()?.strip_prefix("http://")?;
    Some(Ports {
        clients: file.nats.first()?.rsplit(':').next()?.parse().ok()?,
        monitoring: monitoring.parse().ok()?,
    })
}

async fn is_healthy(monitoring: SocketAddr) -> bool {
    let answer = ask(monitoring, "/healthz?js-enabled-only=true").await;
    answer.is_some_and(|answer| answer.starts_with("HTTP/1.0 200"))
}

/// Why a stream cannot be written, in the server's words; none if all can, or it does not say.
pub(super) async fn write_error(monitoring: SocketAddr) -> Option<String> {
    write_error_in(&ask(monitoring, "/healthz").await?)
}

/// `JetStream stream 'A > S' write error: write /a/b/1.blk: no space left on device`
fn write_error_in(answer: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Health {
        #[serde(default)]
        error: String,
    }
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let health: Health = serde_json::from_str(body).ok()?;
    let (_, error) = health.error.split_once(" write error: ")?;
    let why = error.rsplit(": ").next()?;
    Some(crate::header::one_line(why))
}

async fn ask(monitoring: SocketAddr, path: &str) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(monitoring).await?;
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    timeout(Duration::from_secs(1), ask).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = choose_port(address, dir.path()).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn any_port_is_the_one_of_the_last_time_while_that_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        assert_eq!(choose_port(any, dir.path()).unwrap(), 0);
        let taken = TcpListener::bind(any).unwrap();
        let port = taken.local_addr().unwrap().port();
        remember_port(dir.path(), port).unwrap();
        assert_eq!(choose_port(any, dir.path()).unwrap(), 0);
        drop(taken);
        assert_eq!(choose_port(any, dir.path()).unwrap(), port);
    }

    #[test]
    fn a_stream_that_cannot_be_written_says_why() {
        let said = |body: &str| write_error_in(&format!("HTTP/1.0 503 X\r\nA: b\r\n\r\n{body}"));
        let full = r#"{"status":"unavailable","error":"JetStream stream 'ORCH \u003e ORCH_LOG' write error: write /tmp/x: y/1.blk: no space left on device"}"#;
        assert_eq!(said(full).as_deref(), Some("no space left on device"));
        for other in [r#"{"status":"ok"}"#, r#"{"error":"no leader"}"#, "{", ""] {
            assert_eq!(said(other), None, "{other}");
        }
    }

    #[test]
    fn half_a_ports_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nats-server_7.ports");
        std::fs::write(&path, r#"{"nats":["nats://127.0.0.1:1"#).unwrap();
        assert!(read_ports(&path).is_none());
        let whole = r#"{"nats":["nats://[::1]:4222"],"monitoring":["http://127.0.0.1:8"]}"#;
        std::fs::write(&path, whole).unwrap();
        let ports = read_ports(&path).unwrap();
        assert_eq!((ports.clients, ports.monitoring.port()), (4222, 8));
    }
}
