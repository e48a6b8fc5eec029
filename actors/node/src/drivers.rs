//! What runs launches on a node, and which of it a task takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use loom_schemas::ids::RunId;
use loom_schemas::record::NodeInfo;
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::DriverKind;
use loom_task::driver::docker::{CONTAINERS, DockerDriver, DockerOptions, EngineFacts};
use loom_task::driver::process::{ProcessDriver, ProcessOptions};
use loom_task::driver::sim::SimDriver;
use loom_task::driver::{Driver, DriverError};
use tokio::sync::Semaphore;

use crate::options::NodeOptions;
use crate::refusal::Refusal;

const NO_PROCESSES: &str =
    "this node runs no processes: start it with `--driver process` and `--allow-process`";

const NO_DOCKER: &str = "this node runs no containers: start it without `--driver`, or with `--driver docker`, and a \
                         Docker Engine beside it";

const NO_SIM: &str = "this node has no `sim` driver: start it with `--driver sim`";

/// Whether containers survive a restart of their engine.
const LIVE_RESTORE: &str = "docker.live-restore";

/// Where the process driver keeps its runs in the data directory.
pub(crate) const RUNS: &str = "runs";

/// The drivers of a node, and how many runs each starts at once.
pub(crate) struct Drivers {
    process: Arc<dyn Driver>,
    /// More starts than this at once only add latency: a start is mostly processor time.
    process_starts: Arc<Semaphore>,
    docker: Arc<dyn Driver>,
    /// The same driver, where there is one, to be told of the cluster and asked for its engine.
    engine: Option<DockerDriver>,
    container_starts: Arc<Semaphore>,
    sim: Arc<dyn Driver>,
    /// Those offered whatever is found.
    kinds: BTreeSet<DriverKind>,
    /// Whether containers are offered: asked for, or as soon as an engine answers.
    containers: bool,
}

impl Drivers {
    /// The drivers that the options ask for and allow; fails where one cannot be set up. `cluster`
    /// is the one the node belongs to, if it does yet.
    pub(crate) fn new(options: &NodeOptions, cluster: Option<&str>) -> Result<Self, DriverError> {
        let mut kinds: BTreeSet<DriverKind> = options.drivers.iter().copied().collect();
        if !options.allow_process {
            kinds.remove(&DriverKind::Process);
        }
        kinds.remove(&DriverKind::Unknown);
        let offered = kinds.contains(&DriverKind::Process);
        // Runs of an agent that offered processes are cared for by one that does not.
        let inner = if offered || options.data_dir.join(RUNS).exists() {
            let mut setup = ProcessOptions::new(&options.data_dir);
            if let Some(shim) = &options.shim {
                setup.shim = Some(shim.clone());
            }
            let driver: Arc<dyn Driver> = Arc::new(ProcessDriver::new(setup)?);
            Some(driver)
        } else {
            None
        };
        let process: Arc<dyn Driver> = match inner {
            Some(driver) if offered => driver,
            inner => {
                let kind = DriverKind::Process;
                Arc::new(Refusal {
                    kind,
                    reason: NO_PROCESSES,
                    inner,
                })
            }
        };
        let engine = engine(options, &kinds, cluster)?;
        let containers = options.find_docker || kinds.contains(&DriverKind::Docker);
        let docker: Arc<dyn Driver> = match &engine {
            Some(driver) if containers => Arc::new(driver.clone()),
            driver => Arc::new(Refusal {
                kind: DriverKind::Docker,
                reason: NO_DOCKER,
                inner: driver
                    .clone()
                    .map(|driver| Arc::new(driver) as Arc<dyn Driver>),
            }),
        };
        let sim: Arc<dyn Driver> = if kinds.contains(&DriverKind::Sim) {
            Arc::new(SimDriver::new())
        } else {
            Arc::new(Refusal {
                kind: DriverKind::Sim,
                reason: NO_SIM,
                inner: None,
            })
        };
        let starts = options.limits.starts.unwrap_or_else(starts_at_once);
        let starts = || Arc::new(Semaphore::new(starts.max(1)));
        Ok(Self {
            process,
            process_starts: starts(),
            docker,
            engine,
            container_starts: starts(),
            sim,
            kinds,
            containers,
        })
    }

    /// Which kinds are offered, whatever is found.
    pub(crate) fn kinds(&self) -> Vec<DriverKind> {
        self.kinds.iter().copied().collect()
    }

    /// Whether it only plays: nothing of the host is used.
    pub(crate) fn only_plays(&self) -> bool {
        !self.containers && self.kinds.iter().all(|kind| *kind == DriverKind::Sim)
    }

    /// Says which cluster the node belongs to, by which it knows its containers.
    pub(crate) fn belong_to(&self, cluster: &str) {
        if let Some(engine) = &self.engine {
            engine.belong_to(cluster);
        }
    }

