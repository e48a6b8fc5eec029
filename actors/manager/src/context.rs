//! What all actors of one manager share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use loom_bus::connection::Bus;
use loom_bus::log::{Log, Replica};
use loom_bus::queue::Queue;
use loom_schemas::ids::Name;
use loom_schemas::wire::{BusView, ManagerRole};
use ractor::{ActorCell, ActorRef};
use tokio::sync::watch;

use crate::options::ManagerOptions;
use crate::serve::door::Door;
use crate::serve::hearts::Hearts;
use crate::serve::ping::Pulse;
use crate::snapshotter::SnapshotterMessage;
use crate::state::State;
use crate::term::Loss;

/// The version of this program.
pub(crate) const AGENT: &str = env!("CARGO_PKG_VERSION");

/// What all actors of one manager share. Cheap to clone.
pub(crate) type Context = Arc<Shared>;

/// See [`Context`].
pub(crate) struct Shared {
    pub(crate) options: ManagerOptions,
    /// Requests, assignments, pings.
    pub(crate) control: Bus,
    /// Histories of events and logs: what may be slow.
    pub(crate) bulk: Bus,
    /// The log is read and snapshots are taken over this one.
    pub(crate) reader: Bus,
    /// The log writer's own.
    pub(crate) log_bus: Bus,
    pub(crate) log: Log,
    pub(crate) queue: Queue,
    pub(crate) hearts: Hearts,
    pub(crate) pulse: Pulse,
    pub(crate) parts: Parts,
    view: watch::Sender<View>,
    beginning: watch::Sender<Beginning>,
    /// What nodes said that the log does not know.
    loss: Mutex<Option<Loss>>,
    /// What was found out about the bus, and when.
    pub(crate) bus_facts: tokio::sync::Mutex<Option<(Instant, BusView)>>,
    /// Where reads come in.
    reads: Mutex<Option<Door>>,
}

/// Connections, and what is reached through them.
pub(crate) struct Streams {
    pub(crate) control: Bus,
    pub(crate) bulk: Bus,
    pub(crate) reader: Bus,
    pub(crate) log_bus: Bus,
    pub(crate) log: Log,
    pub(crate) queue: Queue,
}

/// What is durable, as reads see it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The state folded from the log, with its position.
    pub(crate) replica: Replica<State>,
    /// What this manager is.
    pub(crate) role: ManagerRole,
}

/// Whether this manager has come to stand on the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// It reads, or the bus is away.
    #[default]
    UnderWay,
    /// It has read the log once, or waits for somebody to give the log its state back.
    Done,
    /// It cannot read the log, however often it tries.
    Hopeless(Unreadable),
}

/// Why a manager can make nothing of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unreadable {
    /// Whether a newer build wrote it.
    pub newer: bool,
    what: String,
}

/// One of a manager's actors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Restarts what ends.
    Root,
    /// Applies the log while this manager stands by.
    Follower,
    /// Decides while this manager leads.
    Manager,
    /// Appends to the log.
    LogWriter,
    /// Plans.
    Scheduler,
    /// Publishes events.
    Relay,
    /// Reads the queue.
    QueueReader,
    /// Takes snapshots.
    Snapshotter,
    /// Answers reads.
    Reads,
}

/// The actors that live now, by what they are.
#[derive(Debug, Default)]
pub(crate) struct Parts(Mutex<BTreeMap<Part, ActorCell>>);

impl Parts {
    /// An actor came up; it takes the place of an earlier one.
    pub(crate) fn put(&self, part: Part, cell: ActorCell) {
        self.with(|parts| drop(parts.insert(part, cell)));
    }

    /// The actor that is this part now.
    pub(crate) fn get(&self, part: Part) -> Option<ActorCell> {
        self.with(|parts| parts.get(&part).cloned())
    }

