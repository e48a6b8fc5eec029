//! `loomctl dev`: the whole system on one machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use loom_bus::server::EmbeddedOptions;
use loom_bus::{Bus, ConnectOptions};
use loom_manager::{ManagerHandle, ManagerOptions};
use loom_node::{BusAccess, CapacityOverride, NodeHandle, NodeOptions, TasksOnStop};
use loom_schemas::ids::Name;
use loom_schemas::spec::Sets;
use loom_schemas::words::DriverKind;
use loom_task::private::{PASSAGE, make_directory};
use nix::unistd::geteuid;

use self::left::left_behind;
use self::share::{parse_shape, port_share, share};
use super::manager::Scheduling;
use super::node::found_drivers;
use super::own_bus::{OwnBus, not_started, refuse_other_bus};
use super::{Ready, StopSignals, data_dir, log_to_stderr, raise_open_files, write_ready};
use crate::cli::Global;
use crate::commands::run::submit;
use crate::commands::validate::{JobFile, read_job};
use crate::exit::{Failure, chain};
use crate::output;

mod left;
mod share;

/// Start bus, manager and node in this process: a whole cluster on one machine.
///
/// Ctrl-C stops it and leaves nothing running, a second one ends it at once. Started again on the
/// same directory it goes on where it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl dev
  loomctl dev web.yaml --nodes 3
  loomctl dev --nodes 0 --sim-nodes 500 --sim-shape cpu=32,memory=128GiB")]
pub(crate) struct Dev {
    /// Jobs to run at once
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The bus; port 0 picks a free one and remembers it in the data directory. Whoever reaches it runs
    /// programs as the user of this process
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
    /// Size of each sim node; repeat for several sizes, which they take in turn
    #[arg(long = "sim-shape", default_value = "cpu=16,memory=64GiB", value_name = "SHAPE", value_parser = parse_shape)]
    sim_shapes: Vec<CapacityOverride>,
    /// A directory beneath which tasks may have their output go (`logs: {to: ...}`), beside `logs` in
    /// the data directory; repeat for several
    #[arg(long = "log-dir", value_name = "DIR")]
    log_dirs: Vec<PathBuf>,
    #[command(flatten)]
    scheduling: Scheduling,
    /// Leave the tasks running at the end; the next start adopts them
    #[arg(long)]
    keep_tasks: bool,
    /// The nats-server program, where it is not found by itself
    #[arg(
        long,
        env = "LOOM_NATS_SERVER",
        hide_env_values = true,
        value_name = "PATH"
    )]
    nats_server: Option<PathBuf>,
    /// Written once all is ready: JSON with bus, pid and nodes
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// Whether the bus may listen where others reach it, see `--insecure`.
    #[arg(skip)]
    insecure: bool,
}

/// What runs in this process, as far as it was started.
#[derive(Default)]
struct Cluster {
    bus: Option<OwnBus>,
    manager: Option<ManagerHandle>,
    nodes: Vec<NodeHandle>,
}

impl Dev {
    /// Starts the cluster, waits, and stops it.
    pub(crate) async fn execute(mut self, global: &Global) -> Result<(), Failure> {
        // A person looks on, who is told how the cluster stands in other words.
        log_to_stderr("warn");
        global.output.must_be_default("dev")?;
        self.insecure = global.bus.insecure;
        refuse_other_bus(global, "dev", "--listen")?;
        // Read before anything is started: a wrong file is no reason to start a cluster.
        let jobs = self
            .files
            .iter()
            .map(|path| read_job(path, &Sets::new()))
            .collect::<Result<Vec<_>, _>>()?;
        let data_dir = data_dir(self.data_dir.as_ref(), "dev")?;
        raise_open_files();
        let mut signals = StopSignals::listen()?;
        let mut cluster = Cluster::default();
        // Boxed: it holds a whole start on its stack.
        let life = Box::pin(self.live(&mut cluster, &data_dir, &jobs, &mut signals));
        let ended = life.await;
        let (tasks, outcome) = match ended {
            Ended::Told if self.keep_tasks => (TasksOnStop::Keep, Ok(())),
            Ended::Told => (TasksOnStop::Stop, Ok(())),
            // Nobody asked for that: what runs is adopted by the next start.
            Ended::Failed(failure) => (TasksOnStop::Keep, Err(failure)),
            Ended::ToldTwice => return Err(left_behind(cluster.access().as_ref()).await),
        };
        let access = cluster.access();
        if outcome.is_ok() {
            output::note("\nstopping; Ctrl-C again ends it at once");
        }
        // Pinned here: dropped with the branch, the bus would be gone before it was asked.
        let mut stopping = std::pin::pin!(cluster.stop(tasks));
        tokio::select! {
            () = &mut stopping => outcome,
            () = signals.next() => Err(left_behind(access.as_ref()).await),
        }
    }

