//! The node's actor: holds what the node shall have and what it has, and carries the difference
//! out.
//!
//! ```text
//! agent            restarts the node's actor from disk
//! └─ node          assignment, journal, link to the leader, commands to many
//!    └─ task ...   one a placement; restarted with adoption, so a panic costs no run
//! ```
//! Beside the tree run only loops that turn what comes over the bus into messages, the writer of
//! the state file, and the one call to the leader in flight: nothing is awaited in a handler.

mod command;
mod engine;
mod heartbeat;
mod leader;
mod leave;
mod message;
mod sweep;
mod task;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use loom_bus::caller;
use loom_bus::serve::{Request, ServeLimits};
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::{Epoch, Name, RunId};
use loom_schemas::record::NodeInfo;
use loom_schemas::subject;
use loom_schemas::wire::{Assign, AssignReply, InventoryQuery};
use loom_task::Progress;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::watch;

use crate::assignment::{Action, Held, Verdict, diff};
use crate::clock;
use crate::ledger::{Ledger, Place, Record};
use crate::link::{Link, contact_after_start};
use crate::serve::{Loop, arrivals, connection, requests, ticks};
use leave::Leaving;
pub(crate) use message::{Context, NodeMessage, Phase};
use task::{HostedJob, Task};

/// The largest assignment that is read, in bytes: what the bus takes.
const ASSIGNMENT_MAX: usize = 8 << 20;

/// The largest command to many that is read, in bytes.
const COMMAND_MAX: usize = 64 << 10;

/// Over how long nodes spread their greetings of a new leader.
const GREETING_SPREAD: Duration = Duration::from_millis(500);

/// How long the whole set may take to come that a node asked for.
const RESYNC_PATIENCE: Duration = Duration::from_secs(1);

/// The node's actor.
pub(crate) struct NodeActor;

/// What the node's actor knows.
pub(crate) struct State {
    me: ActorRef<NodeMessage>,
    context: Arc<Context>,
    /// What the node says of itself now.
    info: NodeInfo,
    ledger: Ledger,
    link: Link,
    tasks: BTreeMap<RunId, Task>,
    actors: HashMap<ActorId, RunId>,
    spawns: u64,
    jobs: BTreeMap<Name, HostedJob>,
    /// Until when runs may start.
    until: watch::Sender<Option<Duration>>,
    /// The last contact that is on disk.
    contact_kept: Option<Duration>,
    wake: Option<(Duration, Loop)>,
    /// Whether it was logged that no leader answers.
    silent: bool,
    withheld: bool,
    swept: bool,
    leaving: Option<Leaving>,
    loops: Vec<Loop>,
}

impl Actor for NodeActor {
    type Msg = NodeMessage;
    type State = State;
    type Arguments = (Arc<Context>, Ledger);

    async fn pre_start(
        &self,
        myself: ActorRef<NodeMessage>,
        (context, ledger): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let kept = ledger
            .contact
            .as_ref()
            .map(|(boot, at)| (boot.as_str(), *at));
        let now = clock::since_boot();
        let contact = contact_after_start(kept, &context.boot_id, now);
        let mut link = Link::new(context.timings.clone(), contact, now);
        let withheld = link.withholds_addresses(now);
        let until = watch::Sender::new(link.may_start_until());
        Ok(State {
            me: myself,
            info: context.info.clone(),
            context,
            ledger,
            link,
            tasks: BTreeMap::new(),
            actors: HashMap::new(),
            spawns: 0,
            jobs: BTreeMap::new(),
            until,
            contact_kept: contact,
            wake: None,
            silent: false,
            withheld,
            swept: false,
            leaving: None,
            loops: Vec::new(),
        })
    }

    async fn post_start(
        &self,
        _: ActorRef<NodeMessage>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.resume_tasks();
        state.listen();
        state.pump();
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<NodeMessage>,
        message: NodeMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.take(message);
        state.pump();
        state.leave_if_done();
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<NodeMessage>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, _, reason) => {
                state.task_ended(who.get_id(), reason.as_deref().unwrap_or("it stopped"));
            }
            SupervisionEvent::ActorFailed(who, error) => {
                state.task_ended(who.get_id(), &error.to_string());
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        state.leave_if_done();
        Ok(())
    }
}

