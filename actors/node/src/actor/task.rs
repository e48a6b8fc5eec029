//! The tasks of a node: one actor a placement, started, told, restarted and forgotten.

use std::sync::Arc;
use std::time::Duration;

use loom_bus::serve::ServeLimits;
use loom_schemas::ids::RunId;
use loom_schemas::record::Order;
use loom_schemas::wire::Assigned;
use loom_task::{NodeFacts, NoticeSender, Progress, TaskArguments, TaskNotice, TaskRef};
use ractor::{ActorId, ActorStatus};
use tokio::time::Instant;

use super::{COMMAND_MAX, NodeMessage, State};
use crate::gate::Gate;
use crate::ledger::{Place, Record};
use crate::serve::{Loop, requests};

/// The pause before an actor that ended a second time in a row is started again; it doubles.
const RESPAWN: Duration = Duration::from_millis(100);

/// The longest such pause: a task that cannot be supervised is tried without end, but slowly.
const RESPAWN_MAX: Duration = Duration::from_secs(30);

/// An actor that lived so long ends for a new reason.
const RESPAWN_FORGOTTEN: Duration = Duration::from_mins(1);

/// A placement and its actor.
#[derive(Debug)]
pub(super) struct Task {
    /// As it was last told, but for the address and the order of a node that stops.
    pub(super) told: Arc<Assigned>,
    /// Whether it was told to end because no leader wants it.
    pub(super) unwanted: bool,
    /// Whether it was told to clean up.
    forgotten: bool,
    being: Being,
    /// Whether something changed while its actor was being started.
    changed: bool,
    crashes: u32,
    spawned_at: Instant,
}

/// A job of which the node has placements.
#[derive(Debug)]
pub(super) struct HostedJob {
    placements: usize,
    /// Its commands to many.
    _served: Loop,
}

#[derive(Debug)]
enum Being {
    Spawning(u64),
    Alive(TaskRef),
    Waiting,
}

impl Task {
    /// The actor, if it is there.
    pub(super) fn alive(&self) -> Option<&TaskRef> {
        match &self.being {
            Being::Alive(task) => Some(task),
            Being::Spawning(_) | Being::Waiting => None,
        }
    }

    /// How long after its actor ended another is started.
    fn respawn_after(&mut self) -> Duration {
        if self.spawned_at.elapsed() > RESPAWN_FORGOTTEN {
            self.crashes = 0;
        }
        let pause = match self.crashes {
            0 => Duration::ZERO,
            crashes => RESPAWN
                .saturating_mul(1 << (crashes - 1).min(16))
                .min(RESPAWN_MAX),
        };
        self.crashes = self.crashes.saturating_add(1);
        pause
    }
}

impl State {
    /// Starts an actor for every placement that an earlier agent, or an earlier actor of this node,
    /// had: each adopts what runs.
    pub(super) fn resume_tasks(&mut self) {
        let places: Vec<_> = self
            .ledger
            .places
            .values()
            .map(|place| Arc::clone(&place.assigned))
            .collect();
        if !places.is_empty() {
            tracing::info!(node = %self.context.name, placements = places.len(), "adopting");
        }
        for assigned in places {
            let placement = assigned.placement;
            self.host(assigned);
            self.spawn(placement, true);
            // One that ended and is no longer assigned is forgotten, another of those is ended.
            self.act_on([placement]);
        }
    }

    pub(super) fn start_task(&mut self, assigned: Arc<Assigned>) {
        let placement = assigned.placement;
        // A place that has reported was cleaned up by nobody: its actor is only missing.
        let known = self
            .ledger
            .places
            .get(&placement)
            .is_some_and(|at| at.progress.is_some());
        self.host(assigned);
        self.spawn(placement, known);
    }

    pub(super) fn change_task(&mut self, assigned: Arc<Assigned>) {
        let placement = assigned.placement;
        if let Some(task) = self.tasks.get_mut(&placement) {
            task.told = assigned;
            task.unwanted = false;
            self.tell(placement);
        }
    }

