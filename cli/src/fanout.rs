//! Runtime commands to one task or many: straight to the tasks, with no manager on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loom_bus::{Bus, CallError};
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::{Index, Name, Slot};
use loom_schemas::record::SlotRecord;
use loom_schemas::subject;
use loom_schemas::wire::{CommandReply, CommandRow, JobGet, JobView, SlotCursor, TaskCommand};
use tokio::time::Instant;

use crate::address::{Address, is_run_suffix};
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
            let slot = Slot::at(job.clone(), task.clone(), index.clone());
            single(bus, &subject::task(&slot, verb), command, timeout).await?
        }
        Address::Only(job, index) => only(bus, job, index, verb, command, timeout).await?,
        Address::Run(run) => single(bus, &subject::run(*run, verb), command, timeout).await?,
        Address::Job(job) => many(bus, job, None, verb, command, timeout).await?,
        Address::Task(job, task) => {
            let rows = many(bus, job, Some(task), verb, command, timeout).await?;
            if rows.is_empty() {
                // Of a system job, `web/node-1` is an index.
                only(bus, job, &Index::Node(task.clone()), verb, command, timeout).await?
            } else {
                rows
            }
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
    if let (Address::Job(job), true) = (address, rows.is_empty())
        && is_run_suffix(job.as_str())
    {
        // The end of a run's id can look like a job's name.
        let suffix = Address::RunSuffix(job.to_string());
        return Box::pin(self::command(bus, &suffix, verb, command, timeout)).await;
    }
    if rows.is_empty() {
        return Err(nobody(address));
    }
    Ok(Outcome { rows })
}

/// Sends a command to one of the tasks an address matches: in order of their slots, the first that
/// does it. The rows are that of the one, or those of all that were asked in vain.
pub(crate) async fn any(
    bus: &Bus,
    address: &Address,
    verb: &str,
    command: &TaskCommand,
    timeout: Duration,
) -> Result<Outcome, Failure> {
    let look = TaskCommand::default();
    let seen = self::command(bus, address, "inspect", &look, timeout).await?;
    let mut refused = Vec::new();
    for row in seen.rows {
        let Row::Answer(there) = row else { continue };
        for row in single(bus, &subject::run(there.run, verb), command, timeout).await? {
            if row.error().is_none() {
                return Ok(Outcome { rows: vec![row] });
            }
            refused.push(row);
        }
    }
    if refused.is_empty() {
        return Err(nobody(address));
    }
    Ok(Outcome { rows: refused })
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
            format!(
                "no answer on {subject} within {}",
                humantime::format_duration(timeout)
            ),
        )),
        Err(error) => Err(refused(error)),
    }
}

/// `web/0` is `web/main/0`, or index 0 of the only task, whatever its name.
async fn only(
    bus: &Bus,
    job: &Name,
    index: &Index,
    verb: &str,
    command: &TaskCommand,
    timeout: Duration,
) -> Result<Vec<Row>, Failure> {
    let main = Slot::at(job.clone(), Name::main(), index.clone());
    let rows = single(bus, &subject::task(&main, verb), command, timeout).await?;
    if !rows.is_empty() {
        return Ok(rows);
    }
    let seen = many(bus, job, None, "inspect", &TaskCommand::default(), timeout).await?;
    let tasks: BTreeSet<&Name> = seen.iter().map(|row| &row.slot().task).collect();
    let mut tasks = tasks.into_iter();
    match (tasks.next(), tasks.next()) {
        (Some(task), None) => {
            let slot = Slot::at(job.clone(), task.clone(), index.clone());
            single(bus, &subject::task(&slot, verb), command, timeout).await
        }
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "job {job} has several tasks; name one: {job}/TASK/{index}"
        ))),
        (None, _) => Ok(Vec::new()),
    }
}

/// Nodes answer at once with what they have; this long a silence means something is missing.
const QUIET: Duration = Duration::from_millis(300);