    /// Which part an actor is.
    pub(crate) fn which(&self, cell: &ActorCell) -> Option<Part> {
        let id = cell.get_id();
        self.with(|parts| {
            let found = parts.iter().find(|(_, known)| known.get_id() == id);
            found.map(|(part, _)| *part)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<Part, ActorCell>) -> T) -> T {
        // Every change is one insert: a panic elsewhere leaves nothing half done.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Unreadable {
    pub(crate) fn new(newer: bool, what: String) -> Self {
        Self { newer, what }
    }
}

impl Shared {
    /// Why the bus cannot write now, as far as anybody here knows.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.options.trouble.as_ref()?.borrow().clone()
    }

    /// What all actors share, before the log was read.
    pub(crate) fn new(options: ManagerOptions, streams: Streams) -> Context {
        let Streams {
            control,
            bulk,
            reader,
            log_bus,
            log,
            queue,
        } = streams;
        let view = View {
            replica: Replica::default(),
            role: ManagerRole::Standby,
        };
        Arc::new(Self {
            pulse: Pulse::new(options.name.clone()),
            options,
            control,
            bulk,
            reader,
            log_bus,
            log,
            queue,
            hearts: Hearts::default(),
            parts: Parts::default(),
            view: watch::Sender::new(view),
            beginning: watch::Sender::default(),
            loss: Mutex::new(None),
            bus_facts: tokio::sync::Mutex::default(),
            reads: Mutex::new(None),
        })
    }

    /// The manager's name.
    pub(crate) fn name(&self) -> &Name {
        &self.options.name
    }

    /// Puts another door for reads in place of the one before, which is given back.
    pub(crate) fn set_reads(&self, door: Option<Door>) -> Option<Door> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *reads, door)
    }

    /// The log has no room: a snapshot is taken and the log purged at once.
    pub(crate) fn make_room(&self) {
        if let Some(snapshotter) = self.parts.get(Part::Snapshotter) {
            // One that is gone is started again, and asked again by the next commit.
            drop(ActorRef::from(snapshotter).cast(SnapshotterMessage::MakeRoom));
        }
    }

    /// Nodes know more than the log: the follower restores it.
    pub(crate) fn note_loss(&self, loss: Loss) {
        *self.loss.lock().unwrap_or_else(PoisonError::into_inner) = Some(loss);
    }

    /// What nodes know and the log does not, if that was seen; it is seen again if it is still so.
    pub(crate) fn take_loss(&self) -> Option<Loss> {
        let mut loss = self.loss.lock().unwrap_or_else(PoisonError::into_inner);
        loss.take()
    }

    /// What is durable now, as far as this manager has applied it.
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// What is durable as it grows.
    pub(crate) fn watch(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// More became durable.
    pub(crate) fn publish(&self, replica: Replica<State>) {
        self.view.send_modify(|view| view.replica = replica);
    }

    /// Whether this manager stands on the log, as that changes.
    pub(crate) fn beginning(&self) -> watch::Receiver<Beginning> {
        self.beginning.subscribe()
    }

    /// This manager knows the log, or knows that others have to mend it.
    pub(crate) fn begun(&self) {
        self.beginning.send_if_modified(|beginning| {
            std::mem::replace(beginning, Beginning::Done) != Beginning::Done
        });
    }

    /// The log cannot be read, which matters to whoever starts a manager: one that has read it once
    /// stays, for the bus may get another build's manager that leads.
    pub(crate) fn cannot_begin(&self, why: Unreadable) {
        self.beginning.send_if_modified(|beginning| {
            let under_way = *beginning == Beginning::UnderWay;
            if under_way {
                *beginning = Beginning::Hopeless(why);
            }
            under_way
        });
    }

    /// This manager is something else now.
    pub(crate) fn set_role(&self, role: ManagerRole) {
        self.pulse.set_leads(matches!(
            role,
            ManagerRole::Leader | ManagerRole::Recovering
        ));
        self.view.send_modify(|view| view.role = role);
    }
}
