//! `loomctl logs`.

use std::collections::BTreeMap;
use std::time::Duration;

use anstyle::AnsiColor;
use jiff::Timestamp;
use loom_bus::logs::{LogBlock, source_of};
use loom_bus::{Bus, Message, Messages};
use loom_schemas::ids::{Name, RunId};
use loom_schemas::subject;
use loom_schemas::wire::{LogLine, LogLines, LogQuery, TaskCommand};

use crate::address::{Address, is_run_suffix};
use crate::cli::Global;
use crate::client;
use crate::commands::stop::job_view;
use crate::exit::{Code, Failure, chain};
use crate::fanout::{self, Row};
use crate::output::{self, Form, table, time};

/// Show output, also of runs long gone, and with -f as it is written.
#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// JOB, JOB/INDEX, JOB/TASK, JOB/TASK/INDEX, or a run's id
    address: String,
    /// Go on with what is written
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
    /// Only lines of so long ago or later
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    since: Option<Duration>,
    /// Only this stream
    #[arg(long, value_name = "STREAM", value_parser = ["stdout", "stderr"])]
    stream: Option<String>,
    /// With the time of each line
    #[arg(short = 't', long)]
    timestamps: bool,
}

impl Logs {
    /// Shows what was written, then what is.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let address = Address::parse(&self.address)?;
        let bus = global.bus.connect().await?;
        let mut scope = Scope::of(&bus, &address).await?;
        scope.only(self.stream.as_deref());
        let live = if self.follow {
            Some(scope.subscribe(&bus).await?)
        } else {
            None
        };
        let mut printer = Printer::new(global.output, self.timestamps, scope.is_many);
        let since = self.since.map(|ago| Timestamp::now() - ago);
        let (mut lines, from_files) = scope.history(&bus, self.tail, since).await?;
        lines.retain(|line| self.wants(line));
        for line in &lines {
            if from_files {
                printer.print_from_file(line)?;
            } else {
                printer.print(line)?;
            }
        }
        if lines.is_empty() && live.is_none() {
            scope.must_exist(&bus).await?;
        }
        let Some(mut live) = live else { return Ok(()) };
        while let Some(message) = live.next().await {
            for line in lines_of(&message) {
                if self.wants(&line) && scope.run.is_none_or(|run| run == line.run) {
                    printer.print(&line)?;
                }
            }
        }
        Err(Failure::new(Code::NoAnswer, "the bus is gone"))
    }

    fn wants(&self, line: &LogLine) -> bool {
        self.stream
            .as_ref()
            .is_none_or(|stream| *stream == line.stream)
    }
}

/// The lines of a live message; none of one that is not ours.
pub(crate) fn lines_of(message: &Message) -> Vec<LogLine> {
    let header = |name: &str| message.headers.get(name);
    let block = LogBlock::decode(header, &message.payload);
    match (source_of(&message.subject), block) {
        (Ok((slot, _, stream)), Ok(block)) => block.into_lines(&slot, stream),
        _ => Vec::new(),
    }
}

/// Whose output.
pub(crate) struct Scope {
    address: Address,
    filter: String,
    run: Option<RunId>,
    is_many: bool,
}

impl Scope {
    /// Finds the subjects an address stands for.
    pub(crate) async fn of(bus: &Bus, address: &Address) -> Result<Self, Failure> {
        let (filter, run, is_many) = match address {
            Address::Job(job) if is_run_suffix(job.as_str()) && !is_known(bus, job).await => {
                let suffix = Address::RunSuffix(job.to_string());
                return Box::pin(Self::of(bus, &suffix)).await;
            }
            Address::Job(job) => (format!("{job}.>"), None, true),
            Address::Only(job, index) => (format!("{job}.*.{index}.*.*"), None, false),
            Address::Task(job, task) => (format!("{job}.{task}.>"), None, true),
            Address::Slot(job, task, index) => (format!("{job}.{task}.{index}.*.*"), None, false),
            Address::Run(_) | Address::RunSuffix(_) => {
                let get = loom_schemas::wire::RunGet {
                    run: address.to_string(),
                };
                let view: loom_schemas::wire::RunView =
                    client::ask(bus, &subject::api("run", "get"), &get).await?;
                let slot = view.slot;
                (
                    format!("{}.{}.{}.*.*", slot.job, slot.task, slot.index),
                    Some(view.run.run),
                    false,
                )
            }
            Address::Labels(_) => return Err(Failure::usage("logs takes an address")),
        };
        Ok(Self {
            address: address.clone(),
            filter,
            run,
            is_many,
        })
    }

    /// Narrows it to one stream, before any tail is cut off.
    fn only(&mut self, stream: Option<&str>) {
        let Some(stream) = stream else { return };
        let mut tokens: Vec<&str> = self
            .filter
            .split('.')
            .filter(|token| *token != ">")
            .collect();
        tokens.truncate(4);
        while tokens.len() < 4 {
            tokens.push("*");
        }
        self.filter = format!("{}.{stream}", tokens.join("."));
    }

