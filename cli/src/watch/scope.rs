//! Whose output: the subjects an address or a selector stands for.

use std::collections::BTreeSet;
use std::time::Duration;

use loom_bus::Bus;
use loom_schemas::ids::{Index, Name, RunId};
use loom_schemas::subject;
use loom_schemas::wire::{JobView, RunGet, RunView, TaskCommand};

use crate::address::{Address, is_run_suffix};
use crate::client;
use crate::commands::status::{index_of, job_list};
use crate::commands::stop::job_view;
use crate::exit::{Code, Failure};
use crate::fanout;

/// How long the tasks have to say which jobs there are, where no manager does.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Whose output.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// As it was typed.
    pub(crate) address: Address,
    /// Subject filters below `orch.logs.`: one, or with a selector one a job.
    pub(crate) filters: Vec<String>,
    /// Only this run.
    pub(crate) run: Option<RunId>,
    /// Only this stream: `stdout` or `stderr`.
    pub(crate) stream: Option<String>,
    /// Whether it may be the output of several tasks.
    pub(crate) is_many: bool,
}

impl Scope {
    /// All output of a job, which need not be there yet.
    pub(crate) fn of_job(job: &Name) -> Self {
        Self {
            address: Address::Job(job.clone()),
            filters: vec![format!("{job}.>")],
            run: None,
            stream: None,
            is_many: true,
        }
    }

    /// Finds the subjects an address stands for.
    pub(crate) async fn of(bus: &Bus, address: &Address) -> Result<Self, Failure> {
        let (filters, run, is_many) = match address {
            Address::Job(job) if is_run_suffix(job.as_str()) && !is_known(bus, job).await => {
                let suffix = Address::RunSuffix(job.to_string());
                return Box::pin(Self::of(bus, &suffix)).await;
            }
            Address::Job(job) => (vec![format!("{job}.>")], None, true),
            Address::Only(job, index) => (vec![format!("{job}.*.{index}.*.*")], None, false),
            Address::Task(job, task) if is_index(bus, job, task).await => {
                let index = Index::Node(task.clone());
                let only = Address::Only(job.clone(), index);
                return Box::pin(Self::of(bus, &only)).await;
            }
            Address::Task(job, task) => (vec![format!("{job}.{task}.>")], None, true),
            Address::Slot(job, task, index) => {
                (vec![format!("{job}.{task}.{index}.*.*")], None, false)
            }
            Address::Run(_) | Address::RunSuffix(_) => {
                let run = address.to_string();
                let subject = subject::api("run", "get");
                let view: RunView = client::ask(bus, &subject, &RunGet { run }).await?;
                let (slot, run) = (view.slot, view.run.run);
                let filter = format!("{}.{}.{}.*.*", slot.job, slot.task, slot.index);
                (vec![filter], Some(run), false)
            }
            Address::Labels(_) => {
                let jobs = jobs_with(bus, address).await?;
                let filters = jobs.iter().map(|job| format!("{job}.>"));
                (filters.collect(), None, true)
            }
        };
        Ok(Self {
            address: address.clone(),
            filters,
            run,
            stream: None,
            is_many,
        })
    }

    /// Narrows it to one stream, before any tail is cut off.
    pub(crate) fn only(&mut self, stream: Option<&str>) {
        let Some(stream) = stream else { return };
        self.stream = Some(stream.to_owned());
        for filter in &mut self.filters {
            let mut tokens: Vec<&str> = filter.split('.').filter(|token| *token != ">").collect();
            tokens.truncate(4);
            tokens.resize(4, "*");
            *filter = format!("{}.{stream}", tokens.join("."));
        }
    }

    /// The subjects on which it is published.
    pub(crate) fn subjects(&self) -> Vec<String> {
        let subject = |filter: &String| format!("orch.logs.{filter}");
        self.filters.iter().map(subject).collect()
    }

    /// The jobs it is of, as a manager sees them: `not found` where one is not there.
    pub(crate) async fn jobs(&self, bus: &Bus) -> Result<Vec<JobView>, Failure> {
        let mut views = Vec::new();
        for filter in &self.filters {
            let job = filter.split('.').next().unwrap_or_default();
            if let Ok(job) = Name::new(job) {
                views.push(job_view(bus, &job).await?);
            }
        }
        Ok(views)
    }

