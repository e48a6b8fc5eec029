//! The queue reader: submissions from the queue, in order, as fast as the manager takes them in.

use std::sync::Arc;

use jiff::Timestamp;
use loom_bus::caller;
use loom_bus::header::{CONTENT_TYPE, IF_VERSION, SET};
use loom_bus::log::QueueCursor;
use loom_bus::queue::{Queue, QueueMessage};
use loom_schemas::error::WireError;
use loom_schemas::event::{About, Event};
use loom_schemas::ids::Name;
use loom_schemas::record::CommandOutcome;
use loom_schemas::subject;
use loom_schemas::wire::SubmitOutcome;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::wish::{is_admin, read_job};
use super::{Leading, ManagerMessage};
use crate::context::{Context, Part};
use crate::decide::{Asker, Command, Submission, remember, repeated, submit};
use crate::state::Draft;
use crate::work::{Worker, carry_out};

/// Messages handed to the manager and not yet decided.
const AHEAD: usize = 64;

/// Reads the queue.
pub(crate) struct QueueReader;

/// What the queue reader starts from.
pub(crate) struct QueueReaderArguments {
    pub(crate) context: Context,
    pub(crate) manager: ActorRef<ManagerMessage>,
    /// The last message that was taken in.
    pub(crate) cursor: Option<QueueCursor>,
}

/// What the queue reader is told.
pub(crate) enum QueueReaderMessage {
    /// This and all before it is taken in for good: it can go.
    Purge(QueueCursor),
    /// A purge is done.
    Purged,
    /// The reading came to an end by itself.
    Ended,
}

