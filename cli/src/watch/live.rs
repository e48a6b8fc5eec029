//! A subscription that says when something may be missing from it.

use std::time::Duration;

use futures::future::select_all;
use loom_bus::{Bus, ConnectionState, Message, Messages};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::exit::{Code, Failure, chain};
use crate::output;

/// A bus that is away for longer is spoken of.
const SPOKEN_OF: Duration = Duration::from_secs(2);

/// The pause before the server is asked again whether it knows the subscriptions.
const AGAIN: Duration = Duration::from_millis(100);

/// What is heard.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message.
    Message(Message),
    /// The connection was away or could not keep up, and is back: what was published meanwhile
    /// has not been heard.
    Missed,
}

/// Subscriptions of one connection.
pub(crate) struct Live {
    bus: Bus,
    messages: Vec<Messages>,
    state: watch::Receiver<ConnectionState>,
    missed: bool,
}

impl Live {
    /// Subscribes these subjects.
    pub(crate) async fn open(bus: &Bus, subjects: &[String]) -> Result<Self, Failure> {
        let state = bus.state();
        let mut messages = Vec::new();
        for subject in subjects {
            let subscribed = bus.subscribe(subject).await;
            messages.push(subscribed.map_err(|e| Failure::new(Code::NoAnswer, chain(&e)))?);
        }
        // What is published from now on is heard.
        let heard = bus.round_trip().await;
        heard.map_err(|error| Failure::new(Code::NoAnswer, chain(&error)))?;
        Ok(Self {
            bus: bus.clone(),
            messages,
            state,
            missed: false,
        })
    }

    /// The next message, or word that some may be missing. Cancelling loses none.
    pub(crate) async fn next(&mut self) -> Result<Heard, Failure> {
        loop {
            if self.missed {
                self.back().await?;
                self.missed = false;
                return Ok(Heard::Missed);
            }
            if self.messages.iter_mut().any(Messages::take_lagged) {
                return Ok(Heard::Missed);
            }
            tokio::select! {
                biased;
                changed = self.state.changed() => {
                    changed.map_err(|_| gone())?;
                    self.missed = true;
                }
                message = next_of(&mut self.messages) => {
                    return message.map(Heard::Message).ok_or_else(gone);
                }
            }
        }
    }

    /// Waits until the connection is up and the server knows the subscriptions again.
    async fn back(&mut self) -> Result<(), Failure> {
        let mut spoken = false;
        loop {
            let up = |state: &ConnectionState| *state != ConnectionState::Disconnected;
            let decided = timeout(SPOKEN_OF, self.state.wait_for(up)).await;
            match decided.map(|state| state.map(|state| *state)) {
                Err(_) if !spoken => {
                    output::note("loomctl: the bus is away; waiting for it");
                    spoken = true;
                }
                Err(_) => {}
                Ok(Ok(ConnectionState::Connected)) => {
                    if self.bus.round_trip().await.is_ok() {
                        break;
                    }
                    sleep(AGAIN).await;
                }
                Ok(_) => return Err(gone()),
            }
        }
        if spoken {
            output::note("loomctl: the bus is back");
        }
        Ok(())
    }
}

async fn next_of(messages: &mut [Messages]) -> Option<Message> {
    match messages {
        [] => std::future::pending().await,
        [only] => only.next().await,
        many => {
            select_all(many.iter_mut().map(|m| Box::pin(m.next())))
                .await
                .0
        }
    }
}

fn gone() -> Failure {
    Failure::new(Code::NoAnswer, "the connection to the bus is over")
}