    pub(super) fn stop_unknown(&mut self, placement: RunId) {
        let Some(task) = self.tasks.get_mut(&placement) else {
            return;
        };
        tracing::info!(%placement, slot = %task.told.slot, "ending a run that no leader wants here");
        task.unwanted = true;
        self.tell(placement);
    }

    pub(super) fn forget_task(&mut self, placement: RunId) {
        match self.tasks.get_mut(&placement) {
            Some(task) => {
                task.forgotten = true;
                task.changed = true;
                if let Being::Alive(actor) = &task.being {
                    actor.forget();
                }
            }
            None => self.remove_task(placement),
        }
    }

    /// Tells a task what is wanted of it, now or once its actor is there.
    pub(super) fn tell(&mut self, placement: RunId) {
        let Some(mut told) = self.ledger.told(placement, self.withheld) else {
            return;
        };
        if let Some(reason) = self.stop_reason() {
            told.order = Order::Stop { reason };
        }
        let Some(task) = self.tasks.get_mut(&placement) else {
            return;
        };
        match &task.being {
            Being::Alive(actor) => actor.assign(told),
            Being::Spawning(_) | Being::Waiting => task.changed = true,
        }
    }

    pub(super) fn tell_all(&mut self) {
        let placements: Vec<_> = self.tasks.keys().copied().collect();
        for placement in placements {
            self.tell(placement);
        }
    }

    pub(super) fn task_said(&mut self, notice: TaskNotice) {
        match notice {
            TaskNotice::Report { report, progress } => {
                let placement = report.placement;
                self.record(Record::Report {
                    report: *report,
                    progress: *progress,
                });
                let ended = self
                    .ledger
                    .places
                    .get(&placement)
                    .is_some_and(Place::has_ended);
                if ended && !self.ledger.assignment.placements.contains_key(&placement) {
                    self.act_on([placement]);
                }
            }
            TaskNotice::Forgotten { placement } => self.remove_task(placement),
        }
    }

    fn remove_task(&mut self, placement: RunId) {
        self.record(Record::Forgotten(placement));
        let Some(task) = self.tasks.remove(&placement) else {
            return;
        };
        if let Some(actor) = task.alive() {
            self.actors.remove(&actor.actor().get_id());
        }
        let job = &task.told.slot.job;
        if let Some(hosted) = self.jobs.get_mut(job) {
            hosted.placements -= 1;
            if hosted.placements == 0 {
                self.jobs.remove(job);
            }
        }
        // It may have been asked for again while it was being cleaned up.
        if self.ledger.assignment.placements.contains_key(&placement) {
            self.act_on([placement]);
        }
    }

    /// Makes room for a placement, and serves its job's commands to many.
    fn host(&mut self, assigned: Arc<Assigned>) {
        if self.tasks.contains_key(&assigned.placement) {
            return;
        }
        let job = assigned.slot.job.clone();
        let hosted = self.jobs.entry(job).or_insert_with_key(|job| {
            let limits = ServeLimits {
                max_in_flight: self.context.limits.commands,
                max_payload: COMMAND_MAX,
                ..ServeLimits::default()
            };
            let subject = format!("orch.task.{job}.*.all.*");
            let (bus, me) = (self.context.bus.clone(), self.me.clone());
            let served = requests(bus, subject, limits, me, NodeMessage::CommandCame);
            HostedJob {
                placements: 0,
                _served: tokio::spawn(served).into(),
            }
        });
        hosted.placements += 1;
        self.tasks.insert(
            assigned.placement,
            Task {
                told: assigned,
                unwanted: false,
                forgotten: false,
                being: Being::Waiting,
                changed: false,
                crashes: 0,
                spawned_at: Instant::now(),
            },
        );
    }

