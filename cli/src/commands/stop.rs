//! `loomctl stop`.

use std::time::Duration;

use loom_bus::Bus;
use loom_bus::header::MIN_REVISION;
use loom_schemas::ids::{Name, Revision};
use loom_schemas::record::{RunRecord, SlotRecord};
use loom_schemas::subject;
use loom_schemas::wire::{Committed, JobAddress, JobGet, JobRequest, JobView};
use loom_schemas::words::RunState;
use tokio::time::Instant;

use crate::address::Address;
use crate::cli::Global;
use crate::client;
use crate::commands::selection::Selection;
use crate::commands::status::index_of;
use crate::exit::{Code, Failure};
use crate::output;

/// Stop a job, a task or one index, and wait until nothing of it runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl stop web --reason \"new release\"
  loomctl stop web/2 --detach
  loomctl stop -l tier=front")]
pub(crate) struct Stop {
    #[command(flatten)]
    selection: Selection,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// Return as soon as it is committed
    #[arg(long)]
    detach: bool,
    /// How long to wait
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Duration,
}

impl Stop {
    /// Stops it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let bus = global.bus.connect().await?;
        let mut outcomes = Vec::new();
        // All are told before the first is waited for.
        for selected in self.selection.find(&bus).await? {
            let told = self.tell(&bus, &selected.address).await;
            outcomes.push((selected, told));
        }
        if !self.detach {
            let deadline = Instant::now() + self.timeout;
            for (selected, outcome) in &mut outcomes {
                let Ok(done) = outcome else { continue };
                let gone = wait_until_gone(&bus, &selected.address, done.revision, deadline);
                if let Err(failure) = gone.await {
                    *outcome = Err(failure);
                }
            }
        }
        let says = |done| match (done, self.detach) {
            (false, _) => "was stopped already",
            (true, true) => "is being stopped",
            (true, false) => "is stopped",
        };
        self.selection.report(global, outcomes, says)
    }

    async fn tell(&self, bus: &Bus, address: &JobAddress) -> Result<Committed, Failure> {
        let request = JobRequest {
            address: address.clone(),
            reason: self.reason.clone(),
        };
        let told = client::tell(bus, &subject::job("stop"), &request).await;
        client::or_nearest(bus, &address.job, told).await
    }
}

/// What became of a write, as programs get it.
#[derive(serde::Serialize)]
pub(crate) struct Changed<'a> {
    /// As it was typed.
    address: &'a str,
    #[serde(flatten)]
    committed: Committed,
}

impl<'a> Changed<'a> {
    /// For the address as it was typed.
    pub(crate) fn new(address: &'a str, committed: Committed) -> Self {
        Self { address, committed }
    }

    /// As it was typed.
    pub(crate) fn name(&self) -> String {
        self.address.to_owned()
    }

    /// A line for people.
    pub(crate) fn line(&self, says: impl FnOnce(bool) -> &'static str) -> String {
        format!("{} {}\n", self.address, says(self.committed.changed))
    }

    /// Prints it: for people the address and what it is now, by whether anything changed.
    pub(crate) fn print(
        &self,
        global: &Global,
        says: impl FnOnce(bool) -> &'static str,
    ) -> Result<(), Failure> {
        output::one(global.output, self, Self::name, |_| self.line(says))
    }
}

