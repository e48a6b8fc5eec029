//! The manager actor: decides while this manager leads.
//!
//! ```text
//! manager
//! ├── log writer     one append outstanding
//! ├── scheduler      plans on a clone of the state
//! ├── relay          events of what was committed
//! └── queue reader   submissions that were put into the queue
//! ```
//!
//! **Head.** The state with everything decided so far, durable or not. Every request is decided
//! against it. Its changes gather while an append is under way and go into the next one; what
//! follows from a commit (answers, assignments, events) happens once it is durable, never before.
//!
//! **Fenced answers.** Every answer, also that there was nothing to do, waits for an append begun
//! after the request arrived; if there is nothing to append, for an empty entry that all who wait
//! share. So a leader that was asleep, and is one no more, answers nothing.
//!
//! **Planning.** The scheduler plans on a clone in bounded passes. Until a pass is back, what wants
//! a decision waits in line; all else goes on: appends land, answers and assignments are sent. So
//! no plan is ever stale and none has to be checked again, and a request waits for one pass at
//! most.
//!
//! **Ends.** If the log writer ends, or anything says that another manager leads, the manager ends
//! as well: it refuses what waits and the follower takes up from the log. The other children are
//! started again in place: they keep nothing that is not in the log or the head.

mod commit;
mod edge;
mod effect;
mod greeting;
mod log_writer;
mod message;
mod node;
mod outbox;
mod planning;
mod queue_reader;
mod rebalance;
mod recovery;
mod relay;
mod request;
mod scheduler;
mod tick;
pub(crate) mod wish;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use loom_bus::log::{Gatherer, QueueCursor, Replica, SnapshotMark};
use loom_schemas::error::WireError;
use loom_schemas::ids::Name;
use loom_schemas::wire::ManagerRole;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::Semaphore;

use crate::context::{Context, Part};
use crate::decide::Office;
use crate::liveness::Liveness;
use crate::serve::door::Door;
use crate::state::State;
use crate::term::Elected;
use crate::work::Worker;

use effect::Effect;
use greeting::Greetings;
use log_writer::{Landed, LogWriter, LogWriterArguments, LogWriterMessage};
use outbox::Outboxes;
use planning::Planning;
use queue_reader::{QueueReader, QueueReaderArguments, QueueReaderMessage};
use recovery::TakingUp;
use relay::{EventRelay, EventRelayArguments, EventRelayMessage};
use scheduler::{Pass, Scheduler, SchedulerArguments, SchedulerMessage};

pub(crate) use message::{Ending, Held, ManagerMessage};

/// Decides.
pub(crate) struct Manager;

/// What the manager starts from.
pub(crate) struct ManagerArguments {
    pub(crate) context: Context,
    pub(crate) elected: Elected,
}

/// A leader's state.
pub(crate) struct Leading {
    pub(super) context: Context,
    pub(super) myself: ActorRef<ManagerMessage>,
    /// With everything decided, durable or not.
    pub(super) head: State,
    /// With everything durable.
    pub(super) durable: Replica<State>,
    pub(super) gatherer: Gatherer<Effect>,
    /// Requests that wait for their commits.
    pub(super) waiting: effect::Queue,
    /// Effects of the append under way.
    pub(super) appending: Option<Vec<Effect>>,
    pub(super) last_append: Instant,
    /// Snapshots to be committed.
    pub(super) snapshots: VecDeque<(SnapshotMark, RpcReplyPort<bool>)>,
    /// Nothing is taken in before: the log has no room.
    pub(super) full_until: Option<Instant>,
    pub(super) planning: Planning,
    pub(super) held: VecDeque<Held>,
    pub(super) outboxes: Outboxes,
    pub(super) calls: BTreeMap<Name, Worker>,
    pub(super) liveness: Liveness,
    /// What became of asking nodes what their placements are.
    pub(super) inventories: BTreeMap<Name, TakingUp>,
    /// Moves are looked for once at a time.
    pub(super) searches: Arc<Semaphore>,
    /// Hellos of which more is to come.
    pub(super) greetings: Greetings,
    /// Whom this manager took the lead from by force, and why.
    deposed: Option<(Name, &'static str)>,
    pub(super) doors: Vec<Door>,
    pub(super) ending: Option<Ending>,
    pub(super) log_writer: ActorRef<LogWriterMessage>,
    pub(super) scheduler: ActorRef<SchedulerMessage>,
    pub(super) relay: ActorRef<EventRelayMessage>,
    pub(super) queue_reader: ActorRef<QueueReaderMessage>,
    /// The last message of the queue that was decided on, durable or not.
    pub(super) queue_cursor: Option<QueueCursor>,
    pub(super) queue_paused: bool,
    pub(super) ticks: ractor::concurrency::JoinHandle<()>,
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.ticks.abort();
    }
}

