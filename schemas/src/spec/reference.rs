//! References `${...}` in the texts of a job: parsed when it is accepted, filled when their values
//! are known.
//!
//! In an argument, a variable or a path every `${` begins a reference, and what is not one is an
//! error. In a script only what begins with a namespace of the language (`${job.`, `${task.`,
//! `${node.`, `${port.`, `${var.`, `${arg.`) is one; every other `${...}` is the script's own and is
//! left alone. `$${` stands for `${`, in a script only before such a namespace.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::problem::shown;
use crate::ids::Name;

/// The longest reference, in bytes between the braces.
const REFERENCE_MAX: usize = 200;

const NAMESPACES: [&str; 6] = ["job", "task", "node", "port", "var", "arg"];

/// A value that is known when the run is made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// `${job.name}`
    JobName,
    /// `${job.version}`
    JobVersion,
    /// `${task.name}`
    TaskName,
    /// `${task.index}`
    TaskIndex,
    /// `${node.name}`
    NodeName,
    /// `${node.ip}`
    NodeIp,
    /// `${node.label.<key>}`
    NodeLabel(String),
    /// `${port.<name>}`: the port of the node that the run listens on.
    Port(Name),
    /// `${var.<name>}`: a value that the job was submitted with.
    Var(Name),
    /// `${task.<name>.result.<key>}`: of what a task before this one has left.
    Result(ResultUse),
}

impl Reference {
    /// Whether its value is the node's to say.
    pub fn is_of_node(&self) -> bool {
        match self {
            Self::NodeName | Self::NodeIp | Self::NodeLabel(_) | Self::Port(_) => true,
            Self::JobName
            | Self::JobVersion
            | Self::TaskName
            | Self::TaskIndex
            | Self::Var(_)
            | Self::Result(_) => false,
        }
    }
}

/// A value of the result of a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResultUse {
    /// The task.
    pub task: Name,
    /// Where in its result: keys with a point between them.
    pub key: String,
}

/// As it stands in a reference.
impl fmt::Display for ResultUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task.{}.result.{}", self.task, self.key)
    }
}

impl ResultUse {
    /// The value in a result: text as it is, all else as JSON; none if there is none.
    pub fn of(&self, result: &str) -> Option<String> {
        let result: serde_json::Value = serde_json::from_str(result).ok()?;
        let mut value = &result;
        for key in self.key.split('.') {
            value = match value {
                serde_json::Value::Array(list) => list.get(key.parse::<usize>().ok()?)?,
                other => other.get(key)?,
            };
        }
        Some(match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }
}

/// What stands between the braces.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JobName => f.write_str("job.name"),
            Self::JobVersion => f.write_str("job.version"),
            Self::TaskName => f.write_str("task.name"),
            Self::TaskIndex => f.write_str("task.index"),
            Self::NodeName => f.write_str("node.name"),
            Self::NodeIp => f.write_str("node.ip"),
            Self::NodeLabel(key) => write!(f, "node.label.{key}"),
            Self::Port(name) => write!(f, "port.{name}"),
            Self::Var(name) => write!(f, "var.{name}"),
            Self::Result(of) => of.fmt(f),
        }
    }
}

/// Which `${...}` of a text are references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// All of them: arguments, environment, paths.
    Argument,
    /// Those of a namespace of the language: `bash` scripts.
    Script,
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is, escapes undone.
    Text(String),
    /// To be filled.
    Reference(Reference),
}

/// Why a text cannot be filled; the `help` of each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// A `${` without its `}`.
    #[error("`${{` is not closed by `}}`")]
    Unclosed,
    /// There is no such reference.
    #[error("unknown reference `${{{0}}}`")]
    Unknown(String),
    /// The language has it, this build does not.
    #[error("the reference `${{{0}}}` is not supported yet")]
    NotYet(String),
}

impl ReferenceError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Unclosed => "write `$${` for a plain `${`".to_owned(),
            Self::NotYet(_) => format!("known so far: {}", known().join(", ")),
            Self::Unknown(text) => {
                let near = known()
                    .into_iter()
                    .map(|name| (strsim::jaro_winkler(text, name), name))
                    .filter(|(nearness, _)| *nearness > 0.8)
                    .max_by(|a, b| a.0.total_cmp(&b.0));
                match near {
                    Some((_, name)) => format!("did you mean `${{{name}}}`?"),
                    None => format!(
                        "known: {}; write `$${{{text}}}` to pass it on as it is",
                        known().join(", ")
                    ),
                }
            }
        }
    }
}

