//! Whether this manager lives and leads: answered from two atomics, off every busy path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loom_bus::call::CallError;
use loom_bus::connection::{Bus, BusError};
use loom_bus::serve::ServeLimits;
use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::Pong;

use super::door::{Door, Next, Rest};
use crate::standby::Pinged;

/// What pings are answered from, and what they tell. Cheap to clone; all clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    manager: Name,
    leads: AtomicBool,
    since: Instant,
    /// When somebody last asked, in milliseconds after `since`; 0 is never.
    asked: AtomicU64,
}

impl Pulse {
    /// The pulse of a manager that does not lead.
    pub(crate) fn new(manager: Name) -> Self {
        Self(Arc::new(Inner {
            manager,
            leads: AtomicBool::new(false),
            since: Instant::now(),
            asked: AtomicU64::new(0),
        }))
    }

    /// Says from now on whether this manager leads.
    pub(crate) fn set_leads(&self, leads: bool) {
        self.0.leads.store(leads, Ordering::Release);
    }

    /// Whether this manager leads.
    pub(crate) fn leads(&self) -> bool {
        self.0.leads.load(Ordering::Acquire)
    }

    /// Whether somebody stands by: only standbys ping, and they do when it is quiet.
    pub(crate) fn has_standby(&self, within: Duration) -> bool {
        let asked = self.0.asked.load(Ordering::Relaxed);
        let now = millis(self.0.since.elapsed());
        asked > 0 && now.saturating_sub(asked) <= millis(within)
    }

    /// Answers pings for as long as the door is kept.
    pub(crate) async fn answer(&self, bus: &Bus) -> Result<Door, BusError> {
        let pulse = self.clone();
        let limits = ServeLimits {
            max_in_flight: 64,
            max_payload: 1024,
            ..ServeLimits::default()
        };
        let subject = subject::manager_ping(&self.0.manager);
        Door::serve(bus, &subject, None, limits, Rest::Dropped, move |request| {
            let asked = millis(pulse.0.since.elapsed()).max(1);
            pulse.0.asked.store(asked, Ordering::Relaxed);
            let pong = Pong {
                manager: pulse.0.manager.clone(),
                leads: pulse.leads(),
            };
            tokio::spawn(async move { request.reply(&pong).await });
            Next::GoOn
        })
        .await
    }
}

/// Asks whether a manager lives and leads.
pub(crate) async fn ping(bus: &Bus, manager: &Name, timeout: Duration) -> Pinged {
    if !bus.is_connected() {
        return Pinged::NotAsked;
    }
    let subject = subject::manager_ping(manager);
    match bus.call::<_, Pong>(&subject, &(), timeout).await {
        Ok(pong) if pong.leads => Pinged::Leads,
        Ok(_) => Pinged::Follows,
        Err(CallError::NoResponders) => Pinged::NobodyThere,
        Err(CallError::Disconnected) => Pinged::NotAsked,
        // Any other answer is from somebody alive who could not say whether it leads.
        Err(_) => Pinged::Unanswered,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
