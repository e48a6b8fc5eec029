//! `loomctl run`.

use std::path::PathBuf;
use std::time::Duration;

use loom_bus::{Bus, Messages};
use loom_schemas::ids::{Name, Revision};
use loom_schemas::record::{Health, RunRecord};
use loom_schemas::subject;
use loom_schemas::wire::{JobView, SubmitOutcome, Submitted};
use loom_schemas::words::{JobStatus, Kind, RunState};
use tokio::time::Instant;

use crate::cli::Global;
use crate::client;
use crate::commands::stop::job_view_at;
use crate::commands::validate::{JobFile, read_job};
use crate::exit::{Code, Failure, chain};
use crate::output::{self, Form, progress::Progress};
use crate::watch::output::Follow as Output;
use crate::watch::printer::Printer;
use crate::watch::scope::Scope;

/// Output that has been silent for so long after the end has all come.
const QUIET: Duration = Duration::from_millis(300);

/// How long a service must keep running before `run` calls it running.
const SETTLED: Duration = Duration::from_secs(1);

/// Submit a job and follow it: a service until it runs and is healthy, a batch to its end.
///
/// Ctrl-C detaches; the job goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl run web.yaml
  loomctl run --once hello.yaml; echo \"exit code $?\"
  loomctl run --detach --if-version 0 - < web.yaml")]
pub(crate) struct Run {
    /// Job file: YAML, TOML or JSON by extension; - is standard input
    file: PathBuf,
    /// Return as soon as it is accepted
    #[arg(short, long, conflicts_with = "once")]
    detach: bool,
    /// Stream the output and exit with the task's own exit code
    #[arg(long)]
    once: bool,
    /// Only if this is the job's version now; 0 for a job that must not exist
    #[arg(long, value_name = "N")]
    if_version: Option<u32>,
    /// Give up following after this long, with exit code 124; the job goes on
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Option<Duration>,
    /// How long a service may take until it runs and is healthy, a batch until it begins; exit code
    /// 2 past it
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "TIME")]
    deadline: Duration,
}

impl Run {
    /// Submits the job and follows it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let once = self.once;
        self.submit_and_follow(global)
            .await
            .map_err(|failure| match failure.code {
                // With --once the task's code is what is expected; ours must not look like one.
                Code::Task(_) | Code::Usage | Code::TimedOut => failure,
                _ if once => Failure {
                    code: Code::Own,
                    ..failure
                },
                _ => failure,
            })
    }

    async fn submit_and_follow(self, global: &Global) -> Result<(), Failure> {
        if self.once && (global.output.is_one_document() || global.output == Form::Name) {
            return Err(Failure::usage(
                "--once streams lines; use -o table, wide or jsonl with it",
            ));
        }
        let file = read_job(&self.file)?;
        let job = file.spec.name.clone();
        let bus = global.bus.connect().await?;
        let pattern = format!("orch.events.*.{job}.>");
        let events = subscribe(&bus, &pattern).await?;
        // Listened to before it runs, so that nothing it says is missed.
        let mut output = None;
        if self.once {
            let mut follow = Output::open(&bus, Scope::of_job(&job), None).await?;
            follow.pass_over_kept().await?;
            output = Some(follow);
        }

        let submitted = submit(&bus, &file, self.if_version).await?;
        report(global, &submitted)?;
        if self.detach {
            return Ok(());
        }
        let limit = self.timeout.map(|timeout| Instant::now() + timeout);
        let follow = Follow {
            bus,
            job: job.clone(),
            events,
            deadline: self.deadline,
            revision: submitted.revision,
        };
        let followed = async {
            match output {
                Some(output) => follow.once(global, output).await,
                None => follow.until_the_end(global).await,
            }
        };
        tokio::select! {
            end = followed => end,
            () = sleep_until(limit) => Err(Failure::new(
                Code::TimedOut,
                format!("--timeout passed; {job} goes on (loomctl status {job})"),
            )),
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(|error| Failure::error(format!("Ctrl-C: {error}")))?;
                output::note(&format!("\ndetached; {job} goes on (loomctl status {job})"));
                // A script must not take a job that has not ended for one that succeeded.
                if self.once { Err(Failure::silent(Code::Own)) } else { Ok(()) }
            }
        }
    }
}

async fn sleep_until(limit: Option<Instant>) {
    match limit {
        Some(limit) => tokio::time::sleep_until(limit).await,
        None => std::future::pending().await,
    }
}

async fn subscribe(bus: &Bus, pattern: &str) -> Result<Messages, Failure> {
    bus.subscribe(pattern)
        .await
        .map_err(|error| Failure::new(Code::NoAnswer, chain(&error)))
}

