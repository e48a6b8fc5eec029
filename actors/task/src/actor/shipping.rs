//! Output on its way to the bus: from the run's files to `orch.logs.>`, on the bulk connection.
//!
//! A run's shipping is a task of its own that the run never waits for. With the bus away it waits
//! and then catches up from the files, as far back as they go; what rotation has outrun is said in
//! a line of its own. A second after it was sent, output is confirmed by a round trip on the same
//! connection, and the place up to which it is confirmed is written to the run's directory. After a
//! reconnect or an agent's restart shipping goes on from there: lines may come twice, and their
//! offsets tell.

mod block;
mod cursor;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use loom_bus::connection::{Bus, ConnectionState};
use loom_bus::logs::end_headers;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::subject;
use ractor::ActorRef;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::background::{Background, caught};
use super::message::TaskMessage;
use super::{Internal, Returned, State};
use crate::driver::Adopted;
use crate::output::{OutputReader, Stream};
use block::Blocks;
use cursor::Cursor;

/// How long a placement that is forgotten, or a run whose files are to go, waits for its output.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Lines gather for so long before they are sent.
const GATHER: Duration = Duration::from_millis(20);
/// How often what was sent is confirmed.
const CONFIRM: Duration = Duration::from_secs(1);
/// How long before something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The output of one run on its way.
#[derive(Debug)]
pub(super) struct Shipping {
    background: Background,
    done: watch::Receiver<bool>,
}

impl Shipping {
    pub(super) fn is_done(&self) -> bool {
        *self.done.borrow() || self.done.has_changed().is_err()
    }

    /// Waits until all of an ended run's output is shipped, but not for ever.
    pub(super) async fn finish(mut self) {
        if timeout(PATIENCE, self.background.ended()).await.is_err() {
            tracing::warn!("output was given up before it was shipped: the bus takes nothing");
        }
    }
}

impl State {
    /// Ships the output of the run that runs.
    pub(super) fn ship_running(&mut self, myself: &ActorRef<TaskMessage>) {
        let started = self.machine.started();
        if let Some(directory) = started.and_then(|started| started.directory.clone()) {
            self.ship(self.machine.run(), directory, myself);
        }
    }

    pub(super) fn ship(&mut self, run: RunId, directory: PathBuf, myself: &ActorRef<TaskMessage>) {
        if !self.assigned.task.logs.ship || self.shipping.contains_key(&run) {
            return;
        }
        let ship = Ship {
            run,
            slot: self.assigned.slot.clone(),
            node: self.node.name.clone(),
            directory,
            bulk: self.bulk.clone(),
        };
        let (ended, done) = watch::channel(false);
        let myself = myself.clone();
        let background = Background::spawn(async move {
            if let Err(panic) = caught(ship.all()).await {
                tracing::error!(%run, "output is no longer shipped: {panic}");
            }
            let _ = ended.send(true);
            let _ = myself.cast(TaskMessage::Internal(Internal(Returned::Shipped)));
        });
        self.shipping.insert(run, Shipping { background, done });
    }

    /// Asks the driver for the directories of ended runs, whose last lines may not be shipped.
    pub(super) fn ship_what_is_kept(&self, myself: &ActorRef<TaskMessage>) {
        if !self.assigned.task.logs.ship {
            return;
        }
        for run in self.machine.kept().to_vec() {
            let driver = self.driver.clone();
            let myself = myself.clone();
            tokio::spawn(async move {
                let Ok(Ok(Adopted::Ended { started, .. })) = caught(driver.adopt(run)).await else {
                    return;
                };
                if let Some(directory) = started.and_then(|started| started.directory) {
                    let found = Internal(Returned::Unshipped(run, directory));
                    let _ = myself.cast(TaskMessage::Internal(found));
                }
            });
        }
    }
}

struct Ship {
    run: RunId,
    slot: Slot,
    node: Name,
    directory: PathBuf,
    bulk: Bus,
}

/// Why shipping begins again at the last confirmed place.
enum Again {
    /// The connection was lost meanwhile, and with it perhaps what was under way.
    Disconnected,
    /// The output cannot be read now.
    Unreadable(std::io::Error),
}

