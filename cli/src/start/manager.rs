//! `loomctl manager start`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use loom_bus::server::EmbeddedOptions;
use loom_bus::stream::replicas_for;
use loom_bus::{ConnectOptions, Login};
use loom_manager::{ManagerHandle, ManagerOptions, StartError};
use loom_schemas::ids::Name;
use loom_schemas::words::Strategy;

use super::own_bus::{OwnBus, not_started, refuse_other_bus, write_agents_file};
use super::{
    AGENT_LOG, BUS_WAIT, Ready, StopSignals, data_dir, host_name, log_to_stderr, parse_patience,
    raise_open_files, wait_for_bus, write_ready,
};
use crate::cli::Global;
use crate::exit::{Code, Failure, chain};
use crate::output;

/// Start a manager: one leads, the others stand by.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl manager start --bus tls://10.0.0.7 --name m1 --data-dir /var/lib/loom/m1
  loomctl manager start --embedded-bus")]
pub(crate) struct ManagerStart {
    /// Its name; the host's if none
    #[arg(long)]
    name: Option<Name>,
    /// Where it keeps its files [default: ~/.local/share/loom/manager-NAME]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Bring a bus of its own, for one host: it ends with this manager, and no other can take over
    #[arg(long)]
    embedded_bus: bool,
    /// Where that bus listens [default: 127.0.0.1:4222]; port 0 picks a free one and remembers it
    /// in the data directory
    #[arg(long, value_name = "ADDR:PORT", requires = "embedded_bus")]
    listen: Option<SocketAddr>,
    /// The nats-server program for it, where it is not found by itself
    #[arg(
        long,
        env = "LOOM_NATS_SERVER",
        hide_env_values = true,
        value_name = "PATH"
    )]
    nats_server: Option<PathBuf>,
    #[command(flatten)]
    scheduling: Scheduling,
    /// Copies of each stream the bus keeps, when it makes them [default: 3 on a bus of three
    /// servers or more, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
    /// A node that is silent for so long is down
    #[arg(long, default_value = "10s", value_parser = parse_patience, value_name = "TIME")]
    down_after: Duration,
    /// The tasks of a node that is down for so long are lost, and replaced elsewhere; no node starts
    /// anything without contact for longer
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
    /// The node where the least is left that nobody can use
    Balanced,
    /// One node after the other
    RoundRobin,
}

