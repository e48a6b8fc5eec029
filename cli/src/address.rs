//! Addresses as they are typed: `web`, `web/0`, `web/api`, `web/api/0`, a run's id, `-l k=v`.

use std::collections::BTreeMap;

use loom_schemas::ids::{Index, Name, RunId};

use crate::exit::Failure;

/// What a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// All tasks of a job.
    Job(Name),
    /// One index of a job's only task.
    Only(Name, Index),
    /// All indexes of a task.
    Task(Name, Name),
    /// One index of a task.
    Slot(Name, Name, Index),
    /// One run.
    Run(RunId),
    /// One run, by at least the last 8 characters of its id.
    RunSuffix(String),
    /// Every task of a job with these labels.
    Labels(BTreeMap<String, String>),
}

impl Address {
    /// Reads an address; the error shows the forms there are.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if let Ok(run) = text.parse::<RunId>() {
            return Ok(Self::Run(run));
        }
        let name = |part: &str| {
            Name::new(part).map_err(|error| {
                Failure::usage(format!(
                    "address `{text}`: {error}; expected JOB, JOB/INDEX, JOB/TASK, \
                     JOB/TASK/INDEX or a run's id"
                ))
            })
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [run] if is_run_suffix(run) && Name::new(run).is_err() => {
                Ok(Self::RunSuffix((*run).to_ascii_lowercase()))
            }
            [job] => Ok(Self::Job(name(job)?)),
            [job, second] => match second.parse() {
                Ok(index) => Ok(Self::Only(name(job)?, Index::Number(index))),
                Err(_) => Ok(Self::Task(name(job)?, name(second)?)),
            },
            [job, task, index] => {
                let index = index.parse().map_err(|_| {
                    Failure::usage(format!(
                        "address `{text}`: `{index}` is not an index; expected a number from 0, \
                         or of a system job a node's name"
                    ))
                })?;
                Ok(Self::Slot(name(job)?, name(task)?, index))
            }
            _ => Err(Failure::usage(format!(
                "address `{text}` has too many parts; expected at most JOB/TASK/INDEX"
            ))),
        }
    }

    /// From an address and `-l` selectors, of which there must be exactly one.
    pub(crate) fn of(address: Option<&str>, labels: &[(String, String)]) -> Result<Self, Failure> {
        match (address, labels) {
            (Some(text), []) => Self::parse(text),
            (None, [_, ..]) => Ok(Self::Labels(labels.iter().cloned().collect())),
            (Some(_), _) => Err(Failure::usage("give an address or -l, not both")),
            (None, []) => Err(Failure::usage(
                "give an address (JOB, JOB/INDEX, ...) or -l k=v",
            )),
        }
    }
}

/// Whether a text can be the end of a run's id.
pub(crate) fn is_run_suffix(text: &str) -> bool {
    text.len() >= 8 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// Reads `key=value` as of `-l` and `--label`.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

/// The address as it would be typed.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Job(job) => write!(f, "{job}"),
            Self::Only(job, index) => write!(f, "{job}/{index}"),
            Self::Task(job, task) => write!(f, "{job}/{task}"),
            Self::Slot(job, task, index) => write!(f, "{job}/{task}/{index}"),
            Self::Run(run) => write!(f, "{run}"),
            Self::RunSuffix(suffix) => write!(f, "{suffix}"),
            Self::Labels(labels) => {
                let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "-l {}", pairs.join(" -l "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_shown_as_typed() {
        for text in [
            "web",
            "web/0",
            "web/api",
            "web/api/0",
            "web/api/node-1",
            "018f3c5ea1b27c7f8a44d1c2b3e4f506",
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(
                Address::parse(&address.to_string()).unwrap(),
                address,
                "{text}"
            );
        }
        assert!(matches!(
            Address::parse("web/0").unwrap(),
            Address::Only(..)
        ));
        assert!(matches!(
            Address::parse("12ab34cd").unwrap(),
            Address::RunSuffix(..)
        ));
        assert!(matches!(
            Address::parse("deadbeef").unwrap(),
            Address::Job(..)
        ));
    }

    #[test]
    fn what_is_no_address_is_bad_usage() {
        for text in ["", "Web", "web/", "web/api/0/1", "web/all", "web/-1"] {
            let failure = Address::parse(text).unwrap_err();
            assert_eq!(failure.code.number(), 64, "{text}");
        }
    }
}
