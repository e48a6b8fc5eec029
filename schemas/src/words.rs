//! The words of Loom that are enums: run states, job status, kinds.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a run is doing, in the order it can only move forward in.
///
/// A report never moves a run back: of two states the one with the greater [`rank`](Self::rank)
/// wins, and the first terminal state stays, so late and doubled reports are harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Wanted, not yet placed.
    Pending,
    /// Placed on a node, which may not know yet.
    Scheduled,
    /// The node fetches and builds what the run needs.
    Preparing,
    /// The driver was asked to start it.
    Starting,
    /// It runs.
    Running,
    /// It ended by itself with exit code 0, or with any code where none was wanted of it.
    Completed,
    /// It ended by itself after it had started, otherwise than it should.
    Failed,
    /// Somebody stopped it.
    Killed,
    /// Its node is gone and it will never be taken back.
    Lost,
    /// It could not be started.
    Rejected,
    /// A state this build does not know, from a newer one.
    #[serde(other)]
    Unknown,
}

impl RunState {
    /// All states a run can be in, in order.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Scheduled,
        Self::Preparing,
        Self::Starting,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Killed,
        Self::Lost,
        Self::Rejected,
    ];

    /// The place in the order; all terminal states share the greatest.
    pub fn rank(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Pending => 1,
            Self::Scheduled => 2,
            Self::Preparing => 3,
            Self::Starting => 4,
            Self::Running => 5,
            Self::Completed | Self::Failed | Self::Killed | Self::Lost | Self::Rejected => 6,
        }
    }

    /// Whether the run is over for good.
    pub fn is_terminal(self) -> bool {
        self.rank() == 6
    }

    /// The state after a report of `to`: the greater of the two, and the first terminal one.
    #[must_use]
    pub fn advanced(self, to: Self) -> Self {
        if to.rank() > self.rank() { to } else { self }
    }

    /// The word as it stands in events, files and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Scheduled => "scheduled",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Killed => "killed",
            Self::Lost => "lost",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a job as a whole is doing; a pure table over its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Accepted, nothing has run yet.
    Pending,
    /// At least one slot is wanted and one has run.
    Running,
    /// A batch of which every slot completed.
    Completed,
    /// A slot has spent its attempts or a limit passed.
    Failed,
    /// Somebody stopped it.
    Killed,
    /// A status this build does not know, from a newer one.
    #[serde(other)]
    Unknown,
}

impl JobStatus {
    /// Whether the job is over until somebody starts a new round.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Killed)
    }

    /// The word as it stands in events, files and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Killed => "killed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the health checks of a running run have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No check has succeeded yet, and not enough have failed.
    Pending,
    /// The last check succeeded, or too few have failed since.
    Healthy,
    /// As many checks in a row failed as the task allows.
    Unhealthy,
    /// A status this build does not know, from a newer one.
    #[serde(other)]
    Unknown,
}

impl HealthStatus {
    /// The word as it stands in events and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How long a job is meant to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Runs until stopped.
    #[default]
    Service,
    /// Runs to completion.
    Batch,
    /// Runs until stopped, once on every node it may run on.
    System,
}

impl Kind {
    /// The word as it stands in files and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Batch => "batch",
            Self::System => "system",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What runs a launch on a node.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// Containers of the Docker Engine.
    Docker,
    /// Plain processes under a shim.
    Process,
    /// Runs nothing and plays a script: tests, demos, fleets of thousands of nodes.
    Sim,
    /// A driver this build does not know, from a newer one.
    #[serde(other)]
    Unknown,
}

impl DriverKind {
    /// The word as it stands on the command line and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Process => "process",
            Self::Sim => "sim",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How the scheduler ranks the nodes that fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Least marginal cost, after Amir, Awerbuch, Barak, Borgstrom and Keren (IEEE TPDS 11(7), 2000).
    #[default]
    Epvm,
    /// The fullest node that still fits.
    Binpack,
    /// The node with the fewest replicas of the task, then the emptiest.
    Spread,
    /// The node where the least is left that nobody can use for want of another resource.
    Balanced,
    /// One node after the other.
    RoundRobin,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Epvm,
        Self::Binpack,
        Self::Spread,
        Self::Balanced,
        Self::RoundRobin,
    ];

    /// The word as it stands on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Epvm => "epvm",
            Self::Binpack => "binpack",
            Self::Spread => "spread",
            Self::Balanced => "balanced",
            Self::RoundRobin => "round-robin",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a taint of a node does to the runs that do not tolerate it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum TaintEffect {
    /// No new run goes to the node; those there stay.
    NoSchedule,
    /// New runs go to the node only where no other has room.
    PreferNot,
    /// No new run goes to the node, and those there have to leave.
    Evict,
    /// An effect this build does not know, from a newer one; taken for `no-schedule`.
    #[serde(other)]
    Unknown,
}

impl TaintEffect {
    /// Those that can be asked for.
    pub const ALL: [Self; 3] = [Self::NoSchedule, Self::PreferNot, Self::Evict];

    /// The word as it stands in files and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "no-schedule",
            Self::PreferNot => "prefer-not",
            Self::Evict => "evict",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for TaintEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
