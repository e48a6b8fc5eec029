//! Runtime commands: reading them, answering them, and those that only look.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use loom_bus::connection::Bus;
use loom_bus::serve::Request;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::RunId;
use loom_schemas::wire::{
    Caller, CommandReply, CommandRow, Inspect, LogLine, LogLines, Stats, TaskCommand,
};
use ractor::{ActorRef, RpcReplyPort};
use tokio::time::Instant;

use super::State;
use super::background::caught;
use super::lane::wire_error;
use super::message::{CommandRequest, TaskMessage, is_blank};
use super::verb::Verb;
use crate::driver::Driver;
use crate::driver::usage::Usage;
use crate::output;

/// How many lines `logs` gives where it is not said.
const TAIL: u32 = 100;
/// The most lines that `logs` gives.
const TAIL_MAX: u32 = 10_000;
/// The most text that `logs` gives, in bytes: an answer must fit in one message.
const TEXT_MAX: usize = 2 * 1024 * 1024;
/// The longest id of a command.
const ID_MAX: usize = 128;

/// A command on its way, and who waits for the answer.
pub(super) struct Asked {
    pub(super) order: Result<Order, WireError>,
    pub(super) answer: Answer,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) verb: Verb,
    pub(super) command: TaskCommand,
    pub(super) caller: Caller,
    pub(super) command_id: Option<String>,
    pub(super) asked_at: Instant,
    /// How long the answer is of use, counted from `asked_at`.
    pub(super) patience: Option<Duration>,
}

/// What a command that only looks is answered from.
enum Look {
    Inspect(Box<Inspect>),
    Logs(u32),
    Stats(Arc<dyn Driver>),
}

/// Who waits for the answer.
pub(super) enum Answer {
    Bus(Box<Request>),
    Node(RpcReplyPort<CommandRow>),
}

impl Asked {
    pub(super) fn by_bus(request: Request, bus: &Bus) -> Self {
        let left = request.deadline().map(|deadline| bus.time_left(deadline));
        let command_id = request.command_id().map(str::to_owned);
        let order = read(&request).and_then(|(verb, command)| {
            let caller = request.caller.clone();
            order(verb, command, caller, left, command_id)
        });
        let answer = Answer::Bus(Box::new(request));
        Self { order, answer }
    }

    pub(super) fn by_node(request: CommandRequest, bus: &Bus) -> Self {
        let CommandRequest {
            verb,
            command,
            caller,
            deadline,
            command_id,
            reply,
        } = request;
        let left = deadline.map(|deadline| bus.time_left(deadline));
        Self {
            order: order(verb, command, caller, left, command_id),
            answer: Answer::Node(reply),
        }
    }
}

fn order(
    verb: Verb,
    command: TaskCommand,
    caller: Caller,
    patience: Option<Duration>,
    command_id: Option<String>,
) -> Result<Order, WireError> {
    if let Some(refusal) = verb.refusal() {
        return Err(refusal);
    }
    if command_id.as_ref().is_some_and(|id| id.len() > ID_MAX) {
        let message = format!("the id of a command has at most {ID_MAX} bytes");
        return Err(WireError::invalid(message));
    }
    if verb == Verb::Signal {
        let signal = command.signal.as_deref().unwrap_or_default();
        crate::signals::parse(signal).map_err(WireError::invalid)?;
    }
    Ok(Order {
        verb,
        command,
        caller,
        command_id,
        asked_at: Instant::now(),
        patience,
    })
}

/// The verb is the last token of the subject; the payload a map, or the one bare argument.
fn read(request: &Request) -> Result<(Verb, TaskCommand), WireError> {
    let token = request.subject.rsplit('.').next().unwrap_or_default();
    let verb = Verb::parse(token)?;
    if verb.refusal().is_some() || is_blank(&request.payload) {
        return Ok((verb, TaskCommand::default()));
    }
    let Some(text) = request.text() else {
        return Ok((verb, request.decode()?));
    };
    let mut command = TaskCommand::default();
    match verb {
        Verb::Signal => command.signal = Some(text.to_owned()),
        Verb::Logs => {
            let text: String = text.chars().take(40).collect();
            let wrong = || format!("`{text}` is not a number of lines");
            command.tail = Some(text.parse().map_err(|_| WireError::invalid(wrong()))?);
        }
        verb => {
            let message = format!("`{verb}` takes no bare argument");
            return Err(WireError::invalid(message));
        }
    }
    Ok((verb, command))
}

impl Answer {
    /// Sends the row, alone in its reply.
    pub(super) async fn row(self, row: CommandRow) {
        match self {
            Self::Bus(request) => request.reply(&CommandReply { rows: vec![row] }).await,
            // Whoever asked has given up.
            Self::Node(port) => drop(port.send(row)),
        }
    }

    /// Says that the request itself makes no sense: no row to a single requester.
    async fn refuse(self, error: WireError, mut row: CommandRow) {
        match self {
            Self::Bus(request) => request.refuse(error).await,
            Self::Node(port) => {
                row.error = Some(error);
                drop(port.send(row));
            }
        }
    }
}