/// A text with its references found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Finds the references of a text; the first that is wrong is the error.
    pub fn parse(text: &str, context: Context) -> Result<Self, ReferenceError> {
        let mut pieces = Pieces::default();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            let inside = &from[2..];
            let ours = context == Context::Argument || begins_with_namespace(inside);
            if !ours {
                pieces.text(before);
                pieces.text("${");
                rest = inside;
            } else if let Some(before) = before.strip_suffix('$') {
                pieces.text(before);
                pieces.text("${");
                rest = inside;
            } else {
                pieces.text(before);
                let end = inside
                    .bytes()
                    .take(REFERENCE_MAX)
                    .position(|byte| byte == b'}')
                    .ok_or(ReferenceError::Unclosed)?;
                pieces
                    .list
                    .push(Piece::Reference(reference(&inside[..end])?));
                rest = &inside[end + 1..];
            }
        }
        pieces.text(rest);
        Ok(Self {
            pieces: pieces.list,
        })
    }

    /// The parts, in order; no two texts in a row.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The references, in order, as often as they stand there.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Reference(reference) => Some(reference),
            Piece::Text(_) => None,
        })
    }

    /// The text with each reference replaced by what `lookup` gives for it.
    pub fn try_fill<E>(
        &self,
        mut lookup: impl FnMut(&Reference) -> Result<String, E>,
    ) -> Result<String, E> {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Reference(reference) => filled.push_str(&lookup(reference)?),
            }
        }
        Ok(filled)
    }

    /// As [`try_fill`](Self::try_fill), where every value is known.
    pub fn fill(&self, mut lookup: impl FnMut(&Reference) -> String) -> String {
        let filled = self.try_fill(|reference| Ok::<_, Infallible>(lookup(reference)));
        match filled {
            Ok(text) => text,
            Err(never) => match never {},
        }
    }
}

#[derive(Default)]
struct Pieces {
    list: Vec<Piece>,
}

impl Pieces {
    fn text(&mut self, text: &str) {
        match self.list.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.list.push(Piece::Text(text.to_owned())),
        }
    }
}

fn known() -> [&'static str; 10] {
    [
        "job.name",
        "job.version",
        "task.name",
        "task.index",
        "node.name",
        "node.ip",
        "node.label.<key>",
        "port.<name>",
        "var.<name>",
        "task.<name>.result.<key>",
    ]
}

fn begins_with_namespace(inside: &str) -> bool {
    NAMESPACES.iter().any(|namespace| {
        inside
            .strip_prefix(namespace)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

fn reference(text: &str) -> Result<Reference, ReferenceError> {
    match text {
        "job.name" => return Ok(Reference::JobName),
        "job.version" => return Ok(Reference::JobVersion),
        "task.name" => return Ok(Reference::TaskName),
        "task.index" => return Ok(Reference::TaskIndex),
        "node.name" => return Ok(Reference::NodeName),
        "node.ip" => return Ok(Reference::NodeIp),
        _ => {}
    }
    if let Some(port) = text.strip_prefix("port.") {
        return Name::new(port)
            .map(Reference::Port)
            .map_err(|_| ReferenceError::Unknown(shown(text)));
    }
    if let Some(var) = text.strip_prefix("var.") {
        return Name::new(var)
            .map(Reference::Var)
            .map_err(|_| ReferenceError::Unknown(shown(text)));
    }
    if let Some(key) = text.strip_prefix("node.label.").filter(|key| is_label(key)) {
        return Ok(Reference::NodeLabel(key.to_owned()));
    }
    let of_task = text.strip_prefix("task.");
    if let Some((task, key)) = of_task.and_then(|rest| rest.split_once(".result."))
        && let (Ok(task), true) = (Name::new(task), is_key(key))
    {
        let key = key.to_owned();
        return Ok(Reference::Result(ResultUse { task, key }));
    }
    if text.starts_with("arg.") {
        return Err(ReferenceError::NotYet(shown(text)));
    }
    Err(ReferenceError::Unknown(shown(text)))
}

/// Whether output to a path, a pattern as in `logs.to`, can come to lie beneath one of these
/// directories, as far as it says before its first reference.
pub fn may_lie_beneath(to: &str, directories: &[String]) -> bool {
    let known = to.split('$').next().unwrap_or_default();
    directories.iter().any(|directory| {
        let directory = format!("{}/", directory.trim_end_matches('/'));
        known.starts_with(&directory) || known.len() < to.len() && directory.starts_with(known)
    })
}

/// Whether a text can be the key of a label.
pub(super) fn is_label(key: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    (1..=63).contains(&key.len()) && key.chars().all(valid)
}

/// Keys with a point between them.
fn is_key(key: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    key.split('.')
        .all(|key| !key.is_empty() && key.chars().all(valid))
}
