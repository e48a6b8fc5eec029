//! The snapshotter: takes snapshots when they are due and removes what they make needless.
//!
//! A standby takes them, so that the leader need not; the leader itself only when nobody stands
//! by, or when the standbys are late. Either way the leader commits them and purges.

use std::time::{Duration, Instant};

use bytes::Bytes;
use loom_bus::call::CallError;
use loom_bus::log::SnapshotMark;
use loom_bus::serve::{Request, ServeLimits};
use loom_schemas::error::WireError;
use loom_schemas::ids::{Name, Revision};
use loom_schemas::wire::ManagerRole;
use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::context::{Context, Part, View};
use crate::follower::chain;
use crate::leader::ManagerMessage;
use crate::serve::door::{Door, Next, Rest};
use crate::work::{Worker, carry_out};

/// How often it is looked whether a snapshot is due.
const LOOK: Duration = Duration::from_secs(10);

/// How long a leader with standbys leaves them the first go: so many looks.
const PATIENCE: u32 = 12;

/// Somebody who pinged within this time stands by.
const STANDBY: Duration = Duration::from_secs(5);

/// How long it is tried to make room before that is left to the next commit that finds none.
const ROOM: Duration = Duration::from_mins(4);

/// How long committing a snapshot may take.
const COMMIT: Duration = Duration::from_secs(30);

/// Takes snapshots.
pub(crate) struct Snapshotter;

/// What the snapshotter is told.
pub(crate) enum SnapshotterMessage {
    /// Look whether one is due.
    Look,
    /// A round is done.
    Done,
    /// The log has no room: do it now.
    MakeRoom,
}

/// Keeps the round under way.
pub(crate) struct SnapshotterState {
    context: Context,
    /// Looks in a row at which a snapshot was due and none was taken.
    due: u32,
    round: Option<Worker>,
    /// Whether that round makes room.
    making_room: bool,
    looks: ractor::concurrency::JoinHandle<()>,
    _door: Door,
}

impl Drop for SnapshotterState {
    fn drop(&mut self) {
        self.looks.abort();
    }
}

