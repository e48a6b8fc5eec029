//! What is wrong with a job file: one line a problem, with its place and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::later;
use crate::error::{ErrorCode, WireError};

/// The most problems a report holds; more would not be read.
const PROBLEMS_MAX: usize = 100;

/// Why a job was refused: every problem found, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Report {
    /// The file, as the messages name it.
    pub name: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The line, from 1; 0 where the syntax has none.
    pub line: u32,
    /// The character in the line, from 1; 0 where the syntax has none.
    pub column: u32,
    /// The field, from the top: `tasks.api.memory`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
    /// Of what kind it is.
    pub kind: ProblemKind,
}

/// What kind of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// It is wrong.
    Invalid,
    /// It is right, but this build cannot do it.
    NotYet,
    /// It is larger or deeper than is taken.
    TooLarge,
}

impl Report {
    /// Sorts the problems by place; the same place and message counts once.
    pub(crate) fn new(name: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        problems.truncate(PROBLEMS_MAX);
        Self {
            name: name.to_owned(),
            problems,
        }
    }

    /// The code a request with such a job is answered with.
    pub fn code(&self) -> ErrorCode {
        let all = |kind| self.problems.iter().all(|problem| problem.kind == kind);
        if all(ProblemKind::NotYet) {
            ErrorCode::NotYet
        } else if all(ProblemKind::TooLarge) {
            ErrorCode::TooLarge
        } else {
            ErrorCode::Invalid
        }
    }
}

/// A line a problem: `web.yaml:3:9: memory: ...`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.name)?;
            if problem.line > 0 {
                write!(f, ":{}:{}", problem.line, problem.column)?;
            }
            write!(f, ": {problem}")?;
        }
        Ok(())
    }
}

/// Path, message and help in one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

impl From<Report> for WireError {
    fn from(report: Report) -> Self {
        Self::new(report.code(), report.to_string())
    }
}

impl Problem {
    /// A problem without a place.
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            line: 0,
            column: 0,
            path: String::new(),
            message: message.into(),
            help: help.into(),
            kind: ProblemKind::Invalid,
        }
    }

    /// Says that a field or value is of the language, but not of this build.
    pub(crate) fn not_yet(what: &str) -> Self {
        Self::new(format!("`{what}` is not supported yet"), "").of(ProblemKind::NotYet)
    }

    pub(crate) fn of(mut self, kind: ProblemKind) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) fn at(mut self, line: u32, column: u32) -> Self {
        self.line = line;
        self.column = column;
        self
    }

    pub(crate) fn on(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }
}

/// The problems found so far; past the most that are reported, more are dropped.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    /// Whether what is on the list of [`later`] is read all the same.
    ahead: bool,
}

impl Problems {
    pub(crate) fn push(&mut self, problem: Problem) {
        if !self.is_full() {
            self.list.push(problem);
        }
    }

    /// To read also what this build does not do yet.
    #[cfg(test)]
    pub(crate) fn ahead() -> Self {
        Self {
            list: Vec::new(),
            ahead: true,
        }
    }

    /// Whether a field or value of a type is of the language, and not of this build.
    pub(crate) fn refuses(&self, of: &str, name: &str) -> bool {
        !self.ahead && later::is_later(of, name)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= PROBLEMS_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a field of this path is noted as not supported yet.
    pub(crate) fn is_later(&self, path: &str) -> bool {
        let mut list = self.list.iter();
        list.any(|problem| problem.kind == ProblemKind::NotYet && problem.path == path)
    }

    pub(crate) fn into_report(self, name: &str) -> Report {
        Report::new(name, self.list)
    }
}

/// A value as a message shows it: one line, cut to 60 characters.
pub(crate) fn shown(value: &str) -> String {
    let mut text: String = value
        .chars()
        .take(60)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().nth(60).is_some() {
        text.push_str("...");
    }
    // `escape_debug` is for string literals, which these are not.
    text.replace("\\\"", "\"").replace("\\'", "'")
}

/// `did you mean` for the nearest of some names, if one is near.
pub(crate) fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    // Also keeps the cost of a hostile key low.
    if text.len() > 64 {
        return None;
    }
    let lower = text.to_lowercase();
    names
        .map(|name| {
            (
                strsim::damerau_levenshtein(&lower, &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= 1.max(name.len() / 3))
        // Of two that are as near the one that only goes on is meant: `gpu` is `gpus`, not `cpu`.
        .min_by_key(|(distance, name)| (*distance, !name.starts_with(&lower)))
        .map(|(_, name)| format!("did you mean `{name}`?"))
}

/// `did you mean` for the nearest of some names, or all of them.
pub(crate) fn suggestion(text: &str, names: &[&str]) -> String {
    nearest(text, names.iter().copied())
        .unwrap_or_else(|| format!("expected one of {}", names.join(", ")))
}
