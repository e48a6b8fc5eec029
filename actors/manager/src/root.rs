//! The root of a manager's actors: follows or leads, and restarts what ends.
//!
//! ```text
//! root
//! ├── reads          answers orch.api.<noun>.<verb>
//! ├── snapshotter    takes snapshots when they are due
//! ├── follower       while this manager stands by
//! └── manager        while it leads; see `leader`
//! ```
//!
//! Pings and heartbeats have doors of their own here, so that neither a busy leader nor one that
//! is being restarted keeps a ping waiting.

use std::time::{Duration, Instant};

use loom_schemas::wire::ManagerRole;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};

use crate::context::{Context, Part};
use crate::follower::{Follower, FollowerArguments, FollowerMessage};
use crate::leader::{Ending, Manager, ManagerArguments, ManagerMessage};
use crate::serve::door::Door;
use crate::serve::reads::{Reads, ReadsMessage};
use crate::snapshotter::{Snapshotter, SnapshotterMessage};
use crate::standby::{BackOff, Cause};
use crate::term::Elected;

/// The pause before an actor that ended is started again; it doubles while it goes on ending.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An actor that has lived for so long begins a new row of pauses.
const LONG: Duration = Duration::from_secs(30);

/// Starts and restarts all other actors.
pub(crate) struct Root;

/// What the root is told.
pub(crate) enum RootMessage {
    /// This manager leads.
    Elected(Box<Elected>),
    /// An actor is to be started again.
    Start(Part),
    /// Hand over and end.
    Stop(RpcReplyPort<()>),
}

/// What the root keeps.
pub(crate) struct RootState {
    context: Context,
    myself: ActorRef<RootMessage>,
    back_off: BackOff,
    pauses: Pauses,
    manager: Option<ActorRef<ManagerMessage>>,
    stopping: Option<RpcReplyPort<()>>,
    _doors: Vec<Door>,
}

/// How long to wait before the next start.
#[derive(Debug, Default)]
struct Pauses {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Pauses {
    fn next(&mut self, now: Instant) -> Duration {
        if self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= LONG)
        {
            self.in_a_row = 0;
        }
        self.last = Some(now);
        let pause = PAUSE.saturating_mul(1 << self.in_a_row.min(10));
        self.in_a_row = self.in_a_row.saturating_add(1);
        pause.min(LONGEST_PAUSE)
    }
}

impl Actor for Root {
    type Msg = RootMessage;
    type State = RootState;
    type Arguments = Context;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        context: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        context.parts.put(Part::Root, myself.get_cell());
        let doors = vec![
            context.pulse.answer(&context.control).await?,
            context.hearts.listen(&context.control).await?,
        ];
        let mut state = RootState {
            back_off: BackOff::new(&context.options.timings),
            context,
            myself,
            pauses: Pauses::default(),
            manager: None,
            stopping: None,
            _doors: doors,
        };
        for part in [Part::Reads, Part::Snapshotter, Part::Follower] {
            state.start(part).await?;
        }
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMessage::Elected(elected) => state.lead(*elected).await,
            RootMessage::Start(part) => {
                if let Err(error) = state.start(part).await {
                    tracing::error!(?part, "an actor does not start: {error}");
                    state.start_later(part);
                }
            }
            RootMessage::Stop(reply) => state.stop(reply),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                state.ended(&cell, reason.as_deref());
            }
            SupervisionEvent::ActorFailed(cell, error) => {
                state.ended(&cell, Some(&error.to_string()));
            }
            _ => {}
        }
        Ok(())
    }
}

impl RootState {
    async fn start(&mut self, part: Part) -> Result<(), ActorProcessingErr> {
        if self.stopping.is_some() {
            return Ok(());
        }
        let (context, cell) = (self.context.clone(), self.myself.get_cell());
        match part {
            Part::Reads => {
                let spawned: (ActorRef<ReadsMessage>, _) =
                    Actor::spawn_linked(None, Reads, context, cell).await?;
                drop(spawned);
            }
            Part::Snapshotter => {
                let spawned: (ActorRef<SnapshotterMessage>, _) =
                    Actor::spawn_linked(None, Snapshotter, context, cell).await?;
                drop(spawned);
            }
            // Who led and leads no more follows.
            _ => {
                let not_before = Instant::now() + self.back_off.left(Instant::now());
                let root = self.myself.clone();
                let arguments = FollowerArguments {
                    context,
                    root,
                    not_before,
                };
                let spawned: (ActorRef<FollowerMessage>, _) =
                    Actor::spawn_linked(None, Follower, arguments, cell).await?;
                drop(spawned);
            }
        }
        Ok(())
    }

    fn start_later(&mut self, part: Part) {
        let pause = self.pauses.next(Instant::now());
        self.myself
            .send_after(pause, move || RootMessage::Start(part));
    }

    async fn lead(&mut self, elected: Elected) {
        if self.stopping.is_some() {
            return;
        }
        if elected.cause == Cause::Hung {
            self.back_off.step(rand::random(), Instant::now());
        }
        tracing::info!(cause = elected.cause.as_str(), "elected");
        let arguments = ManagerArguments {
            context: self.context.clone(),
            elected,
        };
        match Actor::spawn_linked(None, Manager, arguments, self.myself.get_cell()).await {
            Ok((manager, _)) => self.manager = Some(manager),
            Err(error) => {
                tracing::error!("the manager does not start: {error}");
                self.start_later(Part::Follower);
            }
        }
    }

    /// An actor ended, by itself or by a panic.
    fn ended(&mut self, cell: &ActorCell, reason: Option<&str>) {
        let was_manager = self
            .manager
            .as_ref()
            .is_some_and(|manager| manager.get_id() == cell.get_id());
        if was_manager {
            self.manager = None;
            self.context.set_role(ManagerRole::Standby);
            return self.leadership_ended(Ending::of(reason));
        }
        let part = self.context.parts.which(cell);
        match part {
            // It has said that it is elected, or it was killed.
            Some(Part::Follower) if reason.is_none() => {}
            Some(part @ (Part::Follower | Part::Reads | Part::Snapshotter)) => {
                tracing::error!(?part, reason, "an actor ended and is started again");
                self.start_later(part);
            }
            _ => {}
        }
    }

    fn leadership_ended(&mut self, ending: Ending) {
        tracing::warn!(ending = ending.as_str(), "this manager leads no more");
        if let Some(reply) = self.stopping.take() {
            return self.end(reply);
        }
        if ending == Ending::Deposed {
            self.back_off.step(rand::random(), Instant::now());
        }
        self.start_later(Part::Follower);
    }

    fn stop(&mut self, reply: RpcReplyPort<()>) {
        match &self.manager {
            Some(manager) if manager.cast(ManagerMessage::HandOver).is_ok() => {
                self.stopping = Some(reply);
            }
            _ => self.end(reply),
        }
    }

    fn end(&self, reply: RpcReplyPort<()>) {
        drop(reply.send(()));
        self.myself.stop(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_ending_is_started_more_and_more_slowly() {
        let now = Instant::now();
        let mut pauses = Pauses::default();
        let first: Vec<u128> = (0..8).map(|_| pauses.next(now).as_millis()).collect();
        assert_eq!(first, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(pauses.next(now + LONG), PAUSE);
    }
}
