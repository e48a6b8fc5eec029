//! `loomctl dev`: the whole system on one machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loom_bus::server::{Embedded, EmbeddedOptions};
use loom_bus::{Bus, ConnectOptions};
use loom_manager::{ManagerHandle, ManagerOptions};
use loom_node::{BusAccess, CapacityOverride, NodeHandle, NodeOptions, TasksOnStop};
use loom_schemas::ids::Name;
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::words::DriverKind;

use super::manager::Scheduling;
use super::{Ready, data_dir, log_to_stderr, told_to_stop, write_ready};
use crate::cli::Global;
use crate::commands::run::submit;
use crate::commands::validate::{JobFile, read_job};
use crate::exit::{Failure, chain};
use crate::output;

/// How often the bus is started again within [`BUS_RESTART_WINDOW`] before the cluster gives up.
const BUS_RESTARTS: usize = 5;

/// The time over which starts of the bus are counted.
const BUS_RESTART_WINDOW: Duration = Duration::from_mins(1);

/// Host ports are shared out between the nodes of one process.
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=29_999;

/// Start bus, manager and node in this process: a whole cluster on one machine.
///
/// Ctrl-C stops it and leaves nothing running. Started again on the same directory it goes on
/// where it was.
#[derive(Debug, clap::Args)]
pub(crate) struct Dev {
    /// Jobs to run at once
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The bus; port 0 picks a free one and remembers it in the data directory
    #[arg(long, default_value = "127.0.0.1:4222", value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Everything it keeps [default: ~/.local/share/loom/dev]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Node agents in this process, node-1 to node-N
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=64))]
    nodes: u16,
    /// Nodes that run nothing but play scripts, sim-1 to sim-N
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=5000))]
    sim_nodes: u16,
    /// Size of each sim node
    #[arg(long, default_value = "cpu=16,memory=64GiB", value_name = "SHAPE", value_parser = parse_shape)]
    sim_shape: CapacityOverride,
    #[command(flatten)]
    scheduling: Scheduling,
    /// Leave the tasks running at the end; the next start adopts them
    #[arg(long)]
    keep_tasks: bool,
    /// The nats-server program, where it is not found by itself
    #[arg(long, env = "LOOM_NATS_SERVER", value_name = "PATH")]
    nats_server: Option<PathBuf>,
    /// Written once all is ready: JSON with bus, pid and nodes
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

/// What runs in this process.
struct Cluster {
    bus: Embedded,
    manager: ManagerHandle,
    nodes: Vec<NodeHandle>,
}