    /// Whether a job has what the address names of it.
    pub(crate) fn is_in(&self, view: &JobView) -> bool {
        let has = |task: Option<&Name>, index: Option<&Index>| {
            view.slots.iter().any(|slot| {
                task.is_none_or(|task| *task == slot.slot.task)
                    && index.is_none_or(|index| *index == slot.slot.index)
            })
        };
        match &self.address {
            Address::Task(_, task) => view.spec.tasks.contains_key(task),
            Address::Only(_, index) => has(None, Some(index)),
            Address::Slot(_, task, index) => has(Some(task), Some(index)),
            _ => true,
        }
    }

    /// The tasks of a job that it covers and that keep their output to themselves, with where
    /// their files are.
    pub(crate) fn unshipped(&self, view: &JobView) -> Vec<String> {
        let wanted = match &self.address {
            Address::Task(_, task) | Address::Slot(_, task, _) => Some(task),
            _ => None,
        };
        let of_task = |(name, task): (&Name, &loom_schemas::spec::TaskSpec)| {
            if task.logs.ship || wanted.is_some_and(|wanted| wanted != name) {
                return None;
            }
            let nodes: BTreeSet<&str> = view
                .slots
                .iter()
                .filter(|slot| slot.slot.task == *name)
                .filter_map(|slot| slot.current.as_ref().or(slot.ended.last()))
                .filter_map(|run| run.node.as_ref().map(Name::as_str))
                .collect();
            let nodes = if nodes.is_empty() {
                "its node".to_owned()
            } else {
                nodes.into_iter().collect::<Vec<_>>().join(", ")
            };
            let job = &view.summary.job.name;
            let place = match &task.logs.to {
                Some(path) => format!("its files are {path} on {nodes}"),
                None => format!(
                    "its files are in the run's directory on {nodes} and go with it when the \
                     task has ended (`logs: {{to: PATH}}` keeps them)"
                ),
            };
            Some(format!(
                "the output of {job}/{name} is not shipped to the bus (`logs: {{ship: false}}`); \
                 {place}"
            ))
        };
        view.spec.tasks.iter().filter_map(of_task).collect()
    }
}

/// The jobs with these labels: by a manager's word, or where none answers by that of the tasks.
pub(crate) async fn jobs_with(bus: &Bus, address: &Address) -> Result<BTreeSet<Name>, Failure> {
    let Address::Labels(labels) = address else {
        return Ok(BTreeSet::new());
    };
    let jobs: BTreeSet<Name> = match job_list(bus).await {
        Ok(list) => list
            .jobs
            .into_iter()
            .filter(|job| labels.iter().all(|(k, v)| job.labels.get(k) == Some(v)))
            .map(|job| job.job.name)
            .collect(),
        Err(failure) if failure.code == Code::NoAnswer => {
            let command = TaskCommand::default();
            let found = fanout::command(bus, address, "inspect", &command, FIND_TIMEOUT).await?;
            let jobs = found.rows.into_iter().map(|row| row.slot().job.clone());
            jobs.collect()
        }
        Err(failure) => return Err(failure),
    };
    if jobs.is_empty() {
        let message = format!("no job has the labels {address} (loomctl status shows the jobs)");
        return Err(Failure::new(Code::NotFound, message));
    }
    Ok(jobs)
}

/// Whether the second part of an address is the index of a system job, as a manager sees it.
async fn is_index(bus: &Bus, job: &Name, second: &Name) -> bool {
    let view = job_view(bus, job).await;
    view.is_ok_and(|view| index_of(&view, second).is_some())
}

/// Whether a manager knows a job of this name; yes where none answers.
async fn is_known(bus: &Bus, job: &Name) -> bool {
    match job_view(bus, job).await {
        Err(failure) => failure.code != Code::NotFound,
        Ok(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_narrows_every_filter() {
        let mut scope = Scope {
            address: Address::parse("web").unwrap(),
            filters: vec!["web.>".into(), "db.main.0.*.*".into()],
            run: None,
            stream: None,
            is_many: true,
        };
        scope.only(Some("stderr"));
        assert_eq!(scope.filters, ["web.*.*.*.stderr", "db.main.0.*.stderr"]);
        assert_eq!(scope.subjects()[0], "orch.logs.web.*.*.*.stderr");
    }
}
