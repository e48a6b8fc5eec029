//! The addresses of a task on the bus: subscribed while its run is alive.

use std::time::Duration;

use loom_bus::connection::Bus;
use loom_bus::serve::ServeLimits;
use loom_schemas::subject;
use ractor::ActorRef;

use super::background::Background;
use super::message::{COMMAND_MAX, TaskMessage};
use super::{Internal, State};

/// Commands taken in at one address and not yet answered.
const WAITING_MAX: usize = 256;
/// How long before an address is subscribed again after it failed.
const AGAIN: Duration = Duration::from_secs(1);

/// What is subscribed now; dropping an entry unsubscribes it.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    run: Option<(String, Background)>,
    slot: Option<(String, Background)>,
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

fn change(
    held: &mut Option<(String, Background)>,
    wanted: Option<String>,
    bus: &Bus,
    myself: &ActorRef<TaskMessage>,
) {
    if held.as_ref().map(|(subject, _)| subject) == wanted.as_ref() {
        return;
    }
    *held = wanted.map(|subject| {
        let serving = serve(bus.clone(), subject.clone(), myself.clone());
        (subject, Background::spawn(serving))
    });
}

async fn serve(bus: Bus, subject: String, actor: ActorRef<TaskMessage>) {
    let limits = ServeLimits {
        max_in_flight: WAITING_MAX,
        max_payload: COMMAND_MAX,
        ..ServeLimits::default()
    };
    loop {
        match bus.serve(&subject, None, limits).await {
            Ok(mut requests) => {
                while let Some(request) = requests.next().await {
                    let asked = Internal::asked(request);
                    if actor.cast(TaskMessage::Internal(asked)).is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(subject, "an address is not served: {error}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