impl Actor for Manager {
    type Msg = ManagerMessage;
    type State = Leading;
    type Arguments = ManagerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let ManagerArguments { context, elected } = arguments;
        context.parts.put(Part::Manager, myself.get_cell());
        let deposed = elected.deposed();
        let Elected {
            replica, writer, ..
        } = elected;
        let log_writer = LogWriterArguments {
            context: context.clone(),
            manager: myself.clone(),
            writer,
            replica: replica.clone(),
        };
        let (log_writer, _) =
            Actor::spawn_linked(None, LogWriter, log_writer, myself.get_cell()).await?;
        let scheduler = spawn_scheduler(&context, &myself).await?;
        let relay = spawn_relay(&context, &myself, &replica).await?;
        let queue_cursor = replica.position.queue_cursor;
        let queue_reader = spawn_queue_reader(&context, &myself, queue_cursor).await?;
        let now = Instant::now();
        let timings = &context.options.timings;
        let liveness = Liveness::new(timings.down_after, now);
        let ticks = myself.send_interval(timings.tick, || ManagerMessage::Tick);
        Ok(Leading {
            head: replica.state.clone(),
            durable: replica,
            gatherer: Gatherer::default(),
            waiting: effect::Queue::default(),
            appending: None,
            last_append: now,
            snapshots: VecDeque::new(),
            full_until: None,
            planning: Planning::default(),
            held: VecDeque::new(),
            outboxes: Outboxes::default(),
            calls: BTreeMap::new(),
            liveness,
            inventories: BTreeMap::new(),
            searches: Arc::new(Semaphore::new(1)),
            greetings: Greetings::default(),
            deposed,
            doors: Vec::new(),
            ending: None,
            log_writer,
            scheduler,
            relay,
            queue_reader,
            queue_cursor,
            queue_paused: false,
            ticks,
            context,
            myself,
        })
    }

    async fn post_start(
        &self,
        _: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.begin().await
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.take(message).await
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, why) = match event {
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason),
            SupervisionEvent::ActorFailed(cell, error) => (cell, Some(error.to_string())),
            _ => return Ok(()),
        };
        let part = state.context.parts.which(&cell);
        if state.ending.is_some() || part == Some(Part::QueueReader) && state.queue_paused {
            return Ok(());
        }
        let why = why.unwrap_or_default();
        tracing::error!(?part, why, "an actor of the leader ended");
        match part {
            Some(Part::Scheduler) => {
                state.scheduler = spawn_scheduler(&state.context, &myself).await?;
                state.planning_failed();
            }
            Some(Part::Relay) => {
                state.relay = spawn_relay(&state.context, &myself, &state.durable).await?;
            }
            Some(Part::QueueReader) => {
                let cursor = state.queue_cursor;
                state.queue_reader = spawn_queue_reader(&state.context, &myself, cursor).await?;
            }
            // What is durable is known to the log alone now.
            _ => state.end(Ending::Failed),
        }
        Ok(())
    }
}

impl Leading {
    /// Takes office: what the log says of this leader, its doors, everything planned anew.
    async fn begin(&mut self) -> Result<(), ActorProcessingErr> {
        let context = self.context.clone();
        let position = self.durable.position.clone();
        let deposed = self.deposed.take();
        let office = Office {
            manager: context.name(),
            agent: crate::context::AGENT,
            cluster: &position.cluster,
            strategy: context.options.strategy,
            deposed: deposed.as_ref().map(|(former, why)| (former, *why)),
            restored: position.restored.is_some().then_some(position.incarnation),
            patience: context.options.timings.lost_after,
        };
        let now = Timestamp::now();
        self.decide(Vec::new(), |draft| {
            crate::decide::elected(draft, &office, now);
        });
        context.publish(self.durable.clone());
        context.set_role(self.role());
        self.want_whole_of_all();
        self.open_doors().await?;
        tracing::info!(epoch = %self.durable.position.epoch(), "this manager leads");
        self.go_on();
        Ok(())
    }

