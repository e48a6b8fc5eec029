//! The relay: events of what was committed, into the history.

use loom_bus::events::{Relay, RelayOptions};
use loom_bus::log::{Committed, Position};
use loom_schemas::ids::Revision;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};

use crate::context::{Context, Part};

/// Publishes events.
pub(crate) struct EventRelay;

/// What the relay starts from: how far the log is, as the leader knows it.
pub(crate) struct EventRelayArguments {
    pub(crate) context: Context,
    pub(crate) position: Position,
}

/// What the relay is told.
pub(crate) enum EventRelayMessage {
    /// An entry is durable: its events are published.
    Committed(Committed),
    /// Up to where are the events safely in the history?
    Settled(RpcReplyPort<Revision>),
}

impl Actor for EventRelay {
    type Msg = EventRelayMessage;
    type State = Relay;
    type Arguments = EventRelayArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let EventRelayArguments { context, position } = arguments;
        context.parts.put(Part::Relay, myself.get_cell());
        let log = context.log.clone();
        let mut options = RelayOptions::for_replicas(log.options().replicas);
        if !options.settled_after.is_zero() {
            options.settled_after = context.options.timings.settled_after;
        }
        Ok(Relay::start(&context.bulk, log, &position, options))
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        relay: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            EventRelayMessage::Committed(committed) => relay.committed(&committed),
            // Whoever asked may have given up by now.
            EventRelayMessage::Settled(reply) => drop(reply.send(relay.settled())),
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
