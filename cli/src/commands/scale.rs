//! `loomctl scale`.

use loom_schemas::subject;
use loom_schemas::wire::{Committed, ScaleRequest};

use crate::address::Address;
use crate::cli::Global;
use crate::client;
use crate::exit::Failure;
use crate::output;

/// Change how many replicas a task has.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl scale web=5
  loomctl scale shop/api=0")]
pub(crate) struct Scale {
    /// JOB=N, or JOB/TASK=N
    #[arg(value_name = "ADDR=N")]
    target: String,
}

/// What became of it, as programs get it.
#[derive(serde::Serialize)]
struct Scaled<'a> {
    address: &'a str,
    replicas: u32,
    #[serde(flatten)]
    committed: Committed,
}

impl Scale {
    /// Asks the leader for it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let usage = || {
            Failure::usage(format!(
                "`{}`: expected JOB=N or JOB/TASK=N, as in web=5",
                self.target
            ))
        };
        let (address, count) = self.target.split_once('=').ok_or_else(usage)?;
        let replicas = count.parse().map_err(|_| usage())?;
        let (job, task) = match Address::parse(address)? {
            Address::Job(job) => (job, None),
            Address::Task(job, task) => (job, Some(task)),
            _ => return Err(usage()),
        };
        let bus = global.bus.connect().await?;
        let request = ScaleRequest {
            job,
            task,
            replicas,
        };
        let told = client::tell(&bus, &subject::job("scale"), &request).await;
        let done: Committed = client::or_nearest(&bus, &request.job, told).await?;
        let already = if done.changed { "" } else { " already" };
        let scaled = Scaled {
            address,
            replicas,
            committed: done,
        };
        let word = if replicas == 1 { "replica" } else { "replicas" };
        output::one(
            global.output,
            &scaled,
            |scaled| scaled.address.to_owned(),
            |_| format!("{address} has{already} {replicas} {word}\n"),
        )
    }
}
