//! Names and numbers that tell things apart.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest name, in bytes.
pub const NAME_MAX: usize = 63;

/// The task name of a job that has only one.
pub const MAIN_TASK: &str = "main";

/// A name of a job, task, node or manager: `[a-z][a-z0-9-]{0,62}`, one token of a subject.
///
/// `all` is reserved, because `orch.task.<job>.all.all.<verb>` addresses everything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text does not match the pattern.
    #[error(
        "`{0}` is not a name: expected a lower-case letter, then at most 62 lower-case letters, \
         digits or hyphens"
    )]
    Pattern(String),
    /// The text is a word of the bus itself.
    #[error("the name `{0}` is reserved")]
    Reserved(String),
}

impl Name {
    /// Reads a name; the error says what a name looks like.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
        let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !first || !rest || text.len() > NAME_MAX {
            // Shown in one line whatever is in it.
            let shown = text.chars().take(80).flat_map(char::escape_debug);
            return Err(NameError::Pattern(shown.collect()));
        }
        if text == "all" {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(Arc::from(text)))
    }

    /// The task name of a job with a single task.
    pub fn main() -> Self {
        Self(Arc::from(MAIN_TASK))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One index of a task: the place that one run at a time fills.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The job.
    pub job: Name,
    /// The task of the job.
    pub task: Name,
    /// Which of the task's.
    pub index: Index,
}

impl Slot {
    /// Names a slot by its number.
    pub fn new(job: Name, task: Name, index: u32) -> Self {
        Self::at(job, task, Index::Number(index))
    }

    /// Names a slot by whatever its task counts by.
    pub fn at(job: Name, task: Name, index: Index) -> Self {
        Self { job, task, index }
    }
}

/// Which of a task's slots: the tasks of a system job have one on each node and count by nodes, all
/// others count from 0.
///
/// A name begins with a letter, so one is never taken for the other, in a subject, a key or a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Index {
    /// One of so many replicas, from 0.
    Number(u32),
    /// The one on this node.
    Node(Name),
}

impl Index {
    /// The number, where the task counts from 0.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Node(_) => None,
        }
    }

    /// The node, where the task has one slot on each.
    pub fn node(&self) -> Option<&Name> {
        match self {
            Self::Number(_) => None,
            Self::Node(node) => Some(node),
        }
    }
}

impl From<u32> for Index {
    fn from(number: u32) -> Self {
        Self::Number(number)
    }
}

impl From<Name> for Index {
    fn from(node: Name) -> Self {
        Self::Node(node)
    }
}

impl FromStr for Index {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(number) => Ok(Self::Number(number)),
            Err(_) => Name::new(text).map(Self::Node),
        }
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => fmt::Display::fmt(number, f),
            Self::Node(node) => fmt::Display::fmt(node, f),
        }
    }
}

/// `web/0` for the only task of a job, `web/api/0` else.
impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.task.as_str() == MAIN_TASK {
            write!(f, "{}/{}", self.job, self.index)
        } else {
            write!(f, "{}/{}/{}", self.job, self.task, self.index)
        }
    }
}

/// One execution of a slot: a UUID version 7, so ids sort by the time they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl RunId {
    /// The last 8 characters: enough to name a run at the prompt.
    pub fn short(&self) -> String {
        let text = self.0.simple().to_string();
        text[text.len() - 8..].to_owned()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

/// A point in the log's life: which log it is, and how far along. Compared as a pair.
///
/// As an *epoch* it is the incarnation and the sequence of the `lead` entry of a leader, carried
/// on every command to a node; as a *revision* the sequence is that of the last entry applied.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub struct Revision {
    /// Raised whenever the log was restored or rebuilt.
    pub incarnation: u64,
    /// The sequence in the log's stream.
    pub sequence: u64,
}

/// The incarnation and sequence of a leader's `lead` entry.
pub type Epoch = Revision;

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.sequence)
    }
}

impl FromStr for Revision {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (incarnation, sequence) = text.split_once('.').unwrap_or(("0", text));
        Ok(Self {
            incarnation: incarnation.parse()?,
            sequence: sequence.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_token_of_a_subject() {
        for good in ["a", "web", "web-1", &"a".repeat(63)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "1a",
            "-a",
            "Web",
            "a.b",
            "a b",
            "a_b",
            "ä",
            ">",
            "*",
            &"a".repeat(64),
        ] {
            assert!(
                matches!(Name::new(bad), Err(NameError::Pattern(_))),
                "{bad}"
            );
        }
        assert_eq!(Name::new("all"), Err(NameError::Reserved("all".into())));
    }

    #[test]
    fn a_slot_of_the_only_task_is_short() {
        let job = Name::new("web").unwrap();
        assert_eq!(Slot::new(job.clone(), Name::main(), 2).to_string(), "web/2");
        assert_eq!(
            Slot::new(job, Name::new("api").unwrap(), 0).to_string(),
            "web/api/0"
        );
    }

    #[test]
    fn an_index_is_a_number_or_a_node_and_never_taken_for_the_other() {
        let node = Index::Node(Name::new("node-1").unwrap());
        assert_eq!("node-1".parse::<Index>().unwrap(), node);
        assert_eq!("7".parse::<Index>().unwrap(), Index::Number(7));
        assert!("-1".parse::<Index>().is_err() && "4294967296".parse::<Index>().is_err());
        for index in [node, Index::Number(7)] {
            let bytes = rmp_serde::to_vec_named(&index).unwrap();
            assert_eq!(rmp_serde::from_slice::<Index>(&bytes).unwrap(), index);
        }
        let written = rmp_serde::to_vec_named(&Index::Number(7)).unwrap();
        assert_eq!(
            written,
            rmp_serde::to_vec_named(&7u32).unwrap(),
            "as it always was"
        );
    }

    #[test]
    fn a_higher_incarnation_beats_any_sequence() {
        let old = Revision {
            incarnation: 1,
            sequence: 900,
        };
        let new = Revision {
            incarnation: 2,
            sequence: 1,
        };
        assert!(new > old);
        assert_eq!("2.1".parse::<Revision>().unwrap(), new);
    }
}
