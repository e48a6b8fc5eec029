//! The process driver: a launch as plain processes under a shim ([`crate::shim`]), which lives on
//! when the agent does not.
//!
//! A run has the directory `<data directory>/runs/<run>`: the shim's files, `output.log` and its
//! older parts unless `logs.to` says otherwise, and `work`, which holds the launch's files and is
//! where the program starts unless the launch says otherwise. The end of a run is the end of its
//! shim, seen by a pidfd; how it ended is in the shim's `status`.

mod adopt;
mod cgroup;
mod diagnose;
mod exec;
mod program;
mod run;
mod start;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use loom_schemas::ids::RunId;
use loom_schemas::spec::Resources;
use loom_schemas::words::DriverKind;
use nix::sys::signal::Signal;

use self::cgroup::Cgroups;
use self::program::ShimProgram;
use self::run::Run;
use super::{Adopted, Driver, DriverError, Ended, ExecOutcome, Started, disk};
use crate::driver::usage::Usage;
use crate::launch::Launch;
use crate::private::{PASSAGE, make_runs};
use crate::shim::record::ShimLaunch;

/// How a [`ProcessDriver`] is set up.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// Where runs are kept, in `runs`; one agent at a time.
    pub data_dir: PathBuf,
    /// The executable that becomes the shim: one that calls [`crate::shim::main_if_asked`] first.
    /// If none, `loom-shim` beside this process's own executable, else that one itself.
    pub shim: Option<PathBuf>,
    /// Whether control groups are used where there are any.
    pub cgroups: bool,
}

impl ProcessOptions {
    /// With the shim that is found, and control groups.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            shim: None,
            cgroups: true,
        }
    }
}

/// Runs launches as processes.
#[derive(Clone)]
pub struct ProcessDriver(Arc<Inner>);

/// What all calls share.
struct Inner {
    directory: PathBuf,
    shim: ShimProgram,
    cgroups: Cgroups,
    runs: Mutex<HashMap<RunId, Arc<Run>>>,
    /// Runs that have ended and whose groups are gone: only their files are left.
    released: Mutex<HashSet<RunId>>,
    /// Runs that are being started, adopted or removed, so that nobody does it twice.
    busy: Mutex<HashSet<RunId>>,
    /// Told when one of them no longer is.
    freed: Condvar,
}

/// Holds a run for one caller.
struct Claim<'a>(&'a Inner, RunId);

/// What tasks can be held to on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// Which control groups there are, or why there are none.
    pub found: String,
    /// What tasks are not held to: `cpu`, `memory`, `pids`.
    pub missing: Vec<&'static str>,
}

/// Looks what this user may use of this host's control groups; leaves none behind.
pub fn host_limits() -> HostLimits {
    let (found, missing) = Cgroups::open("doctor").summary();
    HostLimits { found, missing }
}

impl ProcessDriver {
    /// Makes the directory for runs and finds the control groups that may be used; fails where the
    /// directory cannot be written.
    pub fn new(options: ProcessOptions) -> Result<Self, DriverError> {
        let directory = options.data_dir.join("runs");
        make_runs(&directory, PASSAGE).map_err(failed(|| {
            format!("make the directory {}", directory.display())
        }))?;
        // A run's files are named to other processes, which start elsewhere.
        let directory = directory.canonicalize().map_err(failed(|| {
            format!("find the directory {}", directory.display())
        }))?;
        let tag = tag(&directory);
        let cgroups = if options.cgroups {
            Cgroups::open(&tag)
        } else {
            Cgroups::default()
        };
        Ok(Self(Arc::new(Inner {
            directory,
            shim: ShimProgram::new(options.shim),
            cgroups,
            runs: Mutex::default(),
            released: Mutex::default(),
            busy: Mutex::default(),
            freed: Condvar::new(),
        })))
    }

    /// Does blocking work off the runtime's own threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|error| DriverError::Failed {
                context: "run a driver call".into(),
                source: io::Error::other(error),
            })?
    }

    /// The run, adopted if an earlier agent started it.
    async fn find(&self, id: RunId) -> Result<Arc<Run>, DriverError> {
        if let Some(run) = self.0.run(id) {
            return Ok(run);
        }
        self.blocking(move |inner| adopt::adopt(inner, id))
            .await?
            .ok_or(DriverError::NotFound(id))
    }
}

