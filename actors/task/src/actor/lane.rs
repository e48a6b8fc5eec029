//! The ordered lane: signals, pauses and resumes, one after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use loom_bus::connection::Bus;
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::event::CommandEvent;
use loom_schemas::ids::{RunId, Slot};
use loom_schemas::subject;
use loom_schemas::wire::CommandRow;
use ractor::ActorRef;
use tokio::sync::mpsc;

use super::background::caught;
use super::command::{Answer, Order, took_us};
use super::message::TaskMessage;
use super::perform::chain;
use super::verb::Verb;
use super::{Internal, Returned, State};
use crate::driver::{Adopted, Driver, DriverError};
use crate::machine::Happened;
use crate::signals;

/// How many commands carried out are remembered by their ids.
const REMEMBERED: usize = 256;
/// Events that may wait for the bus.
const EVENTS_MAX: usize = 1024;
/// The longest that a driver may take over a signal, a pause or a resume.
const DRIVER_PATIENCE: Duration = Duration::from_secs(10);

/// Commands that wait, and those that were carried out.
#[derive(Default)]
pub(super) struct Lane {
    waiting: VecDeque<(Order, Answer)>,
    /// Whether one is being carried out.
    busy: bool,
    done: Remembered,
    /// Events to publish, in order; made with the first.
    events: Option<mpsc::Sender<CommandEvent>>,
}

/// Commands with an id that were carried out, oldest first.
#[derive(Default)]
struct Remembered(VecDeque<(Asking, CommandRow)>);

/// What makes two commands the same one sent twice.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asking {
    user: String,
    id: String,
    verb: Verb,
    signal: Option<String>,
    all: bool,
}

impl Asking {
    /// None for a command without an id.
    fn of(order: &Order) -> Option<Self> {
        Some(Self {
            user: order.caller.user.clone(),
            id: order.command_id.clone()?,
            verb: order.verb,
            signal: order.command.signal.clone(),
            all: order.command.all,
        })
    }
}

impl Remembered {
    fn push(&mut self, asking: Asking, row: CommandRow) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((asking, row));
    }

    /// What the same command was answered before, to be answered again of this run; an error if
    /// its id was that of another command, or was carried out on another run.
    fn find(&self, order: &Order, run: RunId) -> Option<Result<CommandRow, WireError>> {
        let asking = Asking::of(order)?;
        let known = |known: &Asking| known.user == asking.user && known.id == asking.id;
        let (known, row) = self.0.iter().rev().find(|(asked, _)| known(asked))?;
        let id = &asking.id;
        let message = if *known != asking {
            format!(
                "the id {id} was that of another command, a `{}`",
                known.verb
            )
        } else if row.run != run {
            format!(
                "the command {id} was carried out on run {}, which is over",
                row.run
            )
        } else {
            return Some(Ok(row.clone()));
        };
        Some(Err(WireError::new(ErrorCode::Conflict, message)))
    }
}

/// A command was carried out and answered.
pub(super) struct Done {
    asking: Option<Asking>,
    row: CommandRow,
    /// Set if the run is now paused, or no longer.
    paused: Option<bool>,
}

impl State {
    /// Puts a command behind those that wait.
    pub(super) fn line_up(&mut self, order: Order, answer: Answer, me: &ActorRef<TaskMessage>) {
        self.lane.waiting.push_back((order, answer));
        self.carry_on(me);
    }

    /// Remembers a command that was carried out, and goes on with the next.
    pub(super) fn done(&mut self, done: Done, myself: &ActorRef<TaskMessage>) {
        let Done {
            asking,
            row,
            paused,
        } = done;
        if let Some(paused) = paused {
            self.happen(Happened::Paused(row.run, paused));
        }
        if let Some(asking) = asking {
            self.lane.done.push(asking, row);
        }
        self.lane.busy = false;
        self.carry_on(myself);
    }

