//! `loomctl restart`.

use loom_schemas::subject;
use loom_schemas::wire::{Committed, JobRequest};

use crate::address::Address;
use crate::cli::Global;
use crate::client;
use crate::commands::stop::{Changed, job_address};
use crate::exit::Failure;

/// Restart a job, a task or one index.
///
/// Services, tasks and single indexes are restarted in place. A whole batch begins anew: what runs of
/// it is stopped, and its tasks start again in their order.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl restart web/0 --reason \"it hangs\"")]
pub(crate) struct Restart {
    /// JOB, JOB/INDEX, JOB/TASK or JOB/TASK/INDEX
    address: String,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

impl Restart {
    /// Asks the leader for it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let address = Address::parse(&self.address)?;
        let bus = global.bus.connect().await?;
        let address = job_address(&bus, address).await?;
        let request = JobRequest {
            address,
            reason: self.reason,
        };
        let told = client::tell(&bus, &subject::job("restart"), &request).await;
        let done: Committed = client::or_nearest(&bus, &request.address.job, told).await?;
        Changed::new(&self.address, done).print(global, |done| {
            if done {
                "is being restarted"
            } else {
                "has nothing to restart"
            }
        })
    }
}
