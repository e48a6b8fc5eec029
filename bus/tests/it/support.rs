//! Real nats-servers for the tests: one alone, or three as a cluster, all on loopback.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loom_bus::connection::{Bus, ConnectOptions};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The nats-server under test: `LOOM_NATS_SERVER`, else the one in the checkout.
pub fn binary() -> PathBuf {
    loom_bus::server::find_binary(None).expect("scripts/nats-server puts it into .loom/bin")
}

/// A port nobody listens on at this moment.
///
/// It lies below those that the kernel gives to outgoing connections, so nobody gets it by chance.
pub fn free_port() -> u16 {
    loop {
        let port = 10_000 + rand::random::<u16>() % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Polls a condition until it holds; panics with `what` after [`PATIENCE`].
pub async fn until<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One nats-server process with its own store directory; killed when dropped.
pub struct Server {
    child: Option<Child>,
    config: PathBuf,
    /// Where clients connect.
    pub url: String,
    directory: PathBuf,
}

impl Server {
    /// Starts a server alone: JetStream on, every write fsynced, one account for all.
    pub async fn start(directory: &Path) -> Self {
        Self::start_with(directory, "").await
    }

    /// The same with more lines of configuration.
    pub async fn start_with(directory: &Path, more: &str) -> Self {
        let port = free_port();
        let server = Self::configured(directory, port, "alone", more);
        server.ready().await
    }

    fn configured(directory: &Path, port: u16, name: &str, more: &str) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let config = directory.join("server.conf");
        let store = directory.join("store");
        let jetstream = if more.contains("jetstream") {
            String::new()
        } else {
            format!(
                "jetstream {{ store_dir: \"{}\", sync_interval: always, \
                 limits {{ default_max_consumers: 20000 }} }}\n",
                store.display()
            )
        };
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nserver_name: {name:?}\nmax_payload: 8MB\n\
             ping_interval: \"10s\"\n{jetstream}{more}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut server = Self {
            child: None,
            config,
            url: format!("nats://127.0.0.1:{port}"),
            directory: directory.to_owned(),
        };
        server.spawn();
        server
    }

    fn spawn(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("server.log"))
            .unwrap();
        let child = Command::new(binary())
            .arg("-c")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    async fn ready(self) -> Self {
        let address = self.address().to_owned();
        until("the server listens", || {
            let address = address.clone();
            async move { tokio::net::TcpStream::connect(address).await.is_ok() }
        })
        .await;
        self
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("nats://")
    }

    /// Where the server keeps its streams.
    pub fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Ends it with `kill -9` and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again in place, for a server that was killed; waits until it listens.
    pub async fn revive(&mut self) {
        self.kill();
        self.spawn();
        let address = self.address().to_owned();
        until("the server listens again", || {
            let address = address.clone();
            async move { tokio::net::TcpStream::connect(address).await.is_ok() }
        })
        .await;
    }

    /// Stops it where it stands (`kill -STOP`).
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on (`kill -CONT`).
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// A connection to it that wants JetStream.
    pub async fn connect(&self) -> Bus {
        connect(&self.url).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection to a bus that wants JetStream.
pub async fn connect(url: &str) -> Bus {
    let options = ConnectOptions {
        url: url.to_owned(),
        name: "test".to_owned(),
        require_jetstream: true,
        ..ConnectOptions::default()
    };
    let begun = Instant::now();
    loop {
        match Bus::connect(options.clone()).await {
            Ok(bus) => return bus,
            Err(error) if begun.elapsed() > PATIENCE => panic!("no connection: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Three servers as one cluster, JetStream replicated.
pub struct Cluster {
    /// The servers; kill and revive them one by one.
    pub servers: Vec<Server>,
    /// All of them in one URL.
    pub url: String,
}

impl Cluster {
    /// Starts three servers and waits until JetStream has a leader and all three take part.
    pub async fn start(directory: &Path) -> Self {
        let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let list: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        let mut servers = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let name = format!("s{index}");
            let more = format!(
                "cluster {{ name: loom, listen: \"127.0.0.1:{route}\", routes: [{}] }}",
                list.join(", ")
            );
            let own = directory.join(&name);
            servers.push(Server::configured(&own, free_port(), &name, &more));
        }
        let urls: Vec<&str> = servers.iter().map(|s| s.url.as_str()).collect();
        let url = urls.join(",");
        let mut ready = Vec::new();
        for server in servers {
            ready.push(server.ready().await);
        }
        let cluster = Self {
            servers: ready,
            url,
        };
        drop(connect(&cluster.url).await);
        cluster
    }
}
