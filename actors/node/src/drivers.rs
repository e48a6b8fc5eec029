//! What runs launches on a node, and which of it a task takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use loom_schemas::ids::RunId;
use loom_schemas::spec::TaskSpec;
use loom_schemas::words::DriverKind;
use loom_task::driver::process::{ProcessDriver, ProcessOptions};
use loom_task::driver::sim::SimDriver;
use loom_task::driver::{Driver, DriverError};
use tokio::sync::Semaphore;

use crate::options::NodeOptions;
use crate::refusal::Refusal;

const NO_PROCESSES: &str =
    "this node runs no processes: start it with `--driver process` and `--allow-process`";

const NO_SIM: &str = "this node has no `sim` driver: start it with `--driver sim`";

/// Where the process driver keeps its runs in the data directory.
const RUNS: &str = "runs";

/// The drivers of a node, and how many runs each starts at once.
pub(crate) struct Drivers {
    process: Arc<dyn Driver>,
    /// More starts than this at once only add latency: a start is mostly processor time.
    process_starts: Arc<Semaphore>,
    sim: Arc<dyn Driver>,
    kinds: BTreeSet<DriverKind>,
}

impl Drivers {
    /// The drivers that the options ask for and allow; fails where one cannot be set up.
    pub(crate) fn new(options: &NodeOptions) -> Result<Self, DriverError> {
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
                setup.shim.clone_from(shim);
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
        let process_starts = Arc::new(Semaphore::new(starts.max(1)));
        Ok(Self {
            process,
            process_starts,
            sim,
            kinds,
        })
    }

    /// Which kinds are offered.
    pub(crate) fn kinds(&self) -> Vec<DriverKind> {
        self.kinds.iter().copied().collect()
    }

    /// Whether it only plays: nothing of the host is used.
    pub(crate) fn only_plays(&self) -> bool {
        !self.kinds.contains(&DriverKind::Process)
    }

    /// What runs a task, and what limits its starts.
    pub(crate) fn of(&self, task: &TaskSpec) -> (Arc<dyn Driver>, Option<Arc<Semaphore>>) {
        if task.sim.is_some() {
            (Arc::clone(&self.sim), None)
        } else {
            (
                Arc::clone(&self.process),
                Some(Arc::clone(&self.process_starts)),
            )
        }
    }

    /// Every driver; those not offered have nothing.
    pub(crate) fn all(&self) -> [&Arc<dyn Driver>; 2] {
        [&self.process, &self.sim]
    }

    /// Every run of which a driver still has something.
    pub(crate) async fn inventory(&self) -> Vec<RunId> {
        let mut runs = Vec::new();
        for driver in self.all() {
            match driver.inventory().await {
                Ok(found) => runs.extend(found),
                Err(error) => {
                    tracing::warn!(driver = %driver.kind(), %error, "cannot list its runs");
                }
            }
        }
        runs
    }
}

fn starts_at_once() -> usize {
    2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
