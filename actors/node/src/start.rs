//! Starting and stopping a node.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loom_bus::call::CallError;
use loom_bus::connection::{Bus, ConnectError};
use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_task::{LogDirs, NodeLabels};
use ractor::{Actor, ActorCell, ActorRef};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::actor::{Context, Phase};
use crate::agent::{Agent, AgentMessage};
use crate::clock;
use crate::drivers::{Drivers, offer_containers};
use crate::facts::{self, merged_labels};
use crate::ledger::Ledger;
use crate::options::{BusAccess, NodeOptions, TasksOnStop};
use crate::store::Store;
use crate::store_error::StoreError;
use crate::usage::Meter;

/// Below this length the state file of a node with processes is never written anew.
const STATE_LEAST: u64 = 8 << 20;

/// The same for a node that only plays: there are many of them on one disk.
const STATE_LEAST_SIM: u64 = 256 << 10;

/// How long after a node was killed its files may still be written.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How long leaving may take beyond the longest grace of a task.
const LEAVE_WAIT: Duration = Duration::from_secs(30);

/// How long another agent of the same name has to answer.
const NAMESAKE_WAIT: Duration = Duration::from_secs(1);

/// How long an agent of the same name that ended may still seem to be there.
const NAMESAKE_GONE: Duration = Duration::from_secs(2);

/// The pause before a name that is taken is tried again.
const NAMESAKE_AGAIN: Duration = Duration::from_millis(200);

/// Why a node could not be started, or never becomes ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bus cannot be reached, is too old, or refuses the login.
    #[error("cannot reach the bus")]
    Connect(#[from] ConnectError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A driver cannot be set up.
    #[error("cannot set up the drivers")]
    Drivers(#[source] loom_task::driver::DriverError),
    /// A directory for the output of tasks cannot be made or found.
    #[error("--log-dir {}: cannot use this directory", path.display())]
    LogDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The options make no sense.
    #[error("{0}")]
    Options(String),
    /// The data directory belongs to a node of another cluster than the one on the bus.
    #[error(
        "the data directory {path} is of another cluster: {reason}; use another data directory or \
         another bus"
    )]
    OtherCluster {
        /// Which.
        path: PathBuf,
        /// Which cluster is whose.
        reason: String,
    },
    /// Another agent of this name is on the bus.
    #[error("a node named {0} is already running on this bus; stop it, or use another name")]
    NameTaken(Name),
    /// The leader's log is older than what the node obeyed.
    #[error(
        "the bus's store is older than this node's data: {reason}; restore the store, or remove \
         the data directory {path}"
    )]
    StoreRewound {
        /// The node's data directory.
        path: PathBuf,
        /// Which epoch is whose.
        reason: String,
    },
    /// It ended before it was ready.
    #[error("the node ended: {0}")]
    Ended(String),
}

/// A node that was started; dropping the handle leaves it running.
#[derive(Debug)]
pub struct NodeHandle {
    name: Name,
    data_dir: PathBuf,
    root: ActorRef<AgentMessage>,
    phase: watch::Receiver<Phase>,
    /// How long a task may take to end, once the node is stopped.
    longest_grace: watch::Receiver<Duration>,
    /// Ends when the last part of the node is gone.
    alive: mpsc::Receiver<()>,
}

/// Starts a node: resolves once its data directory is open, the bus is reached, its runs are being
/// adopted and it takes assignments. A manager need not be there: see [`NodeHandle::ready`].
pub async fn start(options: NodeOptions) -> Result<NodeHandle, StartError> {
    check(&options)?;
    let (alive_by, mut alive) = mpsc::channel(1);
    let (store, ledger) = open(&options, alive_by).await?;
    let (name, data_dir) = (options.name.clone(), options.data_dir.clone());
    match start_actors(options, store, ledger).await {
        Ok((root, phase, longest_grace)) => Ok(NodeHandle {
            name,
            data_dir,
            root,
            phase,
            longest_grace,
            alive,
        }),
        Err(error) => {
            // Whoever tries again finds the directory free; if it takes long, they are told so.
            let _ = tokio::time::timeout(KILL_WAIT, alive.recv()).await;
            Err(error)
        }
    }
}

