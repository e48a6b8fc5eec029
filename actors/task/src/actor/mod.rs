//! The task actor: one placement on this node, from its first start until it is forgotten.
//!
//! ```text
//! node actor (supervisor)
//! `- task actor, one a placement; no child actors
//!    |- start, signal, pause ...   spawned driver calls, each casts its outcome back
//!    |- prepare                    gets the image                         } ended
//!    |- wait                       resolves when the run has ended        } with
//!    |- gate, timer                                                       } the
//!    |- health check               one at a time, casts its outcome back  } actor
//!    |- orch.run.<run>.*           served while the run is alive          }
//!    |- orch.task.<j>.<t>.<i>.*    the same, while it holds the address   }
//!    `- shipping                   output to orch.logs.>, one a run       }
//! ```
//!
//! What to do is decided by the [`machine`](crate::machine); the actor carries it out, keeps the
//! timers, and answers commands. It never waits in a handler. If it is lost, its supervisor starts
//! another with the last [`Progress`](crate::machine::Progress), which adopts the run: an actor's
//! end never ends a run. What is lost with it are the ids of commands that were carried out.

mod address;
mod background;
mod command;
mod health;
mod lane;
mod message;
mod perform;
mod shipping;
mod verb;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use loom_bus::connection::Bus;
use loom_schemas::ids::RunId;
use loom_schemas::wire::Assigned;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

pub use message::{
    CommandRequest, NodeFacts, NodeLabels, NoticeSender, OpenGate, StartGate, StartPermit,
    TaskArguments, TaskMessage, TaskNotice, TaskRef,
};
pub use verb::Verb;

use crate::driver::Driver;
use crate::health::Outcome;
use crate::machine::{Happened, Machine, Moment};
use address::Addresses;
use background::Background;
use command::Asked;
use health::Checking;
use lane::{Done, Lane};
use shipping::Shipping;

/// Commands beside the ordered lane that one task carries out at once.
const BESIDE_MAX: usize = 16;

/// Something a task actor started has come back to it; made by the actor alone.
pub struct Internal(Returned);

enum Returned {
    Happened(Box<Happened>),
    /// Let through the gate, with the restart that the node has written down.
    Entered((RunId, u32), StartPermit),
    Asked(Box<Asked>),
    Done(Box<Done>),
    /// A health check is due.
    CheckDue,
    /// A health check has ended, of those begun with this number.
    Checked(u64, Outcome),
    /// A run that ended before this actor began still has output to ship, in this directory.
    Unshipped(RunId, std::path::PathBuf),
    /// A run's output is shipped, or nobody waits for it any longer.
    Shipped,
}

/// Starts the actor of a placement under the node's actor.
pub async fn spawn(arguments: TaskArguments, supervisor: ActorCell) -> Result<TaskRef, SpawnErr> {
    let (actor, _) = Actor::spawn_linked(None, TaskActor, arguments, supervisor).await?;
    Ok(TaskRef(actor))
}

struct TaskActor;

struct State {
    assigned: Assigned,
    node: NodeFacts,
    driver: Arc<dyn Driver>,
    bus: Bus,
    bulk: Bus,
    notices: NoticeSender,
    may_start: Arc<dyn StartGate>,

    machine: Machine,
    /// Where the machine's clock begins.
    origin: Instant,
    /// When the timer fires.
    timer: Option<(Duration, Background)>,
    /// The run whose end is waited for.
    waiting: Option<(RunId, Background)>,
    /// Measures what the files of the run take, where that is limited.
    measuring: Option<(RunId, Background)>,
    /// The run that waits at the gate, and the restart that it carries out.
    gate: Option<((RunId, u32), Background)>,
    /// The run whose needs are being got.
    preparing: Option<Background>,
    permit: Option<StartPermit>,
    addresses: Addresses,
    lane: Lane,
    beside: Arc<Semaphore>,
    shipping: BTreeMap<RunId, Shipping>,
    checking: Option<Checking>,
    /// How often checks were begun.
    checks: u64,
    /// Set once it was told to forget the placement: until when output may still be shipped.
    forgetting: Option<Instant>,
}

