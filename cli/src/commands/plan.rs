//! `loomctl plan`.

use std::fmt::Write;
use std::path::PathBuf;

use loom_schemas::subject;
use loom_schemas::wire::{JobPlan, PlanAction, SubmitOutcome, WholeChange};

use crate::cli::Global;
use crate::client;
use crate::commands::validate::{parse_set, read_job};
use crate::exit::{Code, Failure};
use crate::output::{self, graph, table};

/// Show what `run` would do: each task with what becomes of it and why, what changes for the whole
/// job, in what it differs from the one that runs, what it waits for, who would be evicted to make
/// room for it, and what no node has room for.
///
/// What waits for others, or for its turn in an update, is tried as well.
///
/// Exit codes: 0 nothing to do; 1 changes; 2 some of it finds no node as things stand, or is never
/// started because what it waits for has failed; 255 error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl plan web.yaml
  loomctl plan web.yaml -o json; echo \"exit code $?\"")]
pub(crate) struct Plan {
    /// Job file: YAML, TOML or JSON by extension; - is standard input
    file: PathBuf,
    /// Only if this is the job's version now; 0 for a job that must not exist
    #[arg(long, value_name = "N")]
    if_version: Option<u32>,
    /// Set a var of the job; repeatable
    #[arg(long = "set", value_name = "VAR=VALUE", value_parser = parse_set)]
    sets: Vec<(String, String)>,
}

impl Plan {
    /// Asks the leader and shows it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let plan = self
            .ask(global)
            .await
            .map_err(|failure| match failure.code {
                Code::Usage => failure,
                // Lower codes say what there is to do.
                _ => Failure {
                    code: Code::NoPlan,
                    ..failure
                },
            })?;
        output::one(
            global.output,
            &plan,
            |plan| plan.job.to_string(),
            |_| shown(&plan),
        )?;
        if !plan.blocked.is_empty() {
            return Err(Failure::silent(Code::Unplaced));
        }
        match plan.outcome {
            SubmitOutcome::Unchanged => Ok(()),
            _ => Err(Failure::silent(Code::Changes)),
        }
    }

    async fn ask(&self, global: &Global) -> Result<JobPlan, Failure> {
        let file = read_job(&self.file, &self.sets.iter().cloned().collect())?;
        let bus = global.bus.connect().await?;
        let headers = file.headers(self.if_version)?;
        let subject = subject::job("plan");
        let payload = bytes::Bytes::from(file.text);
        let reply = client::retried(|| {
            bus.call_bytes(&subject, payload.clone(), &headers, client::WRITE_TIMEOUT)
        })
        .await?;
        reply
            .decode()
            .map_err(|error| Failure::error(format!("the leader's answer: {error}")))
    }
}

fn shown(plan: &JobPlan) -> String {
    let (job, version) = (&plan.job, plan.version);
    let mut text = match plan.outcome {
        SubmitOutcome::Created => format!("{job} would be new, at version {version}\n"),
        SubmitOutcome::Updated => format!("{job} would be updated to version {version}\n"),
        SubmitOutcome::Unchanged => format!("{job} is so already, at version {version}\n"),
        SubmitOutcome::Restarted => {
            format!("{job} would be started again, at version {version}\n")
        }
    };
    let mut rows = table::new(&["task", "action", "replicas", "reason"]);
    for task in &plan.tasks {
        rows.add_row([
            task.task.to_string(),
            coloured(task.action),
            task.replicas.to_string(),
            task.reason.clone(),
        ]);
    }
    text.push_str(&table::render(rows));
    if !plan.whole.is_empty() {
        text.push_str("\nof the whole job:\n");
        for WholeChange { field, effect } in &plan.whole {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{field}: {effect}");
        }
    }
    text.push_str(&changes(plan));
    text.push_str(&graph::jobs(&plan.depends_on, &plan.upstream));
    text.push_str(&graph::tasks(&plan.graph));
    if !plan.evicts.is_empty() {
        text.push_str("\nevicts to make room, by its priority:\n");
    }
    for line in &plan.evicts {
        let _ = writeln!(text, "{line}");
    }
    if !plan.blocked.is_empty() {
        text.push_str("\nfinds no node as things stand, or is never started:\n");
    }
    for line in &plan.blocked {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// In what the specs differ, a line a value.
fn changes(plan: &JobPlan) -> String {
    let mut text = String::new();
    if !plan.changes.is_empty() {
        text.push('\n');
    }
    for change in &plan.changes {
        let says = |value: &Option<String>| value.as_ref().map(|text| one_line(text));
        // Writing to a text cannot fail.
        let _ = match (says(&change.old), says(&change.new)) {
            (Some(old), Some(new)) => writeln!(text, "~ {}: {old} -> {new}", change.path),
            (Some(old), None) => writeln!(text, "- {}: {old}", change.path),
            (None, Some(new)) => writeln!(text, "+ {}: {new}", change.path),
            (None, None) => Ok(()),
        };
    }
    text
}

fn one_line(text: &str) -> String {
    text.trim_end().replace('\n', "\\n")
}

fn coloured(action: PlanAction) -> String {
    use anstyle::AnsiColor;
    let colour = match action {
        PlanAction::Create => AnsiColor::Green,
        PlanAction::InPlace => AnsiColor::Cyan,
        PlanAction::Replace => AnsiColor::Yellow,
        PlanAction::Stop => AnsiColor::Red,
        PlanAction::Keep => AnsiColor::BrightBlack,
    };
    table::painted(action.as_str(), colour)
}
