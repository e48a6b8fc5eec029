//! Runtime commands to one task or many: straight to the tasks, with no manager on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loom_bus::{Bus, CallError};
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::{Name, Slot};
use loom_schemas::subject;
use loom_schemas::wire::{CommandReply, CommandRow, TaskCommand};
use tokio::time::Instant;

use crate::address::Address;
use crate::client::refused;
use crate::exit::{Code, Failure};

/// What came of a command: a row a task, by slot.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Answers, and `no answer` rows for the indexes that should have answered.
    pub(crate) rows: Vec<Row>,
}

/// One task's answer, or that there was none.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(untagged)]
pub(crate) enum Row {
    /// It answered.
    Answer(Box<CommandRow>),
    /// It should have.
    Silent {
        /// Which slot.
        slot: Slot,
        /// What became of it.
        error: WireError,
    },
}

impl Row {
    /// The slot the row is about.
    pub(crate) fn slot(&self) -> &Slot {
        match self {
            Self::Answer(row) => &row.slot,
            Self::Silent { slot, .. } => slot,
        }
    }

    /// What went wrong, if something did.
    pub(crate) fn error(&self) -> Option<&WireError> {
        match self {
            Self::Answer(row) => row.error.as_ref(),
            Self::Silent { error, .. } => Some(error),
        }
    }
}

/// Sends a command to every task an address matches and gathers the rows.
pub(crate) async fn command(
    bus: &Bus,
    address: &Address,
    verb: &str,
    command: &TaskCommand,
    timeout: Duration,
) -> Result<Outcome, Failure> {
    let rows = match address {
        Address::Slot(job, task, index) => {
            let slot = Slot::new(job.clone(), task.clone(), *index);
            single(bus, &subject::task(&slot, verb), command, timeout).await?
        }
        Address::Only(job, index) => only(bus, job, *index, verb, command, timeout).await?,
        Address::Run(run) => single(bus, &subject::run(*run, verb), command, timeout).await?,
        Address::Job(job) => {
            many(bus, &subject::task_all(job, None, verb), command, timeout).await?
        }
        Address::Task(job, task) => {
            many(bus, &subject::task_all(job, Some(task), verb), command, timeout).await?
        }
        Address::RunSuffix(suffix) => {
            let mut command = command.clone();
            command.run_suffix = Some(suffix.clone());
            found(bus, verb, &command, timeout).await?
        }
        Address::Labels(labels) => {
            let mut command = command.clone();
            command.labels.clone_from(labels);
            found(bus, verb, &command, timeout).await?
        }
    };
    if rows.is_empty() {
        return Err(nobody(address));
    }
    Ok(Outcome { rows })
}

fn nobody(address: &Address) -> Failure {
    Failure::new(
        Code::NotFound,
        format!("no running task answers at {address} (loomctl status shows what there is)"),
    )
}

async fn single(
    bus: &Bus,
    subject: &str,
    command: &TaskCommand,
    timeout: Duration,
) -> Result<Vec<Row>, Failure> {
    match bus.call::<_, CommandReply>(subject, command, timeout).await {
        Ok(reply) => Ok(answers(reply)),
        Err(CallError::NoResponders) => Ok(Vec::new()),
        Err(CallError::Timeout) => Err(Failure::new(
            Code::TimedOut,
            format!("no answer on {subject} within {}", humantime::format_duration(timeout)),
        )),
        Err(error) => Err(refused(error)),
    }
}

/// `web/0` is `web/main/0`, or index 0 of the only task, whatever its name.
async fn only(
    bus: &Bus,
    job: &Name,
    index: u32,
    verb: &str,
    command: &TaskCommand,
    timeout: Duration,
) -> Result<Vec<Row>, Failure> {
    let main = Slot::new(job.clone(), Name::main(), index);
    let rows = single(bus, &subject::task(&main, verb), command, timeout).await?;
    if !rows.is_empty() {
        return Ok(rows);
    }
    let all = subject::task_all(job, None, "inspect");
    let seen = many(bus, &all, &TaskCommand::default(), timeout).await?;
    let tasks: BTreeSet<&Name> = seen.iter().map(|row| &row.slot().task).collect();
    let mut tasks = tasks.into_iter();
    match (tasks.next(), tasks.next()) {
        (Some(task), None) => {
            let slot = Slot::new(job.clone(), task.clone(), index);
            single(bus, &subject::task(&slot, verb), command, timeout).await
        }
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "job {job} has several tasks; name one: {job}/TASK/{index}"
        ))),
        (None, _) => Ok(Vec::new()),
    }
}

