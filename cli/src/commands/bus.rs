//! `loomctl bus init`, `bus user`, `bus node` and `bus revoke`: the files of a bus of several servers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use loom_bus::server::deploy::{Deployment, Member, Role, url};
use loom_schemas::ids::Name;

use crate::cli::Global;
use crate::exit::{Failure, chain};
use crate::output;

/// Make keys, certificates and a configuration for each server.
///
/// `DIR/servers/NAME` is copied to the host of that server and started there with
/// `nats-server -c nats-server.conf`; `DIR/clients` holds what managers, nodes and users need.
/// `DIR/keys` signs all of it and stays where it is. Made again, for instance with other servers,
/// keys and users stay, and the servers' files are made anew.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl bus init ~/loom-bus --server n1=10.0.0.1 --server n2=10.0.0.2 \\
    --server n3=10.0.0.3 --node n1 --node n2 --user ada")]
pub(crate) struct BusInit {
    /// Where the files are put
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// A server, by name and address; three of them survive the loss of one. Clients connect to
    /// PORT (4222), servers to each other at ROUTES (6222)
    #[arg(
        long = "server",
        required = true,
        value_name = "NAME=HOST[:PORT[:ROUTES]]"
    )]
    servers: Vec<Member>,
    /// A user; repeat for several, or add them later with `bus user`
    #[arg(long = "user", value_name = "NAME")]
    users: Vec<Name>,
    /// A node; repeat for several, or add them later with `bus node`
    #[arg(long = "node", value_name = "NAME")]
    nodes: Vec<Name>,
}

/// Make a user's credentials file.
///
/// No server is told: they take whoever the keys in DIR have signed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl bus user ~/loom-bus bob")]
pub(crate) struct BusUser {
    /// Where `bus init` put its files
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The user; jobs they submit are theirs
    #[arg(value_name = "NAME")]
    name: Name,
}

/// Make a node's credentials file.
///
/// With it an agent can speak as that node alone: report of its tasks, send their output, and answer. It
/// has its name from there, unless `--name` says the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl bus node ~/loom-bus n4")]
pub(crate) struct BusNode {
    /// Where `bus init` put its files
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The node
    #[arg(value_name = "NAME")]
    name: Name,
}

/// Take the credentials of a user or a node back.
///
/// The servers have to be told: DIR has a new configuration for each, to be copied there and read
/// with `nats-server --signal reload`, which also ends the user's connections. The name can be
/// given away again with `bus user`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl bus revoke ~/loom-bus bob")]
pub(crate) struct BusRevoke {
    /// Where `bus init` put its files
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The user, with --node the node
    #[arg(value_name = "NAME")]
    name: Name,
    /// It is a node's
    #[arg(long)]
    node: bool,
}

impl BusRevoke {
    /// Writes the configurations, and says what to do with them.
    pub(crate) fn execute(self, global: &Global) -> Result<(), Failure> {
        global.output.must_be_default("bus revoke")?;
        let failed = |error| Failure::error(chain(&error));
        let made = Deployment::open(&self.dir).map_err(failed)?;
        let role = if self.node { Role::Node } else { Role::User };
        let configs = made.revoke(role, &self.name, jiff::Timestamp::now());
        let mut text = format!(
            "# {} is let in until these are on their hosts and were read there with\n\
             #   nats-server --signal reload\n",
            self.name
        );
        for config in configs.map_err(failed)? {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", config.display());
        }
        output::text(&text)
    }
}

impl BusInit {
    /// Makes the files, and says what to do with them.
    pub(crate) fn execute(self, global: &Global) -> Result<(), Failure> {
        global.output.must_be_default("bus init")?;
        let failed = |error| Failure::error(chain(&error));
        let made = Deployment::init(&self.dir, &self.servers).map_err(failed)?;
        let users = self.users.iter().map(|user| (Role::User, user));
        let nodes = self.nodes.iter().map(|node| (Role::Node, node));
        for (role, name) in users.chain(nodes) {
            if !made.credentials_of(role, name).exists() {
                made.add(role, name).map_err(failed)?;
            }
        }
        if self.servers.len() == 2 {
            output::note(
                "note: two servers stop when either does; one is as safe, three survive a loss",
            );
        }
        output::text(&self.next_steps(&made))
    }

    fn next_steps(&self, made: &Deployment) -> String {
        let mut text = String::from("# on each server's host, with its directory copied there:\n");
        // Writing to a string cannot fail.
        for server in &self.servers {
            let directory = self.dir.join("servers").join(server.name.as_str());
            let directory = directory.display();
            let _ = writeln!(
                text,
                "#   {}: cd {directory} && nats-server -c nats-server.conf",
                server.host
            );
        }
        let _ = write!(
            text,
            "# for managers; nodes and users have files of their own, see `bus node` and `bus user`:\n\
             export LOOM_BUS={}\nexport LOOM_TLS_CA={}\nexport LOOM_CREDS={}\n",
            url(&self.servers),
            absolute(&made.authority()),
            absolute(&made.credentials_path("loom"))
        );
        text
    }
}

impl BusUser {
    /// Makes the file and prints where it is.
    pub(crate) fn execute(self, global: &Global) -> Result<(), Failure> {
        global.output.must_be_default("bus user")?;
        add(&self.dir, Role::User, &self.name)
    }
}

impl BusNode {
    /// Makes the file and prints where it is.
    pub(crate) fn execute(self, global: &Global) -> Result<(), Failure> {
        global.output.must_be_default("bus node")?;
        add(&self.dir, Role::Node, &self.name)
    }
}

fn add(dir: &Path, role: Role, name: &Name) -> Result<(), Failure> {
    let failed = |error| Failure::error(chain(&error));
    let made = Deployment::open(dir).map_err(failed)?;
    let path = made.add(role, name).map_err(failed)?;
    output::text(&format!("{}\n", path.display()))
}

fn absolute(path: &Path) -> String {
    let absolute = std::path::absolute(path);
    absolute.map_or_else(
        |_| path.display().to_string(),
        |path| path.display().to_string(),
    )
}