    /// Begins with the first command that waits and has to be carried out.
    fn carry_on(&mut self, myself: &ActorRef<TaskMessage>) {
        while !self.lane.busy {
            let Some((order, answer)) = self.lane.waiting.pop_front() else {
                return;
            };
            let mut row = self.row(order.asked_at);
            if let Some(found) = self.lane.done.find(&order, row.run) {
                let row = found.unwrap_or_else(|error| CommandRow {
                    error: Some(error),
                    ..row
                });
                tokio::spawn(answer.row(row));
                continue;
            }
            if let Err(error) = self.admit(&order) {
                row.error = Some(error);
                tokio::spawn(answer.row(row));
                continue;
            }
            self.lane.busy = true;
            let bus = &self.bus;
            let events = self
                .lane
                .events
                .get_or_insert_with(|| publisher(bus.clone()));
            let work = Work {
                driver: Arc::clone(&self.driver),
                events: events.clone(),
                row,
                order,
                answer,
            };
            tokio::spawn(work.carry_out(myself.clone()));
        }
    }

    fn admit(&self, order: &Order) -> Result<(), WireError> {
        if order
            .patience
            .is_some_and(|patience| order.asked_at.elapsed() > patience)
        {
            let message = "its deadline passed while it waited for the commands before it";
            return Err(WireError::new(ErrorCode::Expired, message));
        }
        // Of what is unknown the driver says what it can: a signal needs no engine.
        if self.machine.is_running() || self.machine.marks().unknown {
            return Ok(());
        }
        let (slot, run) = (&self.assigned.slot, self.machine.run());
        let state = self.machine.state();
        let (code, verb) = (ErrorCode::Conflict, order.verb);
        let message = format!("{slot} cannot {verb}: its run {run} is {state}, not running");
        Err(WireError::new(code, message))
    }
}

/// One command being carried out.
struct Work {
    driver: Arc<dyn Driver>,
    events: mpsc::Sender<CommandEvent>,
    row: CommandRow,
    order: Order,
    answer: Answer,
}

impl Work {
    async fn carry_out(self, actor: ActorRef<TaskMessage>) {
        let Self {
            driver,
            events,
            mut row,
            order,
            answer,
        } = self;
        let called = tokio::time::timeout(DRIVER_PATIENCE, caught(call(&*driver, &order, &row)));
        let called = called.await;
        let late = called.is_err();
        let outcome = called.unwrap_or_else(|_| {
            let message = format!("the driver did not answer within {DRIVER_PATIENCE:?}");
            Ok(Err(WireError::new(ErrorCode::Failed, message)))
        });
        row.error = match outcome {
            Ok(outcome) => outcome.err(),
            Err(panic) => Some(WireError::new(ErrorCode::Internal, panic)),
        };
        row.took_us = took_us(order.asked_at);
        // Answer first: nothing that follows is worth waiting for.
        answer.row(row.clone()).await;
        if events.try_send(event(&order, &row)).is_err() {
            tracing::warn!(run = %row.run, "the event of a command was dropped: too many wait");
        }
        let paused = match paused(order.verb) {
            // It may have taken effect all the same: the driver says.
            Some(_) if late => is_paused(&*driver, row.run).await,
            paused => paused.filter(|_| row.error.is_none()),
        };
        let done = Done {
            asking: Asking::of(&order),
            paused,
            row,
        };
        let _ = actor.cast(TaskMessage::Internal(Internal(Returned::Done(Box::new(
            done,
        )))));
    }
}

async fn call(driver: &dyn Driver, order: &Order, row: &CommandRow) -> Result<(), WireError> {
    let run = row.run;
    let outcome = match order.verb {
        Verb::Pause => driver.pause(run).await,
        Verb::Resume => driver.resume(run).await,
        _ => {
            let name = order.command.signal.as_deref().unwrap_or_default();
            let signal = signals::parse(name).map_err(WireError::invalid)?;
            driver.signal(run, signal, order.command.all).await
        }
    };
    outcome.map_err(|error| wire_error(&error))
}

/// What whoever asked is told of a driver's error.
pub(super) fn wire_error(error: &DriverError) -> WireError {
    let code = match error {
        DriverError::NotFound(_) | DriverError::Ended(_) => ErrorCode::Conflict,
        DriverError::Rejected(_)
        | DriverError::Failed { .. }
        | DriverError::Unavailable(_)
        | DriverError::Uncertain(_)
        | DriverError::Unsupported(_) => ErrorCode::Failed,
    };
    WireError::new(code, chain(error))
}

