//! The job language in its canonical form: every short-hand written out, every default filled in.
//!
//! The forms people write (YAML, TOML, JSON) are read into these types; these are what the log
//! keeps, what a node is sent and what two versions are compared by.

mod attribute;
mod constraint;
pub mod cron;
mod depend;
mod field;
mod file;
mod gpus;
mod health;
pub mod image;
mod json;
mod later;
mod lower;
mod msgpack;
mod placement;
mod policy;
mod problem;
mod program;
mod read;
mod reader;
pub mod reference;
mod resources;
mod schedule;
mod schema;
pub mod shell;
mod signals;
mod subjob;
mod syntax;
mod toml;
mod tree;
mod update;
mod vars;
mod version;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::units::{Bytes, Millis};
use crate::words::{DriverKind, Kind, Strategy};

pub use attribute::{Attribute, AttributeKind};
pub use constraint::{Comparison, Constraint, ConstraintError, Predicate, regexp, words};
pub use depend::{After, DEPENDENCIES_MAX, DependOn, DependsOn, SubJob};
pub use gpus::{GPU_NAMES_MAX, GPUS_MAX, Gpus, gpu_name};
pub use image::{ImageSpec, Network, Pull};
pub use lower::{PORTS_MAX, REPLICAS_MAX, TASKS_MAX, WORD_MAX, WORDS_MAX};
pub use placement::{
    Affinity, SpreadOver, Toleration, WEIGHT, check_taint_key, check_taint_value, taint_parts,
};
pub use policy::SimScript;
pub use problem::{Problem, ProblemKind, Report};
pub use read::{embed_files, read, read_set, read_with_files};
pub use reference::{ResultUse, may_lie_beneath};
pub use resources::{IndexSpec, PIDS_DEFAULT, ResourceChange, Resources};
pub use schedule::{Overlap, ScheduleSpec};
pub use schema::json_schema;
pub use signals::nearest_signal;
pub use syntax::Syntax;
pub use update::{OnUpdateFailure, UpdateOrder, UpdateSpec};
pub use vars::{RESULT_MAX, Sets, VARS_MAX, VarSpec, VarType};
pub use version::{Version, VersionRange};

/// The largest job file that is read, in bytes, scripts put in from files included.
///
/// The text and the spec read from it must fit into one commit of 6 MB.
pub const JOB_MAX: usize = 2 * 1024 * 1024;

/// What a user wants: a named set of tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Unique in the cluster.
    pub name: Name,
    /// Whom the job belongs to; the caller where the file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How long it is meant to live.
    #[serde(default)]
    pub kind: Kind,
    /// Who goes first where not all have room: the greater, up to 100.
    #[serde(default = "usual_priority", skip_serializing_if = "is_usual_priority")]
    pub priority: u8,
    /// The datacenters its nodes are in; any if none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datacenters: Vec<String>,
    /// How nodes are chosen for its tasks; as the cluster says if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// When it runs again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleSpec>,
    /// The jobs it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<DependsOn>,
    /// The values it was submitted with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<Name, VarSpec>,
    /// How a changed job takes the place of the one before.
    #[serde(default, skip_serializing_if = "UpdateSpec::is_default")]
    pub update: UpdateSpec,
    /// For selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// At least one.
    pub tasks: BTreeMap<Name, TaskSpec>,
}

/// The priority of a job that does not say.
pub const PRIORITY: u8 = 50;

fn usual_priority() -> u8 {
    PRIORITY
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_usual_priority(priority: &u8) -> bool {
    *priority == PRIORITY
}

/// One task of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// How it is executed.
    pub operator: Operator,
    /// The image of the container it runs in; plain processes on the node if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// The interpreter of a script in place of the operator's own, or the program of an image in
    /// place of its own, as argv.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments after the program or script.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// How many slots.
    pub replicas: u32,
    /// What single slots have otherwise; see [`of_index`](Self::of_index).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub per_index: BTreeMap<u32, IndexSpec>,
    /// Whether its slots start together or not at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gang: bool,
    /// Environment beside what Loom sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Values handed to it as `LOOM_PARAM_<NAME>`; references in them are filled in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<Name, String>,
    /// The values of those vars of the job that it refers to, so that it alone says what it runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<Name, String>,
    /// Whether what it leaves in `$LOOM_RESULT` is wanted, also of a container without a script.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub result: bool,
    /// The values of results of other tasks that it refers to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub results: BTreeSet<ResultUse>,
    /// The directory it starts in; the image's own or, without an image, its own run directory if
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The user, or `user:group`, by name or number; the image's or, without an image, the agent's
    /// own if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The network of its container.
    #[serde(default, skip_serializing_if = "Network::is_default")]
    pub network: Network,
    /// What it reserves, and is held to where the kernel lets.
    pub resources: Resources,
    /// Ports by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<Name, PortSpec>,
    /// What its nodes have to be; each counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
    /// What its nodes would better be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affinities: Vec<Affinity>,
    /// Over what its replicas would better be spread, beside nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<SpreadOver>,
    /// The taints of nodes that it puts up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// What happens when a run ends.
    pub restart: RestartSpec,
    /// How it is asked to end.
    pub stop: StopSpec,
    /// Time limit of one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TimeoutSpec>,
    /// The tasks of the job it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<After>,
    /// How its node finds out whether it does its work; it is not checked if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// What is kept of its output.
    pub logs: LogSpec,
    /// What the `sim` driver plays for it; only nodes with that driver take such a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sim: Option<SimScript>,
}

