//! `loomctl signal`, `pause`, `resume`, `inspect`: one hop to the tasks themselves.

use std::time::Duration;

use loom_schemas::spec::nearest_signal;
use loom_schemas::wire::{Inspect, TaskCommand};

use crate::address::{Address, parse_pair};
use crate::cli::Global;
use crate::exit::{Code, Failure};
use crate::fanout::{self, Outcome, Row};
use crate::output::{self, table};

/// Whom a runtime command is for, and how many must do it.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// JOB, JOB/INDEX, JOB/TASK, JOB/TASK/INDEX, or a run's id
    pub(super) address: Option<String>,
    #[command(flatten)]
    pub(super) many: Many,
}

/// How a command to many is sent and judged.
#[derive(Debug, clap::Args)]
pub(crate) struct Many {
    /// Every task of jobs with this label; repeat for several
    #[arg(short = 'l', long = "label", value_parser = parse_pair, value_name = "K=V")]
    pub(super) labels: Vec<(String, String)>,
    /// How long to wait for answers
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(super) timeout: Duration,
    /// Be content when so many tasks have done it
    #[arg(long, value_name = "N")]
    pub(super) min_ok: Option<usize>,
    /// Only one of them: the first that does it
    #[arg(long, conflicts_with = "min_ok")]
    any: bool,
}

/// Send a signal to tasks.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl signal web/0 HUP
  loomctl signal web USR1 --any
  loomctl signal -l tier=front SIGTERM --all")]
pub(crate) struct SignalVerb {
    /// ADDR and SIG, or only SIG with -l: `web/0 HUP`, `-l tier=front SIGUSR1`
    #[arg(required = true, num_args = 1..=2, value_name = "ADDR SIG")]
    words: Vec<String>,
    #[command(flatten)]
    many: Many,
    /// To every process of the task, not only the main one
    #[arg(long)]
    all: bool,
}

/// Pause tasks: no process of theirs is scheduled until they are resumed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl pause web/1
  loomctl pause -l tier=front")]
pub(crate) struct Pause {
    #[command(flatten)]
    target: Target,
}

/// Let paused tasks go on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl resume web/1")]
pub(crate) struct Resume {
    #[command(flatten)]
    target: Target,
}

/// Show what the task itself says of its run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl inspect web
  loomctl inspect web/0 -o json")]
pub(crate) struct InspectVerb {
    #[command(flatten)]
    target: Target,
}

impl SignalVerb {
    /// Sends it and prints a row a task.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let (address, signal) = match self.words.as_slice() {
            [address, signal] => (Some(address.as_str()), signal),
            [signal] if !self.many.labels.is_empty() => (None, signal),
            _ => {
                return Err(Failure::usage(
                    "signal takes ADDR and SIG: loomctl signal web/0 HUP",
                ));
            }
        };
        if let Err(wrong) = loom_task::signals::parse(signal) {
            return Err(Failure::usage(match nearest_signal(signal) {
                Some(name) => format!("{wrong}; did you mean {name}?"),
                None => wrong,
            }));
        }
        let command = TaskCommand {
            signal: Some(signal.clone()),
            all: self.all,
            ..TaskCommand::default()
        };
        send(global, address, &self.many, "signal", &command).await
    }
}

impl Pause {
    /// Pauses and prints a row a task.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        self.target.send(global, "pause").await
    }
}

impl Resume {
    /// Resumes and prints a row a task.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        self.target.send(global, "resume").await
    }
}

impl InspectVerb {
    /// Asks and prints a row a task.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        self.target.send(global, "inspect").await
    }
}

impl Target {
    async fn send(&self, global: &Global, verb: &str) -> Result<(), Failure> {
        let command = TaskCommand::default();
        send(global, self.address.as_deref(), &self.many, verb, &command).await
    }
}

async fn send(
    global: &Global,
    address: Option<&str>,
    many: &Many,
    verb: &str,
    command: &TaskCommand,
) -> Result<(), Failure> {
    let address = Address::of(address, &many.labels)?;
    let bus = global.bus.connect().await?;
    let outcome = if many.any {
        fanout::any(&bus, &address, verb, command, many.timeout).await?
    } else {
        fanout::command(&bus, &address, verb, command, many.timeout).await?
    };
    output::list(
        global.output,
        &outcome.rows,
        |row| row.slot().to_string(),
        |wide| {
            if verb == "inspect" {
                inspected(&outcome, wide)
            } else {
                rows(&outcome, wide)
            }
        },
    )?;
    judge(&outcome, many.min_ok)
}

/// TASK NODE RESULT TIME, a row a task.
fn rows(outcome: &Outcome, wide: bool) -> String {
    let heads: &[&str] = if wide {
        &["task", "node", "result", "time", "version", "run"]
    } else {
        &["task", "node", "result", "time"]
    };
    let mut table = table::new(heads);
    for row in &outcome.rows {
        let result = row
            .error()
            .map_or_else(|| "ok".to_owned(), |error| error.message.clone());
        let mut cells = vec![row.slot().to_string()];
        match row {
            Row::Answer(answer) => {
                cells.extend([answer.node.to_string(), result, took(answer.took_us)]);
                if wide {
                    cells.extend([answer.version.to_string(), answer.run.to_string()]);
                }
            }
            Row::Silent { .. } => cells.extend(["-".to_owned(), result, "-".to_owned()]),
        }
        table.add_row(cells);
    }
    table::render(table)
}

fn inspected(outcome: &Outcome, wide: bool) -> String {
    let mut heads = vec![
        "task",
        "node",
        "state",
        "health",
        "pid",
        "restarts",
        "run",
        "not held to",
    ];
    if wide {
        heads.extend(["image", "container", "directory"]);
    }
    let mut table = table::new(&heads);
    for row in &outcome.rows {
        let mut cells = vec![row.slot().to_string()];
        if let Row::Answer(answer) = row
            && let Some(value) = &answer.value
            && let Ok(view) = serde_json::from_value::<Inspect>(value.clone())
        {
            cells.extend([
                answer.node.to_string(),
                table::run_state(view.state, view.marks.paused, view.marks.unknown),
                table::health(view.health.as_ref()),
                view.pid
                    .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                view.restarts.to_string(),
                answer.run.short(),
                view.unenforced.join("; "),
            ]);
            if wide {
                let container = view.container.unwrap_or_default();
                cells.extend([
                    view.image.unwrap_or_default(),
                    // As `docker ps` shows it.
                    container.chars().take(12).collect(),
                    view.directory.unwrap_or_default(),
                ]);
            }
        } else if let Some(error) = row.error() {
            cells.extend(["-".to_owned(), error.message.clone()]);
        }
        table.add_row(cells);
    }
    table::render(table)
}

/// Microseconds as people read them.
fn took(micros: u64) -> String {
    if micros < 1_000 {
        format!("{micros}us")
    } else {
        format!("{}ms", micros / 1_000)
    }
}

/// 0 if all did it (or as many as had to), 3 if not.
pub(super) fn judge(outcome: &Outcome, min_ok: Option<usize>) -> Result<(), Failure> {
    let done = outcome
        .rows
        .iter()
        .filter(|row| row.error().is_none())
        .count();
    if done >= min_ok.unwrap_or(outcome.rows.len()) {
        return Ok(());
    }
    Err(Failure::new(
        Code::SomeFailed,
        format!(
            "{} of {} tasks did not do it",
            outcome.rows.len() - done,
            outcome.rows.len()
        ),
    ))
}