impl Dev {
    /// Starts the cluster, waits, and stops it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        log_to_stderr();
        if global.bus.bus.is_some() && std::env::var_os("LOOM_BUS").is_none() {
            return Err(Failure::usage(
                "dev starts its own bus; use --listen in place of --bus",
            ));
        }
        // Read before anything is started: a wrong file is no reason to start a cluster.
        let jobs = self
            .files
            .iter()
            .map(|path| read_job(path))
            .collect::<Result<Vec<_>, _>>()?;
        let data_dir = data_dir(self.data_dir.as_ref(), "dev")?;
        let mut cluster = tokio::select! {
            cluster = self.start(&data_dir) => cluster?,
            stopped = told_to_stop() => return stopped,
        };
        self.announce(&cluster, &data_dir)?;
        let outcome = self.serve(&mut cluster, &data_dir, &jobs).await;
        cluster
            .stop(if self.keep_tasks {
                TasksOnStop::Keep
            } else {
                TasksOnStop::Stop
            })
            .await;
        outcome
    }

    async fn start_bus(&self, data_dir: &Path) -> Result<Embedded, Failure> {
        let mut options = EmbeddedOptions::new(data_dir.join("bus"));
        options.listen = self.listen;
        options.binary.clone_from(&self.nats_server);
        Embedded::start(options)
            .await
            .map_err(|error| Failure::error(chain(&error)))
    }

    async fn start(&self, data_dir: &Path) -> Result<Cluster, Failure> {
        let bus = self.start_bus(data_dir).await?;
        let connect = |name: &str, require_jetstream| ConnectOptions {
            url: bus.url().to_owned(),
            login: bus.orch_login(),
            name: name.to_owned(),
            require_jetstream,
            timeout: Duration::from_secs(10),
        };
        let name = fixed_name("manager-1")?;
        let mut options = ManagerOptions::new(
            name,
            connect("manager manager-1", true),
            data_dir.join("manager-1"),
        );
        options.strategy = self.scheduling.strategy.into();
        options.system = Some(ConnectOptions {
            login: bus.system_login(),
            ..connect("doctor", false)
        });
        let manager = loom_manager::start(options)
            .await
            .map_err(|error| Failure::error(chain(&error)))?;
        let failed = |error: loom_bus::ConnectError| Failure::error(chain(&error));
        let access = BusAccess::Shared {
            control: Bus::connect(connect("nodes", false))
                .await
                .map_err(failed)?,
            bulk: Bus::connect(connect("nodes bulk", false))
                .await
                .map_err(failed)?,
        };
        let mut nodes = Vec::new();
        for options in self.node_options(&access, data_dir)? {
            let name = options.name.clone();
            let node = loom_node::start(options)
                .await
                .map_err(|error| Failure::error(format!("node {name}: {}", chain(&error))))?;
            nodes.push(node);
        }
        for node in &nodes {
            node.ready()
                .await
                .map_err(|error| Failure::error(chain(&error)))?;
        }
        Ok(Cluster {
            bus,
            manager,
            nodes,
        })
    }

    /// What each node is started with: real ones share out what this machine has.
    fn node_options(
        &self,
        access: &BusAccess,
        data_dir: &Path,
    ) -> Result<Vec<NodeOptions>, Failure> {
        let mut all = Vec::new();
        for number in 1..=self.nodes {
            let name = fixed_name(&format!("node-{number}"))?;
            let directory = data_dir.join(name.as_str());
            let mut options = NodeOptions::new(name, access.clone(), directory);
            options.allow_process = true;
            options.drivers = vec![DriverKind::Process];
            options.address = Some(self.listen.ip().to_string());
            if self.nodes > 1 {
                options.capacity = share(self.nodes, data_dir);
                options.ports = port_share(number, self.nodes);
            }
            all.push(options);
        }
        for number in 1..=self.sim_nodes {
            let name = fixed_name(&format!("sim-{number}"))?;
            let directory = data_dir.join(name.as_str());
            let mut options = NodeOptions::new(name, access.clone(), directory);
            options.drivers = vec![DriverKind::Sim];
            options.capacity = self.sim_shape;
            options.address = Some(self.listen.ip().to_string());
            options.labels.insert("sim".to_owned(), "true".to_owned());
            all.push(options);
        }
        Ok(all)
    }

    fn announce(&self, cluster: &Cluster, data_dir: &Path) -> Result<(), Failure> {
        let url = cluster.bus.url();
        let names: Vec<String> = cluster
            .nodes
            .iter()
            .map(|node| node.name().to_string())
            .collect();
        output::note(&format!("bus      {url}"));
        output::note("manager  manager-1");
        output::note(&format!("nodes    {}", self.node_ranges().join(", ")));
        output::note(&format!("data     {}", data_dir.display()));
        if url != crate::client::DEFAULT_BUS {
            output::note(&format!("\nfor other terminals: export LOOM_BUS={url}"));
        }
        output::note("\nready; Ctrl-C stops it");
        if let Some(path) = &self.ready_file {
            write_ready(
                path,
                &Ready {
                    bus: url,
                    pid: std::process::id(),
                    nodes: names,
                },
            )?;
        }
        Ok(())
    }

    /// `node-1`, or `node-1 to node-3`, then the same of the sim nodes.
    fn node_ranges(&self) -> Vec<String> {
        let range = |kind: &str, count: u16| match count {
            0 => None,
            1 => Some(format!("{kind}-1")),
            count => Some(format!("{kind}-1 to {kind}-{count}")),
        };
        [range("node", self.nodes), range("sim", self.sim_nodes)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Runs the jobs given, then waits to be told to stop; a bus that ends by itself is started
    /// again on its directory, where nothing acknowledged is lost.
    async fn serve(
        &self,
        cluster: &mut Cluster,
        data_dir: &Path,
        jobs: &[JobFile],
    ) -> Result<(), Failure> {
        submit_all(cluster, jobs).await?;
        let mut ended: Vec<Instant> = Vec::new();
        loop {
            let last_words = tokio::select! {
                stopped = told_to_stop() => return stopped,
                last_words = cluster.bus.died() => last_words,
            };
            ended.retain(|at| at.elapsed() < BUS_RESTART_WINDOW);
            ended.push(Instant::now());
            if ended.len() > BUS_RESTARTS {
                return Err(Failure::error(format!(
                    "nats-server ended {} times within a minute; the last time: {last_words}",
                    ended.len()
                )));
            }
            tracing::warn!("nats-server ended by itself and is started again: {last_words}");
            cluster.bus = self.start_bus(data_dir).await?;
        }
    }
}

/// Submits the jobs named on the command line.
async fn submit_all(cluster: &Cluster, jobs: &[JobFile]) -> Result<(), Failure> {
    if jobs.is_empty() {
        return Ok(());
    }
    let bus = Bus::connect(ConnectOptions {
        url: cluster.bus.url().to_owned(),
        login: cluster.bus.user_login(),
        name: "loomctl dev".to_owned(),
        require_jetstream: false,
        timeout: Duration::from_secs(5),
    })
    .await
    .map_err(|error| Failure::error(chain(&error)))?;
    for job in jobs {
        let done = submit(&bus, job, None).await?;
        output::note(&format!("{}: accepted, version {}", done.job, done.version));
    }
    Ok(())
}

impl Cluster {
    /// Nodes first, so that the manager hears of their tasks' ends; the bus last.
    async fn stop(self, tasks: TasksOnStop) {
        futures::future::join_all(self.nodes.into_iter().map(|node| node.stop(tasks))).await;
        self.manager.stop().await;
        self.bus.stop().await;
    }
}

fn fixed_name(text: &str) -> Result<Name, Failure> {
    Name::new(text).map_err(|error| Failure::error(error.to_string()))
}

/// A node's share of this machine where several run on it.
fn share(nodes: u16, data_dir: &Path) -> CapacityOverride {
    let host = loom_node::host_capacity(data_dir);
    CapacityOverride {
        cpu: Some(MilliCores(host.cpu.0 / u32::from(nodes))),
        memory: Some(Bytes(host.memory.0 / u64::from(nodes))),
        disk: Some(Bytes(host.disk.0 / u64::from(nodes))),
    }
}

/// The host ports of node `number` of `nodes`, from 1.
fn port_share(number: u16, nodes: u16) -> std::ops::RangeInclusive<u16> {
    let each = (PORTS.end() - PORTS.start() + 1) / nodes;
    let first = PORTS.start() + each * (number - 1);
    first..=first + each - 1
}

/// Reads `cpu=16,memory=64GiB`.
fn parse_shape(text: &str) -> Result<CapacityOverride, String> {
    let mut shape = CapacityOverride {
        disk: Some(Bytes::mib(1024 * 1024)),
        ..Default::default()
    };
    for part in text.split(',') {
        let (key, value) = crate::address::parse_pair(part)?;
        match key.as_str() {
            "cpu" => shape.cpu = Some(quantity(&value)?),
            "memory" => shape.memory = Some(quantity(&value)?),
            "disk" => shape.disk = Some(quantity(&value)?),
            _ => return Err(format!("`{key}`: expected cpu, memory or disk")),
        }
    }
    Ok(shape)
}

fn quantity<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_share_the_ports_without_overlap() {
        let shares: Vec<_> = (1..=3).map(|number| port_share(number, 3)).collect();
        for pair in shares.windows(2) {
            assert!(pair[0].end() < pair[1].start());
        }
        assert!(*shares[2].end() <= *PORTS.end());
    }

    #[test]
    fn a_shape_has_units() {
        let shape = parse_shape("cpu=16,memory=64GiB").unwrap();
        assert_eq!(shape.cpu, Some(MilliCores(16_000)));
        assert_eq!(shape.memory, Some(Bytes::mib(64 * 1024)));
        for bad in ["", "cpu", "cpu=x", "memory=64", "gpu=1"] {
            assert!(parse_shape(bad).is_err(), "{bad}");
        }
    }
}
