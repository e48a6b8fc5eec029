//! Keys of the log: `job/web`, `version/web/0000000003`, `slot/web/main/0000000000`.

use std::cmp::Ordering;
use std::fmt;

use loom_schemas::ids::{Index, Name, Slot};

/// What a change of the log is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `cluster`.
    Cluster,
    /// `command/<fingerprint>`.
    Command(String),
    /// `job/<name>`.
    Job(Name),
    /// `manager/<name>`.
    Manager(Name),
    /// `moves`.
    Moves,
    /// `node/<name>`.
    Node(Name),
    /// `slot/<job>/<task>/<index>`; the index of a system job is the node's name.
    Slot(Slot),
    /// `use/<node>`.
    Use(Name),
    /// `version/<job>/<version>`.
    Version(Name, u32),
}

impl Key {
    /// Reads a key; none if this build knows no such key.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let kind = parts.next()?;
        let mut name = || Name::new(parts.next()?).ok();
        let key = match kind {
            "cluster" => Self::Cluster,
            "command" => Self::Command(fingerprint(parts.next()?)?),
            "job" => Self::Job(name()?),
            "manager" => Self::Manager(name()?),
            "moves" => Self::Moves,
            "node" => Self::Node(name()?),
            "slot" => {
                let (job, task) = (name()?, name()?);
                Self::Slot(Slot::at(job, task, parse_index(parts.next()?)?))
            }
            "use" => Self::Use(name()?),
            "version" => Self::Version(name()?, parse_number(parts.next()?)?),
            _ => return None,
        };
        parts.next().is_none().then_some(key)
    }
}

/// The text that stands in the log; numbers have 10 digits, so that text sorts as numbers do.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Command(fingerprint) => write!(f, "command/{fingerprint}"),
            Self::Job(name) => write!(f, "job/{name}"),
            Self::Manager(name) => write!(f, "manager/{name}"),
            Self::Moves => f.write_str("moves"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Slot(Slot { job, task, index }) => match index {
                Index::Number(number) => write!(f, "slot/{job}/{task}/{number:010}"),
                Index::Node(node) => write!(f, "slot/{job}/{task}/{node}"),
            },
            Self::Use(node) => write!(f, "use/{node}"),
            Self::Version(job, version) => write!(f, "version/{job}/{version:010}"),
        }
    }
}

/// The order of two names inside a key, where a `/` follows: `a-b/` comes before `a/`.
pub(super) fn name_order(a: &Name, b: &Name) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let end = |name: &Name| name.as_str().bytes().chain(*b"/").collect::<Vec<u8>>();
    let (x, y) = (a.as_str(), b.as_str());
    if x.starts_with(y) || y.starts_with(x) {
        return end(a).cmp(&end(b));
    }
    a.cmp(b)
}

/// The order of two slots' keys.
pub(super) fn slot_order(a: &Slot, b: &Slot) -> Ordering {
    name_order(&a.job, &b.job)
        .then_with(|| name_order(&a.task, &b.task))
        .then_with(|| a.index.cmp(&b.index))
}

fn fingerprint(text: &str) -> Option<String> {
    let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == 32 && text.bytes().all(hexadecimal)).then(|| text.to_owned())
}

fn parse_index(text: &str) -> Option<Index> {
    match parse_number(text) {
        Some(number) => Some(Index::Number(number)),
        None => Name::new(text).ok().map(Index::Node),
    }
}

fn parse_number(text: &str) -> Option<u32> {
    let digits = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
