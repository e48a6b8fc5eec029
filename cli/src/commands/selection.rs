//! What a write is about: one address, or every job with the labels of `-l`.

use loom_bus::Bus;
use loom_schemas::ids::Name;
use loom_schemas::wire::{Committed, JobAddress};

use super::stop::{Changed, job_address};
use crate::address::{Address, parse_pair};
use crate::cli::Global;
use crate::exit::{Code, Failure};
use crate::output;
use crate::watch::scope::jobs_with;

/// One address, or labels.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// JOB, JOB/INDEX, JOB/TASK or JOB/TASK/INDEX
    address: Option<String>,
    /// Every job with this label; repeat for several that it must have
    #[arg(short = 'l', long = "label", value_parser = parse_pair, value_name = "K=V")]
    labels: Vec<(String, String)>,
}

/// What is to be changed, as people call it.
pub(crate) struct Selected {
    pub(crate) shown: String,
    pub(crate) address: JobAddress,
}

impl Selection {
    /// What it is about; no other than those there are.
    pub(crate) async fn find(&self, bus: &Bus) -> Result<Vec<Selected>, Failure> {
        let address = Address::of(self.address.as_deref(), &self.labels)?;
        if let Address::Labels(_) = &address {
            let jobs = jobs_with(bus, &address).await?;
            return Ok(jobs.into_iter().map(Selected::whole).collect());
        }
        let shown = self.address.clone().unwrap_or_default();
        let address = job_address(bus, address).await?;
        Ok(vec![Selected { shown, address }])
    }

    /// Prints what became of each: that of one address by itself, else a list. All were tried, whatever
    /// became of the others.
    pub(crate) fn report(
        &self,
        global: &Global,
        outcomes: Vec<(Selected, Result<Committed, Failure>)>,
        says: impl Fn(bool) -> &'static str,
    ) -> Result<(), Failure> {
        if self.labels.is_empty() {
            return outcomes.into_iter().try_for_each(|(selected, outcome)| {
                Changed::new(&selected.shown, outcome?).print(global, &says)
            });
        }
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (selected, outcome) in &outcomes {
            match outcome {
                Ok(committed) => done.push(Changed::new(&selected.shown, committed.clone())),
                Err(failure) => failed.push((selected, failure)),
            }
        }
        let line = |changed: &Changed<'_>| changed.line(&says);
        let table = |_| done.iter().map(line).collect();
        output::list(global.output, &done, Changed::name, table)?;
        let told = |(selected, failure): &(&Selected, &Failure)| {
            let why = failure.message.as_deref().unwrap_or("it failed");
            format!("{}: {why}", selected.shown)
        };
        match failed.as_slice() {
            [] => Ok(()),
            failed => {
                let words: Vec<String> = failed.iter().map(told).collect();
                Err(Failure::new(Code::SomeFailed, words.join("; ")))
            }
        }
    }
}

impl Selected {
    fn whole(job: Name) -> Self {
        Self {
            shown: job.to_string(),
            address: JobAddress {
                job,
                task: None,
                index: None,
            },
        }
    }
}