/// Whether a run is paused now; none if it does not run or the driver does not say in time.
async fn is_paused(driver: &dyn Driver, run: RunId) -> Option<bool> {
    let asked = tokio::time::timeout(DRIVER_PATIENCE, caught(driver.adopt(run)));
    match asked.await {
        Ok(Ok(Ok(Adopted::Running { paused, .. }))) => Some(paused),
        _ => None,
    }
}

fn paused(verb: Verb) -> Option<bool> {
    match verb {
        Verb::Pause => Some(true),
        Verb::Resume => Some(false),
        _ => None,
    }
}

fn event(order: &Order, row: &CommandRow) -> CommandEvent {
    let args = match order.verb {
        Verb::Signal => serde_json::json!({
            "signal": order.command.signal,
            "all": order.command.all,
        }),
        _ => serde_json::Value::Null,
    };
    let error = row.error.as_ref();
    CommandEvent {
        at: Timestamp::now(),
        job: row.slot.job.clone(),
        task: row.slot.task.clone(),
        index: row.slot.index.clone(),
        run: row.run,
        node: row.node.clone(),
        version: row.version,
        verb: order.verb.to_string(),
        args,
        by: order.caller.user.clone(),
        result: error.map_or("done", |error| error.code.as_str()).to_owned(),
        reason: error.map(|error| error.message.clone()),
        request: order.command_id.clone(),
        took_us: row.took_us,
    }
}

/// Publishes events one after the other; it ends with the last that can send it one.
fn publisher(bus: Bus) -> mpsc::Sender<CommandEvent> {
    let (sender, mut events) = mpsc::channel::<CommandEvent>(EVENTS_MAX);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            publish(&bus, &event).await;
        }
    });
    sender
}

async fn publish(bus: &Bus, event: &CommandEvent) {
    let slot = Slot::at(event.job.clone(), event.task.clone(), event.index.clone());
    let subject = subject::command_event(&slot);
    let payload = match serde_json::to_vec(event) {
        Ok(payload) => Bytes::from(payload),
        Err(error) => {
            tracing::error!(subject, "an event was not written: {error}");
            return;
        }
    };
    if let Err(error) = bus.publish(&subject, payload, &[]).await {
        tracing::warn!(subject, "an event was not published: {error}");
    }
}

#[cfg(test)]
mod tests {
    use loom_schemas::ids::Name;
    use loom_schemas::wire::{Caller, TaskCommand};
    use uuid::Uuid;

    use super::*;

    const RUN: RunId = RunId(Uuid::from_u128(1));

    fn order(user: &str, verb: Verb, signal: Option<&str>) -> Order {
        Order {
            verb,
            command: TaskCommand {
                signal: signal.map(str::to_owned),
                ..TaskCommand::default()
            },
            caller: Caller {
                user: user.into(),
                detail: None,
            },
            command_id: Some("c-1".into()),
            asked_at: tokio::time::Instant::now(),
            patience: None,
        }
    }

    fn row() -> CommandRow {
        CommandRow {
            slot: Slot::new(Name::new("web").unwrap(), Name::main(), 0),
            run: RUN,
            version: 1,
            node: Name::new("node-1").unwrap(),
            replicas: 1,
            error: None,
            value: None,
            took_us: 7,
        }
    }

    #[test]
    fn a_command_sent_twice_is_the_same_in_caller_id_verb_arguments_and_run() {
        let hup = order("ada", Verb::Signal, Some("HUP"));
        let mut done = Remembered::default();
        done.push(Asking::of(&hup).unwrap(), row());
        assert_eq!(done.find(&hup, RUN), Some(Ok(row())));
        let bob = order("bob", Verb::Signal, Some("HUP"));
        assert_eq!(done.find(&bob, RUN), None, "an id is its caller's own");
        for (order, run) in [
            (order("ada", Verb::Pause, None), RUN),
            (order("ada", Verb::Signal, Some("USR1")), RUN),
            (hup, RunId(Uuid::from_u128(2))),
        ] {
            let error = done.find(&order, run).unwrap().unwrap_err();
            assert_eq!(error.code, ErrorCode::Conflict, "{error:?}");
        }
    }
}