/// Hands the job to the leader: the file's own bytes, or the spec where scripts were embedded.
pub(crate) async fn submit(
    bus: &Bus,
    file: &JobFile,
    if_version: Option<u32>,
) -> Result<Submitted, Failure> {
    let mut headers = vec![
        ("Content-Type", file.content_type.to_owned()),
        client::command_id(),
    ];
    if let Some(version) = if_version {
        headers.push(("Orch-If-Version", version.to_string()));
    }
    let subject = subject::job("submit");
    let payload = bytes::Bytes::from(file.text.clone());
    let reply = client::until_heard(|| {
        bus.call_bytes(&subject, payload.clone(), &headers, client::WRITE_TIMEOUT)
    })
    .await?;
    reply
        .decode()
        .map_err(|error| Failure::error(format!("the leader's answer: {error}")))
}

fn report(global: &Global, submitted: &Submitted) -> Result<(), Failure> {
    if !global.output.is_for_people() {
        return output::one(
            global.output,
            submitted,
            |s| s.job.to_string(),
            |_| String::new(),
        );
    }
    let (job, version) = (&submitted.job, submitted.version);
    output::note(&match submitted.outcome {
        SubmitOutcome::Created => format!("{job}: accepted, version {version}"),
        SubmitOutcome::Updated => format!("{job}: updated to version {version}"),
        SubmitOutcome::Unchanged => format!("{job}: unchanged, version {version}"),
        SubmitOutcome::Restarted => format!("{job}: started again, version {version}"),
    });
    Ok(())
}

/// A job being followed.
struct Follow {
    bus: Bus,
    job: Name,
    events: Messages,
    deadline: Duration,
    /// The commit the job was accepted in: nothing from before it is of interest.
    revision: Revision,
}

