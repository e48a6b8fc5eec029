//! Becoming the leader: the race for the `lead` entry, and what a rewound log is given back.

use std::cmp::Reverse;
use std::time::Duration;

use loom_bus::call::CallError;
use loom_bus::events::History;
use loom_bus::log::{AppendError, Floor, LogError, Replica, Writer};
use loom_bus::stream::StreamError;
use loom_schemas::ids::{Epoch, Name};
use loom_schemas::subject;
use loom_schemas::wire::{Inventory, InventoryQuery, ManagerView};

use crate::context::Context;
use crate::standby::Cause;
use crate::state::State;

/// How long other managers have to say how far they are.
const POLL: Duration = Duration::from_secs(1);

/// What a leader begins with.
#[derive(Debug)]
pub(crate) struct Elected {
    /// The state, the `lead` entry applied.
    pub(crate) replica: Replica<State>,
    /// Appends for this leader.
    pub(crate) writer: Writer,
    /// Why it leads.
    pub(crate) cause: Cause,
    /// Who led before, if that was another.
    pub(crate) former: Option<Name>,
}

impl Elected {
    /// Whom the lead was taken from, by somebody who did not hand it over, and why.
    pub(crate) fn deposed(&self) -> Option<(Name, &'static str)> {
        let by_force = matches!(self.cause, Cause::Gone | Cause::Hung);
        let former = self.former.clone().filter(|_| by_force)?;
        Some((former, self.cause.as_str()))
    }
}

/// How the race ended.
#[derive(Debug)]
pub(crate) enum Race {
    /// This manager leads.
    Won(Box<Elected>),
    /// Somebody else was faster.
    Lost,
}

/// What nodes know and the log does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The highest epoch that a node has obeyed.
    pub(crate) epoch: Epoch,
    /// The cluster it belongs to, where the log knows no cluster of that id.
    pub(crate) cluster: Option<String>,
}

/// Appends `lead` at the very end of the log, which is read from the stream itself: a consumer may
/// be deaf.
pub(crate) async fn run_for_leader(
    context: &Context,
    replica: &mut Replica<State>,
    cause: Cause,
) -> Result<Race, LogError> {
    let led_by = replica.position.epoch();
    context.log.catch_up(replica).await?;
    if replica.position.epoch() != led_by {
        return Ok(Race::Lost);
    }
    let name = context.name().clone();
    let position = replica.position.clone();
    let former = position.leader.clone().filter(|former| *former != name);
    match context.log.lead(&context.log_bus, name, position).await {
        Ok((writer, committed)) => {
            replica
                .apply_committed(&committed)
                .map_err(LogError::Apply)?;
            let elected = Elected {
                replica: replica.clone(),
                writer,
                cause,
                former,
            };
            Ok(Race::Won(Box::new(elected)))
        }
        Err(AppendError::Deposed { .. }) => Ok(Race::Lost),
        Err(error) => Err(error.into()),
    }
}

/// Gives a rewound log its state back: that of the most advanced living manager, else that of the
/// newest snapshot, else what its entries and the nodes still tell. True if this manager did.
pub(crate) async fn restore(
    context: &Context,
    replica: &mut Replica<State>,
) -> Result<bool, LogError> {
    if is_behind_another(context, replica, Tie::FirstByName).await {
        return Ok(false);
    }
    let mut state = replica.clone();
    if let Some(newest) = context.log.snapshots().newest::<State>().await?
        && newest.position.revision() > state.position.revision()
    {
        state = newest;
    }
    let mut floor = Floor::default();
    if state.position.sequence == 0 {
        state = context.log.salvage().await?;
        if let Some(told) = told_by_nodes(context).await {
            state.position.cluster = told.cluster.unwrap_or_default();
            floor.incarnation = told.epoch.incarnation;
        }
        if state.position.cluster.is_empty() {
            // Nobody knows whose log this is, until a node says so.
            return Ok(false);
        }
    }
    tracing::error!(
        revision = %state.position.revision(),
        "the log was rewound: it is given the state back that this manager has"
    );
    append_restored(context, replica, state, floor).await?;
    Ok(true)
}

/// Gives the log a later life, because nodes know more than it says and it shows nothing of that
/// itself. Nothing is done if somebody has done it, or another manager knows more.
pub(crate) async fn restore_for_nodes(
    context: &Context,
    replica: &mut Replica<State>,
    loss: &Loss,
) -> Result<(), LogError> {
    context.log.catch_up(replica).await?;
    let position = &replica.position;
    let is_done = match &loss.cluster {
        Some(cluster) => *cluster == position.cluster || !replica.state.is_blank(),
        None => loss.epoch <= position.epoch(),
    };
    if is_done || is_behind_another(context, replica, Tie::ThisOne).await {
        return Ok(());
    }
    let floor = Floor {
        incarnation: loss.epoch.incarnation,
        end: Some(position.sequence),
        ..Floor::default()
    };
    let mut state = replica.clone();
    if let Some(cluster) = &loss.cluster {
        state.position.cluster.clone_from(cluster);
    }
    append_restored(context, replica, state, floor).await
}

async fn append_restored(
    context: &Context,
    replica: &mut Replica<State>,
    state: Replica<State>,
    floor: Floor,
) -> Result<(), LogError> {
    // Numbers that the history has already would be taken for events it knows.
    let events = match History::new(&context.bulk).last_event().await {
        Ok(last) => last,
        Err(StreamError::NoStream(_)) => 0,
        Err(error) => return Err(error.into()),
    };
    let floor = Floor { events, ..floor };
    let name = context.name().clone();
    *replica = context
        .log
        .restore(&context.log_bus, name, state, floor)
        .await?;
    Ok(())
}

/// Who restores of two managers that know as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tie {
    /// Both know that it has to be done: the first by name does it.
    FirstByName,
    /// The other need not know.
    ThisOne,
}

/// Whether another manager knows more.
async fn is_behind_another(context: &Context, replica: &Replica<State>, tie: Tie) -> bool {
    let subject = subject::api("manager", "list");
    let asked = context
        .control
        .call_many::<_, ManagerView>(&subject, &(), POLL)
        .await;
    let mut others = match asked {
        Ok(others) => others,
        Err(CallError::NoResponders) => return false,
        Err(_) => return true,
    };
    let mine = (replica.position.revision(), Reverse(context.name().clone()));
    while let Some(other) = others.next().await {
        let Ok(other) = other else { continue };
        if other.name == *context.name() {
            continue;
        }
        let behind = match tie {
            Tie::FirstByName => (other.revision, Reverse(other.name)) > mine,
            Tie::ThisOne => other.revision > mine.0,
        };
        if behind {
            return true;
        }
    }
    false
}

/// The cluster and the highest epoch that any node knows of those whose heartbeats are heard.
async fn told_by_nodes(context: &Context) -> Option<Loss> {
    let mut nodes = Vec::new();
    context
        .hearts
        .for_each(|node, _, heartbeat| nodes.push((heartbeat.epoch, node.clone())));
    nodes.sort_by(|a, b| b.cmp(a));
    for (_, node) in nodes {
        let (subject, query) = (subject::inventory(&node), InventoryQuery::default());
        let said = context
            .control
            .call::<_, Inventory>(&subject, &query, POLL)
            .await;
        if let Ok(Inventory { cluster, epoch, .. }) = said
            && cluster.is_some()
        {
            return Some(Loss { epoch, cluster });
        }
    }
    None
}
