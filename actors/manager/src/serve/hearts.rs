//! The nodes' last heartbeats, as this manager heard them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use imbl::OrdMap;
use jiff::Timestamp;
use loom_bus::codec::{self, Form};
use loom_bus::connection::{Bus, BusError, Message};
use loom_bus::header::CONTENT_TYPE;
use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::Heartbeat;

use super::door::{Door, Next};
use crate::scheduler::Smoothed;

/// The most bytes a heartbeat may have.
const LARGEST: usize = 64 * 1024;

/// The most nodes heartbeats are kept of; others are names somebody made up.
const MOST: usize = 100_000;

/// So many of the last heartbeats tell how the clocks differ.
const OFFSETS: usize = 5;

/// The last heartbeat of each node. Cheap to clone; all clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hearts(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    hearts: HashMap<Name, Heart>,
    /// The cores in use on each node, smoothed; the same nodes.
    cores: OrdMap<Name, Smoothed>,
}

/// What was heard of a node.
#[derive(Clone, Debug)]
struct Heart {
    at: Instant,
    last: Heartbeat,
    /// By how much this clock was ahead at each of the last heartbeats, in milliseconds.
    ahead: VecDeque<i64>,
}

impl Hearts {
    /// Hears heartbeats for as long as the door is kept.
    pub(crate) async fn listen(&self, bus: &Bus) -> Result<Door, BusError> {
        let hearts = self.clone();
        Door::hear(bus, subject::HEARTBEATS_ALL, move |message| {
            if let Err(reason) = hearts.take(&message) {
                tracing::debug!(subject = message.subject, "not a heartbeat: {reason}");
            }
            Next::GoOn
        })
        .await
    }

    /// The last heartbeat of a node.
    pub(crate) fn last(&self, node: &Name) -> Option<Heartbeat> {
        self.with(|heard| heard.hearts.get(node).map(|heart| heart.last.clone()))
    }

    /// The same, with the time it was heard.
    pub(crate) fn last_with_time(&self, node: &Name) -> Option<(Instant, Heartbeat)> {
        self.with(|heard| {
            heard
                .hearts
                .get(node)
                .map(|heart| (heart.at, heart.last.clone()))
        })
    }

    /// By how much this clock is ahead of a node's, in milliseconds. What a heartbeat needed on
    /// its way only ever adds to that, so the least of the last ones is the nearest.
    pub(crate) fn ahead_ms(&self, node: &Name) -> Option<i64> {
        self.with(|heard| heard.hearts.get(node)?.ahead.iter().copied().min())
    }

    /// The cores in use on each node, smoothed. Cheap.
    pub(crate) fn cores(&self) -> OrdMap<Name, Smoothed> {
        self.with(|heard| heard.cores.clone())
    }

    /// When each node was last heard, and what it said.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Name, Instant, &Heartbeat)) {
        self.with(|heard| {
            for (node, heart) in &heard.hearts {
                visit(node, heart.at, &heart.last);
            }
        });
    }

    fn take(&self, message: &Message) -> Result<(), String> {
        let node = message.subject.rsplit('.').next().unwrap_or_default();
        let node = Name::new(node).map_err(|error| error.to_string())?;
        if message.payload.len() > LARGEST {
            return Err(format!("{} bytes", message.payload.len()));
        }
        let form = Form::of(message.headers.get(CONTENT_TYPE), &message.payload);
        let heartbeat: Heartbeat =
            codec::decode(form, &message.payload).map_err(|error| error.to_string())?;
        let ahead = Timestamp::now().duration_since(heartbeat.at).as_millis();
        let ahead = i64::try_from(ahead).unwrap_or(0);
        self.with(|heard| heard.take(node, heartbeat, ahead, Instant::now()));
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Heard) -> T) -> T {
        // Every change is a few inserts: a panic elsewhere leaves nothing half done.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Heard {
    /// Keeps a heartbeat that came at `at`, by so many milliseconds behind this clock.
    fn take(&mut self, node: Name, last: Heartbeat, ahead: i64, at: Instant) {
        if self.hearts.len() >= MOST && !self.hearts.contains_key(&node) {
            return;
        }
        let used = last.usage.cpu_millis;
        let before = self.hearts.remove(&node);
        let known = before.as_ref().zip(self.cores.get(&node));
        let smoothed = known.map_or(Smoothed::first(used), |(before, known)| {
            known.with(used, at.saturating_duration_since(before.at))
        });
        self.cores.insert(node.clone(), smoothed);
        let mut heart = Heart {
            at,
            last,
            ahead: before.map(|heart| heart.ahead).unwrap_or_default(),
        };
        heart.ahead.push_back(ahead);
        if heart.ahead.len() > OFFSETS {
            heart.ahead.pop_front();
        }
        self.hearts.insert(node, heart);
    }
}
