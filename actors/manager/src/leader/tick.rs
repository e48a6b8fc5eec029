//! What the time alone brings, and how a leadership ends.

use std::time::{Duration, Instant};

use bytes::Bytes;
use loom_schemas::subject;
use ractor::ActorProcessingErr;

use super::{Ending, Held, Leading, ManagerMessage, spawn_queue_reader};
use crate::serve::door::LINGER;

/// Somebody who pinged within this time stands by.
const STANDBY: Duration = Duration::from_secs(5);

/// How long what is under way has to finish when this manager hands over.
const HAND_OVER: Duration = Duration::from_secs(3);

impl Leading {
    /// The time goes on. What needs no decision is done at once.
    pub(super) async fn tick(&mut self) -> Result<(), ActorProcessingErr> {
        let now = Instant::now();
        self.answer_overdue();
        let tick = self.context.options.timings.tick;
        self.liveness
            .tick(self.context.control.is_connected(), tick, now);
        self.note_patience(now);
        let keep_alive = self.context.options.timings.keep_alive;
        // The next tick would be too late for what is not quite due at this one.
        let quiet = now.saturating_duration_since(self.last_append) + tick / 2 >= keep_alive;
        if self.appending.is_none() && quiet && self.context.pulse.has_standby(STANDBY) {
            self.append_empty();
        }
        if self.ending.is_none() && !self.held.iter().any(|held| matches!(held, Held::Tick)) {
            self.held.push_back(Held::Tick);
        }
        if self.ending.is_none() && self.may_read_queue() {
            let cursor = self.queue_cursor;
            self.queue_reader = spawn_queue_reader(&self.context, &self.myself, cursor).await?;
            self.queue_paused = false;
        }
        Ok(())
    }

    /// What the time brings that is decided.
    pub(super) fn look_around(&mut self) {
        self.look_for_nodes(Instant::now());
        self.look_at_recovery();
    }

    /// Finishes what is under way, then ends. Nothing new is taken in.
    pub(super) fn hand_over(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.end(Ending::HandedOver);
        let end = || ManagerMessage::End(Ending::HandedOver);
        self.myself.send_after(HAND_OVER, end);
    }

    /// Goes on with what was decided before this leadership ended.
    pub(super) fn wind_up(&mut self) {
        if self.ending != Some(Ending::HandedOver) {
            return;
        }
        self.append();
        if self.appending.is_none() {
            // Not before the doors have refused what was on its way: the next leader opens its own.
            let end = || ManagerMessage::End(Ending::HandedOver);
            self.myself.send_after(LINGER * 2, end);
        }
    }

    /// Tells the standbys that nobody leads from now on.
    pub(super) async fn say_bye(&mut self, ending: Ending) {
        super::effect::refuse_waiting(self.waiting.drain(), &super::leads_no_more());
        if ending != Ending::HandedOver {
            return;
        }
        let bye = subject::manager_bye(self.context.name());
        if let Err(error) = self.context.control.publish(&bye, Bytes::new(), &[]).await {
            tracing::debug!("no bye was said: {error}");
        }
        self.context.control.flush().await;
    }
}
