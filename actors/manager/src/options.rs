//! What a manager is started with, and what can be done with it from outside.

use std::path::PathBuf;
use std::time::Duration;

use loom_bus::connection::ConnectOptions;
use loom_bus::events::RelayOptions;
use loom_bus::log::LogOptions;
use loom_schemas::ids::Name;
use loom_schemas::words::Strategy;
use tokio::sync::watch;

/// How a manager is started.
#[derive(Clone, Debug)]
pub struct ManagerOptions {
    /// Its name, unique in the cluster.
    pub name: Name,
    /// Where the bus is; the manager opens four connections of its own there.
    pub bus: ConnectOptions,
    /// The same bus with a login of its system account, where the manager has one: only that
    /// account knows whether writes are on the disk before they are acknowledged.
    pub system: Option<ConnectOptions>,
    /// Where it keeps what is not on the bus; made if it is not there.
    pub data_dir: PathBuf,
    /// How nodes that fit are ranked.
    pub strategy: Strategy,
    /// Why the bus cannot write, for as long as it cannot, where somebody looks after it who knows.
    pub trouble: Option<watch::Receiver<Option<String>>>,
    /// How many copies of each stream the bus keeps: 1, or 3 on a bus of three servers or more.
    pub replicas: usize,
    /// How the log is kept; its copies are those above.
    pub log: LogOptions,
    /// How patient it is.
    pub timings: Timings,
    /// How much it takes on at once.
    pub limits: Limits,
}

/// How patient a manager is.
#[derive(Clone, Debug)]
pub struct Timings {
    /// A node silent for so long is `down`.
    pub down_after: Duration,
    /// The runs of a node that is down for so long are lost, and replaced.
    pub lost_after: Duration,
    /// How often the loop turns without an event: deadlines are kept to this.
    pub tick: Duration,
    /// A leader with standbys writes an entry at least this often.
    pub keep_alive: Duration,
    /// How long a standby hears no entry before it asks the leader.
    pub entries_stopped_after: Duration,
    /// How long a standby waits for the answer to one ping.
    pub ping: Duration,
    /// The first pause after leadership was lost or taken by force; it doubles.
    pub back_off: Duration,
    /// The longest such pause.
    pub max_back_off: Duration,
    /// How long one call of a node may take.
    pub node_call: Duration,
    /// On a bus that keeps one copy: after so long an event in the history counts as safe from the
    /// server's death, and the log may be purged up to it.
    pub settled_after: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            down_after: Duration::from_secs(10),
            lost_after: Duration::from_secs(30),
            tick: Duration::from_secs(1),
            keep_alive: Duration::from_secs(1),
            entries_stopped_after: Duration::from_secs(3),
            ping: Duration::from_millis(330),
            back_off: Duration::from_secs(2),
            max_back_off: Duration::from_mins(1),
            node_call: Duration::from_secs(5),
            settled_after: RelayOptions::default().settled_after,
        }
    }
}

/// How much a manager takes on at once; beyond it requests are answered `busy`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Writes of clients in flight.
    pub writes: usize,
    /// Reads in flight.
    pub reads: usize,
    /// Calls of nodes in flight.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            writes: 1024,
            reads: 256,
            nodes: 4096,
        }
    }
}

impl ManagerOptions {
    /// A manager with everything as it is meant to be.
    pub fn new(name: Name, bus: ConnectOptions, data_dir: PathBuf) -> Self {
        Self {
            name,
            bus,
            system: None,
            data_dir,
            strategy: Strategy::default(),
            trouble: None,
            replicas: 1,
            log: LogOptions::default(),
            timings: Timings::default(),
            limits: Limits::default(),
        }
    }
}
