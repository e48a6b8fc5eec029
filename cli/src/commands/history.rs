//! `loomctl history` and `loomctl export`.

use std::collections::BTreeSet;
use std::io::{self, Write};

use jiff::Timestamp;
use loom_bus::Bus;
use loom_schemas::ids::Name;
use loom_schemas::record::MadeBy;
use loom_schemas::spec::Sets;
use loom_schemas::subject;
use loom_schemas::wire::{JobGet, JobView, VersionGet, VersionList, VersionSummary};

use crate::cli::Global;
use crate::client;
use crate::exit::{Code, Failure, chain};
use crate::output::{self, table, time};

/// List the versions of a job that are kept: the last 20, and those that are still needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl history web")]
pub(crate) struct History {
    /// The job
    job: Name,
}

impl History {
    /// Asks a manager and shows it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let bus = global.bus.connect().await?;
        let get = JobGet {
            job: self.job.clone(),
            after: None,
        };
        let asked = client::ask(&bus, &subject::api("job", "versions"), &get).await;
        let list: VersionList = client::or_nearest(&bus, &self.job, asked).await?;
        output::list(
            global.output,
            &list.versions,
            |version| version.version.to_string(),
            |_| shown(&list, Timestamp::now()),
        )
    }
}

fn shown(list: &VersionList, now: Timestamp) -> String {
    let is_set = list.versions.iter().any(|version| !version.sets.is_empty());
    let mut head = vec!["version", "age", "by", "size", "reason"];
    head.extend(is_set.then_some("set"));
    let mut rows = table::new(&head);
    for version in &list.versions {
        let mark = if version.wanted { "*" } else { "" };
        let mut row = vec![
            format!("{}{mark}", version.version),
            time::age(Some(version.at), now),
            version.by.clone(),
            version.size.to_string(),
            version.reason.clone().unwrap_or_default(),
        ];
        row.extend(is_set.then(|| written(&version.sets)));
        rows.add_row(row);
    }
    table::render(rows)
}

/// What vars were set to, on one line.
fn written(sets: &Sets) -> String {
    let sets = sets.iter();
    let sets: Vec<String> = sets
        .map(|(var, value)| format!("{var}={}", brief(value)))
        .collect();
    sets.join(" ")
}

/// Print a job file as it was submitted, byte for byte; of a child job that of the job it was made of.
///
/// What `--set` said beside it is noted on standard error. Files that a script was read from stand in
/// the text, as it was sent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl export web > web.yaml
  loomctl export web --version 3")]
pub(crate) struct Export {
    /// The job
    job: Name,
    /// The version; the one that is wanted if none
    #[arg(long, value_name = "N")]
    version: Option<u32>,
}

impl Export {
    /// Asks a manager and prints it.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        global.output.must_be_default("export")?;
        let bus = global.bus.connect().await?;
        let get = VersionGet {
            job: self.job.clone(),
            version: self.version,
        };
        let payload = serde_json::to_vec(&get)
            .map_err(|error| Failure::error(format!("the question: {error}")))?;
        let subject = subject::api("job", "export");
        let payload = bytes::Bytes::from(payload);
        let asked = client::retried(|| {
            bus.call_bytes(&subject, payload.clone(), &[], client::WRITE_TIMEOUT)
        })
        .await;
        let reply = client::or_nearest(&bus, &self.job, asked).await?;
        self.tell_of_child(&bus).await;
        self.tell_of_sets(&bus).await;
        // Not through what prints text: that takes off what looks like colour.
        let mut out = io::stdout().lock();
        out.write_all(&reply.payload)
            .and_then(|()| out.flush())
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Failure::silent(Code::Done),
                _ => Failure::error(format!("standard output: {}", chain(&error))),
            })
    }

    /// Says on standard error what was set beside the text.
    async fn tell_of_sets(&self, bus: &Bus) {
        let get = JobGet {
            job: self.job.clone(),
            after: None,
        };
        let list: Result<VersionList, _> =
            client::ask(bus, &subject::api("job", "versions"), &get).await;
        if let Some(note) = list.ok().and_then(|list| of_sets(&list, self.version)) {
            output::note(&note);
        }
    }

    /// Says on standard error that the text is not the child's own: nobody submitted one for it.
    async fn tell_of_child(&self, bus: &Bus) {
        let get = JobGet {
            job: self.job.clone(),
            after: None,
        };
        // The text is what was asked for; without a view of the job it is printed all the same.
        let view: Result<JobView, _> = client::ask(bus, &subject::api("job", "get"), &get).await;
        if let Some(note) = view.ok().and_then(|view| of_child(&view)) {
            output::note(&note);
        }
    }
}

/// What has to be set again where the text is submitted once more; none if nothing was.
fn of_sets(list: &VersionList, asked: Option<u32>) -> Option<String> {
    let is_asked = |version: &&VersionSummary| match asked {
        Some(asked) => version.version == asked,
        None => version.wanted,
    };
    let version = list.versions.iter().find(is_asked)?;
    let flags = version.sets.iter();
    let flags: Vec<String> = flags
        .map(|(var, value)| format!("--set {var}={}", brief(value)))
        .collect();
    (!flags.is_empty()).then(|| {
        format!(
            "version {} was submitted with {}: without that the text has the defaults of its vars",
            version.version,
            flags.join(" ")
        )
    })
}

/// Whose text it is and what the child was handed; none if it is no child.
fn of_child(view: &JobView) -> Option<String> {
    let job = &view.summary.job;
    let made_by = match &job.parent.as_ref()?.made_by {
        MadeBy::Schedule { at } => format!("a firing for {at}"),
        MadeBy::Dispatch { by } => format!("a dispatch by {by}"),
        MadeBy::Task { slot, .. } => format!("the run of {slot}"),
    };
    let params = view.spec.tasks.values().flat_map(|task| &task.params);
    // In a spec they are templates, in which nothing is left to be filled in.
    let params =
        params.map(|(name, value)| format!("{name}={}", brief(&value.replace("$${", "${"))));
    let params: BTreeSet<String> = params.collect();
    let handed = if params.is_empty() {
        String::new()
    } else {
        let params: Vec<String> = params.into_iter().collect();
        format!("; its params were {}", params.join(", "))
    };
    Some(format!(
        "{} is {made_by}: the text is that of the job it was made of{handed}",
        job.name
    ))
}

/// The beginning of a value, on one line.
fn brief(value: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut text: String = value.chars().take(60).map(plain).collect();
    if value.chars().nth(60).is_some() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_and_stays_on_its_line() {
        assert_eq!(brief("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(brief(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(brief(&"é".repeat(61)), format!("{}...", "é".repeat(60)));
    }
}