/// The root, how the node stands, and the longest grace.
type Started = (
    ActorRef<AgentMessage>,
    watch::Receiver<Phase>,
    watch::Receiver<Duration>,
);

async fn start_actors(
    options: NodeOptions,
    store: Store,
    ledger: Ledger,
) -> Result<Started, StartError> {
    let cluster = ledger.assignment.cluster.as_deref();
    let drivers = Drivers::new(&options, cluster).map_err(StartError::Drivers)?;
    let (bus, bulk) = connect(&options).await?;
    refuse_namesake(&bus, &options.name).await?;
    let log_dirs = LogDirs::open(&options.log_dirs)
        .map_err(|(path, source)| StartError::LogDir { path, source })?;
    let mut info = facts::gather(&options, drivers.kinds()).await;
    info.log_dirs = log_dirs.names();
    if let Some(attributes) = drivers.engine_attributes().await {
        offer_containers(&mut info, attributes);
    }
    let labels = NodeLabels::default();
    labels.set(merged_labels(&info, &ledger.assignment.labels));
    let found = drivers.inventory().await;
    let (phase, phases) = watch::channel(Phase::Starting);
    let (longest_grace, graces) = watch::channel(Duration::ZERO);
    let context = Arc::new(Context {
        name: options.name,
        info,
        labels,
        bus,
        bulk,
        meter: (!drivers.only_plays()).then(|| Arc::new(Mutex::new(Meter::new()))),
        drivers,
        timings: options.timings,
        limits: options.limits,
        store,
        boot_id: clock::boot_id(),
        data_dir: options.data_dir,
        log_dirs,
        found,
        phase,
        longest_grace,
    });
    let (root, _) = Actor::spawn(None, Agent, (context, ledger))
        .await
        .map_err(|error| StartError::Ended(error.to_string()))?;
    Ok((root, phases, graces))
}

fn check(options: &NodeOptions) -> Result<(), StartError> {
    if options.ports.is_empty() || *options.ports.start() == 0 {
        let (from, to) = (options.ports.start(), options.ports.end());
        let message = format!("ports {from}-{to}: expected a range such as 20000-29999");
        return Err(StartError::Options(message));
    }
    if options.drivers.is_empty() && !options.find_docker {
        return Err(StartError::Options(
            "a node needs at least one driver".to_owned(),
        ));
    }
    Ok(())
}

async fn open(
    options: &NodeOptions,
    alive: mpsc::Sender<()>,
) -> Result<(Store, Ledger), StartError> {
    let directory = options.data_dir.clone();
    let (name, limit) = (options.name.clone(), options.limits.journal);
    let sim_only = !options.allow_process;
    let least = if sim_only {
        STATE_LEAST_SIM
    } else {
        STATE_LEAST
    };
    let opened =
        tokio::task::spawn_blocking(move || Store::open(&directory, &name, limit, least, alive));
    let opened = opened
        .await
        .map_err(|error| StartError::Ended(error.to_string()))?;
    Ok(opened?)
}

/// Two agents of one name would both run everything that is assigned to it.
async fn refuse_namesake(bus: &Bus, name: &Name) -> Result<(), StartError> {
    // What a node may ask as well: it may give no orders, not even wrong ones.
    let subject = subject::inventory(name);
    let deadline = Instant::now() + NAMESAKE_GONE;
    loop {
        // An agent that is there answers or refuses, and does nothing.
        let asked = bus.call::<_, Value>(&subject, &(), NAMESAKE_WAIT).await;
        // Who does not answer is gone, or is no worse than one that starts a moment later.
        if !matches!(
            asked,
            Ok(_) | Err(CallError::Refused(_) | CallError::Decode(_))
        ) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(StartError::NameTaken(name.clone()));
        }
        tokio::time::sleep(NAMESAKE_AGAIN).await;
    }
}

