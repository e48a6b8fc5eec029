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
pub(crate) struct Scale {
    /// JOB=N, or JOB/TASK=N
    #[arg(value_name = "ADDR=N")]
    target: String,
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
        let done: Committed = client::ask(&bus, &subject::job("scale"), &request).await?;
        let already = if done.changed { "" } else { " already" };
        output::text(&format!("{address} has{already} {replicas} replicas\n"))
    }
}