impl Driver for ProcessDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Process
    }

    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Started, DriverError>> {
        async move {
            if let Some(run) = self.0.run(launch.run) {
                return Ok(run.describe());
            }
            let run = self
                .blocking(move |inner| start::start(inner, &launch))
                .await?;
            Ok(run.describe())
        }
        .boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Vec<RunId>, DriverError>> {
        self.blocking(adopt::inventory).boxed()
    }

    fn adopt(&self, run: RunId) -> BoxFuture<'_, Result<Adopted, DriverError>> {
        async move {
            match self.find(run).await {
                Ok(run) => self.blocking(move |_| Ok(run.adopted())).await,
                Err(DriverError::NotFound(_)) => Ok(Adopted::Gone),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn wait(&self, run: RunId) -> BoxFuture<'_, Result<Ended, DriverError>> {
        async move { Ok(self.find(run).await?.wait().await) }.boxed()
    }

    fn signal(
        &self,
        run: RunId,
        signal: Signal,
        tree: bool,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        async move {
            let run = self.find(run).await?;
            if tree {
                self.blocking(move |_| run.signal_tree(signal)).await
            } else {
                run.signal(signal)
            }
        }
        .boxed()
    }

    fn pause(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        async move {
            let run = self.find(run).await?;
            self.blocking(move |_| run.pause()).await
        }
        .boxed()
    }

    fn resume(&self, run: RunId) -> BoxFuture<'_, Result<(), DriverError>> {
        async move {
            let run = self.find(run).await?;
            self.blocking(move |_| run.resume()).await
        }
        .boxed()
    }

    fn resize(
        &self,
        run: RunId,
        wanted: Resources,
    ) -> BoxFuture<'_, Result<Vec<String>, DriverError>> {
        async move {
            let run = self.find(run).await?;
            self.blocking(move |inner| run.resize(&inner.cgroups, &wanted))
                .await
        }
        .boxed()
    }

    fn exec(
        &self,
        run: RunId,
        argv: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecOutcome, DriverError>> {
        async move {
            let run = self.find(run).await?;
            exec::exec(&run, self.0.shim.path(), &argv, timeout).await
        }
        .boxed()
    }

    fn usage(&self, run: RunId) -> BoxFuture<'_, Result<Usage, DriverError>> {
        async move {
            let run = self.find(run).await?;
            self.blocking(move |_| run.usage()).await
        }
        .boxed()
    }

    fn disk(&self, run: RunId) -> BoxFuture<'_, Result<Option<u64>, DriverError>> {
        async move {
            let run = self.find(run).await?;
            self.blocking(move |_| Ok(Some(disk::taken(run.directory()))))
                .await
        }
        .boxed()
    }

    fn remove(&self, run: RunId, files: bool) -> BoxFuture<'_, Result<(), DriverError>> {
        self.blocking(move |inner| remove(inner, run, files))
            .boxed()
    }
}

impl Inner {
    fn directory_of(&self, run: RunId) -> PathBuf {
        self.directory.join(run.to_string())
    }

    /// A launch with the control groups that are removed after it.
    fn with_groups(&self, launch: ShimLaunch) -> (ShimLaunch, Vec<PathBuf>) {
        let groups = self.cgroups.all_groups(&launch.run, &launch.groups);
        (launch, groups)
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn released(&self) -> MutexGuard<'_, HashSet<RunId>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, id: RunId) -> Option<Arc<Run>> {
        self.runs().get(&id).cloned()
    }

    /// Holds a run against a second start or adoption at the same time.
    fn claim(&self, run: RunId) -> Result<Claim<'_>, DriverError> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if busy.insert(run) {
            return Ok(Claim(self, run));
        }
        Err(DriverError::Failed {
            context: format!("start run {run}, which is being started"),
            source: io::ErrorKind::ResourceBusy.into(),
        })
    }

    /// The same for a removal, which waits for whoever holds the run; each of them ends in time.
    fn claim_when_free(&self, run: RunId) -> Claim<'_> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut busy = self
            .freed
            .wait_while(busy, |busy| busy.contains(&run))
            .unwrap_or_else(PoisonError::into_inner);
        busy.insert(run);
        Claim(self, run)
    }

    fn forget(&self, run: RunId, files: bool) -> Result<(), DriverError> {
        let known = self.runs().remove(&run);
        match known {
            Some(known) => cgroup::remove(&known.groups),
            None => self.cgroups.clear(&run.to_string()),
        }
        if !files {
            self.released().insert(run);
            return Ok(());
        }
        self.remove_files(run)
    }

    fn remove_files(&self, run: RunId) -> Result<(), DriverError> {
        let directory = self.directory_of(run);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(|| format!("remove {}", directory.display()))(error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.1);
        self.0.freed.notify_all();
    }
}

/// Removes what is left of a run that has ended, or of which nothing is known.
fn remove(inner: &Arc<Inner>, id: RunId, files: bool) -> Result<(), DriverError> {
    let _claim = inner.claim_when_free(id);
    if inner.released().contains(&id) {
        if files {
            inner.remove_files(id)?;
            inner.released().remove(&id);
            inner.runs().remove(&id);
        }
        return Ok(());
    }
    let found = inner.run(id).or_else(|| adopt::left(inner, id));
    if let Some(run) = found
        && run.ended().is_none()
    {
        inner.runs().insert(id, run);
        return Err(DriverError::Failed {
            context: format!("remove run {id}, which has not ended"),
            source: io::ErrorKind::ResourceBusy.into(),
        });
    }
    inner.forget(id, files)
}

/// Where a run's program starts and its files are.
fn work(directory: &Path) -> PathBuf {
    directory.join("work")
}

/// The name of an agent's control groups, by the directory it works in: FNV-1a, 64 bits.
fn tag(directory: &Path) -> String {
    let bytes = directory.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn failed(context: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> DriverError {
    move |source| DriverError::Failed {
        context: context(),
        source,
    }
}
