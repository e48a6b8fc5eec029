//! The Docker driver: a launch as a container of the Docker Engine. The only room that names bollard.
//!
//! A container is named `loom-<run>` and carries the ids of cluster, node and run as labels; by them
//! the next agent finds what this one started, and nobody else's containers are ever touched. It has
//! no mount of the host: a script is put into it before it starts.
//!
//! | what | by whom |
//! |---|---|
//! | create, start, pause, resume, remove, exec | the engine |
//! | the end | the kernel tells it at once (a pidfd), then an event of the engine with which code |
//! | limits of what runs | the engine, but the rate of disks the kernel |
//! | signals | the kernel, but to what stands still the engine |
//! | usage | the kernel: files of the control groups |
//! | output | the engine's log, copied into files like those of any other run (`logs`) |
//!
//! A run has the directory `<data directory>/containers/<run>` with its output and what is known of
//! its start and end; it stays when the container is removed.

mod create;
mod credentials;
mod end;
mod engine;
mod events;
mod exec;
mod facts;
mod image;
mod logs;
mod record;
mod remove;
mod resize;
mod result;
mod run;
mod start;
mod trouble;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::ListContainersOptions;
use futures::FutureExt;
use futures::future::BoxFuture;
use loom_schemas::ids::RunId;
use loom_schemas::spec::Resources;
use loom_schemas::words::DriverKind;
use nix::sys::signal::Signal;
use tokio::sync::{Semaphore, watch};

pub use self::facts::{EngineFacts, answers, host_engine};

use self::engine::Engine;
use self::run::Run;
use super::usage::Usage;
use super::{Adopted, Driver, DriverError, Ended, ExecOutcome, Started, Tell};
use crate::launch::Launch;
use crate::private::{OWN_DIRECTORY, make_runs};

/// The directory of the runs in the data directory of a node.
pub const CONTAINERS: &str = "containers";

/// Removals at once: they are the engine's work as well, and more of it would only wait.
const REMOVALS: usize = 4;

/// How a [`DockerDriver`] is set up.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// Where the files of runs are kept, in `containers`; one agent at a time.
    pub data_dir: PathBuf,
    /// The node's name, for the label of its containers.
    pub node: String,
    /// Where the engine listens.
    pub socket: PathBuf,
}

impl DockerOptions {
    /// With the engine that `DOCKER_HOST` names, if it is one of this host, else the usual one.
    pub fn new(data_dir: impl Into<PathBuf>, node: impl Into<String>) -> Self {
        let host = std::env::var("DOCKER_HOST").unwrap_or_default();
        let socket = host.strip_prefix("unix://").unwrap_or(engine::SOCKET);
        if !host.is_empty() && !host.starts_with("unix://") {
            // Exits are watched and signals sent by the kernel of this host.
            tracing::warn!("DOCKER_HOST={host} is no engine of this host: {socket} is used");
        }
        Self {
            data_dir: data_dir.into(),
            node: node.into(),
            socket: socket.into(),
        }
    }
}

/// Runs launches as containers.
#[derive(Clone)]
pub struct DockerDriver(Arc<Inner>);

/// Whose containers these are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    cluster: String,
    node: String,
}

/// What all calls share.
struct Inner {
    directory: PathBuf,
    node: String,
    cluster: Mutex<Option<String>>,
    engine: Arc<Engine>,
    runs: Mutex<HashMap<RunId, Arc<Run>>>,
    /// Images of runs that are prepared and not yet started.
    images: Mutex<HashMap<RunId, String>>,
    /// Held by whoever starts, adopts or removes a run.
    claims: Mutex<HashMap<RunId, Arc<tokio::sync::Mutex<()>>>>,
    /// Starts under way.
    starting: watch::Sender<usize>,
    removals: Semaphore,
}

/// Counts a start while it is held.
struct Starting<'a>(&'a Inner);

impl DockerDriver {
    /// Makes the directory for runs; the engine need not be there yet. `cluster` is none until a
    /// leader first spoke to the node, see [`belong_to`](Self::belong_to).
    pub fn new(options: DockerOptions, cluster: Option<String>) -> Result<Self, DriverError> {
        let directory = options.data_dir.join(CONTAINERS);
        let made = make_runs(&directory, OWN_DIRECTORY).and_then(|()| directory.canonicalize());
        let directory = made.map_err(|source| DriverError::Failed {
            context: format!("make the directory {}", directory.display()),
            source,
        })?;
        Ok(Self(Arc::new(Inner {
            directory,
            node: options.node,
            cluster: Mutex::new(cluster),
            engine: Engine::new(options.socket),
            runs: Mutex::default(),
            images: Mutex::default(),
            claims: Mutex::default(),
            starting: watch::Sender::new(0),
            removals: Semaphore::new(REMOVALS),
        })))
    }

