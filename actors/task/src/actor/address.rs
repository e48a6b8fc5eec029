//! The addresses of a task on the bus: subscribed while its run is alive.

use std::future::Future;
use std::time::Duration;

use loom_bus::connection::Bus;
use loom_bus::serve::{Requests, ServeLimits};
use loom_schemas::subject;
use ractor::ActorRef;
use tokio::sync::{oneshot, watch};

use super::message::{COMMAND_MAX, TaskMessage};
use super::{Internal, State};

/// Commands taken in at one address and not yet answered.
const WAITING_MAX: usize = 256;
/// How long before an address is subscribed again after it failed.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a start is not reported for an address that is not subscribed: the bus may be away.
const SUBSCRIBING: Duration = Duration::from_secs(1);

/// How long the bus may take to hand out what it had when an address was given up.
const DRAIN: Duration = Duration::from_secs(5);

/// What is subscribed now; dropping an entry unsubscribes it, and what was under way to it is
/// still answered.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    run: Option<Address>,
    slot: Option<Address>,
}

#[derive(Debug)]
struct Address {
    subject: String,
    /// Whether it has been subscribed.
    subscribed: watch::Receiver<bool>,
    /// Dropped with the address, which is what its server waits for.
    _open: oneshot::Sender<()>,
}

impl State {
    /// Brings the subscriptions in line with the run and the assignment.
    pub(super) fn refresh_addresses(&mut self, myself: &ActorRef<TaskMessage>) {
        let alive = self.machine.is_alive();
        let run = alive.then(|| subject::run(self.machine.run(), "*"));
        let holds = alive && self.assigned.holds_address;
        let slot = holds.then(|| subject::task(&self.assigned.slot, "*"));
        change(&mut self.addresses.run, run, &self.bus, myself);
        change(&mut self.addresses.slot, slot, &self.bus, myself);
    }
}

impl Addresses {
    /// Resolves once what is held now is subscribed: whoever is told that a run has started, by
    /// the same connection, may command it at once.
    pub(super) fn subscribed(&self) -> impl Future<Output = ()> + use<> {
        let held = [&self.run, &self.slot].into_iter().flatten();
        let mut held: Vec<_> = held.map(|address| address.subscribed.clone()).collect();
        async move {
            let all = async {
                for subscribed in &mut held {
                    drop(subscribed.wait_for(|subscribed| *subscribed).await);
                }
            };
            drop(tokio::time::timeout(SUBSCRIBING, all).await);
        }
    }
}

fn change(
    held: &mut Option<Address>,
    wanted: Option<String>,
    bus: &Bus,
    myself: &ActorRef<TaskMessage>,
) {
    if held.as_ref().map(|address| &address.subject) == wanted.as_ref() {
        return;
    }
    *held = wanted.map(|subject| {
        let (open, closed) = oneshot::channel();
        let (subscribe, subscribed) = watch::channel(false);
        let asked = serve(
            bus.clone(),
            subject.clone(),
            myself.clone(),
            closed,
            subscribe,
        );
        tokio::spawn(asked);
        Address {
            subject,
            subscribed,
            _open: open,
        }
    });
}

async fn serve(
    bus: Bus,
    subject: String,
    actor: ActorRef<TaskMessage>,
    mut closed: oneshot::Receiver<()>,
    subscribed: watch::Sender<bool>,
) {
    let limits = ServeLimits {
        max_in_flight: WAITING_MAX,
        max_payload: COMMAND_MAX,
        ..ServeLimits::default()
    };
    loop {
        let mut requests = match bus.serve(&subject, None, limits).await {
            Ok(requests) => requests,
            Err(error) => {
                tracing::warn!(subject, "an address is not served: {error}");
                match tokio::time::timeout(AGAIN, &mut closed).await {
                    Ok(_) => return,
                    Err(_) => continue,
                }
            }
        };
        subscribed.send_replace(true);
        loop {
            let request = tokio::select! {
                biased;
                _ = &mut closed => {
                    requests.drain().await;
                    drop(tokio::time::timeout(DRAIN, hand_on(&mut requests, &actor, &bus)).await);
                    return;
                }
                request = requests.next() => request,
            };
            let Some(request) = request else { break };
            drop(actor.cast(TaskMessage::Internal(Internal::asked(request, &bus))));
        }
        if tokio::time::timeout(AGAIN, &mut closed).await.is_ok() {
            return;
        }
    }
}

/// Hands on what is left; what no actor takes any more is answered as it is dropped.
async fn hand_on(requests: &mut Requests, actor: &ActorRef<TaskMessage>, bus: &Bus) {
    while let Some(request) = requests.next().await {
        drop(actor.cast(TaskMessage::Internal(Internal::asked(request, bus))));
    }
}
