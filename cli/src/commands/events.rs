//! `loomctl events`.

use jiff::Timestamp;
use loom_schemas::ids::Name;
use loom_schemas::wire::EventRow;

use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{self, Form, time};
use crate::watch::events::{Follow, history};

/// Show what happened, from the history and with -f as it goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl events web
  loomctl events -f 'job.*.failed'
  loomctl events --since 1h -o jsonl")]
pub(crate) struct Events {
    /// A job's or node's name, or a subject filter below orch.events: `task.web.>`
    filter: Option<String>,
    /// Go on with what happens
    #[arg(short, long)]
    follow: bool,
    /// Only those of so long ago or later: 30s, 10m, 2h
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
        let form = global.output;
        form.must_fit_a_stream(self.follow)?;
        let filter = Filter::parse(self.filter.as_deref())?.subject();
        let filter = filter.as_deref();
        let bus = global.bus.connect().await?;
        let since = self.since.map(|ago| Timestamp::now() - ago);
        // Listened to before the history is read, so that nothing falls between.
        let follow = if self.follow {
            Some(Follow::open(&bus, filter, since).await?)
        } else {
            None
        };
        let list = history(&bus, filter, since, self.limit).await?;
        if list.more {
            output::note(&format!(
                "loomctl: only the newest {} are shown (--limit {} shows more)",
                list.events.len(),
                u64::from(self.limit) * 10
            ));
        }
        let Some(mut follow) = follow else {
            return all(form, &list.events);
        };
        for row in follow.take(list) {
            print(form, &row)?;
        }
        loop {
            print(form, &follow.next().await?)?;
        }
    }
}

fn all(form: Form, rows: &[EventRow]) -> Result<(), Failure> {
    if form.is_one_document() {
        return output::list(form, rows, |_| String::new(), |_| String::new());
    }
    rows.iter().try_for_each(|row| print(form, row))
}

fn print(form: Form, row: &EventRow) -> Result<(), Failure> {
    match form {
        Form::Table | Form::Wide => output::text(&(line(row) + "\n")),
        Form::Name => output::text(&format!("{}\n", row.subject)),
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
                crate::exit::Code::Usage,
                "{bad}"
            );
        }
    }
}
