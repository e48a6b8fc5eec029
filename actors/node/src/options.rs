//! What a node is started with.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use loom_bus::connection::{Bus, ConnectOptions};
use loom_schemas::ids::Name;
use loom_schemas::record::Gpu;
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::words::DriverKind;

/// The first host port a node gives out where nobody says otherwise.
pub const PORTS_FROM: u16 = 20_000;

/// The last host port a node gives out where nobody says otherwise.
pub const PORTS_TO: u16 = 29_999;

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its name, unique in the cluster.
    pub name: Name,
    /// How it reaches the bus.
    pub bus: BusAccess,
    /// Where it keeps its assignment, its journal and the directories of its runs; made if it is
    /// not there. Belongs to one node of one cluster.
    pub data_dir: PathBuf,
    /// Labels, for selectors.
    pub labels: BTreeMap<String, String>,
    /// The datacenter it is in.
    pub datacenter: Option<String>,
    /// How others reach it; found out if none.
    pub address: Option<String>,
    /// The host ports it gives out.
    pub ports: RangeInclusive<u16>,
    /// What runs launches; `process` is offered only with `allow_process`.
    pub drivers: Vec<DriverKind>,
    /// Whether `docker` is offered as well, once an engine answers: at once, or at any time later.
    pub find_docker: bool,
    /// Whether tasks may run as plain processes on this host.
    pub allow_process: bool,
    /// Directories in which tasks may have their output (`logs.to`), made if they are not there; none
    /// by default.
    pub log_dirs: Vec<PathBuf>,
    /// What it offers in place of what the host has.
    pub capacity: CapacityOverride,
    /// The program that the process driver executes as the shim; if none, `loom-shim` beside the
    /// agent's own program, else that one.
    pub shim: Option<PathBuf>,
    /// Where the Docker Engine listens; where `DOCKER_HOST` says, or the usual place, if none.
    pub docker_socket: Option<PathBuf>,
    /// How patient it is.
    pub timings: Timings,
    /// How much it takes on at once.
    pub limits: Limits,
}

/// How a node reaches the bus.
#[derive(Clone, Debug)]
pub enum BusAccess {
    /// It opens two connections of its own: control, and bulk for logs.
    Connect(ConnectOptions),
    /// It uses connections that others use as well, as many nodes in one process do.
    Shared {
        /// For assignments, reports and commands.
        control: Bus,
        /// For logs.
        bulk: Bus,
    },
}

/// What a node offers in place of what its host has; what is none is measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapacityOverride {
    /// Cores.
    pub cpu: Option<MilliCores>,
    /// Memory.
    pub memory: Option<Bytes>,
    /// Disk.
    pub disk: Option<Bytes>,
    /// What its disks read, and write, in a second; never measured.
    pub disk_rate: Option<Bytes>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Gpus; none at all if the list is empty.
    pub gpus: Option<Vec<Gpu>>,
}

/// How patient a node is.
#[derive(Clone, Debug)]
pub struct Timings {
    /// Without contact to a leader for so long nothing is started or restarted.
    pub lost_after: Duration,
    /// How often it says that it lives.
    pub heartbeat: Duration,
    /// How long one call to the leader may take.
    pub call: Duration,
    /// The first pause after a call that failed; it doubles, with jitter.
    pub back_off: Duration,
    /// The longest such pause.
    pub max_back_off: Duration,
    /// How long a command to many waits for its tasks where the caller names no deadline.
    pub command: Duration,
    /// Within which an agent that was asked to leave its tasks running says it will be back.
    pub back_within: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            lost_after: Duration::from_secs(30),
            heartbeat: Duration::from_secs(2),
            call: Duration::from_secs(5),
            back_off: Duration::from_millis(50),
            max_back_off: Duration::from_secs(5),
            command: Duration::from_secs(10),
            back_within: Duration::from_mins(1),
        }
    }
}

/// How much a node takes on at once.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Starts of processes at once, and of containers; two a core each if none.
    pub starts: Option<usize>,
    /// Ended runs in the journal before those that were restarted are folded to a count.
    pub journal: usize,
    /// Reports in one call to the leader; a hello of more goes in parts.
    pub reports: usize,
    /// Commands to many at once; beyond it they are answered `busy`.
    pub commands: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            starts: None,
            journal: 4096,
            reports: 512,
            commands: 64,
        }
    }
}

impl NodeOptions {
    /// A node with everything as it is meant to be, offering what its host has, but no processes.
    pub fn new(name: Name, bus: BusAccess, data_dir: PathBuf) -> Self {
        Self {
            name,
            bus,
            data_dir,
            labels: BTreeMap::new(),
            datacenter: None,
            address: None,
            ports: PORTS_FROM..=PORTS_TO,
            drivers: vec![DriverKind::Process],
            find_docker: false,
            allow_process: false,
            log_dirs: Vec::new(),
            capacity: CapacityOverride::default(),
            shim: None,
            docker_socket: None,
            timings: Timings::default(),
            limits: Limits::default(),
        }
    }
}

/// What becomes of a node's tasks when its agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TasksOnStop {
    /// They go on running; the next agent on the same data directory adopts them.
    Keep,
    /// They are ended first, each with its grace.
    Stop,
}