/// Turns a typed address into one the leader takes: `web/0` finds its only task.
pub(crate) async fn job_address(bus: &Bus, address: Address) -> Result<JobAddress, Failure> {
    match address {
        Address::Job(job) => Ok(JobAddress {
            job,
            task: None,
            index: None,
        }),
        Address::Task(job, task) => {
            let view = job_view(bus, &job).await?;
            let index = index_of(&view, &task);
            let mut tasks = view.spec.tasks.into_keys();
            let only = tasks.next().filter(|_| tasks.next().is_none());
            let (task, index) = match (index, only) {
                (Some(index), Some(only)) => (only, Some(index)),
                _ => (task, None),
            };
            Ok(JobAddress {
                job,
                task: Some(task),
                index,
            })
        }
        Address::Slot(job, task, index) => Ok(JobAddress {
            job,
            task: Some(task),
            index: Some(index),
        }),
        Address::Only(job, index) => {
            let view = job_view(bus, &job).await?;
            let mut tasks = view.spec.tasks.into_keys();
            match (tasks.next(), tasks.next()) {
                (Some(task), None) => Ok(JobAddress {
                    job,
                    task: Some(task),
                    index: Some(index),
                }),
                _ => Err(Failure::usage(format!(
                    "job {job} has several tasks; name one: {job}/TASK/{index}"
                ))),
            }
        }
        Address::Run(_) | Address::RunSuffix(_) | Address::Labels(_) => Err(Failure::usage(
            format!("`{address}`: expected JOB, JOB/INDEX, JOB/TASK or JOB/TASK/INDEX"),
        )),
    }
}

/// One job as a manager sees it.
pub(crate) async fn job_view(bus: &Bus, job: &Name) -> Result<JobView, Failure> {
    client::or_nearest(bus, job, job_view_at(bus, job, None).await).await
}

/// One job, all pages of it, as a manager sees it that has applied this revision.
pub(crate) async fn job_view_at(
    bus: &Bus,
    job: &Name,
    revision: Option<Revision>,
) -> Result<JobView, Failure> {
    let at = revision.map(|revision| (MIN_REVISION, revision.to_string()));
    let headers: Vec<_> = at.into_iter().collect();
    let subject = subject::api("job", "get");
    let mut get = JobGet {
        job: job.clone(),
        after: None,
    };
    let mut view: JobView = client::ask_with(bus, &subject, &get, &headers).await?;
    while let Some(next) = view.next.take() {
        get.after = Some(next);
        let page: JobView = client::ask_with(bus, &subject, &get, &headers).await?;
        view.slots.extend(page.slots);
        view.next = page.next;
    }
    Ok(view)
}

async fn wait_until_gone(
    bus: &Bus,
    address: &JobAddress,
    revision: Revision,
    deadline: Instant,
) -> Result<(), Failure> {
    let mut events = bus
        .subscribe(&format!("orch.events.*.{}.>", address.job))
        .await
        .map_err(|error| Failure::new(Code::NoAnswer, crate::exit::chain(&error)))?;
    loop {
        let view = match job_view_at(bus, &address.job, Some(revision)).await {
            Ok(view) => view,
            Err(failure) if failure.code == Code::NotFound => return Ok(()),
            Err(failure) => return Err(failure),
        };
        if is_gone(&view, address) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(
                Code::TimedOut,
                format!("{} still runs; it goes on being stopped", address.job),
            ));
        }
        // An event wakes us; a look now and then does the same should one be missed.
        let tick = (Instant::now() + Duration::from_secs(1)).min(deadline);
        let _ = tokio::time::timeout_at(tick, events.next()).await;
    }
}

/// Whether nothing runs any more at an address. What a schedule fired runs elsewhere, as jobs that the
/// status of the job waits for.
fn is_gone(view: &JobView, address: &JobAddress) -> bool {
    let is_whole = address.task.is_none() && address.index.is_none();
    if is_whole && view.spec.schedule.is_some() {
        return view.summary.status.is_terminal();
    }
    let at = |slot: &&SlotRecord| {
        let task = address.task.as_ref();
        let index = address.index.as_ref();
        task.is_none_or(|task| *task == slot.slot.task)
            && index.is_none_or(|index| *index == slot.slot.index)
    };
    let lives = |run: &RunRecord| !run.state.is_terminal() && run.state != RunState::Pending;
    let mut slots = view.slots.iter().filter(at);
    !slots.any(|slot| slot.current.iter().chain(&slot.incoming).any(lives))
}
