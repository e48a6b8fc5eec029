//! The command line: every verb, and where it is carried out.

use clap::{Parser, Subcommand};

use crate::client::BusArgs;
use crate::commands;
use crate::exit::Failure;
use crate::output::Form;
use crate::start;

/// Runs jobs on machines, and talks to every task while it runs.
///
/// Addresses: `web` is a job, `web/0` index 0 of its only task, `web/api` a task, `web/api/0` one
/// index of it; a run is named by its id or the last 8 characters of it.
///
/// Exit codes: 0 done; 1 error or a failed batch job; 2 not all placed or running by the deadline, or rolled back;
/// 3 some tasks failed the command; 4 not found; 5 denied; 6 conflict; 7 the bus or a manager does
/// not answer; 64 bad usage; 124 --timeout passed.
#[derive(Debug, Parser)]
#[command(
    name = "loomctl",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "Examples:
  loomctl dev
  loomctl run web.yaml
  loomctl status web
  loomctl VERB --help"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Global {
    #[command(flatten)]
    pub(crate) bus: BusArgs,
    /// Form of the output
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORM"
    )]
    pub(crate) output: Form,
}

/// The verbs; what each does is said where it is carried out.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Dev(start::dev::Dev),
    /// Start a manager, or list them
    #[command(subcommand)]
    Manager(ManagerVerb),
    /// Make the files of a bus of several servers
    #[command(subcommand)]
    Bus(BusVerb),
    /// Start a node agent, or look at nodes
    #[command(subcommand, alias = "worker")]
    Node(NodeVerb),
    Run(commands::run::Run),
    Plan(commands::plan::Plan),
    Validate(commands::validate::Validate),
    Status(commands::status::Status),
    Stop(commands::stop::Stop),
    Restart(commands::restart::Restart),
    Scale(commands::scale::Scale),
    Dispatch(commands::dispatch::Dispatch),
    History(commands::history::History),
    Export(commands::history::Export),
    Rollback(commands::update::Rollback),
    Promote(commands::update::Promote),
    /// Pause an update of a job, or let it go on
    #[command(subcommand)]
    Update(commands::update::UpdateCommand),
    Signal(commands::signal::SignalVerb),
    Pause(commands::signal::Pause),
    Resume(commands::signal::Resume),
    Inspect(commands::signal::InspectVerb),
    Stats(commands::stats::StatsVerb),
    Logs(commands::logs::Logs),
    Events(commands::events::Events),
    Schema(commands::schema::Schema),
    Completion(commands::completion::Completion),
    Doctor(commands::doctor::Doctor),
    Version(commands::version::Version),
}

/// `loomctl manager`.
#[derive(Debug, Subcommand)]
pub(crate) enum ManagerVerb {
    Start(start::manager::ManagerStart),
    Ls(commands::managers::ManagerLs),
}

/// `loomctl bus`.
#[derive(Debug, Subcommand)]
pub(crate) enum BusVerb {
    /// Make keys, certificates and a configuration for each server
    Init(commands::bus::BusInit),
    /// Make a user's credentials file
    User(commands::bus::BusUser),
    /// Make a node's credentials file
    Node(commands::bus::BusNode),
    /// Take the credentials of a user or a node back
    Revoke(commands::bus::BusRevoke),
}

/// `loomctl node`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    Start(Box<start::node::NodeStart>),
    Ls(commands::nodes::NodeLs),
    Status(commands::nodes::NodeStatusVerb),
    Lost(commands::nodes::NodeLost),
    Drain(commands::node_orders::NodeDrain),
    Undrain(commands::node_orders::NodeUndrain),
    Label(commands::node_orders::NodeLabel),
    Taint(commands::node_orders::NodeTaint),
    Rebalance(commands::rebalance::NodeRebalance),
}

impl Verb {
    /// Carries the verb out.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Dev(verb) => verb.execute(global).await,
            Self::Manager(ManagerVerb::Start(verb)) => verb.execute(global).await,
            Self::Manager(ManagerVerb::Ls(verb)) => verb.execute(global).await,
            Self::Bus(BusVerb::Init(verb)) => verb.execute(global),
            Self::Bus(BusVerb::User(verb)) => verb.execute(global),
            Self::Bus(BusVerb::Node(verb)) => verb.execute(global),
            Self::Bus(BusVerb::Revoke(verb)) => verb.execute(global),
            Self::Node(NodeVerb::Start(verb)) => verb.execute(global).await,
            Self::Node(NodeVerb::Ls(verb)) => verb.execute(global).await,
            Self::Node(NodeVerb::Status(verb)) => verb.execute(global).await,
            Self::Node(NodeVerb::Lost(verb)) => verb.execute(global).await,
            Self::Node(NodeVerb::Drain(verb)) => verb.execute(global).await,
            Self::Node(NodeVerb::Undrain(verb)) => verb.execute(global).await,
            Self::Node(NodeVerb::Label(verb)) => verb.execute(global).await,
            Self::Node(NodeVerb::Taint(verb)) => verb.execute(global).await,
            Self::Node(NodeVerb::Rebalance(verb)) => verb.execute(global).await,
            Self::Run(verb) => verb.execute(global).await,
            Self::Plan(verb) => verb.execute(global).await,
            Self::Validate(verb) => verb.execute(global),
            Self::Status(verb) => verb.execute(global).await,
            Self::Stop(verb) => verb.execute(global).await,
            Self::Restart(verb) => verb.execute(global).await,
            Self::Scale(verb) => verb.execute(global).await,
            Self::Dispatch(verb) => verb.execute(global).await,
            Self::History(verb) => verb.execute(global).await,
            Self::Export(verb) => verb.execute(global).await,
            Self::Rollback(verb) => verb.execute(global).await,
            Self::Promote(verb) => verb.execute(global).await,
            Self::Update(verb) => verb.execute(global).await,
            Self::Signal(verb) => verb.execute(global).await,
            Self::Pause(verb) => verb.execute(global).await,
            Self::Resume(verb) => verb.execute(global).await,
            Self::Inspect(verb) => verb.execute(global).await,
            Self::Stats(verb) => verb.execute(global).await,
            Self::Logs(verb) => verb.execute(global).await,
            Self::Events(verb) => verb.execute(global).await,
            Self::Schema(verb) => verb.execute(global),
            Self::Completion(verb) => verb.execute(global),
            Self::Doctor(verb) => verb.execute(global).await,
            Self::Version(verb) => verb.execute(global),
        }
    }
}
