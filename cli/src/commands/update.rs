//! `loomctl rollback`, `promote` and `update`: versions that take over, and back.

use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::{Committed, RollbackRequest, Submitted, UpdateRequest, UpdateVerb};

use crate::cli::Global;
use crate::client;
use crate::commands::stop::Changed;
use crate::exit::Failure;
use crate::output;

/// Bring an earlier version of a job back, as a version of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl rollback web
  loomctl rollback web --if-version 4
  loomctl rollback web --to 3 --reason \"slow answers\"")]
pub(crate) struct Rollback {
    /// The job
    job: Name,
    /// The version; if none, the last other one that was healthy
    #[arg(long, value_name = "VERSION")]
    to: Option<u32>,
    /// Only if the job is at this version
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u32>,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

impl Rollback {
    /// Asks the leader for it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let bus = global.bus.connect().await?;
        let request = RollbackRequest {
            job: self.job.clone(),
            to: self.to,
            if_version: self.if_version,
            reason: self.reason,
        };
        let told = client::tell(&bus, &subject::job("rollback"), &request).await;
        let done: Submitted = client::or_nearest(&bus, &self.job, told).await?;
        output::one(
            global.output,
            &done,
            |done| done.job.to_string(),
            |_| {
                let to = done.rolled_back_to.map(|to| format!(" to version {to}"));
                let (job, version) = (&done.job, done.version);
                format!(
                    "{job}: rolled back{}, as version {version}\n",
                    to.unwrap_or_default()
                )
            },
        )
    }
}

/// Let an update go on beyond its canaries.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl promote web")]
pub(crate) struct Promote {
    /// The job
    job: Name,
}

impl Promote {
    /// Asks the leader for it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        steer(global, self.job, UpdateVerb::Promote, |done| {
            if done {
                "is promoted"
            } else {
                "was promoted already"
            }
        })
        .await
    }
}

/// `loomctl update`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum UpdateCommand {
    /// Let no further slot take the version over; what is begun is finished
    #[command(after_help = "Example:
  loomctl update pause web")]
    Pause {
        /// The job
        job: Name,
    },
    /// Go on after a pause
    #[command(after_help = "Example:
  loomctl update continue web")]
    Continue {
        /// The job
        job: Name,
    },
}

impl UpdateCommand {
    /// Asks the leader for it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Pause { job } => {
                steer(global, job, UpdateVerb::Pause, |done| {
                    if done {
                        "has its update paused"
                    } else {
                        "had its update paused already"
                    }
                })
                .await
            }
            Self::Continue { job } => {
                steer(global, job, UpdateVerb::Continue, |done| {
                    if done {
                        "goes on with its update"
                    } else {
                        "has no update that is paused or has failed"
                    }
                })
                .await
            }
        }
    }
}

async fn steer(
    global: &Global,
    job: Name,
    verb: UpdateVerb,
    says: impl FnOnce(bool) -> &'static str,
) -> Result<(), Failure> {
    let bus = global.bus.connect().await?;
    let request = UpdateRequest { job, verb };
    let told = client::tell(&bus, &subject::job("update"), &request).await;
    let done: Committed = client::or_nearest(&bus, &request.job, told).await?;
    Changed::new(request.job.as_str(), done).print(global, says)
}
