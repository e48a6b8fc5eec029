//! `loomctl manager start`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use loom_bus::stream::replicas_for;
use loom_bus::{ConnectOptions, Login};
use loom_manager::{ManagerHandle, ManagerOptions, StartError};
use loom_schemas::ids::Name;
use loom_schemas::words::Strategy;

use super::{
    AGENT_LOG, BUS_WAIT, Ready, StopSignals, data_dir, host_name, log_to_stderr, parse_patience,
    raise_open_files, wait_for_bus, write_ready,
};
use crate::cli::Global;
use crate::exit::{Code, Failure, chain};
use crate::output;

/// Start a manager: one leads, the others stand by.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl manager start --bus tls://10.0.0.7 --name m1 --data-dir /var/lib/loom/m1")]
pub(crate) struct ManagerStart {
    /// Its name; the host's if none
    #[arg(long)]
    name: Option<Name>,
    /// Where it keeps its files [default: ~/.local/share/loom/manager-NAME]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    scheduling: Scheduling,
    /// Copies of each stream the bus keeps, when it makes them [default: 3 on a bus of three
    /// servers or more, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
    /// A node that is silent for so long is down
    #[arg(long, default_value = "10s", value_parser = parse_patience, value_name = "TIME")]
    down_after: Duration,
    /// The tasks of a node that is down for so long are lost, and replaced elsewhere. No node may
    /// have a longer one
    #[arg(long, default_value = "30s", value_parser = parse_patience, value_name = "TIME")]
    lost_after: Duration,
    /// Credentials file for the bus's system account: with it, doctor knows whether writes reach
    /// the disk
    #[arg(
        long,
        env = "LOOM_SYSTEM_CREDS",
        hide_env_values = true,
        value_name = "FILE"
    )]
    system_creds: Option<PathBuf>,
    /// Written once it follows the log: JSON with bus, pid and nodes
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

/// How tasks find their nodes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Scheduling {
    /// How nodes that fit are ranked
    #[arg(long, value_enum, default_value_t = StrategyArg::Epvm, value_name = "STRATEGY")]
    pub(crate) strategy: StrategyArg,
}

/// A strategy on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StrategyArg {
    /// Least marginal cost
    Epvm,
    /// The fullest node that fits
    Binpack,
    /// The node with the fewest replicas of the task
    Spread,
    /// One node after the other
    RoundRobin,
}

impl From<StrategyArg> for Strategy {
    fn from(strategy: StrategyArg) -> Self {
        match strategy {
            StrategyArg::Epvm => Self::Epvm,
            StrategyArg::Binpack => Self::Binpack,
            StrategyArg::Spread => Self::Spread,
            StrategyArg::RoundRobin => Self::RoundRobin,
        }
    }
}

impl ManagerStart {
    /// Runs the manager until told to stop.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        log_to_stderr(AGENT_LOG);
        global.output.must_be_default("manager start")?;
        raise_open_files();
        let name = match &self.name {
            Some(name) => name.clone(),
            None => Name::new(&host_name())
                .map_err(|error| Failure::usage(format!("--name: {error}")))?,
        };
        let mut connect = global.bus.options(&format!("manager {name}"))?;
        connect.require_jetstream = true;
        let url = connect.shown_url();
        let data_dir = data_dir(self.data_dir.as_ref(), &format!("manager-{name}"))?;
        let server = wait_for_bus(&connect).await?;
        let options = self.options(name.clone(), connect, data_dir, server.servers);
        let mut signals = StopSignals::listen()?;
        let manager = tokio::select! {
            manager = started(options) => manager?,
            () = signals.next() => return Err(Failure::silent(Code::Done)),
        };
        output::note(&format!("manager {name} is up on {url}"));
        if let Some(path) = &self.ready_file {
            write_ready(
                path,
                &Ready {
                    bus: &url,
                    pid: std::process::id(),
                    nodes: Vec::new(),
                },
            )?;
        }
        signals.next().await;
        tokio::select! {
            () = manager.stop() => Ok(()),
            () = signals.next() => Err(Failure::error(format!(
                "manager {name} ended at once, before it had handed over; what it committed is safe"
            ))),
        }
    }

    /// What the flags say of a manager on a bus of so many servers.
    fn options(
        &self,
        name: Name,
        connect: ConnectOptions,
        data_dir: PathBuf,
        servers: usize,
    ) -> ManagerOptions {
        // A bus that is just starting knows fewer servers than the one who named them.
        let named = connect.url.split(',').count();
        let system = self.system_creds.as_ref().map(|creds| ConnectOptions {
            login: Login::CredentialsFile(creds.clone()),
            require_jetstream: false,
            ..connect.clone()
        });
        let mut options = ManagerOptions::new(name, connect, data_dir);
        options.strategy = self.scheduling.strategy.into();
        options.replicas = self
            .replicas
            .map_or_else(|| replicas_for(servers.max(named)), usize::from);
        options.timings.down_after = self.down_after;
        options.timings.lost_after = self.lost_after;
        options.system = system;
        options
    }
}

/// Starts it, for a while again and again where the bus cannot make the streams: a server of it
/// may still be coming.
async fn started(options: ManagerOptions) -> Result<ManagerHandle, Failure> {
    let begun = tokio::time::Instant::now();
    loop {
        match loom_manager::start(options.clone()).await {
            Ok(manager) => return Ok(manager),
            Err(error @ (StartError::Streams(_) | StartError::Log(_)))
                if begun.elapsed() < BUS_WAIT =>
            {
                tracing::info!("{}; trying again", chain(&error));
            }
            Err(error) => return Err(Failure::error(chain(&error))),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
