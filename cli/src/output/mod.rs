//! What `loomctl` prints: tables for people, JSON and YAML for programs.

use std::io::{self, Write};

use serde::Serialize;

use crate::exit::{Code, Failure};

pub(crate) mod graph;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod tree;

/// Version of the JSON that `-o json`, `jsonl` and `yaml` print.
const FORMAT: u32 = 1;

/// A form of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// Columns for people.
    #[default]
    Table,
    /// The same with more columns.
    Wide,
    /// One JSON document, versioned.
    Json,
    /// One JSON document a line, one line an item.
    Jsonl,
    /// One YAML document.
    Yaml,
    /// Only the names, one a line.
    Name,
}

impl Form {
    /// Whether people read it.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }

    /// Whether programs read it, and what went wrong is part of it.
    pub(crate) fn is_for_programs(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl | Self::Yaml)
    }

    /// Whether it is one document, which has an end.
    pub(crate) fn is_one_document(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }

    /// Refuses a form that needs an end where there is none.
    pub(crate) fn must_fit_a_stream(self, is_stream: bool) -> Result<(), Failure> {
        if is_stream && self.is_one_document() {
            return Err(Failure::usage(
                "-o json and yaml are one document, and what is followed has no end; use -o jsonl",
            ));
        }
        Ok(())
    }

    /// Refuses every form but the default one, of a verb that prints nothing but text.
    pub(crate) fn must_be_default(self, verb: &str) -> Result<(), Failure> {
        if self == Self::Table {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{verb} has no other form of output; leave out -o"
        )))
    }
}

/// A list as programs get it.
#[derive(Serialize)]
struct List<'a, T> {
    format: u32,
    items: &'a [T],
}

/// A single thing as programs get it.
#[derive(Serialize)]
struct One<'a, T> {
    format: u32,
    #[serde(flatten)]
    item: &'a T,
}

/// Prints a list in the form asked for.
pub(crate) fn list<T: Serialize>(
    form: Form,
    items: &[T],
    name: impl Fn(&T) -> String,
    table: impl FnOnce(bool) -> String,
) -> Result<(), Failure> {
    match form {
        Form::Table => text(&table(false)),
        Form::Wide => text(&table(true)),
        Form::Json => text(
            &(json_pretty(&List {
                format: FORMAT,
                items,
            })? + "\n"),
        ),
        Form::Yaml => text(&yaml(&List {
            format: FORMAT,
            items,
        })?),
        Form::Jsonl => {
            for item in items {
                json_line(item)?;
            }
            Ok(())
        }
        Form::Name => {
            for item in items {
                text(&format!("{}\n", name(item)))?;
            }
            Ok(())
        }
    }
}

/// Prints one thing in the form asked for.
pub(crate) fn one<T: Serialize>(
    form: Form,
    item: &T,
    name: impl Fn(&T) -> String,
    table: impl FnOnce(bool) -> String,
) -> Result<(), Failure> {
    match form {
        Form::Table => text(&table(false)),
        Form::Wide => text(&table(true)),
        Form::Json => text(
            &(json_pretty(&One {
                format: FORMAT,
                item,
            })? + "\n"),
        ),
        Form::Yaml => text(&yaml(&One {
            format: FORMAT,
            item,
        })?),
        Form::Jsonl => json_line(item),
        Form::Name => text(&format!("{}\n", name(item))),
    }
}

/// Prints one item as a line of JSON.
pub(crate) fn json_line<T: Serialize>(item: &T) -> Result<(), Failure> {
    let line = serde_json::to_string(&One {
        format: FORMAT,
        item,
    })
    .map_err(unprintable)?;
    text(&(line + "\n"))
}

/// Prints text to standard output; colour only where it is a terminal that wants it.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| {
            // Whoever reads us has seen enough: `loomctl events | head -1` is no error.
            if error.kind() == io::ErrorKind::BrokenPipe {
                Failure::silent(Code::Done)
            } else {
                Failure::error(format!("standard output: {error}"))
            }
        })
}

/// Prints a line for people to standard error.
pub(crate) fn note(line: &str) {
    // Nobody can be told that standard error is gone.
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

fn json_pretty<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(unprintable)
}

fn yaml<T: Serialize>(value: &T) -> Result<String, Failure> {
    // Through JSON's model, so that both forms have the same names and types.
    let value = serde_json::to_value(value).map_err(unprintable)?;
    serde_saphyr::to_string(&value).map_err(unprintable)
}

fn unprintable(error: impl std::fmt::Display) -> Failure {
    Failure::error(format!("cannot be printed: {error}"))
}
