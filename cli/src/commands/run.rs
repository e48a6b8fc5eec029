//! `loomctl run`.

use std::path::PathBuf;
use std::time::Duration;

use loom_bus::{Bus, Messages};
use loom_schemas::ids::{Name, Revision};
use loom_schemas::subject;
use loom_schemas::wire::{JobView, SubmitOutcome, Submitted};
use loom_schemas::words::{JobStatus, Kind};
use tokio::time::Instant;

use crate::cli::Global;
use crate::client;
use crate::commands::stop::job_view_at;
use crate::commands::validate::{JobFile, parse_set, read_job};
use crate::exit::{Code, Failure, chain};
use crate::output::{self, Form, progress::Progress};
use crate::watch::output::Follow as Output;
use crate::watch::printer::Printer;
use crate::watch::scope::Scope;

mod silence;
mod standstill;
mod view;

use silence::Silence;
use standstill::Standstill;
use view::{
    ended, is_idle, is_waiting, next_firing, of_this_round, reason, settles_in, shipped_runs,
    unplaced, update_ended, waits_for_health, waits_for_others,
};

/// How long the rest of the output may take to come once the job has ended.
const TRAILING: Duration = Duration::from_secs(10);

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
    /// Set a var of the job; repeatable
    #[arg(long = "set", value_name = "VAR=VALUE", value_parser = parse_set)]
    sets: Vec<(String, String)>,
    /// Only if this is the job's version now; 0 for a job that must not exist
    #[arg(long, value_name = "N")]
    if_version: Option<u32>,
    /// Give up following after this long, with exit code 124; the job goes on
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Option<Duration>,
    /// How long a service may take until it runs and is healthy, or for one step of an update, a
    /// batch until it begins; exit code 2 past it
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
        let file = read_job(&self.file, &self.sets.iter().cloned().collect())?;
        if self.once && file.spec.schedule.is_some() {
            return Err(Failure::usage(
                "--once follows a job to its end, and this one runs again and again by its schedule",
            ));
        }
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
        let following = Following {
            deadline: self.deadline,
            timeout: self.timeout,
        };
        let follow = Follow {
            bus,
            job,
            events,
            deadline: self.deadline,
            revision: submitted.revision,
            version: submitted.version,
        };
        following.follow_to_the_end(global, follow, output).await
    }
}

/// How long a job is followed.
pub(crate) struct Following {
    /// How long until it has begun.
    pub(crate) deadline: Duration,
    /// How long in all.
    pub(crate) timeout: Option<Duration>,
}

impl Following {
    /// Follows a job that was accepted, to its end.
    pub(crate) async fn follow(
        self,
        global: &Global,
        bus: Bus,
        submitted: &Submitted,
    ) -> Result<(), Failure> {
        let job = submitted.job.clone();
        let events = subscribe(&bus, &format!("orch.events.*.{job}.>")).await?;
        let follow = Follow {
            bus,
            job,
            events,
            deadline: self.deadline,
            revision: submitted.revision,
            version: submitted.version,
        };
        self.follow_to_the_end(global, follow, None).await
    }

    async fn follow_to_the_end(
        self,
        global: &Global,
        follow: Follow,
        output: Option<Output>,
    ) -> Result<(), Failure> {
        let limit = self.timeout.map(|timeout| Instant::now() + timeout);
        let (job, once) = (follow.job.clone(), output.is_some());
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
                if once { Err(Failure::silent(Code::Own)) } else { Ok(()) }
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
    let mut headers = file.headers(if_version)?;
    headers.push(client::command_id());
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

pub(super) fn report(global: &Global, submitted: &Submitted) -> Result<(), Failure> {
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
    /// The version it was accepted as.
    version: u32,
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
        let mut silence = Silence::new(&self.job, self.deadline, start);
        let mut standstill = Standstill::new(start);
        loop {
            let Some(view) = self.look().await? else {
                if let Err(failure) = silence.goes_on(Instant::now()) {
                    progress.finish();
                    return Err(failure);
                }
                progress.line("no manager answers; waiting for one");
                self.wake().await;
                continue;
            };
            silence.is_over(Instant::now());
            progress.show(&view);
            if let Some(text) = next_firing(&view) {
                progress.finish();
                output::note(&text);
                return Ok(());
            }
            if view.summary.status.is_terminal() {
                progress.finish();
                return ended(&view);
            }
            if is_idle(&view) {
                progress.finish();
                output::note(&reason(&view));
                return Ok(());
            }
            if let Some(stands) = update_ended(&view, self.version) {
                progress.finish();
                return stands.map(|message| output::note(&message));
            }
            if let Some(text) = waits_for_others(&view) {
                progress.line(&text);
            }
            if view.summary.kind != Kind::Batch {
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
            let since = standstill.since(view.summary.job.update.as_ref(), Instant::now());
            if since.elapsed() > self.deadline && is_waiting(&view) {
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
        print_rest(&mut output, &printer, &view).await?;
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
        let mut silence = Silence::new(&self.job, self.deadline, start);
        loop {
            if let Some(view) = self.look().await? {
                silence.is_over(Instant::now());
                if view.summary.status.is_terminal() || is_idle(&view) {
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
            } else {
                silence.goes_on(Instant::now())?;
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

/// Prints what of the output comes after the end of the job, which shipping trails.
async fn print_rest(output: &mut Output, printer: &Printer, view: &JobView) -> Result<(), Failure> {
    let runs = shipped_runs(view);
    let limit = Instant::now() + TRAILING;
    while let Ok(line) = tokio::time::timeout_at(limit, output.next_of(&runs)).await {
        let Some(line) = line? else { return Ok(()) };
        printer.print(&line)?;
    }
    output.look_back();
    while let Some(line) = output.next_kept().await? {
        printer.print(&line)?;
    }
    if !output.is_whole(&runs) {
        let job = &view.summary.job.name;
        output::note(&format!(
            "loomctl: {job} has ended, but not all of its output has come (loomctl logs {job} \
             shows what comes later)"
        ));
    }
    Ok(())
}