impl Actor for Snapshotter {
    type Msg = SnapshotterMessage;
    type State = SnapshotterState;
    type Arguments = Context;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        context: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        context.parts.put(Part::Snapshotter, myself.get_cell());
        let limits = ServeLimits {
            max_in_flight: 4,
            max_payload: 4096,
            ..ServeLimits::default()
        };
        let shared = context.clone();
        let take = move |request| {
            tokio::spawn(take_in(shared.clone(), request));
            Next::GoOn
        };
        let subject = subject_of(context.name());
        let door = Door::serve(
            &context.control,
            &subject,
            None,
            limits,
            Rest::Refused,
            take,
        )
        .await?;
        let looks = myself.send_interval(LOOK, || SnapshotterMessage::Look);
        Ok(SnapshotterState {
            context,
            due: 0,
            round: None,
            making_room: false,
            looks,
            _door: door,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SnapshotterMessage::Done => {
                state.round = None;
                state.making_room = false;
            }
            SnapshotterMessage::Look => state.look(&myself),
            SnapshotterMessage::MakeRoom => state.make_room(&myself),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        _: SupervisionEvent,
        _: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl SnapshotterState {
    fn make_room(&mut self, myself: &ActorRef<SnapshotterMessage>) {
        if self.making_room {
            return;
        }
        // A round under way is for another time.
        self.making_room = true;
        let work = make_room(self.context.clone());
        self.round = Some(carry_out(myself, work, |()| SnapshotterMessage::Done));
    }

    fn look(&mut self, myself: &ActorRef<SnapshotterMessage>) {
        if self.round.is_some() {
            return;
        }
        let view = self.context.view();
        if !self.context.log.snapshots().is_due(&view.replica.position) {
            self.due = 0;
            return;
        }
        self.due += 1;
        let leads = view.role == ManagerRole::Leader;
        let others = leads && self.context.pulse.has_standby(STANDBY);
        if others && self.due < PATIENCE {
            return;
        }
        self.due = 0;
        let round = round(self.context.clone(), view);
        self.round = Some(carry_out(myself, round, |()| SnapshotterMessage::Done));
    }
}

/// Takes two snapshots, because the log is kept from the older of the last two on, and purges it.
/// Events that are not safe in the history yet keep their entries until they are.
async fn make_room(context: Context) {
    tracing::warn!("the log has no room: a snapshot is taken and the log purged");
    for _ in 0..2 {
        round(context.clone(), context.view()).await;
    }
    let give_up = Instant::now() + ROOM;
    while Instant::now() < give_up {
        let position = context.view().replica.position;
        let older = position.snapshots.first().map_or(0, |mark| mark.sequence);
        let Some(settled) = settled(&context).await else {
            return;
        };
        clean(&context, settled).await;
        if settled.sequence >= older {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Up to where events are safely in the history; none if this manager does not lead.
async fn settled(context: &Context) -> Option<Revision> {
    let manager = context.parts.get(Part::Manager)?;
    let asked = ractor::rpc::call(&manager, ManagerMessage::AskSettled, Some(COMMIT));
    match asked.await {
        Ok(CallResult::Success(settled)) => Some(settled),
        _ => None,
    }
}

/// Takes a snapshot and has it committed.
async fn round(context: Context, view: View) {
    let Some(leader) = view.replica.position.leader.clone() else {
        return;
    };
    let mark = match context.log.snapshots().take(view.replica).await {
        Ok(mark) => mark,
        Err(error) => return tracing::warn!("no snapshot was taken: {}", chain(&error)),
    };
    let name = mark.name.clone();
    let committed = if leader == *context.name() {
        commit(&context, mark).await
    } else {
        hand_in(&context, &leader, &mark).await
    };
    match committed {
        Ok(()) => tracing::info!(name, "a snapshot was taken"),
        Err(error) => tracing::warn!(name, "a snapshot was not committed: {error}"),
    }
}

/// A standby's snapshot, handed in at the leader.
async fn take_in(context: Context, request: Request) {
    match request.decode::<SnapshotMark>() {
        Ok(mark) => match commit(&context, mark).await {
            Ok(()) => request.reply(&()).await,
            Err(error) => request.refuse(error).await,
        },
        Err(error) => request.refuse(error).await,
    }
}

async fn hand_in(context: &Context, leader: &Name, mark: &SnapshotMark) -> Result<(), WireError> {
    let subject = subject_of(leader);
    let payload =
        rmp_serde::to_vec_named(mark).map_err(|error| WireError::invalid(error.to_string()))?;
    let asked = context
        .bulk
        .call_bytes(&subject, Bytes::from(payload), &[], COMMIT)
        .await;
    asked.map(drop).map_err(|error: CallError| error.into())
}

/// Commits a snapshot as the leader, then removes what it makes needless.
async fn commit(context: &Context, mark: SnapshotMark) -> Result<(), WireError> {
    let gone = || WireError::unavailable("this manager leads no more");
    let manager = context.parts.get(Part::Manager).ok_or_else(gone)?;
    let asked = ractor::rpc::call(
        &manager,
        |reply| ManagerMessage::SnapshotTaken(mark, reply),
        Some(COMMIT),
    );
    match asked.await {
        Ok(CallResult::Success(true)) => {}
        Ok(CallResult::Success(false)) => {
            return Err(WireError::invalid("the snapshot is no newer than the last"));
        }
        _ => return Err(gone()),
    }
    let settled = settled(context).await.ok_or_else(gone)?;
    clean(context, settled).await;
    Ok(())
}

async fn clean(context: &Context, settled: Revision) {
    let position = context.view().replica.position;
    let snapshots = context.log.snapshots();
    if let Err(error) = snapshots.purge_log(&position, settled).await {
        tracing::warn!("the log was not purged: {}", chain(&error));
    }
    if let Err(error) = snapshots.delete_stale(&position).await {
        tracing::warn!("old snapshots were not deleted: {}", chain(&error));
    }
}

fn subject_of(manager: &Name) -> String {
    format!("orch.manager.{manager}.snapshot")
}
