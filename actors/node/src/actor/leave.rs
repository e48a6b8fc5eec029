//! Ending when asked to: tasks left running or ended first, what is to be reported reported, and
//! bye said.

use std::time::Duration;

use loom_schemas::subject;
use loom_schemas::wire::Bye;
use serde_json::Value;

use super::{NodeMessage, State};
use crate::clock;
use crate::options::TasksOnStop;

/// Why a task ends that a node ends which is stopped.
const STOPPED: &str = "the node was stopped";

/// How long after the longest grace a task may take to end.
const TASKS_WAIT: Duration = Duration::from_secs(5);

/// How long what is left to report may take, and bye.
const WORDS_WAIT: Duration = Duration::from_secs(2);

/// A node on its way out.
#[derive(Debug)]
pub(super) struct Leaving {
    tasks: TasksOnStop,
    /// Since boot; the tasks have ended by then, or are left.
    tasks_until: Duration,
    /// Since boot; what is not reported by then is left in the journal. None until tasks ended.
    words_until: Option<Duration>,
    saying_bye: bool,
}

impl State {
    /// Why every task shall end, if it shall.
    pub(super) fn stop_reason(&self) -> Option<String> {
        let leaving = self.leaving.as_ref()?;
        (leaving.tasks == TasksOnStop::Stop).then(|| STOPPED.to_owned())
    }

    pub(super) fn leave(&mut self, tasks: TasksOnStop) {
        if self
            .leaving
            .as_ref()
            .is_some_and(|leaving| leaving.tasks == tasks)
        {
            return;
        }
        let grace = self
            .tasks
            .values()
            .map(|task| task.told.task.stop.grace.into())
            .max();
        let grace: Duration = grace.unwrap_or_default();
        self.context.longest_grace.send_replace(grace);
        let tasks_until = match tasks {
            TasksOnStop::Keep => clock::since_boot(),
            TasksOnStop::Stop => clock::since_boot() + grace + TASKS_WAIT,
        };
        self.leaving = Some(Leaving {
            tasks,
            tasks_until,
            words_until: None,
            saying_bye: false,
        });
        if tasks == TasksOnStop::Stop {
            self.tell_all();
        }
        self.look_again_after(tasks_until.saturating_sub(clock::since_boot()));
    }

    /// Ends once everything is done that can be.
    pub(super) fn leave_if_done(&mut self) {
        let now = clock::since_boot();
        let running = |state: &Self| state.ledger.places.values().any(|place| !place.has_ended());
        let Some(leaving) = &self.leaving else { return };
        if leaving.saying_bye || (now < leaving.tasks_until && running(self)) {
            return;
        }
        let Some(words_until) = leaving.words_until else {
            self.look_again_after(WORDS_WAIT);
            if let Some(leaving) = &mut self.leaving {
                leaving.words_until = Some(now + WORDS_WAIT);
            }
            return self.leave_if_done();
        };
        let told = self.ledger.journal.is_empty() && !self.link.is_calling();
        if told || now >= words_until || !self.link.is_connected() {
            self.say_bye();
        }
    }

    pub(super) fn is_saying_bye(&self) -> bool {
        self.leaving
            .as_ref()
            .is_some_and(|leaving| leaving.saying_bye)
    }

    fn look_again_after(&self, pause: Duration) {
        self.me.send_after(pause, || NodeMessage::Wake);
    }

    fn say_bye(&mut self) {
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        leaving.saying_bye = true;
        let back_within = (leaving.tasks == TasksOnStop::Keep)
            .then_some(self.context.timings.back_within.as_secs());
        let bye = Bye { back_within };
        let subject = subject::ctl(&self.context.name, "bye");
        let (bus, me) = (self.context.bus.clone(), self.me.clone());
        let (kept, connected) = (self.context.store.kept(), self.link.is_connected());
        tokio::spawn(async move {
            if connected && let Err(error) = bus.call::<_, Value>(&subject, &bye, WORDS_WAIT).await
            {
                tracing::debug!(%error, "nobody heard bye");
            }
            // A disk that takes nothing must not keep the node from ending.
            let _ = tokio::time::timeout(WORDS_WAIT, kept).await;
            // A node that is gone has left.
            let _ = me.cast(NodeMessage::ByeSaid);
        });
    }
}