impl State {
    /// Takes a command in.
    pub(super) fn asked(&mut self, asked: Asked, myself: &ActorRef<TaskMessage>) {
        let Asked { order, answer } = asked;
        match order {
            Err(error) => {
                let row = self.row(Instant::now());
                tokio::spawn(answer.refuse(error, row));
            }
            Ok(order) if order.verb.is_ordered() => self.line_up(order, answer, myself),
            Ok(order) => self.look(&order, answer),
        }
    }

    /// An answer without error and value.
    pub(super) fn row(&self, asked_at: Instant) -> CommandRow {
        CommandRow {
            slot: self.assigned.slot.clone(),
            run: self.machine.run(),
            version: self.assigned.version,
            node: self.node.name.clone(),
            replicas: self.assigned.replicas,
            error: None,
            value: None,
            took_us: took_us(asked_at),
        }
    }

    fn look(&self, order: &Order, answer: Answer) {
        let mut row = self.row(order.asked_at);
        let Ok(place) = Arc::clone(&self.beside).try_acquire_owned() else {
            let most = super::BESIDE_MAX;
            let message = format!("{most} commands beside the ordered ones are under way here");
            row.error = Some(WireError::new(ErrorCode::Busy, message));
            tokio::spawn(answer.row(row));
            return;
        };
        let looked = match order.verb {
            Verb::Inspect => Look::Inspect(Box::new(self.inspect())),
            Verb::Logs => Look::Logs(order.command.tail.unwrap_or(TAIL).min(TAIL_MAX)),
            Verb::Stats => Look::Stats(self.driver.clone()),
            verb => {
                row.error = verb.refusal();
                tokio::spawn(answer.row(row));
                return;
            }
        };
        let started = self.machine.started();
        let directory = started.and_then(|started| started.directory.clone());
        let asked_at = order.asked_at;
        tokio::spawn(async move {
            let value = match looked {
                Look::Inspect(inspect) => to_value(&inspect),
                Look::Stats(driver) => stats(&*driver, row.run).await,
                Look::Logs(count) => match directory {
                    Some(directory) => tail(directory, count, &row).await,
                    None => to_value(&LogLines::default()),
                },
            };
            match value {
                Ok(value) => row.value = Some(value),
                Err(error) => row.error = Some(error),
            }
            row.took_us = took_us(asked_at);
            answer.row(row).await;
            drop(place);
        });
    }

    fn inspect(&self) -> Inspect {
        let started = self.machine.started();
        let directory = started.and_then(|started| started.directory.as_ref());
        let container = started.and_then(|started| started.container.as_ref());
        Inspect {
            state: self.machine.state(),
            marks: self.machine.marks(),
            health: self.machine.health().cloned(),
            pid: started.and_then(|started| started.pid),
            image: container.map(|container| container.image.clone()),
            container: container.map(|container| container.id.clone()),
            started_at: started.map(|started| started.at),
            restarts: self.machine.restarts(),
            directory: directory.map(|path| path.display().to_string()),
            unenforced: started.map(|s| s.unenforced.clone()).unwrap_or_default(),
            filled: self.machine.filled().clone(),
        }
    }
}

async fn stats(driver: &dyn Driver, run: RunId) -> Result<serde_json::Value, WireError> {
    let looked = caught(driver.usage(run)).await;
    let looked = looked.map_err(|panic| WireError::new(ErrorCode::Internal, panic))?;
    let Usage {
        cpu_us,
        memory,
        memory_limit,
        pids,
        read,
        written,
    } = looked.map_err(|error| wire_error(&error))?;
    to_value(&Stats {
        at: Timestamp::now(),
        cpu_us,
        memory,
        memory_limit,
        pids,
        read,
        written,
    })
}

async fn tail(
    directory: std::path::PathBuf,
    count: u32,
    row: &CommandRow,
) -> Result<serde_json::Value, WireError> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let read = tokio::task::spawn_blocking(move || output::tail(&directory, count));
    let lines = match caught(read).await {
        Ok(Ok(Ok(lines))) => lines,
        // Not one line was written, and no file made for it.
        Ok(Ok(Err(error))) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Ok(Ok(Err(error))) => {
            let message = format!("the output cannot be read: {error}");
            return Err(WireError::new(ErrorCode::Failed, message));
        }
        Ok(Err(_)) | Err(_) => {
            let message = "the output cannot be read: its reader panicked";
            return Err(WireError::new(ErrorCode::Internal, message));
        }
    };
    let (mut room, found) = (TEXT_MAX, lines.len());
    let fits = |line: &&output::Line| {
        let fits = line.text.len() <= room;
        room = room.saturating_sub(line.text.len() + 64);
        fits
    };
    let mut lines: Vec<_> = lines
        .iter()
        .rev()
        .take_while(fits)
        .map(|line| LogLine {
            at: line.at,
            stream: line.stream.as_str().to_owned(),
            slot: row.slot.clone(),
            run: row.run,
            offset: line.offset,
            text: line.text.clone(),
        })
        .collect();
    lines.reverse();
    to_value(&LogLines {
        more: lines.len() < found,
        lines,
        ..LogLines::default()
    })
}

fn to_value<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, WireError> {
    serde_json::to_value(value)
        .map_err(|error| WireError::new(ErrorCode::Internal, error.to_string()))
}

/// Microseconds since then.
pub(super) fn took_us(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