    /// Says which cluster the node belongs to: before that nothing is started, and nothing found
    /// that an earlier agent started.
    pub fn belong_to(&self, cluster: &str) {
        lock(&self.0.cluster).get_or_insert_with(|| cluster.to_owned());
    }

    /// What the engine says of itself; an error in words if it is not there.
    pub async fn facts(&self) -> Result<EngineFacts, DriverError> {
        facts::facts(&self.0.engine).await
    }

    /// Calls back with what the engine says of itself, as soon as it answers and whenever it is found
    /// again; until that returns false.
    pub async fn watch(&self, mut found: impl FnMut(EngineFacts) -> bool) {
        let mut finds = self.0.engine.finds();
        self.0.engine.watch();
        // It cannot fail: the sender lives as long as `self`.
        while finds.changed().await.is_ok() {
            while finds.has_changed().is_ok_and(|again| !again) {
                match self.facts().await {
                    Ok(facts) => {
                        if !found(facts) {
                            return;
                        }
                        break;
                    }
                    Err(_) => tokio::time::sleep(engine::LOOK).await,
                }
            }
        }
    }

    /// The run, adopted if an earlier agent started it.
    async fn find(&self, id: RunId) -> Result<Arc<Run>, DriverError> {
        if let Some(run) = self.0.run(id) {
            return Ok(run);
        }
        match self.take_over(id).await? {
            (_, Some(run)) => Ok(run),
            (Adopted::Ended { .. }, None) => Err(DriverError::Ended(id)),
            _ => Err(DriverError::NotFound(id)),
        }
    }

    async fn take_over(&self, id: RunId) -> Result<(Adopted, Option<Arc<Run>>), DriverError> {
        let claim = self.0.claim(id);
        let _claimed = claim.lock().await;
        self.0.engine.watch();
        let known = self.0.run(id);
        if let Some(run) = known {
            if let Some(adopted) = start::look_again(&self.0, &run).await? {
                return Ok((adopted, Some(run)));
            }
            // Somebody has started its container again: another life, to be followed afresh.
            lock(&self.0.runs).remove(&id);
            run.let_go().await;
        }
        let (adopted, run) = start::adopt(&self.0, id).await?;
        if let Some(run) = &run {
            lock(&self.0.runs).insert(id, Arc::clone(run));
        }
        Ok((adopted, run))
    }

    async fn begin(&self, launch: Launch) -> Result<Started, DriverError> {
        let id = launch.run;
        let claim = self.0.claim(id);
        let _claimed = claim.lock().await;
        if let Some(run) = self.0.run(id) {
            return if run.has_ended() {
                Err(DriverError::Ended(id))
            } else {
                Ok(run.describe())
            };
        }
        self.0.engine.watch();
        let _starting = Starting::begin(&self.0);
        let run = start::start(&self.0, &launch).await?;
        lock(&self.0.images).remove(&id);
        lock(&self.0.runs).insert(id, Arc::clone(&run));
        Ok(run.describe())
    }
}

