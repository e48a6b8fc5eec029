//! A bus, a leader and nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loom_bus::connection::{Bus, ConnectOptions, Login};
use loom_bus::server::{Embedded, EmbeddedOptions};
use loom_node::{BusAccess, NodeHandle, NodeOptions, Timings};
use loom_schemas::ids::RunId;
use loom_schemas::wire::RunReport;
use loom_schemas::words::{DriverKind, RunState};
use tempfile::TempDir;

use crate::leader::{Leader, Said};
use crate::specs::name;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// The agent alone, which is also a shim.
pub const AGENT: &str = env!("CARGO_BIN_EXE_loom-node-agent");

pub struct World {
    pub server: Option<Embedded>,
    pub leader: Leader,
    /// A client as users are.
    pub user: Bus,
    pub directory: TempDir,
    pub connect: ConnectOptions,
}

async fn serve(directory: &Path) -> Embedded {
    let options = EmbeddedOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..EmbeddedOptions::new(directory.join("bus"))
    };
    Embedded::start(options).await.unwrap()
}

impl World {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = serve(directory.path()).await;
        let connect = ConnectOptions {
            url: server.url().to_owned(),
            login: server.orch_login(),
            ..ConnectOptions::default()
        };
        let leader = Leader::start(Bus::connect(connect.clone()).await.unwrap()).await;
        let as_user = ConnectOptions {
            login: server.user_login(),
            ..connect.clone()
        };
        let user = Bus::connect(as_user).await.unwrap();
        Self {
            server: Some(server),
            leader,
            user,
            directory,
            connect,
        }
    }

    pub fn data_dir(&self, node: &str) -> PathBuf {
        self.directory.path().join(node)
    }

    /// A node that plays, and is quick about everything.
    pub fn options(&self, node: &str) -> NodeOptions {
        let bus = BusAccess::Connect(self.connect.clone());
        NodeOptions {
            drivers: vec![DriverKind::Sim, DriverKind::Process],
            labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
            shim: Some(AGENT.into()),
            timings: Timings {
                heartbeat: Duration::from_millis(100),
                call: Duration::from_millis(500),
                max_back_off: Duration::from_millis(200),
                ..Timings::default()
            },
            ..NodeOptions::new(name(node), bus, self.data_dir(node))
        }
    }

    pub async fn node(&self, node: &str) -> NodeHandle {
        self.start(self.options(node)).await
    }

    /// A node with processes.
    pub async fn host(&self, node: &str) -> NodeHandle {
        self.start(NodeOptions {
            allow_process: true,
            ..self.options(node)
        })
        .await
    }

    pub async fn start(&self, options: NodeOptions) -> NodeHandle {
        let node = loom_node::start(options).await.unwrap();
        tokio::time::timeout(PATIENCE, node.ready())
            .await
            .unwrap()
            .unwrap();
        node
    }

    /// Kills the bus as a crash would.
    pub async fn kill_bus(&mut self) {
        let server = self.server.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(server.pid().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        server.died().await;
    }

    /// Starts it again where it was.
    pub async fn restart_bus(&mut self) {
        self.server = Some(serve(self.directory.path()).await);
    }

    /// Waits until something is so of what was said.
    pub async fn until(&self, what: &str, so: impl Fn(&Said) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(&self.leader.said()) {
            let in_time = Instant::now() < deadline;
            assert!(
                in_time,
                "not so in time: {what}; {:#?}",
                self.leader.said().reports
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn until_state(&self, placement: RunId, state: RunState) -> RunReport {
        self.until(&format!("{placement} is {state}"), |said| {
            said.is(placement, state)
        })
        .await;
        self.leader.said().of(placement).unwrap().clone()
    }

    pub fn credentials(&self) -> [String; 3] {
        let Login::User { name, password } = &self.connect.login else {
            unreachable!()
        };
        [self.connect.url.clone(), name.clone(), password.clone()]
    }
}

/// What still runs in the directory of a test that failed is ended with it.
impl Drop for World {
    fn drop(&mut self) {
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let inside = std::fs::read_link(process.path().join("cwd"))
                .is_ok_and(|directory| directory.starts_with(self.directory.path().join("node-1")));
            if let Some(pid) = process
                .file_name()
                .to_str()
                .and_then(|pid| pid.parse().ok())
                && inside
            {
                let pid = nix::unistd::Pid::from_raw(pid);
                // It may have ended since.
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < deadline, "not so in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process is there and not only waiting to be reaped.
pub fn lives(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains("State:") && !status.contains("Z (zombie)")
}