    async fn take(&mut self, message: ManagerMessage) -> Result<(), ActorProcessingErr> {
        match message {
            ManagerMessage::Asked(asked) => self.hold(Held::Asked(asked)),
            ManagerMessage::Said(request, node, word) => {
                self.hold(Held::Said(request, node, word));
            }
            ManagerMessage::Queued(queued) => self.hold(Held::Queued(queued)),
            ManagerMessage::Tick => self.tick().await?,
            ManagerMessage::Wake => self.planning.woken(),
            ManagerMessage::Planned(pass) => self.planned(*pass),
            ManagerMessage::Landed(landed) => self.landed(*landed),
            ManagerMessage::Told(node, outcome) => self.told(&node, &outcome),
            ManagerMessage::Inventoried(node, found) => self.hold(Held::Inventoried(node, found)),
            ManagerMessage::SnapshotTaken(mark, reply) => self.snapshots.push_back((mark, reply)),
            ManagerMessage::AskSettled(reply) => {
                drop(self.relay.cast(EventRelayMessage::Settled(reply)));
            }
            ManagerMessage::HandOver => self.hand_over(),
            ManagerMessage::End(ending) => {
                self.say_bye(ending).await;
                self.myself.stop(Some(ending.as_str().to_owned()));
                return Ok(());
            }
        }
        self.go_on();
        Ok(())
    }

    /// What can go on, goes on: decisions, a plan, an append, calls to nodes.
    fn go_on(&mut self) {
        if self.ending.is_some() {
            return self.wind_up();
        }
        while !self.planning.is_under_way()
            && let Some(held) = self.held.pop_front()
        {
            self.take_up(held);
        }
        self.plan();
        let idle = self.appending.is_none() && !self.gatherer.is_empty();
        if !(idle && self.planning.is_worth_awaiting()) {
            self.append();
        }
        self.tell_nodes();
    }

    fn hold(&mut self, held: Held) {
        if self.ending.is_some() {
            Self::refuse_held(held, &leads_no_more());
        } else {
            self.held.push_back(held);
        }
    }

    fn take_up(&mut self, held: Held) {
        match held {
            Held::Asked(asked) => self.asked(*asked),
            Held::Said(request, node, word) => self.said(request, &node, word),
            Held::Queued(queued) => self.queued(*queued),
            Held::NotThere(node) => self.is_not_there(&node),
            Held::Inventoried(node, found) => self.inventoried(&node, found),
            Held::Tick => self.look_around(),
        }
    }

    /// What this manager is while it leads.
    fn role(&self) -> ManagerRole {
        if self.is_recovering() || self.recovers_still() {
            ManagerRole::Recovering
        } else {
            ManagerRole::Leader
        }
    }

    /// Whether nothing may be stopped yet, as far as was decided.
    pub(super) fn is_recovering(&self) -> bool {
        self.head.is_recovering()
    }

    /// The same as far as is durable: nodes are told nothing before.
    pub(super) fn recovers_still(&self) -> bool {
        self.durable.state.is_recovering()
    }
}

/// What everybody is told whom a leader that leads no more cannot answer.
pub(super) fn leads_no_more() -> WireError {
    WireError::unavailable("this manager leads no more: ask again")
}

async fn spawn_scheduler(
    context: &Context,
    myself: &ActorRef<ManagerMessage>,
) -> Result<ActorRef<SchedulerMessage>, ActorProcessingErr> {
    let arguments = SchedulerArguments {
        context: context.clone(),
        manager: myself.clone(),
    };
    let spawned = Actor::spawn_linked(None, Scheduler, arguments, myself.get_cell()).await?;
    Ok(spawned.0)
}

async fn spawn_relay(
    context: &Context,
    myself: &ActorRef<ManagerMessage>,
    durable: &Replica<State>,
) -> Result<ActorRef<EventRelayMessage>, ActorProcessingErr> {
    let position = durable.position.clone();
    let arguments = EventRelayArguments {
        context: context.clone(),
        position,
    };
    let spawned = Actor::spawn_linked(None, EventRelay, arguments, myself.get_cell()).await?;
    Ok(spawned.0)
}

async fn spawn_queue_reader(
    context: &Context,
    myself: &ActorRef<ManagerMessage>,
    cursor: Option<QueueCursor>,
) -> Result<ActorRef<QueueReaderMessage>, ActorProcessingErr> {
    let (context, manager) = (context.clone(), myself.clone());
    let arguments = QueueReaderArguments {
        context,
        manager,
        cursor,
    };
    let spawned = Actor::spawn_linked(None, QueueReader, arguments, myself.get_cell()).await?;
    Ok(spawned.0)
}