impl Driver for DockerDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Docker
    }

    fn prepare(&self, launch: Launch, tell: Tell) -> BoxFuture<'_, Result<(), DriverError>> {
        async move {
            let Some(container) = &launch.container else {
                return Ok(());
            };
            self.0.engine.watch();
            let image = image::get(&self.0.engine, &container.image, &tell).await?;
            lock(&self.0.images).insert(launch.run, image);
            Ok(())
        }
        .boxed()
    }

    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Started, DriverError>> {
        self.begin(launch).boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Vec<RunId>, DriverError>> {
        self.0.inventory().boxed()
    }

    fn adopt(&self, run: RunId) -> BoxFuture<'_, Result<Adopted, DriverError>> {
        async move { Ok(self.take_over(run).await?.0) }.boxed()
    }

    fn wait(&self, run: RunId) -> BoxFuture<'_, Result<Ended, DriverError>> {
        async move {
            if let Some(known) = self.0.run(run) {
                return known.wait(&self.0.engine).await;
            }
            match self.take_over(run).await? {
                (_, Some(run)) => run.wait(&self.0.engine).await,
                (Adopted::Ended { ended, .. }, None) => Ok(ended),
                _ => Err(DriverError::NotFound(run)),
            }
        }
        .boxed()
    }

    fn signal(
        &self,
        run: RunId,
        signal: Signal,
        tree: bool,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        async move {
            let run = self.find(run).await?;
            run.signal(&self.0.engine, signal, tree).await
        }
        .boxed()
    }

    fn pause(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        async move { self.find(run).await?.pause(&self.0.engine).await }.boxed()
    }

    fn resume(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        async move { self.find(run).await?.resume(&self.0.engine).await }.boxed()
    }

    fn resize(
        &self,
        run: RunId,
        wanted: Resources,
    ) -> BoxFuture<'_, Result<Vec<String>, DriverError>> {
        async move { self.find(run).await?.resize(&self.0.engine, wanted).await }.boxed()
    }

    fn exec(
        &self,
        run: RunId,
        argv: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecOutcome, DriverError>> {
        async move {
            let run = self.find(run).await?;
            exec::exec(&self.0.engine, &run, argv, timeout).await
        }
        .boxed()
    }

    fn usage(&self, run: RunId) -> BoxFuture<'_, Result<Usage, DriverError>> {
        async move { self.find(run).await?.usage() }.boxed()
    }

    fn disk(&self, run: RunId) -> BoxFuture<'_, Result<Option<u64>, DriverError>> {
        async move { self.find(run).await?.disk(&self.0.engine).await.map(Some) }.boxed()
    }

    fn remove(&self, run: RunId, files: bool) -> BoxFuture<'_, Result<(), DriverError>> {
        self.forget(run, files).boxed()
    }
}

impl Inner {
    fn run(&self, id: RunId) -> Option<Arc<Run>> {
        lock(&self.runs).get(&id).cloned()
    }

    fn image_of(&self, id: RunId) -> Option<String> {
        lock(&self.images).get(&id).cloned()
    }

    fn claim(&self, id: RunId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(lock(&self.claims).entry(id).or_default())
    }

    /// Forgets the claim to a run, unless somebody else waits for it.
    fn forget_claim(&self, id: RunId, claim: &Arc<tokio::sync::Mutex<()>>) {
        let mut claims = lock(&self.claims);
        // One is the map's, one the caller's.
        if Arc::strong_count(claim) <= 2 {
            claims.remove(&id);
        }
    }

    fn owner(&self) -> Result<Owner, DriverError> {
        let cluster = lock(&self.cluster).clone();
        let cluster = cluster.ok_or_else(|| {
            DriverError::Unavailable("the node belongs to no cluster yet".to_owned())
        })?;
        Ok(Owner {
            cluster,
            node: self.node.clone(),
        })
    }

    /// Whether a container is this node's, of this cluster, and of this run.
    fn is_own(&self, found: &ContainerInspectResponse, run: RunId) -> bool {
        let Ok(owner) = self.owner() else {
            return false;
        };
        let labels = found
            .config
            .as_ref()
            .and_then(|config| config.labels.as_ref());
        let has = |key: &str, value: &str| {
            labels.is_some_and(|labels| labels.get(key).is_some_and(|found| found == value))
        };
        has(create::CLUSTER, &owner.cluster)
            && has(create::NODE, &owner.node)
            && has(create::RUN, &run.to_string())
    }

    /// Runs that have a directory here, and those that have a container.
    async fn inventory(&self) -> Result<Vec<RunId>, DriverError> {
        let entries = fs::read_dir(&self.directory).map_err(|source| DriverError::Failed {
            context: format!("list the runs in {}", self.directory.display()),
            source,
        })?;
        let mut runs: BTreeSet<RunId> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        let Ok(owner) = self.owner() else {
            return Ok(runs.into_iter().collect());
        };
        let docker = self.engine.docker().await?;
        let label = |key: &str, value: &str| format!("{key}={value}");
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([(
                "label".to_owned(),
                vec![
                    label(create::CLUSTER, &owner.cluster),
                    label(create::NODE, &owner.node),
                ],
            )])),
            ..ListContainersOptions::default()
        };
        let found = docker.list_containers(Some(options)).await;
        let found = found.map_err(|error| self.engine.failed("list containers", &error))?;
        let labels = found.into_iter().filter_map(|container| container.labels);
        runs.extend(labels.filter_map(|labels| labels.get(create::RUN)?.parse::<RunId>().ok()));
        Ok(runs.into_iter().collect())
    }
}

impl<'a> Starting<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.starting.send_modify(|starting| *starting += 1);
        Self(inner)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.starting.send_modify(|starting| *starting -= 1);
    }
}

/// The name of a run's container.
fn name_of(run: RunId) -> String {
    format!("loom-{run}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