/// How a task is executed: the step from spec to launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operator {
    /// A shell script.
    Bash(Script),
    /// A Python script.
    Python(Script),
    /// A Go program in one file.
    Go(Script),
    /// An argv, never through a shell.
    Exec(Vec<String>),
    /// The program of the task's image, or `command` in its place.
    Image,
    /// Another job, dispatched with the task's params.
    Job(SubJob),
}

impl TaskSpec {
    /// What runs it on a node.
    pub fn driver(&self) -> DriverKind {
        if self.sim.is_some() {
            DriverKind::Sim
        } else if self.image.is_some() {
            DriverKind::Docker
        } else {
            DriverKind::Process
        }
    }
}

impl Operator {
    /// The field of a job file that chooses it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Bash(_) => "bash",
            Self::Python(_) => "python",
            Self::Go(_) => "go",
            Self::Exec(_) => "exec",
            Self::Image => "image",
            Self::Job(_) => "job",
        }
    }
}

/// A script, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// The text of the script.
    pub text: String,
    /// The file it was read from by the client, for messages; none if it stood in the job file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// One port of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// The port inside a container; a plain process listens on the host port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The port of the node; taken from the node's range if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<u16>,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// The protocol of a port.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// Restarts on the same node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartSpec {
    /// After which ends a task is started again.
    pub on: RestartOn,
    /// How many starts within `window` (within the slot's life where there is none), the first one
    /// included.
    pub attempts: u32,
    /// The pause before the first restart; it doubles with each, with jitter.
    pub delay: Millis,
    /// The longest pause.
    pub max_delay: Millis,
    /// Attempts older than this do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Millis>,
}

/// After which ends a task is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RestartOn {
    /// Whatever the exit code.
    Any,
    /// Only after a failure.
    Failure,
    /// Not at all.
    Never,
}

/// How a task is asked to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSpec {
    /// The first signal, by name: `SIGTERM`.
    pub signal: String,
    /// How long until `SIGKILL`.
    pub grace: Millis,
}

/// Time limit of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutSpec {
    /// The run is stopped after so long and ends `failed: timed out`.
    pub after: Millis,
    /// A warning before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<TimeoutWarning>,
}

/// A signal some time before a time limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutWarning {
    /// The signal, by name.
    pub signal: String,
    /// How long before the limit.
    pub before: Millis,
}

/// How a node finds out whether a run does its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// What is asked.
    pub check: HealthCheck,
    /// From the end of one check to the next.
    pub interval: Millis,
    /// A check that takes longer has failed.
    pub timeout: Millis,
    /// So many failures in a row make a run unhealthy.
    pub retries: u32,
    /// Failures so soon after the start do not count, until the first success.
    pub start_period: Millis,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthCheck {
    /// `GET`; healthy if the answer's status is from 200 to 399. Redirects are not followed.
    Http {
        /// The path, with its query; references in it are filled in.
        path: String,
        /// A port of the task.
        port: Name,
    },
    /// A connection; healthy if it is taken.
    Tcp {
        /// A port of the task.
        port: Name,
    },
    /// A program run beside the task's own; healthy if its exit code is 0.
    Exec(Vec<String>),
}

/// What is kept of a task's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// A file is rotated past this size.
    pub max_size: Bytes,
    /// How many files are kept.
    pub keep: u32,
    /// Whether the lines are published and kept on the bus.
    pub ship: bool,
    /// Where the files are on a node that lets them, as a pattern; the run's own directory if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

#[cfg(test)]
mod tests;
