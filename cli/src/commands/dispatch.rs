//! `loomctl dispatch`.

use std::time::Duration;

use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::{DispatchRequest, Submitted};

use super::run::{Following, report};
use crate::address::parse_pair;
use crate::cli::Global;
use crate::client;
use crate::exit::Failure;

/// Run a batch job once more, with other values, as a job of its own, and follow it to its end.
///
/// Ctrl-C detaches; the job goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl dispatch nightly
  loomctl dispatch render --param scene=castle --param quality=high
  loomctl dispatch render --detach -o name")]
pub(crate) struct Dispatch {
    /// The job
    job: String,
    /// A value in place of the job's own; repeat for several
    #[arg(long = "param", value_parser = parse_pair, value_name = "K=V")]
    params: Vec<(String, String)>,
    /// Return as soon as it is accepted
    #[arg(short, long)]
    detach: bool,
    /// Give up following after this long, with exit code 124; the job goes on
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Option<Duration>,
    /// How long it may take until it begins; exit code 2 past it
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "TIME")]
    deadline: Duration,
}

impl Dispatch {
    /// Dispatches the job and follows its child.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let name = |text: &str| Name::new(text).map_err(|error| Failure::usage(error.to_string()));
        let job = name(&self.job)?;
        let params: Result<_, Failure> = self
            .params
            .iter()
            .map(|(key, value)| Ok((name(key)?, value.clone())))
            .collect();
        let request = DispatchRequest {
            job: job.clone(),
            params: params?,
        };
        let bus = global.bus.connect().await?;
        let told = client::tell(&bus, &subject::job("dispatch"), &request).await;
        let submitted: Submitted = client::or_nearest(&bus, &job, told).await?;
        report(global, &submitted)?;
        if self.detach {
            return Ok(());
        }
        let following = Following {
            deadline: self.deadline,
            timeout: self.timeout,
        };
        following.follow(global, bus, &submitted).await
    }
}