    /// The cluster's life, up to the moment it is to be stopped.
    async fn live(
        &self,
        cluster: &mut Cluster,
        data_dir: &Path,
        jobs: &[JobFile],
        signals: &mut StopSignals,
    ) -> Ended {
        {
            let mut start = std::pin::pin!(self.start(cluster, data_dir));
            tokio::select! {
                started = &mut start => if let Err(failure) = started {
                    return Ended::Failed(failure);
                },
                () = signals.next() => {
                    if self.keep_tasks {
                        return Ended::Told;
                    }
                    output::note("\nstopping, once what an earlier start left is there to be stopped");
                    // A node has to be there to stop what it finds.
                    return tokio::select! {
                        // What could not be started has nothing to stop.
                        _ = &mut start => Ended::Told,
                        () = signals.next() => Ended::ToldTwice,
                    };
                }
            }
        }
        let ready = async {
            for node in &cluster.nodes {
                node.ready().await.map_err(|e| Failure::error(chain(&e)))?;
            }
            self.announce(cluster, data_dir)
        };
        tokio::select! {
            ready = ready => if let Err(failure) = ready {
                return Ended::Failed(failure);
            },
            () = signals.next() => return Ended::Told,
        }
        match Self::serve(cluster, jobs, signals).await {
            Ok(()) => Ended::Told,
            Err(failure) => Ended::Failed(failure),
        }
    }

    fn bus_options(&self, data_dir: &Path) -> EmbeddedOptions {
        let mut options = EmbeddedOptions::new(data_dir.join("bus"));
        options.listen = self.listen;
        options.insecure = self.insecure;
        options.binary.clone_from(&self.nats_server);
        options
    }

    /// Starts every part; those that were started are in `cluster`, also when it fails.
    async fn start(&self, cluster: &mut Cluster, data_dir: &Path) -> Result<(), Failure> {
        // Tasks of other users work below it; a bus that made it would let nobody pass.
        made(data_dir)?;
        let bus = OwnBus::start(self.bus_options(data_dir)).await?;
        let bus = cluster.bus.insert(bus);
        let name = fixed_name("manager-1")?;
        let mut connect = bus.orch("manager manager-1");
        connect.require_jetstream = true;
        let mut options = ManagerOptions::new(name, connect, data_dir.join("manager-1"));
        options.strategy = self.scheduling.strategy.into();
        options.system = Some(bus.system("doctor"));
        options.trouble = Some(bus.trouble());
        let cannot = |error| not_started(&error, Some(data_dir));
        let manager = loom_manager::start(options).await.map_err(cannot)?;
        let manager = cluster.manager.insert(manager);
        manager.begun().await.map_err(cannot)?;
        let failed = |error: loom_bus::ConnectError| Failure::error(chain(&error));
        let access = BusAccess::Shared {
            control: Bus::connect(bus.orch("nodes")).await.map_err(failed)?,
            bulk: Bus::connect(bus.orch("nodes bulk")).await.map_err(failed)?,
        };
        for options in self.node_options(&access, data_dir).await? {
            let name = options.name.clone();
            let node = loom_node::start(options)
                .await
                .map_err(|error| Failure::error(format!("node {name}: {}", chain(&error))))?;
            cluster.nodes.push(node);
        }
        Ok(())
    }

