//! The nodes' last heartbeats, as this manager heard them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use loom_bus::codec::{self, Form};
use loom_bus::connection::{Bus, BusError, Message};
use loom_bus::header::CONTENT_TYPE;
use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::Heartbeat;

use super::door::{Door, Next};

/// The most bytes a heartbeat may have.
const LARGEST: usize = 64 * 1024;

/// The most nodes heartbeats are kept of; others are names somebody made up.
const MOST: usize = 100_000;

/// So many of the last heartbeats tell how the clocks differ.
const OFFSETS: usize = 5;

/// The last heartbeat of each node. Cheap to clone; all clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hearts(Arc<Mutex<HashMap<Name, Heart>>>);

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
        self.with(|hearts| hearts.get(node).map(|heart| heart.last.clone()))
    }

    /// The same, with the time it was heard.
    pub(crate) fn last_with_time(&self, node: &Name) -> Option<(Instant, Heartbeat)> {
        self.with(|hearts| hearts.get(node).map(|heart| (heart.at, heart.last.clone())))
    }

    /// By how much this clock is ahead of a node's, in milliseconds. What a heartbeat needed on
    /// its way only ever adds to that, so the least of the last ones is the nearest.
    pub(crate) fn ahead_ms(&self, node: &Name) -> Option<i64> {
        self.with(|hearts| hearts.get(node)?.ahead.iter().copied().min())
    }

    /// When each node was last heard, and what it said.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Name, Instant, &Heartbeat)) {
        self.with(|hearts| {
            for (node, heart) in hearts.iter() {
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
        self.with(|hearts| {
            if hearts.len() < MOST || hearts.contains_key(&node) {
                let before = hearts.remove(&node);
                let mut heart = Heart {
                    at: Instant::now(),
                    last: heartbeat,
                    ahead: before.map(|heart| heart.ahead).unwrap_or_default(),
                };
                heart.ahead.push_back(ahead);
                if heart.ahead.len() > OFFSETS {
                    heart.ahead.pop_front();
                }
                hearts.insert(node, heart);
            }
        });
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<Name, Heart>) -> T) -> T {
        // Every change is one insert: a panic elsewhere leaves nothing half done.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
