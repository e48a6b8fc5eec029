//! `loomctl status`.

mod schedule;
mod slots;

use jiff::Timestamp;
use loom_schemas::ids::{Index, Name};
use loom_schemas::record::{JobRecord, SlotRecord, UpdatePhase};
use loom_schemas::subject;
use loom_schemas::wire::{JobList, JobListQuery, JobSummary, JobView, RunGet, RunView};
use loom_schemas::words::Kind;

use crate::address::{Address, is_run_suffix, parse_pair};
use crate::cli::Global;
use crate::client;
use crate::commands::stop::job_view;
use crate::exit::{Code, Failure};
use crate::output::{self, graph, table, time};

use slots::{run_detail, slot_detail, slot_table};

/// Show jobs, a job, a task or a run, and why it stands as it does.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl status
  loomctl status web/0
  loomctl status -l tier=front -o wide")]
pub(crate) struct Status {
    /// Nothing for all jobs, or JOB, JOB/INDEX, JOB/TASK, JOB/TASK/INDEX, or a run's id
    address: Option<String>,
    /// Only jobs with this label; repeat for several
    #[arg(short = 'l', long = "label", value_parser = parse_pair, value_name = "K=V")]
    labels: Vec<(String, String)>,
}

impl Status {
    /// Asks a manager and shows it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let address = self.address.as_deref().map(Address::parse).transpose()?;
        let bus = global.bus.connect().await?;
        let (Some(address), Some(text)) = (address, &self.address) else {
            return self.all_jobs(global, &bus).await;
        };
        match address {
            Address::Job(job) => match job_view(&bus, &job).await {
                Err(failure) if failure.code == Code::NotFound && is_run_suffix(text) => {
                    one_run(global, &bus, text).await
                }
                view => show_job(global, &view?),
            },
            Address::Task(job, task) => {
                let view = job_view(&bus, &job).await?;
                match index_of(&view, &task) {
                    Some(index) => show_slots(global, &view, None, Some(&index)),
                    None => show_slots(global, &view, Some(&task), None),
                }
            }
            Address::Only(job, index) => {
                show_slots(global, &job_view(&bus, &job).await?, None, Some(&index))
            }
            Address::Slot(job, task, index) => show_slots(
                global,
                &job_view(&bus, &job).await?,
                Some(&task),
                Some(&index),
            ),
            Address::Run(_) | Address::RunSuffix(_) => one_run(global, &bus, text).await,
            Address::Labels(_) => Err(Failure::usage("give an address or -l, not both")),
        }
    }

    async fn all_jobs(&self, global: &Global, bus: &loom_bus::Bus) -> Result<(), Failure> {
        let mut list = job_list(bus).await?;
        list.jobs.retain(|job| {
            self.labels
                .iter()
                .all(|(key, value)| job.labels.get(key) == Some(value))
        });
        output::list(
            global.output,
            &list.jobs,
            |job| job.job.name.to_string(),
            |wide| jobs(&list.jobs, wide, Timestamp::now()),
        )
    }
}

/// All jobs, page by page.
pub(crate) async fn job_list(bus: &loom_bus::Bus) -> Result<JobList, Failure> {
    let subject = subject::api("job", "list");
    let mut list: JobList = client::ask(bus, &subject, &JobListQuery::default()).await?;
    while let Some(next) = list.next.take() {
        let query = JobListQuery { after: Some(next) };
        let page: JobList = client::ask(bus, &subject, &query).await?;
        list.jobs.extend(page.jobs);
        list.next = page.next;
    }
    Ok(list)
}

async fn one_run(global: &Global, bus: &loom_bus::Bus, text: &str) -> Result<(), Failure> {
    let get = RunGet {
        run: text.to_ascii_lowercase(),
    };
    let view: RunView = client::ask(bus, &subject::api("run", "get"), &get).await?;
    output::one(
        global.output,
        &view,
        |view| view.run.run.to_string(),
        |_| run_detail(&view.slot.to_string(), &view.run),
    )
}

fn show_job(global: &Global, view: &JobView) -> Result<(), Failure> {
    output::one(
        global.output,
        view,
        |view| view.summary.job.name.to_string(),
        |wide| job_detail(view, wide, Timestamp::now()),
    )
}

fn show_slots(
    global: &Global,
    view: &JobView,
    task: Option<&Name>,
    index: Option<&Index>,
) -> Result<(), Failure> {
    let slots: Vec<SlotRecord> = view
        .slots
        .iter()
        .filter(|slot| {
            task.is_none_or(|task| *task == slot.slot.task)
                && index.is_none_or(|index| *index == slot.slot.index)
        })
        .cloned()
        .collect();
    if slots.is_empty() {
        let job = view.summary.job.name.clone();
        let address = match (task, index) {
            (Some(task), Some(index)) => Address::Slot(job, task.clone(), index.clone()),
            (Some(task), None) => Address::Task(job, task.clone()),
            (None, Some(index)) => Address::Only(job, index.clone()),
            (None, None) => Address::Job(job),
        };
        return Err(nothing_there(&address, view));
    }
    let now = Timestamp::now();
    output::list(
        global.output,
        &slots,
        |slot| slot.slot.to_string(),
        |wide| {
            if index.is_some() {
                slots.iter().map(|slot| slot_detail(slot, now)).collect()
            } else {
                slot_table(&slots, wide, now)
            }
        },
    )
}