    /// Starts an actor for a placement; off the handler, because it speaks to the bus.
    fn spawn(&mut self, placement: RunId, adopt: bool) {
        let Some(mut assigned) = self.ledger.told(placement, self.withheld) else {
            return;
        };
        if let Some(reason) = self.stop_reason() {
            assigned.order = Order::Stop { reason };
        }
        let progress = self
            .ledger
            .places
            .get(&placement)
            .and_then(|at| at.progress.clone());
        let adopt = adopt.then(|| progress.unwrap_or_else(|| Progress::first(placement)));
        let Some(task) = self.tasks.get_mut(&placement) else {
            return;
        };
        self.spawns += 1;
        let spawn = self.spawns;
        task.being = Being::Spawning(spawn);
        task.changed = false;
        task.spawned_at = Instant::now();
        let arguments = self.arguments(assigned, adopt);
        let me = self.me.clone();
        tokio::spawn(async move {
            let spawned = loom_task::spawn(arguments, me.get_cell()).await;
            let outcome = spawned.map_err(|error| error.to_string());
            // If the node's actor is gone, its children go with it.
            let _ = me.cast(NodeMessage::TaskSpawned {
                placement,
                spawn,
                outcome,
            });
        });
    }

    fn arguments(&self, assigned: Assigned, adopt: Option<Progress>) -> TaskArguments {
        let context = &self.context;
        let (driver, starts) = context.drivers.of(&assigned.task);
        let me = self.me.clone();
        TaskArguments {
            assigned,
            adopt,
            node: NodeFacts {
                name: context.name.clone(),
                address: context.info.address.clone(),
                labels: context.labels.clone(),
                log_dirs: context.log_dirs.clone(),
            },
            driver,
            bus: context.bus.clone(),
            bulk: context.bulk.clone(),
            notices: NoticeSender::new(move |notice| {
                // If the node's actor is gone, its children go with it.
                let _ = me.cast(NodeMessage::TaskSaid(notice));
            }),
            may_start: Arc::new(Gate {
                node: self.me.clone(),
                until: self.until.subscribe(),
                starts,
            }),
        }
    }

    pub(super) fn task_spawned(
        &mut self,
        placement: RunId,
        spawn: u64,
        outcome: Result<TaskRef, String>,
    ) {
        let Some(task) = self.tasks.get_mut(&placement) else {
            return;
        };
        if !matches!(task.being, Being::Spawning(awaited) if awaited == spawn) {
            return;
        }
        let actor = match outcome {
            Ok(actor) => actor,
            Err(error) => return self.crashed(placement, &error),
        };
        let cell = actor.actor().get_cell();
        let (changed, forgotten) = (task.changed, task.forgotten);
        if forgotten {
            actor.forget();
        }
        task.being = Being::Alive(actor);
        self.actors.insert(cell.get_id(), placement);
        if matches!(
            cell.get_status(),
            ActorStatus::Stopping | ActorStatus::Stopped
        ) {
            // It ended before its placement was known to be its own.
            return self.task_ended(cell.get_id(), "it ended at once");
        }
        if changed && !forgotten {
            self.tell(placement);
        }
    }

    pub(super) fn task_ended(&mut self, actor: ActorId, reason: &str) {
        if let Some(placement) = self.actors.remove(&actor) {
            self.crashed(placement, reason);
        }
    }

    /// An actor ended that was not yet done: its run goes on, and another actor adopts it.
    fn crashed(&mut self, placement: RunId, reason: &str) {
        let Some(task) = self.tasks.get_mut(&placement) else {
            return;
        };
        task.being = Being::Waiting;
        let pause = task.respawn_after();
        if !task.forgotten {
            let slot = &task.told.slot;
            tracing::warn!(%slot, reason, ?pause, "a task's actor ended, starting another");
        }
        if pause.is_zero() {
            // A cast and not a call: that everything is cleaned up may be in the mailbox already.
            let _ = self.me.cast(NodeMessage::RespawnDue(placement));
        } else {
            self.me
                .send_after(pause, move || NodeMessage::RespawnDue(placement));
        }
    }

    pub(super) fn respawn(&mut self, placement: RunId) {
        let waits = |task: &Task| matches!(task.being, Being::Waiting);
        if self.tasks.get(&placement).is_some_and(waits) {
            self.spawn(placement, true);
        }
    }
}