    /// What is written from now on.
    pub(crate) async fn subscribe(&self, bus: &Bus) -> Result<Messages, Failure> {
        bus.subscribe(&format!("orch.logs.{}", self.filter))
            .await
            .map_err(|error| Failure::new(Code::NoAnswer, chain(&error)))
    }

    /// Nothing was written: by a job that is there, or is there none?
    async fn must_exist(&self, bus: &Bus) -> Result<(), Failure> {
        let Some(job) = self
            .filter
            .split('.')
            .next()
            .and_then(|job| Name::new(job).ok())
        else {
            return Ok(());
        };
        match job_view(bus, &job).await {
            Err(failure) if failure.code == Code::NotFound => Err(failure),
            _ => Ok(()),
        }
    }

    /// What was written: from the bus, or from the tasks themselves while no manager is there; and
    /// whether it is from the tasks.
    pub(crate) async fn history(
        &self,
        bus: &Bus,
        tail: Option<u32>,
        since: Option<Timestamp>,
    ) -> Result<(Vec<LogLine>, bool), Failure> {
        let query = LogQuery {
            filter: self.filter.clone(),
            run: self.run,
            since,
            tail,
        };
        let kept = client::ask::<_, LogLines>(bus, &subject::api("log", "get"), &query).await;
        match kept {
            Ok(lines) if !lines.lines.is_empty() => Ok((lines.lines, false)),
            Ok(_) => {
                // Nothing kept: the task may not ship its output, but still have it at hand.
                Ok((
                    self.of_tasks(bus, tail, since).await.unwrap_or_default(),
                    true,
                ))
            }
            Err(failure) if failure.code == Code::NoAnswer => {
                Ok((self.of_tasks(bus, tail, since).await?, true))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn of_tasks(
        &self,
        bus: &Bus,
        tail: Option<u32>,
        since: Option<Timestamp>,
    ) -> Result<Vec<LogLine>, Failure> {
        let command = TaskCommand {
            tail: tail.or(Some(10_000)),
            ..TaskCommand::default()
        };
        let outcome =
            fanout::command(bus, &self.address, "logs", &command, Duration::from_secs(5)).await?;
        let mut lines = Vec::new();
        for row in outcome.rows {
            if let Row::Answer(row) = row
                && let Some(value) = row.value
                && let Ok(answer) = serde_json::from_value::<LogLines>(value)
            {
                lines.extend(answer.lines);
            }
        }
        lines.retain(|line| since.is_none_or(|since| line.at >= since));
        lines.sort_by_key(|line| line.at);
        Ok(lines)
    }
}

/// Whether a manager knows a job of this name; yes where none answers.
async fn is_known(bus: &Bus, job: &Name) -> bool {
    match job_view(bus, job).await {
        Err(failure) => failure.code != Code::NotFound,
        Ok(_) => true,
    }
}

/// Prints lines once each, in the order they come.
pub(crate) struct Printer {
    form: Form,
    timestamps: bool,
    prefixed: bool,
    /// How far each stream of each run has been printed of what the bus keeps.
    printed: BTreeMap<(RunId, String), u64>,
    /// Until when it has been printed from a node's files, whose offsets count other bytes.
    printed_until: BTreeMap<(RunId, String), Timestamp>,
}

impl Printer {
    /// A printer; with `prefixed` each line says whose it is.
    pub(crate) fn new(form: Form, timestamps: bool, prefixed: bool) -> Self {
        Self {
            form,
            timestamps,
            prefixed,
            printed: BTreeMap::new(),
            printed_until: BTreeMap::new(),
        }
    }

    /// Prints a line unless it was printed already.
    pub(crate) fn print(&mut self, line: &LogLine) -> Result<(), Failure> {
        let key = (line.run, line.stream.clone());
        let is_known = self
            .printed
            .get(&key)
            .is_some_and(|offset| line.offset <= *offset)
            || self
                .printed_until
                .get(&key)
                .is_some_and(|until| line.at <= *until);
        if is_known {
            return Ok(());
        }
        self.printed.insert(key, line.offset);
        self.show(line)
    }

    /// Prints a line of a node's own files.
    fn print_from_file(&mut self, line: &LogLine) -> Result<(), Failure> {
        self.printed_until
            .insert((line.run, line.stream.clone()), line.at);
        self.show(line)
    }

    fn show(&self, line: &LogLine) -> Result<(), Failure> {
        if !self.form.is_for_people() {
            return output::json_line(line);
        }
        let mut text = String::new();
        if self.timestamps {
            text.push_str(&time::clock(line.at));
            text.push(' ');
        }
        if self.prefixed {
            const COLOURS: [AnsiColor; 5] = [
                AnsiColor::Cyan,
                AnsiColor::Green,
                AnsiColor::Magenta,
                AnsiColor::Yellow,
                AnsiColor::Blue,
            ];
            let colour = COLOURS[line.slot.index as usize % COLOURS.len()];
            text.push_str(&table::painted(&format!("{} | ", line.slot), colour));
        }
        text.push_str(&line.text);
        text.push('\n');
        output::text(&text)
    }
}