/// A message of the queue, read as far as it can be without the state.
pub(crate) struct Queued {
    /// Who read it: what an earlier reader read is read again by the next.
    pub(crate) reader: ActorId,
    pub(crate) cursor: QueueCursor,
    pub(crate) id: String,
    pub(crate) user: String,
    /// The job it names, also when the rest of it cannot be read.
    pub(crate) name: Option<Name>,
    pub(crate) submission: Result<Box<Submission>, WireError>,
    /// Under which id it may be put again.
    pub(crate) command: Option<Command>,
    /// Makes room for the next one.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// Keeps the reading, and the purge under way.
pub(crate) struct QueueReaderState {
    queue: Queue,
    _reading: Worker,
    purging: Option<Worker>,
    next_purge: Option<QueueCursor>,
}

impl Actor for QueueReader {
    type Msg = QueueReaderMessage;
    type State = QueueReaderState;
    type Arguments = QueueReaderArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let QueueReaderArguments {
            context,
            manager,
            cursor,
        } = arguments;
        context.parts.put(Part::QueueReader, myself.get_cell());
        let queue = context.queue.clone();
        let reading = read_on(queue.clone(), myself.get_id(), manager, cursor);
        Ok(QueueReaderState {
            queue,
            _reading: carry_out(&myself, reading, |()| QueueReaderMessage::Ended),
            purging: None,
            next_purge: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            QueueReaderMessage::Purge(cursor) => state.next_purge = Some(cursor),
            QueueReaderMessage::Purged => state.purging = None,
            QueueReaderMessage::Ended => return Err("the queue is read no more".into()),
        }
        if state.purging.is_none()
            && let Some(cursor) = state.next_purge.take()
        {
            let queue = state.queue.clone();
            let purge = async move {
                if let Err(error) = queue.purge(cursor).await {
                    // The next message taken in purges this one as well.
                    tracing::debug!(%error, "the queue was not purged");
                }
            };
            state.purging = Some(carry_out(&myself, purge, |()| QueueReaderMessage::Purged));
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

async fn read_on(
    queue: Queue,
    reader_id: ActorId,
    manager: ActorRef<ManagerMessage>,
    cursor: Option<QueueCursor>,
) {
    let mut reader = queue.read(cursor);
    let room = Arc::new(Semaphore::new(AHEAD));
    while let Some(message) = reader.next().await {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let queued = Box::new(Queued::of(reader_id, &message, place));
        if manager.cast(ManagerMessage::Queued(queued)).is_err() {
            return;
        }
    }
}

impl Queued {
    fn of(reader: ActorId, message: &QueueMessage, place: OwnedSemaphorePermit) -> Self {
        let payload = &message.payload;
        let content_type = message.header(CONTENT_TYPE);
        // JetStream keeps no word of the server about who published: nobody's rights, then.
        let user = caller::of_queued().user;
        let if_version = message.header(IF_VERSION);
        let submission = read_job(content_type, payload, if_version, message.header(SET));
        let (submission, command) = match command_of(&user, message) {
            Ok(command) => (submission, command),
            Err(error) => (Err(error), None),
        };
        let name = match &submission {
            Ok(submission) => Some(submission.spec.name.clone()),
            Err(_) => name_in(payload),
        };
        Self {
            reader,
            cursor: message.cursor,
            id: message.id(),
            user,
            name,
            submission: submission.map(Box::new),
            command,
            _place: place,
        }
    }
}

/// The command that a message is, if it has an id for it: among all that comes by the queue.
fn command_of(user: &str, message: &QueueMessage) -> Result<Option<Command>, WireError> {
    let Some(id) = message.command_id() else {
        return Ok(None);
    };
    let if_version = message.header(IF_VERSION).unwrap_or_default();
    let mut asked = vec![
        subject::QUEUE.as_bytes(),
        if_version.as_bytes(),
        &message.payload,
    ];
    asked.extend(message.header(SET).map(str::as_bytes));
    Command::new(user, id, &asked).map(Some)
}

impl Leading {
    /// Decides about a message of the queue; what comes of it is an event with the message's id,
    /// and the commit moves the cursor.
    pub(super) fn queued(&mut self, queued: Queued) {
        if self.queue_paused || queued.reader != self.queue_reader.get_id() {
            return;
        }
        if self.is_full() || self.is_recovering() {
            return self.pause_queue();
        }
        let (cursor, id) = (queued.cursor, queued.id.clone());
        let draft = take_in(Draft::new(self.head.clone()), queued);
        if !self.gather(draft, Vec::new(), Some(cursor)) {
            // No commit can hold it, whoever leads: pass on, and say so.
            let mut draft = Draft::new(self.head.clone());
            let reason = "the job is larger than one commit can be";
            draft.event(rejected(None, cursor, id, reason));
            self.gather(draft, Vec::new(), Some(cursor));
        }
        self.queue_cursor = Some(cursor);
    }
}

/// What a message of the queue comes to, as edits of a draft.
fn take_in(draft: Draft, queued: Queued) -> Draft {
    let now = Timestamp::now();
    let before = draft.state().clone();
    let mut draft = draft;
    let asker = Asker {
        user: &queued.user,
        admin: is_admin(&queued.user),
        request: Some(&queued.id),
    };
    let outcome = done(
        &mut draft,
        queued.submission,
        queued.command.as_ref(),
        asker,
        now,
    );
    let mut event = match outcome {
        Ok(Done::New) => return draft,
        Ok(Done::Nothing(job, version, why)) => {
            let mut event = Event::new(now, About::Job { job }, "accepted");
            event.version = Some(version);
            event.reason = Some(why.to_owned());
            event.request = Some(queued.id);
            event
        }
        Err(error) => {
            draft = Draft::new(before);
            rejected(queued.name, queued.cursor, queued.id, &error.message)
        }
    };
    event.by = Some(queued.user);
    draft.event(event);
    draft
}

/// What a message of the queue comes to.
enum Done {
    /// A new job or version: its own event tells.
    New,
    /// The job is at this version, and why nothing was to be done.
    Nothing(Name, u32, &'static str),
}

/// Carries a message out, unless it was put before under the same command id.
fn done(
    draft: &mut Draft,
    submission: Result<Box<Submission>, WireError>,
    command: Option<&Command>,
    asker: Asker<'_>,
    now: Timestamp,
) -> Result<Done, WireError> {
    if let Some(command) = command
        && let Some(CommandOutcome::Submitted { job, version, .. }) =
            repeated(draft.state(), command)?
    {
        let why = "it was put before under this command id, and is not done again";
        return Ok(Done::Nothing(job, version, why));
    }
    let accepted = submit(draft, *submission?, asker, now)?;
    if let Some(command) = command {
        let outcome = CommandOutcome::Submitted {
            job: accepted.job.clone(),
            version: accepted.version,
            outcome: accepted.outcome,
            rolled_back_to: None,
        };
        remember(draft, command, &outcome, now);
    }
    Ok(match accepted.outcome {
        SubmitOutcome::Unchanged => {
            let why = "the job is as submitted already";
            Done::Nothing(accepted.job, accepted.version, why)
        }
        _ => Done::New,
    })
}

/// Told under the job's name where there is a usable one.
fn rejected(name: Option<Name>, cursor: QueueCursor, id: String, reason: &str) -> Event {
    let sequence = cursor.sequence;
    let about = name.map_or(About::Queue { sequence }, |job| About::Job { job });
    let mut event = Event::new(Timestamp::now(), about, "rejected");
    event.reason = Some(reason.to_owned());
    event.request = Some(id);
    event
}

impl Leading {
    /// Reads no further: what was read and not committed stays in the queue.
    pub(super) fn pause_queue(&mut self) {
        self.queue_paused = true;
        self.queue_cursor = self.durable.position.queue_cursor;
        self.queue_reader.stop(None);
    }

    /// Whether the queue can be read again after a pause.
    pub(super) fn may_read_queue(&mut self) -> bool {
        let settled = self.gatherer.is_empty() && self.appending.is_none();
        self.queue_paused && settled && !self.is_full() && !self.is_recovering()
    }
}

/// The name in a job file that cannot be read as a whole.
fn name_in(payload: &[u8]) -> Option<Name> {
    let map: Option<serde_json::Value> = serde_json::from_slice(payload)
        .ok()
        .or_else(|| loom_bus::codec::decode_msgpack(payload).ok());
    if let Some(map) = map {
        return Name::new(map.get("name")?.as_str()?).ok();
    }
    let text = std::str::from_utf8(payload).ok()?;
    let value = text.lines().find_map(|line| {
        let rest = line.strip_prefix("name")?.trim_start();
        rest.strip_prefix([':', '='])
    })?;
    let value = value.split('#').next()?.trim().trim_matches(['"', '\'']);
    Name::new(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_cannot_be_read_may_still_have_a_name() {
        let name = |text: &str| name_in(text.as_bytes()).map(|name| name.to_string());
        assert_eq!(name("name: web\nreplicas: many\n").as_deref(), Some("web"));
        assert_eq!(
            name("name = \"web\" # the site\nx = 1").as_deref(),
            Some("web")
        );
        assert_eq!(
            name(r#"{"name": "web", "replicas": "many"}"#).as_deref(),
            Some("web")
        );
        assert_eq!(name("name: Not A Name"), None);
        assert_eq!(name("{"), None);
        assert_eq!(name_in(&[0xff, 0xfe, 0x00]), None);
    }
}
