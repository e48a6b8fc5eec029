//! Becoming the leader: the race for the `lead` entry, and what a rewound log is given back.

use std::time::Duration;

use loom_bus::call::CallError;
use loom_bus::events::History;
use loom_bus::log::{AppendError, Floor, LogError, Replica, Writer};
use loom_bus::stream::StreamError;
use loom_schemas::subject;
use loom_schemas::wire::ManagerView;

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
}

/// How the race ended.
#[derive(Debug)]
pub(crate) enum Race {
    /// This manager leads.
    Won(Box<Elected>),
    /// Somebody else was faster.
    Lost,
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
    match context.log.lead(&context.log_bus, name, position).await {
        Ok((writer, committed)) => {
            replica
                .apply_committed(&committed)
                .map_err(LogError::Apply)?;
            let elected = Elected {
                replica: replica.clone(),
                writer,
                cause,
            };
            Ok(Race::Won(Box::new(elected)))
        }
        Err(AppendError::Deposed { .. }) => Ok(Race::Lost),
        Err(error) => Err(error.into()),
    }
}

/// Gives a rewound log its state back: that of the most advanced living manager, else that of the
/// newest snapshot. True if this manager did.
pub(crate) async fn restore(
    context: &Context,
    replica: &mut Replica<State>,
) -> Result<bool, LogError> {
    if is_behind_another(context, replica).await {
        return Ok(false);
    }
    let mut state = replica.clone();
    if let Some(newest) = context.log.snapshots().newest::<State>().await?
        && newest.position.revision() > state.position.revision()
    {
        state = newest;
    }
    if state.position.sequence == 0 {
        return Ok(false);
    }
    tracing::error!(
        revision = %state.position.revision(),
        "the log was rewound: it is given the state back that this manager has"
    );
    // Numbers that the history has already would be taken for events it knows.
    let events = match History::new(&context.bulk).last_event().await {
        Ok(last) => last,
        Err(StreamError::NoStream(_)) => 0,
        Err(error) => return Err(error.into()),
    };
    let floor = Floor {
        events,
        ..Floor::default()
    };
    let name = context.name().clone();
    *replica = context
        .log
        .restore(&context.log_bus, name, state, floor)
        .await?;
    Ok(true)
}

/// Whether another manager knows more; of two that know as much the first by name restores.
async fn is_behind_another(context: &Context, replica: &Replica<State>) -> bool {
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
    let mine = (
        replica.position.revision(),
        std::cmp::Reverse(context.name().clone()),
    );
    while let Some(other) = others.next().await {
        let Ok(other) = other else { continue };
        if other.name != *context.name() && (other.revision, std::cmp::Reverse(other.name)) > mine {
            return true;
        }
    }
    false
}
