//! What the tests of the docker driver share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::spec::{ImageSpec, LogSpec, Network, Pull, Resources};
use loom_schemas::units::{Bytes, MilliCores};
use loom_task::driver::docker::{DockerDriver, DockerOptions};
use loom_task::driver::{Driver, DriverError, Ended, Started};
use loom_task::launch::{Container, Launch, Word};
use loom_task::output::OutputReader;
use loom_tests::docker::{IMAGE, is_there, remove_labelled};
use tempfile::TempDir;
use uuid::Uuid;

/// How long a test waits for what must happen.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// A driver of a cluster of its own; its containers are removed with it.
pub(super) struct Rig {
    pub(super) driver: DockerDriver,
    pub(super) cluster: String,
    pub(super) directory: TempDir,
    socket: Option<PathBuf>,
}

impl Rig {
    /// None where there is no engine.
    pub(super) fn new() -> Option<Self> {
        is_there().then(|| Self::at(None))
    }

    pub(super) fn at(socket: Option<&Path>) -> Self {
        Self::with(socket, &Uuid::now_v7().to_string())
    }

    /// Another one of a cluster, whose first one removes its containers.
    pub(super) fn of_cluster(socket: &Path, cluster: &str) -> Self {
        Self::with(Some(socket), cluster)
    }

    fn with(socket: Option<&Path>, cluster: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let socket = socket.map(Path::to_path_buf);
        let driver = driver(directory.path(), cluster, socket.as_deref());
        Self {
            driver,
            cluster: cluster.to_owned(),
            directory,
            socket,
        }
    }

    /// What the next agent has: a driver that knows only what is on disk and in the engine.
    pub(super) fn next_agent(&mut self) {
        self.driver = driver(self.directory.path(), &self.cluster, self.socket.as_deref());
    }

    pub(super) async fn start(&self, launch: &Launch) -> Started {
        self.driver
            .prepare(launch.clone(), Box::new(drop))
            .await
            .unwrap();
        self.driver.start(launch.clone()).await.unwrap()
    }

    pub(super) async fn run(&self, launch: &Launch) -> Ended {
        self.start(launch).await;
        self.end(launch.run).await
    }

    pub(super) async fn end(&self, run: RunId) -> Ended {
        let ended = tokio::time::timeout(PATIENCE, self.driver.wait(run)).await;
        ended.expect("the end").unwrap()
    }

    /// Why it was refused, and whether for good.
    pub(super) async fn refusal(&self, launch: &Launch) -> (bool, String) {
        let prepared = self.driver.prepare(launch.clone(), Box::new(drop)).await;
        let error = match prepared {
            Err(error) => error,
            Ok(()) => self.driver.start(launch.clone()).await.unwrap_err(),
        };
        match error {
            DriverError::Rejected(text) => (true, text),
            DriverError::Unavailable(text) => (false, text),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn directory_of(&self, run: RunId) -> PathBuf {
        let containers = self.directory.path().join("containers");
        containers.join(run.to_string())
    }

    /// Everything it wrote, after its end.
    pub(super) async fn text(&self, run: RunId) -> Vec<String> {
        let mut reader = OutputReader::open(&self.directory_of(run), 0).unwrap();
        let mut all = Vec::new();
        let read = async {
            while let Some(lines) = reader.next_batch().await {
                all.extend(lines.into_iter().map(|line| line.text));
            }
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("the end of the output");
        all
    }

    /// What it wrote so far.
    pub(super) fn so_far(&self, run: RunId) -> Vec<String> {
        let lines = loom_task::output::tail(&self.directory_of(run), 10_000);
        lines
            .unwrap_or_default()
            .into_iter()
            .map(|line| line.text)
            .collect()
    }

    pub(super) async fn until_said(&self, run: RunId, wanted: &str) {
        until(wanted, || {
            self.so_far(run).iter().any(|line| line == wanted)
        })
        .await;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.socket.is_none() {
            remove_labelled(&format!("loom.cluster={}", self.cluster));
        }
    }
}

fn driver(directory: &Path, cluster: &str, socket: Option<&Path>) -> DockerDriver {
    let mut options = DockerOptions::new(directory, "node-1");
    if let Some(socket) = socket {
        options.socket = socket.into();
    }
    DockerDriver::new(options, Some(cluster.to_owned())).unwrap()
}

pub(super) fn launch(image: &str, argv: &[&str]) -> Launch {
    let word = |word: &&str| Word::Text((*word).to_owned());
    Launch {
        run: RunId(Uuid::now_v7()),
        slot: Slot::new(Name::new("web").unwrap(), Name::main(), 0),
        argv: Vec::new(),
        needs: Vec::new(),
        env: BTreeMap::new(),
        container: Some(Container {
            image: ImageSpec {
                name: image.to_owned(),
                pull: Pull::Missing,
            },
            entrypoint: (!argv.is_empty()).then(|| argv.iter().map(word).collect()),
            network: Network::None,
            ports: Vec::new(),
            gpus: Vec::new(),
        }),
        files: Vec::new(),
        workdir: None,
        user: None,
        resources: Resources {
            cpu: MilliCores(100),
            cpu_limit: None,
            memory: Bytes::mib(32),
            disk: Bytes(0),
            disk_rate: None,
            pids: Some(64),
            gpus: None,
        },
        logs: LogSpec {
            max_size: Bytes::mib(10),
            keep: 5,
            ship: true,
            to: None,
        },
        result: false,
        filled: BTreeMap::new(),
        sim: None,
    }
}

/// A shell script in the image of the tests, without a network.
pub(super) fn sh(script: &str) -> Launch {
    launch(IMAGE, &["sh", "-c", script])
}

/// Waits for a condition.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