impl State {
    fn take(&mut self, message: NodeMessage) {
        match message {
            NodeMessage::AssignmentCame(request) => self.assignment_came(request),
            NodeMessage::AssignmentKept { touched, answer } => {
                self.act_on(touched);
                if let Some((request, reply)) = answer {
                    tokio::spawn(async move { request.reply(&reply).await });
                }
            }
            NodeMessage::TaskSaid(notice) => self.task_said(notice),
            NodeMessage::TaskSpawned {
                placement,
                spawn,
                outcome,
            } => {
                self.task_spawned(placement, spawn, outcome);
            }
            NodeMessage::RespawnDue(placement) => self.respawn(placement),
            NodeMessage::RunBegins { progress, kept } => self.run_begins(*progress, kept),
            NodeMessage::EngineFound(attributes) => self.engine_found(attributes),
            NodeMessage::ContainersFound(runs) => self.end_unclaimed(&runs),
            NodeMessage::CallReturned(answer) => self.call_returned(*answer),
            NodeMessage::BusChanged { connected } => self.bus_changed(connected),
            NodeMessage::CommandCame(request) => self.command_came(request),
            NodeMessage::FindCame(request) => self.find_came(request),
            NodeMessage::InventoryCame(request) => self.inventory_came(request),
            NodeMessage::LeaderElected => {
                self.link
                    .greet(clock::since_boot(), GREETING_SPREAD.mul_f64(rand::random()));
            }
            NodeMessage::HeartbeatDue => self.heartbeat(),
            NodeMessage::Wake => self.wake = None,
            NodeMessage::Leave(tasks) => self.leave(tasks),
            NodeMessage::ByeSaid => {
                self.context.phase.send_replace(Phase::Ended(None));
                self.me.stop(None);
            }
        }
    }

    /// Serves what the node is asked at its own subjects.
    fn listen(&mut self) {
        let (bus, me, name) = (&self.context.bus, &self.me, &self.context.name);
        let limits = &self.context.limits;
        let serve = |subject, max_in_flight, max_payload, message| {
            let limits = ServeLimits {
                max_in_flight,
                max_payload,
                ..ServeLimits::default()
            };
            Loop::from(tokio::spawn(requests(
                bus.clone(),
                subject,
                limits,
                me.clone(),
                message,
            )))
        };
        let period = self.context.timings.heartbeat;
        let offset = period.mul_f64(rand::random());
        let elected = "orch.events.manager.*.elected".to_owned();
        self.loops = vec![
            serve(
                subject::assign(name),
                64,
                ASSIGNMENT_MAX,
                NodeMessage::AssignmentCame,
            ),
            serve(
                subject::inventory(name),
                4,
                COMMAND_MAX,
                NodeMessage::InventoryCame,
            ),
            serve(
                subject::find("*"),
                limits.commands,
                COMMAND_MAX,
                NodeMessage::FindCame,
            ),
            tokio::spawn(arrivals(bus.clone(), elected, me.clone(), || {
                NodeMessage::LeaderElected
            }))
            .into(),
            tokio::spawn(connection(bus.clone(), me.clone())).into(),
            tokio::spawn(ticks(offset, period, me.clone(), || {
                NodeMessage::HeartbeatDue
            }))
            .into(),
        ];
        if let Some(engine) = self.context.drivers.watched_engine() {
            let watched = tokio::spawn(engine::watch(engine, me.clone()));
            self.loops.push(watched.into());
        }
    }

