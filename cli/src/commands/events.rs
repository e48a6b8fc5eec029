//! `loomctl events`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use loom_bus::Message;
use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::{EventList, EventQuery, EventRow};

use crate::cli::Global;
use crate::client;
use crate::exit::{Code, Failure, chain};
use crate::output::{self, Form, time};

/// Show what happened, from the history and with -f as it goes on.
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// A job's or node's name, or a subject filter below orch.events: `task.web.>`
    filter: Option<String>,
    /// Go on with what happens
    #[arg(short, long)]
    follow: bool,
    /// Only those of so long ago or later
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    since: Option<std::time::Duration>,
    /// At most so many of the history, the newest
    #[arg(long, default_value_t = 1000, value_name = "N")]
    limit: u32,
}

/// What is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    All,
    /// Events about a job or node of this name.
    About(Name),
    /// A subject filter of NATS, relative to `orch.events.`.
    Subject(String),
}

impl Filter {
    fn parse(text: Option<&str>) -> Result<Self, Failure> {
        let Some(text) = text else {
            return Ok(Self::All);
        };
        if let Ok(name) = Name::new(text) {
            return Ok(Self::About(name));
        }
        let text = text.strip_prefix("orch.events.").unwrap_or(text);
        let tokens: Vec<&str> = text.split('.').collect();
        let is_sound = tokens.iter().enumerate().all(|(i, token)| {
            !token.is_empty()
                && !token.contains(char::is_whitespace)
                && (*token == ">") <= (i + 1 == tokens.len())
        });
        if is_sound {
            Ok(Self::Subject(text.to_owned()))
        } else {
            Err(Failure::usage(format!(
                "filter `{text}`: expected a job's or node's name, or a subject filter as in \
                 `task.web.>` or `job.*.failed`"
            )))
        }
    }

    /// What the server is asked for.
    fn subject(&self) -> Option<String> {
        match self {
            Self::All => None,
            // The name is the second token of every kind of event, so the limit counts only them.
            Self::About(name) => Some(format!("*.{name}.>")),
            Self::Subject(filter) => Some(filter.clone()),
        }
    }
}

impl Events {
    /// Shows the history, then what comes.
    pub(crate) async fn execute(self, global: &Global) -> Result<(), Failure> {
        let filter = Filter::parse(self.filter.as_deref())?;
        let bus = global.bus.connect().await?;
        // Subscribed before the history is read, so that nothing falls between.
        let live = if self.follow {
            let pattern = filter.subject().unwrap_or_else(|| ">".to_owned());
            let live = bus.subscribe(&format!("orch.events.{pattern}")).await;
            Some(live.map_err(|error| Failure::new(Code::NoAnswer, chain(&error)))?)
        } else {
            None
        };
        let since = self.since.map(|ago| Timestamp::now() - ago);
        let query = EventQuery {
            filter: filter.subject(),
            after: None,
            since,
            limit: Some(self.limit),
        };
        let list: EventList = client::ask(&bus, &subject::api("event", "list"), &query).await?;
        let mut seen = BTreeSet::new();
        for row in &list.events {
            seen.insert(row.number);
            print(global.output, row)?;
        }
        if list.more {
            output::note(&format!(
                "only the newest {} are shown; see --limit",
                self.limit
            ));
        }
        let Some(mut live) = live else { return Ok(()) };
        while let Some(message) = live.next().await {
            let Some(row) = row_of(&message) else {
                continue;
            };
            let is_new = row.number == 0 || seen.insert(row.number);
            if is_new {
                print(global.output, &row)?;
            }
        }
        Err(Failure::new(Code::NoAnswer, "the bus is gone"))
    }
}

/// A live event with the number it has in the history; 0 for those of the nodes, which have none.
fn row_of(message: &Message) -> Option<EventRow> {
    let number = message
        .headers
        .get("Orch-Event")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let event = serde_json::from_slice(&message.payload).ok()?;
    Some(EventRow {
        number,
        subject: message.subject.clone(),
        event,
    })
}

fn print(form: Form, row: &EventRow) -> Result<(), Failure> {
    match form {
        Form::Table | Form::Wide => output::text(&(line(row) + "\n")),
        Form::Name => output::text(&format!("{}\n", row.subject)),
        // A stream has no end that a single document could wait for.
        Form::Json | Form::Jsonl | Form::Yaml => output::json_line(row),
    }
}

/// `14:03:09.120  task.web.main.0.running  node-1  v2  reason`.
pub(crate) fn line(row: &EventRow) -> String {
    let event = &row.event;
    let subject = row
        .subject
        .strip_prefix("orch.events.")
        .unwrap_or(&row.subject);
    let mut words = vec![time::clock(event.at), format!("{subject:<34}")];
    if let Some(node) = event.node.as_ref().filter(|_| event.task.is_some()) {
        words.push(node.to_string());
    }
    if let Some(version) = event.version {
        words.push(format!("v{version}"));
    }
    if let (Some(verb), Some(result)) = (&event.verb, &event.result) {
        words.push(format!("{verb} {result}"));
    }
    if let Some(code) = event.exit_code {
        words.push(format!("exit {code}"));
    }
    if let Some(by) = &event.by {
        words.push(format!("by {by}"));
    }
    if let Some(reason) = &event.reason {
        words.push(reason.clone());
    }
    words.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_name_or_a_subject() {
        assert_eq!(Filter::parse(None).unwrap(), Filter::All);
        assert!(matches!(
            Filter::parse(Some("web")).unwrap(),
            Filter::About(_)
        ));
        let subject = Filter::parse(Some("orch.events.task.web.>")).unwrap();
        assert_eq!(subject, Filter::Subject("task.web.>".into()));
        for bad in ["", "task..web", "task.>.web", "a b.c"] {
            assert_eq!(
                Filter::parse(Some(bad)).unwrap_err().code,
                Code::Usage,
                "{bad}"
            );
        }
    }
}