async fn connect(options: &NodeOptions) -> Result<(Bus, Bus), ConnectError> {
    let connect = match &options.bus {
        BusAccess::Shared { control, bulk } => return Ok((control.clone(), bulk.clone())),
        BusAccess::Connect(connect) => connect,
    };
    let named = |part: &str| {
        let mut connect = connect.clone();
        connect.name = format!("loom node {} {part}", options.name);
        connect
    };
    let (control, bulk) = (named("control"), named("bulk"));
    // Boxed: whoever starts a node should not carry two handshakes on its stack.
    tokio::try_join!(
        Box::pin(Bus::connect(control)),
        Box::pin(Bus::connect(bulk))
    )
}

impl NodeHandle {
    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The subject on which it takes assignments.
    pub fn subject(&self) -> String {
        subject::assign(&self.name)
    }

    /// Resolves once a leader has welcomed the node (at once if it already has); an error if it
    /// never will: the cluster is another one, its log was rewound, or the node was stopped.
    pub async fn ready(&self) -> Result<(), StartError> {
        let mut phase = self.phase.clone();
        let reached = phase.wait_for(|phase| *phase != Phase::Starting).await;
        let reached = reached.map_or(Phase::Ended(None), |phase| phase.clone());
        match reached {
            Phase::Starting | Phase::Ready => Ok(()),
            Phase::Foreign { reason } => Err(StartError::OtherCluster {
                path: self.data_dir.clone(),
                reason,
            }),
            Phase::Rewound { reason } => Err(StartError::StoreRewound {
                path: self.data_dir.clone(),
                reason,
            }),
            Phase::Ended(reason) => Err(StartError::Ended(
                reason.unwrap_or_else(|| "it was stopped".to_owned()),
            )),
        }
    }

    /// Says bye and ends. With [`TasksOnStop::Keep`] processes run on under their shims; with
    /// [`TasksOnStop::Stop`] every task is ended first and that is reported, as far as a leader
    /// answers. Bounded by the longest grace of a task and some seconds.
    pub async fn stop(mut self, tasks: TasksOnStop) {
        // A root that is gone has ended already.
        let _ = self.root.cast(AgentMessage::Leave(tasks));
        if tokio::time::timeout(LEAVE_WAIT, self.over()).await.is_err() {
            let grace = *self.longest_grace.borrow();
            if tokio::time::timeout(grace, self.over()).await.is_err() {
                tracing::warn!(node = %self.name, "the node does not end by itself, killing it");
            }
        }
        self.root.stop(None);
        self.gone().await;
    }

    /// Ends at once without a word, as a crash would: processes run on. For tests.
    pub async fn kill(mut self) {
        self.root.kill();
        self.gone().await;
    }

    /// Resolves when the node has ended for good, with the reason if it was not asked to.
    pub async fn stopped(&self) -> Option<String> {
        match self.over().await {
            Phase::Foreign { reason } => Some(format!("it belongs to another cluster: {reason}")),
            Phase::Rewound { reason } => Some(format!(
                "the bus's store is older than this node's data: {reason}; restore the store, or \
                 remove the data directory {}",
                self.data_dir.display()
            )),
            Phase::Ended(reason) => reason,
            Phase::Starting | Phase::Ready => Some("its actors were killed".to_owned()),
        }
    }

    /// The root of its actors, for whoever wants to look at or harm the tree; for tests.
    pub fn root(&self) -> ActorCell {
        self.root.get_cell()
    }

    async fn over(&self) -> Phase {
        let mut phase = self.phase.clone();
        // An error means that nobody is left who could say.
        match phase.wait_for(Phase::is_over).await {
            Ok(phase) => phase.clone(),
            Err(_) => self.phase.borrow().clone(),
        }
    }

    /// Waits until nothing of the node is left that could write to its data directory.
    async fn gone(&mut self) {
        let gone = tokio::time::timeout(KILL_WAIT, self.alive.recv()).await;
        if gone.is_err() {
            tracing::warn!(node = %self.name, "a part of the node is slow to end");
        }
    }
}
