//! `loomctl node start`.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use loom_bus::ConnectOptions;
use loom_node::{BusAccess, NodeOptions, TasksOnStop};
use loom_schemas::ids::Name;
use loom_schemas::words::DriverKind;

use super::capacity::CapacityFlags;
use super::gpus::{numbered, parse_gpus};
use super::{
    AGENT_LOG, Ready, StopSignals, data_dir, host_name, log_to_stderr, parse_patience, parse_ports,
    raise_open_files, told_to_stop, wait_for_bus, write_ready,
};
use crate::address::parse_pair;
use crate::cli::Global;
use crate::exit::{Code, Failure, chain};
use crate::output;

/// Start a node agent: it runs tasks on this machine.
///
/// Ctrl-C or SIGTERM ends the agent; its tasks go on and are adopted by the next one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl node start --bus tls://10.0.0.7 --name n1 --allow-process --label disk=ssd")]
pub(crate) struct NodeStart {
    /// Its name; that of its credentials if none, or the host's
    #[arg(long)]
    name: Option<Name>,
    /// Where it keeps its files [default: ~/.local/share/loom/node-NAME]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A label, for selectors; repeat for several
    #[arg(long = "label", value_parser = parse_pair, value_name = "K=V")]
    labels: Vec<(String, String)>,
    /// The datacenter it is in
    #[arg(long)]
    datacenter: Option<String>,
    /// The address by which tasks on other hosts reach this one [default: that of the interface
    /// towards the bus]
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Let tasks run as plain processes on this machine
    #[arg(long)]
    allow_process: bool,
    /// A directory beneath which tasks may have their output go (`logs: {to: ...}`), as the user of this
    /// process; repeat for several. Without one they may nowhere but in the node's own directory
    #[arg(long = "log-dir", value_name = "DIR")]
    log_dirs: Vec<PathBuf>,
    #[arg(long, hide = true)]
    allow_host_volumes: bool,
    /// Host ports it gives to tasks
    #[arg(long, default_value = "20000-29999", value_parser = parse_ports, value_name = "RANGE")]
    ports: RangeInclusive<u16>,
    #[command(flatten)]
    capacity: CapacityFlags,
    /// Gpus it gives to tasks, in place of those it finds (NVIDIA's, by model); their ids are numbers
    /// from 0; repeat for several names, 0 for none
    #[arg(long = "gpu", value_parser = parse_gpus, value_name = "NAME=COUNT")]
    gpus: Vec<(Name, u32)>,
    /// What runs tasks here: docker, process, sim [default: process where that is allowed, and docker
    /// from when an engine answers]
    #[arg(long, value_delimiter = ',', value_parser = parse_driver)]
    driver: Vec<DriverKind>,
    /// Without a manager for so long it starts nothing more; the managers' own if that is shorter
    #[arg(long, default_value = "30s", value_parser = parse_patience, value_name = "TIME")]
    lost_after: Duration,
    /// Stop all tasks before it ends
    #[arg(long)]
    stop_tasks: bool,
    /// Written once it takes tasks: JSON with bus, pid and nodes
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

/// What can run tasks here where nobody says: containers where an engine answers, processes where
/// they are allowed.
pub(crate) async fn found_drivers(allow_process: bool) -> Vec<DriverKind> {
    let mut drivers = Vec::new();
    if loom_node::docker_answers().await {
        drivers.push(DriverKind::Docker);
    }
    if allow_process {
        drivers.push(DriverKind::Process);
    }
    drivers
}

/// Reads a driver's name.
pub(crate) fn parse_driver(text: &str) -> Result<DriverKind, String> {
    match text {
        "process" => Ok(DriverKind::Process),
        "sim" => Ok(DriverKind::Sim),
        "docker" => Ok(DriverKind::Docker),
        _ => Err("expected docker, process or sim".to_owned()),
    }
}

impl NodeStart {
    /// What the flags say of a node.
    fn options(
        &self,
        name: Name,
        drivers: Vec<DriverKind>,
        connect: ConnectOptions,
        data_dir: PathBuf,
    ) -> NodeOptions {
        let mut options = NodeOptions::new(name, BusAccess::Connect(connect), data_dir);
        options.labels = self.labels.iter().cloned().collect();
        options.datacenter.clone_from(&self.datacenter);
        options.address = self.address.map(|address| address.to_string());
        options.ports = self.ports.clone();
        options.capacity = self.capacity.told();
        options.capacity.gpus = (!self.gpus.is_empty()).then(|| numbered(&self.gpus));
        options.drivers = drivers;
        options.find_docker = self.driver.is_empty();
        options.allow_process = self.allow_process;
        options.log_dirs.clone_from(&self.log_dirs);
        options.timings.lost_after = self.lost_after;
        options
    }

