//! Lines of output on standard output.

use anstyle::AnsiColor;
use loom_schemas::ids::Index;
use loom_schemas::wire::LogLine;

use crate::exit::Failure;
use crate::output::{self, Form, table, time};

/// Prints lines as they come.
pub(crate) struct Printer {
    form: Form,
    timestamps: bool,
    prefixed: bool,
}

impl Printer {
    /// A printer; with `prefixed` each line says whose it is.
    pub(crate) fn new(form: Form, timestamps: bool, prefixed: bool) -> Self {
        Self {
            form,
            timestamps,
            prefixed,
        }
    }

    /// Prints a line: as text, or as a line of JSON.
    pub(crate) fn print(&self, line: &LogLine) -> Result<(), Failure> {
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
            let place = match &line.slot.index {
                Index::Number(number) => *number as usize,
                Index::Node(node) => node.as_str().bytes().map(usize::from).sum(),
            };
            let colour = COLOURS[place % COLOURS.len()];
            text.push_str(&table::painted(&format!("{} | ", line.slot), colour));
        }
        text.push_str(&line.text);
        text.push('\n');
        output::text(&text)
    }
}