/// All slots of a task or job; done as soon as each index has its row.
async fn many(
    bus: &Bus,
    subject: &str,
    command: &TaskCommand,
    timeout: Duration,
) -> Result<Vec<Row>, Failure> {
    let mut rows = BTreeMap::new();
    let deadline = Instant::now() + timeout;
    let mut replies = match bus.call_many::<_, CommandReply>(subject, command, timeout).await {
        Ok(replies) => replies,
        Err(CallError::NoResponders) => return Ok(Vec::new()),
        Err(error) => return Err(refused(error)),
    };
    while let Ok(Some(reply)) = tokio::time::timeout_at(deadline, replies.next()).await {
        match reply {
            Ok(reply) => keep(&mut rows, reply),
            Err(CallError::NoResponders) => break,
            Err(error) => return Err(refused(error)),
        }
        if !rows.is_empty() && missing(&rows).is_empty() {
            break;
        }
    }
    let silent = missing(&rows);
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.extend(silent.into_iter().map(|slot| Row::Silent {
        slot,
        error: WireError::new(ErrorCode::Unavailable, "no answer"),
    }));
    rows.sort_by(|a, b| a.slot().cmp(b.slot()));
    Ok(rows)
}

/// By labels or run id: every node answers, so the time that is given is waited for, but for the
/// end of the answers.
async fn found(
    bus: &Bus,
    verb: &str,
    command: &TaskCommand,
    timeout: Duration,
) -> Result<Vec<Row>, Failure> {
    /// Nodes answer at once with what they have; this long a silence is the end.
    const QUIET: Duration = Duration::from_millis(300);
    let mut rows = BTreeMap::new();
    let deadline = Instant::now() + timeout;
    let subject = subject::find(verb);
    let mut replies = match bus.call_many::<_, CommandReply>(&subject, command, timeout).await {
        Ok(replies) => replies,
        Err(CallError::NoResponders) => return Ok(Vec::new()),
        Err(error) => return Err(refused(error)),
    };
    loop {
        let quiet = if rows.is_empty() { deadline } else { deadline.min(Instant::now() + QUIET) };
        match tokio::time::timeout_at(quiet, replies.next()).await {
            Ok(Some(Ok(reply))) => keep(&mut rows, reply),
            Ok(Some(Err(error))) => return Err(refused(error)),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(rows.into_values().collect())
}

fn answers(reply: CommandReply) -> Vec<Row> {
    reply.rows.into_iter().map(|row| Row::Answer(Box::new(row))).collect()
}

fn keep(rows: &mut BTreeMap<(Slot, loom_schemas::ids::RunId), Row>, reply: CommandReply) {
    for row in reply.rows {
        rows.insert((row.slot.clone(), row.run), Row::Answer(Box::new(row)));
    }
}

/// The indexes that should have answered: each reply says how many its task has.
fn missing(rows: &BTreeMap<(Slot, loom_schemas::ids::RunId), Row>) -> Vec<Slot> {
    let mut wanted: BTreeMap<(Name, Name), u32> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for row in rows.values() {
        if let Row::Answer(row) = row {
            let key = (row.slot.job.clone(), row.slot.task.clone());
            let count = wanted.entry(key).or_default();
            *count = row.replicas.max(*count);
            seen.insert(row.slot.clone());
        }
    }
    wanted
        .into_iter()
        .flat_map(|((job, task), count)| {
            (0..count).map(move |index| Slot::new(job.clone(), task.clone(), index))
        })
        .filter(|slot| !seen.contains(slot))
        .collect()
}

#[cfg(test)]
mod tests {
    use loom_schemas::ids::RunId;

    use super::*;

    fn row(index: u32, replicas: u32) -> CommandRow {
        CommandRow {
            slot: Slot::new(Name::new("web").unwrap(), Name::main(), index),
            run: RunId(uuid::Uuid::from_u128(u128::from(index) + 1)),
            version: 1,
            node: Name::new("n").unwrap(),
            replicas,
            error: None,
            value: None,
            took_us: 1,
        }
    }

    #[test]
    fn indexes_without_a_row_are_missing_until_the_last_has_one() {
        let mut rows = BTreeMap::new();
        keep(&mut rows, CommandReply { rows: vec![row(0, 3), row(2, 3)] });
        let left: Vec<String> = missing(&rows).iter().map(ToString::to_string).collect();
        assert_eq!(left, ["web/1"]);
        keep(&mut rows, CommandReply { rows: vec![row(1, 3)] });
        assert!(missing(&rows).is_empty());
    }
}
