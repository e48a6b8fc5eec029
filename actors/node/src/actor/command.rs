//! Commands to many: to slots of a job, and to whatever a selector matches.
//!
//! Each node answers with one reply and a row for each of its tasks that is meant. A node that has
//! none answers as well, without rows: so a client knows that it was heard, and how many nodes are
//! there.

use std::time::Instant;

use futures::future::join_all;
use loom_bus::serve::Request;
use loom_schemas::error::WireError;
use loom_schemas::wire::{CommandReply, CommandRow, TaskCommand};
use loom_task::{CommandRequest, TaskRef, Verb};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{State, refuse};
use crate::ledger::Place;

/// The shortest end of a run's id that names it.
const SUFFIX_MIN: usize = 8;

/// The last token of a subject is the verb: here for `orch.task.<job>.<task>.all.<verb>`.
const TASK_VERB: usize = 5;

/// And here for `orch.find.<verb>`.
const FIND_VERB: usize = 2;

/// A task that is meant, with the row that stands for it if it does not answer.
struct Meant {
    task: Option<TaskRef>,
    row: CommandRow,
}

impl State {
    /// `orch.task.<job>.<task or all>.all.<verb>`.
    pub(super) fn command_came(&self, request: Request) {
        let (verb, command) = match read(&request, TASK_VERB) {
            Ok(read) => read,
            Err(error) => return refuse(request, error),
        };
        let job = request.token(2).unwrap_or_default().to_owned();
        let task = request.token(3).unwrap_or_default().to_owned();
        let meant = self.meant(|place| {
            let slot = &place.assigned.slot;
            slot.job.as_str() == job
                && (task == "all" || slot.task.as_str() == task)
                && selects(&command, place)
        });
        self.answer(request, verb, &command, meant);
    }

    /// `orch.find.<verb>`.
    pub(super) fn find_came(&self, request: Request) {
        let (verb, command) = match read(&request, FIND_VERB) {
            Ok(read) => read,
            Err(error) => return refuse(request, error),
        };
        if command.labels.is_empty() && command.run_suffix.is_none() {
            let message = "expected `labels` or `run_suffix`: neither would mean every task";
            return refuse(request, WireError::invalid(message));
        }
        let meant = self.meant(|place| selects(&command, place));
        self.answer(request, verb, &command, meant);
    }

    /// The tasks whose run answers at its address and that are chosen.
    fn meant(&self, choose: impl Fn(&Place) -> bool) -> Vec<Meant> {
        if self.withheld {
            return Vec::new();
        }
        let node = &self.context.name;
        let places = &self.ledger.places;
        let live = |place: &&Place| place.assigned.holds_address && !place.has_ended();
        places
            .values()
            .filter(live)
            .filter(|place| choose(place))
            .map(|place| Meant {
                task: self
                    .tasks
                    .get(&place.assigned.placement)
                    .and_then(|task| task.alive().cloned()),
                row: CommandRow {
                    slot: place.assigned.slot.clone(),
                    run: place.run(),
                    version: place.assigned.version,
                    node: node.clone(),
                    replicas: place.assigned.replicas,
                    error: Some(WireError::unavailable("the task did not answer")),
                    value: None,
                    took_us: 0,
                },
            })
            .collect()
    }

    /// Passes the command on, and answers when all have, or at the deadline.
    fn answer(&self, request: Request, verb: Verb, command: &TaskCommand, meant: Vec<Meant>) {
        let deadline = request.deadline();
        let most = self.context.timings.command;
        let left = |deadline| self.context.bus.time_left(deadline).min(most);
        // Until the caller's deadline, and not for ever.
        let wait = deadline.map_or(most, left);
        let rows: Vec<_> = meant
            .into_iter()
            .map(|Meant { task, mut row }| {
                let (reply, answer) = oneshot::channel();
                if let Some(task) = task {
                    task.command(CommandRequest {
                        verb,
                        command: command.clone(),
                        caller: request.caller.clone(),
                        deadline,
                        command_id: request.command_id().map(str::to_owned),
                        reply: reply.into(),
                    });
                }
                let asked = Instant::now();
                async move {
                    if let Ok(Ok(answered)) = timeout(wait, answer).await {
                        return answered;
                    }
                    let waited = asked.elapsed().as_micros();
                    row.took_us = u64::try_from(waited).unwrap_or(u64::MAX);
                    row
                }
            })
            .collect();
        tokio::spawn(async move {
            let rows = join_all(rows).await;
            request.reply(&CommandReply { rows }).await;
        });
    }
}

/// The verb and its arguments.
fn read(request: &Request, verb: usize) -> Result<(Verb, TaskCommand), WireError> {
    let verb = Verb::parse(request.token(verb).unwrap_or_default())?;
    if let Some(refusal) = verb.refusal() {
        return Err(refusal);
    }
    Ok((verb, arguments(request, verb)?))
}

/// A map, or the one bare argument of a verb that has one, as a task takes them itself.
fn arguments(request: &Request, verb: Verb) -> Result<TaskCommand, WireError> {
    if request.payload.iter().all(u8::is_ascii_whitespace) {
        return Ok(TaskCommand::default());
    }
    let Some(text) = request.text() else {
        return request.decode();
    };
    let mut command = TaskCommand::default();
    match verb {
        Verb::Signal => command.signal = Some(text.to_owned()),
        Verb::Logs => {
            let lines = text.parse();
            let wrong = |_| WireError::invalid("expected a number of lines");
            command.tail = Some(lines.map_err(wrong)?);
        }
        verb => {
            return Err(WireError::invalid(format!(
                "`{verb}` takes no bare argument"
            )));
        }
    }
    Ok(command)
}

/// Whether the selectors of a command, if it has any, match a placement.
fn selects(command: &TaskCommand, place: &Place) -> bool {
    let labels = &place.assigned.labels;
    let labelled = command
        .labels
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    labelled
        && command
            .run_suffix
            .as_ref()
            .is_none_or(|suffix| ends_with(place, suffix))
}

/// Whether a run is named by its id, or by at least the last 8 characters of it.
fn ends_with(place: &Place, suffix: &str) -> bool {
    let digits: String = suffix.chars().filter(|&c| c != '-').collect();
    let id = place.run().0.simple().to_string();
    digits.len() >= SUFFIX_MIN && id.ends_with(&digits.to_ascii_lowercase())
}