/// The index that is meant by the second part of `web/node-1`, where it is not a task.
pub(crate) fn index_of(view: &JobView, second: &Name) -> Option<Index> {
    let is_node = view.summary.kind == Kind::System && !view.spec.tasks.contains_key(second);
    is_node.then(|| Index::Node(second.clone()))
}

/// A job has no such task or index: which it has.
pub(crate) fn nothing_there(address: &Address, view: &JobView) -> Failure {
    let has = view.spec.tasks.keys().map(|task| {
        let count = view.slots.iter().filter(|slot| slot.slot.task == *task);
        let nodes = view.slots.iter().filter(|slot| slot.slot.task == *task);
        let nodes: Vec<&str> = nodes
            .filter_map(|slot| slot.slot.index.node().map(Name::as_str))
            .collect();
        if !nodes.is_empty() {
            return format!("{task} (on {})", nodes.join(", "));
        }
        match count.count() {
            0 => format!("{task} (no index now)"),
            1 => format!("{task} (index 0)"),
            count => format!("{task} (0 to {})", count - 1),
        }
    });
    let has: Vec<String> = has.collect();
    let message = format!(
        "there is no {address}; the tasks of {} are {}",
        view.summary.job.name,
        has.join(", ")
    );
    Failure::new(Code::NotFound, message)
}

fn jobs(jobs: &[JobSummary], wide: bool, now: Timestamp) -> String {
    if jobs.is_empty() {
        return "no jobs (loomctl run FILE starts one)\n".to_owned();
    }
    let mut heads = vec!["job", "kind", "status", "tasks", "version", "age", "reason"];
    if wide {
        heads.insert(5, "owner");
    }
    let mut table = table::new(&heads);
    for job in jobs {
        let mut cells = vec![
            job.job.name.to_string(),
            job.kind.to_string(),
            table::job_status(job.status),
            standing(job),
            job.job.version.to_string(),
            time::age(Some(job.job.submitted_at), now),
            job.job.reason.clone().unwrap_or_default(),
        ];
        if wide {
            cells.insert(5, job.job.owner.clone());
        }
        table.add_row(cells);
    }
    table::render(table)
}

/// `2/3 running`, `2/3 healthy`, `1/2 completed`: what the job is on its way to; and how many are
/// on their way out: `2/2 running, 1 stopping`.
fn standing(job: &JobSummary) -> String {
    if let Some(schedule) = &job.job.schedule {
        return match schedule.next.filter(|_| !job.status.is_terminal()) {
            Some(next) => format!("next {}", time::full(next)),
            None => "-".to_owned(),
        };
    }
    let standing = match (job.running, job.completed) {
        (1.., _) if job.healthy.is_some() => {
            format!("{}/{} healthy", job.healthy.unwrap_or_default(), job.wanted)
        }
        (0, done) if done > 0 => format!("{done}/{} completed", job.wanted),
        (running, _) => format!("{running}/{} running", job.wanted),
    };
    match job.stopping {
        0 => standing,
        count => format!("{standing}, {count} stopping"),
    }
}

fn job_detail(view: &JobView, wide: bool, now: Timestamp) -> String {
    let job = &view.summary.job;
    let mut text = String::new();
    table::field(
        &mut text,
        "Job",
        &format!("{} ({})", job.name, view.summary.kind),
    );
    let status = format!(
        "{}, {}",
        table::job_status(view.summary.status),
        standing(&view.summary)
    );
    table::field(&mut text, "Status", &status);
    table::field(
        &mut text,
        "Reason",
        job.reason.as_deref().unwrap_or_default(),
    );
    if let Some(code) = job.exit_code {
        table::field(&mut text, "Exit code", &code.to_string());
    }
    table::field(&mut text, "Version", &job.version.to_string());
    table::field(&mut text, "Update", &update(job));
    table::field(&mut text, "Owner", &job.owner);
    table::field(&mut text, "Submitted", &time::full(job.submitted_at));
    if let Some(at) = job.started_at {
        table::field(&mut text, "Started", &time::full(at));
    }
    if let Some(at) = job.ended_at {
        table::field(&mut text, "Ended", &time::full(at));
    }
    for (key, value) in &view.summary.labels {
        table::field(&mut text, "Label", &format!("{key}={value}"));
    }
    text.push_str(&schedule::of(view));
    text.push_str(&graph::jobs(&view.depends_on, &view.upstream));
    text.push_str(&graph::tasks(&view.graph));
    if !view.children.is_empty() {
        text.push('\n');
        text.push_str(&jobs(&view.children, wide, now));
    }
    if !view.slots.is_empty() {
        text.push('\n');
        text.push_str(&slot_table(&view.slots, wide, now));
    }
    text
}

/// `rolling, from version 3`; nothing once it is done as it should be.
fn update(job: &JobRecord) -> String {
    let Some(update) = &job.update else {
        return String::new();
    };
    let phase = match update.phase {
        UpdatePhase::Done if update.undoes.is_none() => return String::new(),
        UpdatePhase::Canary => "its canaries are healthy: `loomctl promote` lets it go on",
        phase => phase.as_str(),
    };
    let from = update.from.map(|from| format!(", from version {from}"));
    let from = from.filter(|_| update.undoes.is_none());
    let undoes = update
        .undoes
        .map(|undone| format!(", back from version {undone}"));
    let reason = update.reason.as_ref().map(|reason| format!(": {reason}"));
    let parts = [from, undoes, reason].into_iter().flatten();
    parts.fold(phase.to_owned(), |text, part| text + &part)
}