impl Follow {
    /// Waits for something to happen; a look every second does the same should it be missed.
    async fn wake(&mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.events.next()).await;
    }

    /// The job now; none while no manager answers, which passes.
    async fn look(&self) -> Result<Option<JobView>, Failure> {
        match job_view_at(&self.bus, &self.job, Some(self.revision)).await {
            Ok(view) => Ok(Some(of_this_round(view))),
            Err(failure) if failure.code == Code::NoAnswer => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Follows with live progress.
    async fn until_the_end(mut self, global: &Global) -> Result<(), Failure> {
        let start = Instant::now();
        let mut progress = Progress::new(global.output.is_for_people());
        let mut settled_since = None;
        loop {
            let Some(view) = self.look().await? else {
                progress.line("no manager answers; waiting for one");
                self.wake().await;
                continue;
            };
            progress.show(&view);
            if view.summary.status.is_terminal() {
                progress.finish();
                return ended(&view);
            }
            if view.summary.kind == Kind::Service {
                if is_waiting(&view) {
                    settled_since = None;
                    if let Some(text) = waits_for_health(&view) {
                        progress.line(&text);
                    }
                } else if settled_since.get_or_insert_with(Instant::now).elapsed()
                    >= settles_in(&view)
                {
                    progress.finish();
                    let summary = &view.summary;
                    let healthy = summary.healthy.map_or("", |_| " healthy");
                    output::note(&format!(
                        "{}: running, {}/{}{healthy}",
                        self.job, summary.running, summary.wanted
                    ));
                    return Ok(());
                }
            }
            if start.elapsed() > self.deadline && is_waiting(&view) {
                progress.finish();
                return Err(unplaced(&view));
            }
            self.wake().await;
        }
    }

    /// Streams the output and ends as the job does.
    async fn once(mut self, global: &Global, mut output: Output) -> Result<(), Failure> {
        let printer = Printer::new(global.output, global.output == Form::Wide, false);
        let view = tokio::select! {
            view = self.end() => view?,
            failure = print_all(&mut output, &printer) => return Err(failure),
        };
        // Shipping trails the end: what is on its way comes first, in order.
        while let Ok(line) = tokio::time::timeout(QUIET, output.next()).await {
            printer.print(&line?)?;
        }
        output.look_back();
        while let Some(line) = output.next_kept().await? {
            printer.print(&line)?;
        }
        let code = view.summary.job.exit_code.unwrap_or_default();
        if view.summary.status == JobStatus::Completed {
            return Ok(());
        }
        let shown = u8::try_from(code).ok().filter(|code| *code != 0);
        Err(shown.map_or_else(
            || Failure::new(Code::Own, reason(&view)),
            |code| Failure::silent(Code::Task(code)),
        ))
    }

    /// Waits until the job has ended.
    async fn end(&mut self) -> Result<JobView, Failure> {
        let start = Instant::now();
        let mut said = None;
        loop {
            if let Some(view) = self.look().await? {
                if view.summary.status.is_terminal() {
                    return Ok(view);
                }
                // Output that does not come is taken for a program that hangs.
                let waits = view.slots.iter().find_map(|slot| slot.waiting.clone());
                if let Some(why) = waits.as_ref().filter(|_| said != waits) {
                    output::note(&format!("{}: waiting: {why}", self.job));
                }
                said = waits;
                if start.elapsed() > self.deadline && is_waiting(&view) {
                    return Err(unplaced(&view));
                }
            }
            self.wake().await;
        }
    }
}

/// Prints lines as they come; ends only by a failure.
async fn print_all(output: &mut Output, printer: &Printer) -> Failure {
    loop {
        let done = match output.next().await {
            Ok(line) => printer.print(&line),
            Err(failure) => return failure,
        };
        if let Err(failure) = done {
            return failure;
        }
    }
}

/// The job without what is left of earlier rounds; slots count once they run its version.
fn of_this_round(mut view: JobView) -> JobView {
    let (round, version) = (view.summary.job.round, view.summary.job.version);
    for slot in &mut view.slots {
        slot.current.take_if(|run| run.round != round);
        slot.incoming.take_if(|run| run.round != round);
        slot.ended.retain(|run| run.round == round);
    }
    let count = |state| {
        let current = view.slots.iter().filter_map(|slot| slot.current.as_ref());
        let count = current.filter(|run| run.state == state && run.version == version);
        u32::try_from(count.count()).unwrap_or(u32::MAX)
    };
    (view.summary.running, view.summary.completed) =
        (count(RunState::Running), count(RunState::Completed));
    view
}

/// Whether what the deadline is for has not come: a service that runs and is healthy, a batch that
/// has begun.
fn is_waiting(view: &JobView) -> bool {
    let summary = &view.summary;
    match summary.kind {
        Kind::Service => summary.running.min(summary.healthy.unwrap_or(u32::MAX)) < summary.wanted,
        Kind::Batch => summary.job.started_at.is_none(),
    }
}

/// `waiting for 1 of 3 to become healthy: web/0 http GET / on port 20001: connection refused`, once
/// all of it runs.
fn waits_for_health(view: &JobView) -> Option<String> {
    let summary = &view.summary;
    let healthy = summary.healthy?;
    if summary.running < summary.wanted {
        return None;
    }
    let first = view.slots.iter().find_map(|slot| {
        let reason = slot.current.as_ref().and_then(unhealthy)?;
        Some(format!(": {} {reason}", slot.slot))
    });
    Some(format!(
        "waiting for {} of {} to become healthy{}",
        summary.wanted.saturating_sub(healthy),
        summary.wanted,
        first.unwrap_or_default()
    ))
}

/// How long a service must go on before it is called running: a check that succeeded needs no proof.
fn settles_in(view: &JobView) -> Duration {
    let version = view.summary.job.version;
    let checked = view.spec.tasks.values().all(|task| task.health.is_some());
    let mut current = view.slots.iter().filter_map(|slot| slot.current.as_ref());
    if checked && current.all(|run| run.version == version) {
        Duration::ZERO
    } else {
        SETTLED
    }
}

/// Why a running run is not healthy, as far as its checks have said.
fn unhealthy(run: &RunRecord) -> Option<&str> {
    run.health.as_ref()?.reason.as_deref()
}

fn reason(view: &JobView) -> String {
    let job = &view.summary.job;
    let reason = job
        .reason
        .as_deref()
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    format!("{} {}{reason}", job.name, view.summary.status)
}

fn ended(view: &JobView) -> Result<(), Failure> {
    if view.summary.status == JobStatus::Completed {
        output::note(&reason(view));
        return Ok(());
    }
    Err(Failure::new(Code::Error, reason(view)))
}

fn unplaced(view: &JobView) -> Failure {
    let mut why: Vec<String> = view
        .slots
        .iter()
        .filter_map(|slot| {
            let run = slot.current.as_ref().or(slot.ended.last());
            if let Some(run) = run.filter(|run| run.state == RunState::Running) {
                let healthy = run.health.as_ref().is_none_or(Health::is_healthy);
                let reason = unhealthy(run).unwrap_or("not healthy yet");
                return (!healthy).then(|| format!("{} {reason}", slot.slot));
            }
            let reason = slot.waiting.clone();
            let reason = reason.or_else(|| run.and_then(|run| run.reason.clone()));
            Some(reason.unwrap_or_else(|| "not running".to_owned()))
        })
        .collect();
    why.sort();
    why.dedup();
    let summary = &view.summary;
    Failure::new(
        Code::Unplaced,
        format!(
            "{} is accepted, but {}/{} {} by the deadline: {}",
            summary.job.name,
            summary.healthy.unwrap_or(summary.running),
            summary.wanted,
            summary.healthy.map_or("run", |_| "are healthy"),
            why.join("; ")
        ),
    )
}