impl Ship {
    async fn all(self) {
        let mut cursor = Cursor::load(&self.directory).await;
        while !cursor.done {
            let mut state = self.bulk.state();
            let decided = |state: &ConnectionState| *state != ConnectionState::Disconnected;
            let up = state.wait_for(decided).await.map(|state| *state);
            if !matches!(up, Ok(ConnectionState::Connected)) {
                return;
            }
            match self.from(&mut cursor, state).await {
                Ok(()) => cursor.done = true,
                Err(Again::Disconnected) => tokio::time::sleep(GATHER).await,
                Err(Again::Unreadable(error)) => {
                    if !self.directory.is_dir() {
                        return;
                    }
                    tracing::warn!(run = %self.run, "output is not shipped yet: {error}");
                    tokio::time::sleep(AGAIN).await;
                }
            }
            cursor.save(&self.directory).await;
        }
    }

    /// Ships from the last confirmed place; done when the run has ended and all is confirmed.
    async fn from(
        &self,
        confirmed: &mut Cursor,
        state: watch::Receiver<ConnectionState>,
    ) -> Result<(), Again> {
        let mut reader =
            OutputReader::open(&self.directory, confirmed.file).map_err(Again::Unreadable)?;
        let mut blocks = Blocks::new(self.run, *confirmed);
        let mut send_at = None::<Instant>;
        let mut confirm_at = None::<Instant>;
        loop {
            let due = [send_at, confirm_at].into_iter().flatten().min();
            let batch = tokio::select! {
                batch = reader.next_batch() => Some(batch),
                () = sleep_or_never(due) => None,
            };
            let ended = matches!(batch, Some(None));
            if let Some(Some(lines)) = batch {
                blocks.take(lines);
                send_at.get_or_insert_with(|| Instant::now() + GATHER);
            }
            let now = Instant::now();
            if ended {
                blocks.end();
            }
            if ended || blocks.is_full() || send_at.is_some_and(|at| now >= at) {
                if self.send(&mut blocks, &state).await? {
                    confirm_at.get_or_insert(now + CONFIRM);
                }
                send_at = None;
            }
            if ended {
                self.send_ends(&blocks, &state).await?;
            }
            if ended || confirm_at.is_some_and(|at| now >= at) {
                self.confirm(&state).await?;
                *confirmed = blocks.sent();
                confirm_at = None;
                if ended {
                    return Ok(());
                }
                confirmed.save(&self.directory).await;
            }
        }
    }

    /// Publishes what has gathered; whether there was any.
    async fn send(
        &self,
        blocks: &mut Blocks,
        state: &watch::Receiver<ConnectionState>,
    ) -> Result<bool, Again> {
        let mut any = false;
        for stream in [Stream::Stdout, Stream::Stderr] {
            let subject = subject::logs(&self.slot, &self.node, stream.as_str());
            while let Some(block) = blocks.next(stream) {
                let Some((headers, payload)) = block.encode() else {
                    continue;
                };
                self.publish(&subject, payload, &headers, state).await?;
                any = true;
            }
        }
        Ok(any)
    }

    /// Says of both streams that they have ended.
    async fn send_ends(
        &self,
        blocks: &Blocks,
        state: &watch::Receiver<ConnectionState>,
    ) -> Result<(), Again> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let subject = subject::logs(&self.slot, &self.node, stream.as_str());
            let headers = end_headers(self.run, blocks.taken(stream));
            self.publish(&subject, Bytes::new(), &headers, state)
                .await?;
        }
        Ok(())
    }

    async fn publish(
        &self,
        subject: &str,
        payload: Bytes,
        headers: &[(&'static str, String)],
        state: &watch::Receiver<ConnectionState>,
    ) -> Result<(), Again> {
        if !is_unchanged(state) {
            return Err(Again::Disconnected);
        }
        let published = self.bulk.publish(subject, payload, headers).await;
        published.map_err(|error| {
            tracing::debug!(subject, "output waits: {error}");
            Again::Disconnected
        })
    }

    /// Makes sure that the server has all that was published before.
    async fn confirm(&self, state: &watch::Receiver<ConnectionState>) -> Result<(), Again> {
        let answered = self.bulk.round_trip().await.is_ok();
        if answered && is_unchanged(state) {
            Ok(())
        } else {
            Err(Again::Disconnected)
        }
    }
}

/// Whether the connection has been up since this receiver was made.
fn is_unchanged(state: &watch::Receiver<ConnectionState>) -> bool {
    matches!(state.has_changed(), Ok(false))
}

async fn sleep_or_never(until: Option<Instant>) {
    match until {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
