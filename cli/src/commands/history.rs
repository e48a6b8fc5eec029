//! `loomctl history` and `loomctl export`.

use std::io::{self, Write};

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::{JobGet, VersionGet, VersionList};

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
    let mut rows = table::new(&["version", "age", "by", "size", "reason"]);
    for version in &list.versions {
        let mark = if version.wanted { "*" } else { "" };
        rows.add_row([
            format!("{}{mark}", version.version),
            time::age(Some(version.at), now),
            version.by.clone(),
            version.size.to_string(),
            version.reason.clone().unwrap_or_default(),
        ]);
    }
    table::render(rows)
}

/// Print a job file as it was submitted, byte for byte.
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
        // Not through what prints text: that takes off what looks like colour.
        let mut out = io::stdout().lock();
        out.write_all(&reply.payload)
            .and_then(|()| out.flush())
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Failure::silent(Code::Done),
                _ => Failure::error(format!("standard output: {}", chain(&error))),
            })
    }
}