    /// What the engine says of itself now, by the names it has in constraints; none if it is not
    /// there, or not asked for.
    pub(crate) async fn engine_attributes(&self) -> Option<BTreeMap<String, String>> {
        let engine = self.engine.as_ref().filter(|_| self.containers)?;
        match engine.facts().await {
            Ok(facts) => Some(attributes(facts)),
            Err(error) if self.kinds.contains(&DriverKind::Docker) => {
                tracing::warn!(%error, "containers cannot run yet");
                None
            }
            Err(_) => None,
        }
    }

    /// The driver whose engine is to be watched: where containers are offered.
    pub(crate) fn watched_engine(&self) -> Option<DockerDriver> {
        self.engine.clone().filter(|_| self.containers)
    }

    /// Containers that belong to this node, also those of which its files know nothing.
    pub(crate) async fn containers(&self) -> Vec<RunId> {
        list(&self.docker, &self.kinds).await
    }

    /// What runs a task, and what limits its starts.
    pub(crate) fn of(&self, task: &TaskSpec) -> (Arc<dyn Driver>, Option<Arc<Semaphore>>) {
        let starts = |starts: &Arc<Semaphore>| Some(Arc::clone(starts));
        match task.driver() {
            DriverKind::Sim => (Arc::clone(&self.sim), None),
            DriverKind::Docker => (Arc::clone(&self.docker), starts(&self.container_starts)),
            DriverKind::Process | DriverKind::Unknown => {
                (Arc::clone(&self.process), starts(&self.process_starts))
            }
        }
    }

    /// Every driver; those not offered have nothing.
    pub(crate) fn all(&self) -> [&Arc<dyn Driver>; 3] {
        [&self.process, &self.docker, &self.sim]
    }

    /// Every run of which a driver still has something.
    pub(crate) async fn inventory(&self) -> Vec<RunId> {
        let mut runs = Vec::new();
        for driver in self.all() {
            runs.extend(list(driver, &self.kinds).await);
        }
        runs
    }
}

/// What an engine says of itself, by the names it has in constraints.
pub(crate) fn attributes(facts: EngineFacts) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("docker.version".to_owned(), facts.version),
        ("docker.storage".to_owned(), facts.storage),
        (LIVE_RESTORE.to_owned(), facts.live_restore.to_string()),
    ])
}

/// Has a node say that it runs containers, and on what engine; true if it did not say so before.
pub(crate) fn offer_containers(info: &mut NodeInfo, attributes: BTreeMap<String, String>) -> bool {
    let before = info.clone();
    if !info.drivers.contains(&DriverKind::Docker) {
        info.drivers.push(DriverKind::Docker);
        info.drivers.sort_unstable();
    }
    info.attributes.extend(attributes);
    let is_new = *info != before;
    if is_new && info.attributes.get(LIVE_RESTORE).map(String::as_str) != Some("true") {
        tracing::warn!(
            "the Docker Engine runs without live-restore: its restart ends every container; set \
             `\"live-restore\": true` in /etc/docker/daemon.json"
        );
    }
    is_new
}

/// Whether a Docker Engine answers on this host.
pub async fn docker_answers() -> bool {
    let usual = DockerOptions::new("", "");
    loom_task::driver::docker::answers(&usual.socket).await
}

/// Every run of which a driver still has something; `offered` are those that should be there.
async fn list(driver: &Arc<dyn Driver>, offered: &BTreeSet<DriverKind>) -> Vec<RunId> {
    driver.inventory().await.unwrap_or_else(|error| {
        let kind = driver.kind();
        if offered.contains(&kind) {
            tracing::warn!(driver = %kind, %error, "cannot list its runs");
        } else {
            // An engine that nobody asked for need not be there.
            tracing::debug!(driver = %kind, %error, "cannot list its runs");
        }
        Vec::new()
    })
}

/// The driver of containers where it is asked for, or where an earlier agent had runs of it.
fn engine(
    options: &NodeOptions,
    kinds: &BTreeSet<DriverKind>,
    cluster: Option<&str>,
) -> Result<Option<DockerDriver>, DriverError> {
    let earlier = || {
        let runs = std::fs::read_dir(options.data_dir.join(CONTAINERS));
        runs.is_ok_and(|mut runs| runs.next().is_some())
    };
    if !options.find_docker && !kinds.contains(&DriverKind::Docker) && !earlier() {
        return Ok(None);
    }
    let mut setup = DockerOptions::new(&options.data_dir, options.name.as_str());
    if let Some(socket) = &options.docker_socket {
        setup.socket.clone_from(socket);
    }
    DockerDriver::new(setup, cluster.map(str::to_owned)).map(Some)
}

fn starts_at_once() -> usize {
    2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