impl Actor for TaskActor {
    type Msg = TaskMessage;
    type State = State;
    type Arguments = TaskArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<TaskMessage>,
        arguments: TaskArguments,
    ) -> Result<State, ActorProcessingErr> {
        let mut state = State::new(arguments);
        state.ship_what_is_kept(&myself);
        state.happen(Happened::Ordered);
        state.go_on(&myself).await;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<TaskMessage>,
        message: TaskMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TaskMessage::Assign(assigned) => state.assign(*assigned),
            TaskMessage::Command(request) => {
                state.asked(Asked::by_node(*request, &state.bus), &myself);
                return Ok(());
            }
            TaskMessage::Forget => state.forget(),
            TaskMessage::Internal(Internal(returned)) => match returned {
                Returned::Asked(asked) => {
                    state.asked(*asked, &myself);
                    return Ok(());
                }
                Returned::Happened(happened) => state.returned(*happened, &myself),
                Returned::Entered(entry, permit) => state.entered(entry, permit),
                Returned::Done(done) => state.done(*done, &myself),
                Returned::Unshipped(run, directory) => state.ship(run, directory, &myself),
                Returned::Checked(number, outcome) => state.checked(number, outcome),
                Returned::CheckDue | Returned::Shipped => {}
            },
        }
        state.go_on(&myself).await;
        Ok(())
    }

    // It has no child actors; the default would stop it if one ended.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<TaskMessage>,
        _event: SupervisionEvent,
        _state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl State {
    fn new(arguments: TaskArguments) -> Self {
        let machine = match arguments.adopt {
            Some(progress) => Machine::resumed(progress),
            None => Machine::new(arguments.assigned.placement),
        };
        Self {
            assigned: arguments.assigned,
            node: arguments.node,
            driver: arguments.driver,
            bus: arguments.bus,
            bulk: arguments.bulk,
            notices: arguments.notices,
            may_start: arguments.may_start,
            machine,
            origin: Instant::now(),
            timer: None,
            waiting: None,
            measuring: None,
            gate: None,
            preparing: None,
            permit: None,
            addresses: Addresses::default(),
            lane: Lane::default(),
            beside: Arc::new(Semaphore::new(BESIDE_MAX)),
            shipping: BTreeMap::new(),
            checking: None,
            checks: 0,
            forgetting: None,
        }
    }

    fn clock(&self) -> Duration {
        self.origin.elapsed()
    }

    fn assign(&mut self, assigned: Assigned) {
        if assigned.placement != self.assigned.placement {
            let (own, other) = (self.assigned.placement, assigned.placement);
            tracing::error!(%own, %other, "an assignment of another placement was ignored");
            return;
        }
        self.assigned = assigned;
        self.happen(Happened::Ordered);
    }

    /// Tells the machine what happened, and the node what came of it.
    fn happen(&mut self, happened: Happened) {
        let now = Moment {
            clock: self.clock(),
            at: Timestamp::now(),
            jitter: rand::random(),
            fresh: RunId(Uuid::now_v7()),
        };
        let reports = self.machine.apply(&self.assigned, happened, now);
        for report in reports {
            tracing::debug!(run = %report.run, slot = %report.slot, state = %report.state, "run");
            self.notices.send(TaskNotice::Report {
                report: Box::new(report),
                progress: Box::new(self.machine.progress()),
            });
        }
    }

    fn forget(&mut self) {
        if self.machine.is_over() {
            let patience = shipping::PATIENCE;
            self.forgetting
                .get_or_insert_with(|| Instant::now() + patience);
        } else {
            let slot = &self.assigned.slot;
            tracing::warn!(%slot, "a placement that has not ended is not forgotten");
        }
    }
}

impl Internal {
    fn asked(request: loom_bus::serve::Request, bus: &Bus) -> Self {
        Self(Returned::Asked(Box::new(Asked::by_bus(request, bus))))
    }
}