    /// What each node is started with: real ones share out what this machine has.
    async fn node_options(
        &self,
        access: &BusAccess,
        data_dir: &Path,
    ) -> Result<Vec<NodeOptions>, Failure> {
        let drivers = found_drivers(true).await;
        let own = data_dir.join("logs");
        made(&own)?;
        let log_dirs = [&[own], self.log_dirs.as_slice()].concat();
        let mut all = Vec::new();
        for number in 1..=self.nodes {
            let name = fixed_name(&format!("node-{number}"))?;
            let directory = data_dir.join(name.as_str());
            let mut options = NodeOptions::new(name, access.clone(), directory);
            options.allow_process = true;
            options.log_dirs.clone_from(&log_dirs);
            options.drivers.clone_from(&drivers);
            options.find_docker = true;
            options.address = Some(announced(self.listen.ip()).to_string());
            if self.nodes > 1 {
                options.capacity = share(number, self.nodes, data_dir);
                options.ports = port_share(number, self.nodes);
            }
            all.push(options);
        }
        for (number, shape) in (1..=self.sim_nodes).zip(self.sim_shapes.iter().cycle()) {
            let name = fixed_name(&format!("sim-{number}"))?;
            let directory = data_dir.join(name.as_str());
            let mut options = NodeOptions::new(name, access.clone(), directory);
            options.drivers = vec![DriverKind::Sim];
            options.capacity = shape.clone();
            options.address = Some(announced(self.listen.ip()).to_string());
            options.labels.insert("sim".to_owned(), "true".to_owned());
            all.push(options);
        }
        Ok(all)
    }

    fn announce(&self, cluster: &Cluster, data_dir: &Path) -> Result<(), Failure> {
        let url = cluster.bus.as_ref().map_or("", OwnBus::url);
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
        let user = if geteuid().is_root() { "root" } else { "you" };
        output::note(&format!(
            "\nwhoever reaches this bus runs programs as {user}: {}",
            if self.listen.ip().is_loopback() {
                "every user of this machine"
            } else {
                "every host that this address is open to"
            }
        ));
        output::note("ready; Ctrl-C stops it");
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

    /// Runs the jobs given, then waits to be told to stop.
    async fn serve(
        cluster: &mut Cluster,
        jobs: &[JobFile],
        signals: &mut StopSignals,
    ) -> Result<(), Failure> {
        let access = cluster.access();
        tokio::select! {
            submitted = submit_all(access.as_ref(), jobs) => submitted?,
            () = signals.next() => return Ok(()),
        }
        let Some(bus) = &mut cluster.bus else {
            return Ok(());
        };
        tokio::select! {
            () = signals.next() => Ok(()),
            failure = bus.keep() => Err(failure),
        }
    }
}

/// Why a cluster is to be stopped.
enum Ended {
    /// By a signal.
    Told,
    /// By a second one, while it was not there yet.
    ToldTwice,
    /// Something it cannot do without is missing.
    Failed(Failure),
}

/// Submits the jobs named on the command line.
async fn submit_all(access: Option<&ConnectOptions>, jobs: &[JobFile]) -> Result<(), Failure> {
    let (Some(access), [_, ..]) = (access, jobs) else {
        return Ok(());
    };
    let bus = Bus::connect(access.clone())
        .await
        .map_err(|error| Failure::error(chain(&error)))?;
    for job in jobs {
        let done = submit(&bus, job, None).await?;
        output::note(&format!("{}: accepted, version {}", done.job, done.version));
    }
    Ok(())
}

impl Cluster {
    /// How a user reaches its bus.
    fn access(&self) -> Option<ConnectOptions> {
        Some(self.bus.as_ref()?.user("loomctl dev"))
    }

    /// Nodes first, so that the manager hears of their tasks' ends; the bus last.
    async fn stop(self, tasks: TasksOnStop) {
        futures::future::join_all(self.nodes.into_iter().map(|node| node.stop(tasks))).await;
        if let Some(manager) = self.manager {
            manager.stop().await;
        }
        if let Some(bus) = self.bus {
            bus.stop().await;
        }
    }
}

/// A directory that others may pass and not look into.
fn made(path: &Path) -> Result<(), Failure> {
    let made = make_directory(path, PASSAGE);
    let failed = |error| Failure::error(format!("make the directory {}: {error}", path.display()));
    made.map(drop).map_err(failed)
}

fn fixed_name(text: &str) -> Result<Name, Failure> {
    Name::new(text).map_err(|error| Failure::error(error.to_string()))
}

/// Where tasks find each other: a bus that listens everywhere is no address.
fn announced(listen: IpAddr) -> IpAddr {
    if listen.is_unspecified() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        listen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_that_listens_everywhere_is_no_address_to_announce() {
        let said = |text: &str| announced(text.parse().unwrap()).to_string();
        assert_eq!(said("0.0.0.0"), "127.0.0.1");
        assert_eq!(said("::"), "127.0.0.1");
        assert_eq!(said("10.0.0.7"), "10.0.0.7");
    }
}
