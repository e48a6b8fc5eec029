//! `loomctl logs`.

use std::time::Duration;

use jiff::Timestamp;
use loom_bus::Bus;
use loom_schemas::wire::LogLine;

use crate::address::{Address, parse_pair};
use crate::cli::Global;
use crate::commands::status::nothing_there;
use crate::exit::{Code, Failure};
use crate::output::{self, Form, note};
use crate::watch::output::{Follow, Kept};
use crate::watch::printer::Printer;
use crate::watch::scope::Scope;

/// Show output, also of runs long gone, and with -f as it is written.
///
/// Output comes from the bus, where it is kept. Where no manager answers, or a task does not ship
/// its output, running tasks are read from the files on their nodes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl logs web --tail 20
  loomctl logs web/0 -f
  loomctl logs -l tier=front --since 10m -t")]
pub(crate) struct Logs {
    /// JOB, JOB/INDEX, JOB/TASK, JOB/TASK/INDEX, or a run's id
    address: Option<String>,
    /// Every task of jobs with this label, job by job; repeat for several
    #[arg(short = 'l', long = "label", value_parser = parse_pair, value_name = "K=V")]
    labels: Vec<(String, String)>,
    /// Go on with what is written
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines, with -l of each job
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
    /// Only lines of so long ago or later: 30s, 10m, 2h
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
        let form = global.output;
        if form == Form::Name {
            return Err(Failure::usage(
                "lines of output have no names; use -o table, wide, json, jsonl or yaml",
            ));
        }
        form.must_fit_a_stream(self.follow)?;
        let address = Address::of(self.address.as_deref(), &self.labels)?;
        let bus = global.bus.connect().await?;
        let mut scope = Scope::of(&bus, &address).await?;
        scope.only(self.stream.as_deref());
        let since = self.since.map(|ago| Timestamp::now() - ago);
        let timestamps = self.timestamps || form == Form::Wide;
        let printer = Printer::new(form, timestamps, scope.is_many);
        if self.follow {
            self.follow(&bus, scope, since, &printer).await
        } else {
            self.kept(&bus, scope, since, &printer, form).await
        }
    }

    async fn kept(
        &self,
        bus: &Bus,
        scope: Scope,
        since: Option<Timestamp>,
        printer: &Printer,
        form: Form,
    ) -> Result<(), Failure> {
        let mut kept = Kept::new(bus, scope.clone(), since);
        let any = if form.is_one_document() {
            let mut lines = Vec::new();
            let mut take = |line: &LogLine| {
                lines.push(line.clone());
                Ok(())
            };
            let any = kept.show(self.tail, &mut take).await?;
            output::list(form, &lines, |_| String::new(), |_| String::new())?;
            any
        } else {
            kept.show(self.tail, &mut |line| printer.print(line))
                .await?
        };
        if any || self.tail == Some(0) {
            return Ok(());
        }
        match unshipped(bus, &scope).await?.as_slice() {
            [] => Ok(()),
            reasons => Err(Failure::new(Code::NotFound, reasons.join("\n"))),
        }
    }

    async fn follow(
        &self,
        bus: &Bus,
        scope: Scope,
        since: Option<Timestamp>,
        printer: &Printer,
    ) -> Result<(), Failure> {
        let mut follow = Follow::open(bus, scope.clone(), since).await?;
        follow
            .show_kept(self.tail, &mut |line| printer.print(line))
            .await?;
        // A job that is yet to come is waited for.
        for reason in unshipped(bus, &scope).await.unwrap_or_default() {
            note(&format!("loomctl: {reason}; -f shows none of it"));
        }
        loop {
            printer.print(&follow.next().await?)?;
        }
    }
}

/// Why nothing of some tasks is on the bus; an error where there is no such job.
async fn unshipped(bus: &Bus, scope: &Scope) -> Result<Vec<String>, Failure> {
    let views = match scope.jobs(bus).await {
        Err(failure) if failure.code == Code::NoAnswer => Vec::new(),
        views => views?,
    };
    if let Some(view) = views.iter().find(|view| !scope.is_in(view)) {
        return Err(nothing_there(&scope.address, view));
    }
    Ok(views
        .iter()
        .flat_map(|view| scope.unshipped(view))
        .collect())
}
