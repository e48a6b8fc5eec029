//! The log, its snapshots, the relay of events and the queue, against real servers.

mod append;
mod cluster;
mod history;
mod queue;
mod relay;
mod rewound;
mod snapshots;
mod takeover;

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use imbl::OrdMap;
use jiff::Timestamp;
use loom_bus::connection::Bus;
use loom_bus::events::{KeepOptions, ensure_streams};
use loom_bus::log::{
    AppendError, Change, Commit, Committed, Fold, Followed, Log, LogError, LogOptions, Replica,
    Writer,
};
use loom_schemas::event::{About, Event};
use loom_schemas::ids::Name;

use crate::support::connect;

/// Records as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records(pub OrdMap<String, Bytes>);

impl Fold for Records {
    fn put(&mut self, key: &str, value: &[u8]) {
        self.0.insert(key.to_owned(), Bytes::copy_from_slice(value));
    }
    fn delete(&mut self, key: &str) {
        self.0.remove(key);
    }
    fn records(&self) -> Box<dyn Iterator<Item = (String, Bytes)> + '_> {
        Box::new(
            self.0
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        )
    }
}

/// One manager as far as the log goes: a replica, and a writer while it leads.
pub struct Manager {
    pub name: Name,
    pub bus: Bus,
    pub log: Log,
    pub replica: Replica<Records>,
    pub writer: Option<Writer>,
}

/// Options that do not make a test wait.
pub fn quick() -> LogOptions {
    LogOptions {
        max_bytes: 256 << 20,
        reserve: 1 << 20,
        snapshot_rate: 0,
        attempt: Duration::from_millis(500),
        ..LogOptions::default()
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// An event that tells of a key.
pub fn event(key: &str) -> Event {
    let job = name("web");
    let mut event = Event::new(Timestamp::now(), About::Job { job }, "accepted");
    event.request = Some(key.to_owned());
    event
}

/// A commit of one record with so many events.
pub fn put(key: &str, value: &str, events: usize) -> Commit {
    Commit {
        changes: vec![Change::put(key, value.to_owned())],
        events: vec![event(key); events],
        queue_cursor: None,
    }
}

impl Manager {
    /// Connects and opens the log; nothing is applied yet.
    pub async fn new(url: &str, called: &str, options: LogOptions) -> Self {
        let bus = connect(url).await;
        let keep = KeepOptions {
            replicas: options.replicas,
            events_bytes: 64 << 20,
            logs_bytes: 64 << 20,
            ..KeepOptions::default()
        };
        ensure_streams(&bus, &keep).await.unwrap();
        let log = Log::open(&bus, options).await.unwrap();
        Self {
            name: name(called),
            bus,
            log,
            replica: Replica::default(),
            writer: None,
        }
    }

    /// The same, caught up.
    pub async fn started(url: &str, called: &str, options: LogOptions) -> Self {
        let mut manager = Self::new(url, called, options).await;
        manager.catch_up().await.unwrap();
        manager
    }

    pub async fn catch_up(&mut self) -> Result<(), LogError> {
        self.log.catch_up(&mut self.replica).await
    }

    /// Catches up and takes the lead once.
    pub async fn try_lead(&mut self) -> Result<Committed, AppendError> {
        self.writer = None;
        self.catch_up().await.unwrap();
        let position = self.replica.position.clone();
        let (writer, committed) = self
            .log
            .lead(&self.bus, self.name.clone(), position)
            .await?;
        self.replica.apply_committed(&committed).unwrap();
        self.writer = Some(writer);
        Ok(committed)
    }

    /// Takes the lead however many others want it.
    pub async fn lead(&mut self) {
        while let Err(error) = self.try_lead().await {
            assert!(matches!(error, AppendError::Deposed { .. }), "{error}");
        }
    }

    pub fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().unwrap()
    }

    pub async fn append(&mut self, commit: Commit) -> Result<Committed, AppendError> {
        let committed = self.writer().append(commit).await?;
        self.replica.apply_committed(&committed).unwrap();
        Ok(committed)
    }

    /// Commits one record without an event.
    pub async fn put(&mut self, key: &str, value: &str) -> Result<Committed, AppendError> {
        self.append(put(key, value, 0)).await
    }

    pub fn value(&self, key: &str) -> Option<String> {
        let value = self.replica.state.0.get(key)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

/// Follows the log up to a sequence, catching up where the follower says so.
pub async fn follow_to(
    log: &Log,
    replica: &mut Replica<Records>,
    last: u64,
) -> Result<(), LogError> {
    let mut follower = log.follow("test", replica.position.sequence);
    while replica.position.sequence < last {
        match follower.next().await {
            Some(Followed::Entry { sequence, raw }) => log.apply(replica, sequence, &raw).await?,
            Some(Followed::Behind { .. } | Followed::Rewound { .. }) | None => {
                log.catch_up(replica).await?;
                follower = log.follow("test", replica.position.sequence);
            }
        }
    }
    Ok(())
}

/// Whether the longer runs are wanted; says so aloud if not.
pub fn long_runs(what: &str) -> bool {
    let wanted = std::env::var_os("LOOM_LONG").is_some();
    if !wanted {
        aloud(&format!("SKIPPED without LOOM_LONG=1: {what}"));
    }
    wanted
}

/// Says something past the test harness, which keeps what passing tests print.
pub fn aloud(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