/// All slots of a task or job; done as soon as each index that is alive has its row.
async fn many(
    bus: &Bus,
    job: &Name,
    task: Option<&Name>,
    verb: &str,
    command: &TaskCommand,
    timeout: Duration,
) -> Result<Vec<Row>, Failure> {
    let mut rows = BTreeMap::new();
    let mut down = None;
    let deadline = Instant::now() + timeout;
    let subject = subject::task_all(job, task, verb);
    let mut replies = match bus
        .call_many::<_, CommandReply>(&subject, command, timeout)
        .await
    {
        Ok(replies) => replies,
        Err(CallError::NoResponders) => return Ok(Vec::new()),
        Err(error) => return Err(refused(error)),
    };
    loop {
        let quiet = if rows.is_empty() {
            deadline
        } else {
            deadline.min(Instant::now() + QUIET)
        };
        match tokio::time::timeout_at(quiet, replies.next()).await {
            Ok(Some(Ok(reply))) => keep(&mut rows, reply),
            Ok(None | Some(Err(CallError::NoResponders))) => break,
            Ok(Some(Err(error))) => return Err(refused(error)),
            Err(_) if Instant::now() >= deadline => break,
            // Indexes that were stopped one by one have nobody to answer for them.
            Err(_) if down.is_none() => down = Some(known(bus, job).await),
            Err(_) => {}
        }
        // Who has one slot on each node cannot say how many there are: a manager does, or silence.
        let told = down.is_some() || rows.values().all(|row| row.slot().index.node().is_none());
        if !rows.is_empty() && told && missing(&rows, down.as_ref()).is_empty() {
            break;
        }
    }
    let mut silent = missing(&rows, down.as_ref());
    if let Some(task) = task {
        silent.retain(|slot| slot.task == *task);
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.extend(silent.into_iter().map(|slot| Row::Silent {
        slot,
        error: WireError::new(ErrorCode::Unavailable, "no answer"),
    }));
    rows.sort_by(|a, b| a.slot().cmp(b.slot()));
    Ok(rows)
}

/// What a manager knows of a job's slots; nothing where no manager answers.
#[derive(Debug, Default)]
struct Known {
    /// Those that are down.
    down: BTreeSet<Slot>,
    /// Those that are alive, of tasks that have one on each node.
    alive: BTreeSet<Slot>,
}

async fn known(bus: &Bus, job: &Name) -> Known {
    let subject = subject::api("job", "get");
    let page = async |after| {
        let get = JobGet {
            job: job.clone(),
            after,
        };
        let asked = bus.call::<_, JobView>(&subject, &get, Duration::from_secs(1));
        let view = asked.await.ok()?;
        Some((view.slots, view.next))
    };
    known_of_pages(page).await
}

/// What as many pages of a job tell as are answered; one gives the next's place.
async fn known_of_pages(
    mut page: impl AsyncFnMut(Option<SlotCursor>) -> Option<(Vec<SlotRecord>, Option<SlotCursor>)>,
) -> Known {
    let mut known = Known::default();
    let mut after = None;
    while let Some((slots, next)) = page(after).await {
        for SlotRecord { slot, current, .. } in slots {
            if current.is_none_or(|run| run.state.is_terminal()) {
                known.down.insert(slot);
            } else if slot.index.node().is_some() {
                known.alive.insert(slot);
            }
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    known
}

/// By labels or run id: every node answers, so the time that is given is waited for, but for the
/// end of the answers.
async fn found(
    bus: &Bus,
    verb: &str,
    command: &TaskCommand,
    timeout: Duration,
) -> Result<Vec<Row>, Failure> {
    let mut rows = BTreeMap::new();
    let deadline = Instant::now() + timeout;
    let subject = subject::find(verb);
    let mut replies = match bus
        .call_many::<_, CommandReply>(&subject, command, timeout)
        .await
    {
        Ok(replies) => replies,
        Err(CallError::NoResponders) => return Ok(Vec::new()),
        Err(error) => return Err(refused(error)),
    };
    loop {
        let quiet = if rows.is_empty() {
            deadline
        } else {
            deadline.min(Instant::now() + QUIET)
        };
        match tokio::time::timeout_at(quiet, replies.next()).await {
            Ok(Some(Ok(reply))) => keep(&mut rows, reply),
            Ok(Some(Err(error))) => return Err(refused(error)),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(rows.into_values().collect())
}

fn answers(reply: CommandReply) -> Vec<Row> {
    reply
        .rows
        .into_iter()
        .map(|row| Row::Answer(Box::new(row)))
        .collect()
}

fn keep(rows: &mut BTreeMap<(Slot, loom_schemas::ids::RunId), Row>, reply: CommandReply) {
    for row in reply.rows {
        rows.insert((row.slot.clone(), row.run), Row::Answer(Box::new(row)));
    }
}

/// The indexes that should have answered: each reply says how many its task has.
fn missing(
    rows: &BTreeMap<(Slot, loom_schemas::ids::RunId), Row>,
    known: Option<&Known>,
) -> Vec<Slot> {
    let mut wanted: BTreeMap<(Name, Name), u32> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for row in rows.values() {
        if let Row::Answer(row) = row {
            if row.slot.index.node().is_none() {
                let key = (row.slot.job.clone(), row.slot.task.clone());
                let count = wanted.entry(key).or_default();
                *count = row.replicas.max(*count);
            }
            seen.insert(row.slot.clone());
        }
    }
    wanted
        .into_iter()
        .flat_map(|((job, task), count)| {
            (0..count).map(move |index| Slot::new(job.clone(), task.clone(), index))
        })
        .filter(|slot| !known.is_some_and(|known| known.down.contains(slot)))
        .chain(
            known
                .into_iter()
                .flat_map(|known| known.alive.iter().cloned()),
        )
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

    #[tokio::test]
    async fn slots_that_are_down_are_looked_for_on_every_page() {
        let slot = |index| Slot::new(Name::new("web").unwrap(), Name::main(), index);
        let record = |index| -> SlotRecord {
            let record = serde_json::json!({"slot": slot(index), "failed_placements": 0});
            serde_json::from_value(record).unwrap()
        };
        let cursor = SlotCursor {
            task: Name::main(),
            index: 0.into(),
        };
        let down = known_of_pages(async |after: Option<SlotCursor>| {
            Some(match after {
                None => (vec![record(0)], Some(cursor.clone())),
                Some(_) => (vec![record(5_000)], None),
            })
        });
        let indexes: Vec<_> = down.await.down.into_iter().map(|slot| slot.index).collect();
        assert_eq!(indexes, [0.into(), 5_000.into()] as [Index; 2]);
    }

    #[test]
    fn indexes_without_a_row_are_missing_until_the_last_has_one() {
        let mut rows = BTreeMap::new();
        keep(
            &mut rows,
            CommandReply {
                rows: vec![row(0, 3), row(2, 3)],
            },
        );
        let left: Vec<String> = missing(&rows, None)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(left, ["web/1"]);
        let known = Known {
            down: BTreeSet::from([Slot::new(Name::new("web").unwrap(), Name::main(), 1)]),
            ..Known::default()
        };
        assert!(missing(&rows, Some(&known)).is_empty());
        keep(
            &mut rows,
            CommandReply {
                rows: vec![row(1, 3)],
            },
        );
        assert!(missing(&rows, None).is_empty());
    }
}