impl From<StrategyArg> for Strategy {
    fn from(strategy: StrategyArg) -> Self {
        match strategy {
            StrategyArg::Epvm => Self::Epvm,
            StrategyArg::Binpack => Self::Binpack,
            StrategyArg::Spread => Self::Spread,
            StrategyArg::Balanced => Self::Balanced,
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
        self.check_bus_flags(global)?;
        let data_dir = data_dir(self.data_dir.as_ref(), &format!("manager-{name}"))?;
        let mut signals = StopSignals::listen()?;
        let mut own = None;
        if self.embedded_bus {
            own = Some(tokio::select! {
                own = OwnBus::start(self.bus_options(&data_dir, global)) => own?,
                () = signals.next() => return Err(Failure::silent(Code::Done)),
            });
        }
        let ended = self.live(global, &name, &data_dir, own.as_mut(), &mut signals);
        // Boxed: it holds a whole start on its stack.
        let ended = Box::pin(ended).await;
        if let Some(own) = own {
            tokio::select! {
                () = own.stop() => {}
                () = signals.next() => {}
            }
        }
        ended
    }

    /// The manager's life on a bus that is there, its own or another.
    async fn live(
        &self,
        global: &Global,
        name: &Name,
        data_dir: &Path,
        own: Option<&mut OwnBus>,
        signals: &mut StopSignals,
    ) -> Result<(), Failure> {
        let options = match &own {
            Some(own) => {
                let system = Some(own.system("doctor"));
                let connect = own.orch(&format!("manager {name}"));
                write_agents_file(&agents_file(data_dir), own)?;
                let mut options = self.options(name.clone(), connect, data_dir, system, 1);
                options.trouble = Some(own.trouble());
                options
            }
            None => self.join(global, name, data_dir).await?,
        };
        let url = options.bus.shown_url();
        let own_dir = own.is_some().then_some(data_dir);
        let manager = tokio::select! {
            manager = started(options, own_dir) => manager?,
            () = signals.next() => return Err(Failure::silent(Code::Done)),
        };
        output::note(&format!("manager {name} is up on {url}"));
        if own.is_some() {
            let file = agents_file(data_dir);
            output::note(&format!(
                "nodes on this machine find it with {}",
                file.display()
            ));
        }
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
        let bus_failed = async {
            match own {
                Some(own) => own.keep().await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            () = signals.next() => Ok(()),
            failure = bus_failed => Err(failure),
        };
        tokio::select! {
            () = manager.stop() => outcome,
            () = signals.next() => Err(Failure::error(format!(
                "manager {name} ended at once, before it had handed over; what it committed is safe"
            ))),
        }
    }

    /// Waits for a bus that others run, and says what is wrong with it.
    async fn join(
        &self,
        global: &Global,
        name: &Name,
        data_dir: &Path,
    ) -> Result<ManagerOptions, Failure> {
        let connect = global.bus.options(&format!("manager {name}"))?;
        let server = wait_for_bus(&ConnectOptions {
            require_jetstream: true,
            ..connect.clone()
        })
        .await?;
        if server.is_embedded() {
            tracing::warn!(
                "the bus at {} lives inside another manager and ends with it: this one cannot take \
                 over then; to survive the loss of a manager let the bus run by itself, see \
                 `loomctl bus init`",
                connect.shown_url()
            );
        }
        let system = self.system_creds.as_ref().map(|creds| ConnectOptions {
            login: Login::CredentialsFile(creds.clone()),
            ..connect.clone()
        });
        // A bus that is just starting knows fewer servers than the one who named them.
        let servers = server.servers.max(connect.url.split(',').count());
        Ok(self.options(name.clone(), connect, data_dir, system, servers))
    }

    /// Refuses flags that make no sense together; what the environment says is for others as well.
    fn check_bus_flags(&self, global: &Global) -> Result<(), Failure> {
        let typed = |value: &Option<PathBuf>, variable: &str| {
            let value = value.as_ref().map(|path| path.as_os_str().to_owned());
            value.is_some() && value != std::env::var_os(variable)
        };
        if !self.embedded_bus {
            return if typed(&self.nats_server, "LOOM_NATS_SERVER") {
                Err(Failure::usage(
                    "--nats-server is for a bus of its own: add --embedded-bus",
                ))
            } else {
                Ok(())
            };
        }
        refuse_other_bus(global, "manager start --embedded-bus", "--listen")?;
        if typed(&self.system_creds, "LOOM_SYSTEM_CREDS") {
            return Err(Failure::usage(
                "manager start --embedded-bus has its own login of the system account; leave out \
                 --system-creds",
            ));
        }
        if self.replicas.is_some_and(|copies| copies > 1) {
            return Err(Failure::usage(
                "an embedded bus is one server and keeps one copy: leave out --replicas, or make \
                 a bus of several servers with `loomctl bus init`",
            ));
        }
        Ok(())
    }

    fn bus_options(&self, data_dir: &Path, global: &Global) -> EmbeddedOptions {
        let mut options = EmbeddedOptions::new(data_dir.join("bus"));
        if let Some(listen) = self.listen {
            options.listen = listen;
        }
        options.insecure = global.bus.insecure;
        options.binary.clone_from(&self.nats_server);
        options
    }

    /// What the flags say of a manager on a bus of so many servers.
    fn options(
        &self,
        name: Name,
        mut connect: ConnectOptions,
        data_dir: &Path,
        system: Option<ConnectOptions>,
        servers: usize,
    ) -> ManagerOptions {
        connect.require_jetstream = true;
        let mut options = ManagerOptions::new(name, connect, data_dir.to_path_buf());
        options.strategy = self.scheduling.strategy.into();
        options.replicas = self
            .replicas
            .map_or_else(|| replicas_for(servers), usize::from);
        options.timings.down_after = self.down_after;
        options.timings.lost_after = self.lost_after;
        options.system = system;
        options
    }
}

/// Where the nodes of this host find how to come in.
fn agents_file(data_dir: &Path) -> PathBuf {
    data_dir.join("agents.env")
}

/// Starts it, for a while again and again where the bus cannot make the streams: a server of it
/// may still be coming. Resolves once it follows the log; `own_dir` is where it keeps its own bus.
async fn started(
    options: ManagerOptions,
    own_dir: Option<&Path>,
) -> Result<ManagerHandle, Failure> {
    let begun = tokio::time::Instant::now();
    let cannot = |error| not_started(&error, own_dir);
    loop {
        match loom_manager::start(options.clone()).await {
            Ok(manager) => {
                manager.begun().await.map_err(cannot)?;
                return Ok(manager);
            }
            Err(error @ (StartError::Streams(_) | StartError::Log(_)))
                if begun.elapsed() < BUS_WAIT =>
            {
                tracing::info!("{}; trying again", chain(&error));
            }
            Err(error) => return Err(cannot(error)),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