    /// What runs tasks here, as asked or as found.
    async fn drivers(&self) -> Result<Vec<DriverKind>, Failure> {
        let drivers = match self.driver.as_slice() {
            [] => found_drivers(self.allow_process).await,
            asked => asked.to_vec(),
        };
        let usable = |driver: &DriverKind| *driver != DriverKind::Process || self.allow_process;
        if !drivers.iter().any(usable) {
            return Err(Failure::usage(
                "this node could run nothing: start a Docker Engine beside it, add --allow-process \
                 to let tasks run as plain processes here, or --driver sim",
            ));
        }
        Ok(drivers)
    }

    /// Its name, where its credentials may say one as well.
    fn name(&self, of_credentials: Option<Name>) -> Result<Name, Failure> {
        match (&self.name, of_credentials) {
            (Some(name), Some(of)) if *name != of => Err(Failure::new(
                Code::Denied,
                format!(
                    "these credentials are of node {of}: start it as that, or make those of {name} \
                     with `loomctl bus node DIR {name}`"
                ),
            )),
            (Some(name), _) => Ok(name.clone()),
            (None, Some(of)) => Ok(of),
            (None, None) => {
                Name::new(&host_name()).map_err(|error| Failure::usage(format!("--name: {error}")))
            }
        }
    }

    /// Runs the agent until told to stop.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        log_to_stderr(AGENT_LOG);
        global.output.must_be_default("node start")?;
        if self.allow_host_volumes {
            return Err(Failure::usage(
                "--allow-host-volumes: volumes are not supported yet; leave it out",
            ));
        }
        raise_open_files();
        let drivers = self.drivers().await?;
        let mut connect = global.bus.options("node")?;
        let name = self.name(connect.node())?;
        connect.name = format!("node {name}");
        connect.require_jetstream = false;
        wait_for_bus(&connect).await?;
        let url = connect.shown_url();
        let data_dir = data_dir(self.data_dir.as_ref(), &format!("node-{name}"))?;
        let node = loom_node::start(self.options(name.clone(), drivers, connect, data_dir))
            .await
            .map_err(|error| Failure::error(chain(&error)))?;
        tokio::select! {
            ready = node.ready() => ready.map_err(|error| Failure::error(chain(&error)))?,
            stopped = told_to_stop() => {
                stopped?;
                node.stop(TasksOnStop::Keep).await;
                return Ok(());
            }
        }
        output::note(&format!("node {name} is up on {url}"));
        if let Some(path) = &self.ready_file {
            let nodes = vec![name.to_string()];
            write_ready(
                path,
                &Ready {
                    bus: &url,
                    pid: std::process::id(),
                    nodes,
                },
            )?;
        }
        let mut signals = StopSignals::listen()?;
        tokio::select! {
            reason = node.stopped() => {
                let reason = reason.unwrap_or_else(|| "it ended".to_owned());
                return Err(Failure::error(format!("node {name}: {reason}")));
            }
            () = signals.next() => {}
        }
        let tasks = if self.stop_tasks {
            TasksOnStop::Stop
        } else {
            TasksOnStop::Keep
        };
        tokio::select! {
            () = node.stop(tasks) => Ok(()),
            () = signals.next() => Err(Failure::error(format!(
                "node {name} ended at once, before its tasks had; an agent started on the same \
                 data directory adopts them"
            ))),
        }
    }
}
