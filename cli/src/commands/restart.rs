//! `loomctl restart`.

use loom_bus::Bus;
use loom_schemas::subject;
use loom_schemas::wire::{Committed, JobAddress, JobRequest};

use crate::cli::Global;
use crate::client;
use crate::commands::selection::Selection;
use crate::exit::Failure;

/// Restart a job, a task or one index.
///
/// Services, tasks and single indexes are restarted in place. A whole batch begins anew: what runs of
/// it is stopped, and its tasks start again in their order.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl restart web/0 --reason \"it hangs\"
  loomctl restart -l tier=front")]
pub(crate) struct Restart {
    #[command(flatten)]
    selection: Selection,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

impl Restart {
    /// Asks the leader for it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let bus = global.bus.connect().await?;
        let mut outcomes = Vec::new();
        for selected in self.selection.find(&bus).await? {
            let told = self.tell(&bus, &selected.address).await;
            outcomes.push((selected, told));
        }
        self.selection.report(global, outcomes, |done| {
            if done {
                "is being restarted"
            } else {
                "has nothing to restart"
            }
        })
    }

    async fn tell(&self, bus: &Bus, address: &JobAddress) -> Result<Committed, Failure> {
        let request = JobRequest {
            address: address.clone(),
            reason: self.reason.clone(),
        };
        let told = client::tell(bus, &subject::job("restart"), &request).await;
        client::or_nearest(bus, &address.job, told).await
    }
}