    /// Writes a change down and carries it out.
    fn record(&mut self, record: Record) -> BTreeSet<RunId> {
        let store = &self.context.store;
        store.append([&record]);
        let assigned = matches!(record, Record::Assign(_));
        let touched = self.ledger.apply(record);
        if assigned && let Some(cluster) = &self.ledger.assignment.cluster {
            self.context.drivers.belong_to(cluster);
            let labels =
                crate::facts::merged_labels(&self.context.info, &self.ledger.assignment.labels);
            self.context.labels.set(labels);
        }
        if store.wants_renewal() {
            store.renew(self.ledger.clone());
        }
        touched
    }

    fn assignment_came(&mut self, request: Request) {
        if request.caller.user != caller::OWN {
            let denied = "only managers assign";
            return refuse(request, WireError::new(ErrorCode::Denied, denied));
        }
        if self.leaving.is_some() {
            return refuse(request, WireError::unavailable("the node is stopping"));
        }
        match request.decode::<Assign>() {
            Ok(assign) => self.assigned(assign, request),
            Err(error) => refuse(request, error),
        }
    }

    fn assigned(&mut self, assign: Assign, request: Request) {
        let verdict = self.ledger.assignment.judge(&assign);
        let epoch = self.ledger.assignment.epoch;
        let raised = assign.epoch > epoch && !matches!(verdict, Verdict::Foreign);
        let touched = if verdict == Verdict::Take || raised {
            self.record(Record::Assign(assign))
        } else {
            BTreeSet::new()
        };
        if verdict == Verdict::Resync {
            // Its whole set is on its way; if that is lost, hello gets it.
            self.link.greet(clock::since_boot(), RESYNC_PATIENCE);
        } else if raised && epoch != Epoch::default() {
            self.link
                .greet(clock::since_boot(), GREETING_SPREAD.mul_f64(rand::random()));
        }
        if verdict == Verdict::Foreign {
            tracing::warn!(node = %self.context.name, "refused an assignment of another cluster");
        }
        let reply = self.ledger.assignment.reply(verdict);
        self.act_when_kept(touched, Some((request, reply)));
    }

    /// Tells a leader that has lost it what this node was told to have.
    fn inventory_came(&self, request: Request) {
        if request.caller.user != caller::OWN {
            let denied = "only managers ask for the inventory";
            return refuse(request, WireError::new(ErrorCode::Denied, denied));
        }
        match request.decode::<InventoryQuery>() {
            Ok(query) => {
                let inventory = self.ledger.described(query.after);
                tokio::spawn(async move { request.reply(&inventory).await });
            }
            Err(error) => refuse(request, error),
        }
    }

    /// Carries an assignment out, and answers, once it is on disk.
    fn act_when_kept(&self, touched: BTreeSet<RunId>, answer: Option<(Request, AssignReply)>) {
        let kept = self.context.store.kept();
        let me = self.me.clone();
        tokio::spawn(async move {
            if kept.await.is_ok() {
                // A node that is gone does not act.
                let _ = me.cast(NodeMessage::AssignmentKept { touched, answer });
            }
        });
    }

    fn act_on(&mut self, placements: impl IntoIterator<Item = RunId>) {
        let held = |placement| {
            let task = self.tasks.get(&placement)?;
            let ended = self
                .ledger
                .places
                .get(&placement)
                .is_none_or(Place::has_ended);
            Some(Held {
                assigned: &task.told,
                ended,
                unwanted: task.unwanted,
            })
        };
        let actions = diff(&self.ledger.assignment.placements, held, placements);
        for action in actions {
            match action {
                Action::Start(assigned) => self.start_task(assigned),
                Action::Change(assigned) => self.change_task(assigned),
                Action::StopUnknown(placement) => self.stop_unknown(placement),
                Action::Forget(placement) => self.forget_task(placement),
            }
        }
    }

    fn run_begins(&mut self, progress: Progress, told: RpcReplyPort<()>) {
        self.record(Record::Progress(progress));
        let kept = self.context.store.kept();
        tokio::spawn(async move {
            if kept.await.is_ok() {
                // A task that no longer waits was told to end.
                let _ = told.send(());
            }
        });
    }
}

fn refuse(request: Request, error: WireError) {
    tokio::spawn(request.refuse(error));
}
