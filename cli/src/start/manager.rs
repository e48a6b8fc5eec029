//! `loomctl manager start`.

use std::path::PathBuf;

use clap::ValueEnum;
use loom_manager::ManagerOptions;
use loom_schemas::ids::Name;
use loom_schemas::words::Strategy;

use super::{
    AGENT_LOG, Ready, data_dir, host_name, log_to_stderr, raise_open_files, told_to_stop,
    write_ready,
};
use crate::cli::Global;
use crate::exit::{Failure, chain};
use crate::output;

/// Start a manager: one leads, the others stand by.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl manager start --bus nats://10.0.0.7:4222 --name m1 --data-dir /var/lib/loom/m1")]
pub(crate) struct ManagerStart {
    /// Its name; the host's if none
    #[arg(long)]
    name: Option<Name>,
    /// Where it keeps its files [default: ~/.local/share/loom/manager-NAME]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    scheduling: Scheduling,
    /// Copies of each stream the bus keeps: 1, or 3 on a bus of three servers or more
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
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
        let name = match self.name {
            Some(name) => name,
            None => Name::new(&host_name())
                .map_err(|error| Failure::usage(format!("--name: {error}")))?,
        };
        let mut connect = global.bus.options(&format!("manager {name}"))?;
        connect.require_jetstream = true;
        let url = connect.url.clone();
        let data_dir = data_dir(self.data_dir.as_ref(), &format!("manager-{name}"))?;
        let mut options = ManagerOptions::new(name.clone(), connect, data_dir);
        options.strategy = self.scheduling.strategy.into();
        options.replicas = usize::from(self.replicas);
        let manager = loom_manager::start(options)
            .await
            .map_err(|error| Failure::error(chain(&error)))?;
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
        told_to_stop().await?;
        manager.stop().await;
        Ok(())
    }
}
