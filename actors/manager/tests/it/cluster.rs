//! A bus of its own for each test, managers and clients on it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loom_bus::call::{CallError, Reply};
use loom_bus::connection::{Bus, ConnectOptions, Login};
use loom_bus::header::{COMMAND_ID, MIN_REVISION};
use loom_bus::server::{Embedded, EmbeddedOptions};
use loom_manager::{ManagerHandle, ManagerOptions, Timings};
use loom_schemas::ids::{Name, Revision};
use loom_schemas::wire::{
    EventList, EventQuery, EventRow, JobAddress, JobGet, JobRequest, JobView, NodeList, Submitted,
};
use loom_schemas::words::JobStatus;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long one request may take.
pub(crate) const CALL: Duration = Duration::from_secs(6);

/// Polls a condition until it holds; panics with `what` after [`PATIENCE`].
pub(crate) async fn until<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// An impatient manager, so that tests need not wait.
pub(crate) fn options_at(
    manager: Name,
    bus: ConnectOptions,
    directory: std::path::PathBuf,
) -> ManagerOptions {
    let mut options = ManagerOptions::new(manager, bus, directory);
    options.timings = Timings {
        down_after: Duration::from_secs(2),
        lost_after: Duration::from_secs(3),
        tick: Duration::from_millis(200),
        keep_alive: Duration::from_millis(200),
        entries_stopped_after: Duration::from_secs(2),
        ping: Duration::from_millis(300),
        back_off: Duration::from_millis(100),
        max_back_off: Duration::from_secs(1),
        node_call: Duration::from_secs(1),
        settled_after: Duration::from_secs(1),
    };
    options
}

/// One bus.
pub(crate) struct Cluster {
    directory: TempDir,
    server: Embedded,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..EmbeddedOptions::new(directory.path().join("bus"))
        };
        let server = Embedded::start(options).await.unwrap();
        Self { directory, server }
    }

    /// A bus with one manager that leads, and a client.
    pub(crate) async fn with_leader() -> (Self, ManagerHandle, Client) {
        let cluster = Self::start().await;
        let manager = cluster.manager("m1").await;
        until("m1 leads", async || manager.leads()).await;
        let client = cluster.client().await;
        (cluster, manager, client)
    }

    fn connect_as(&self, login: Login) -> ConnectOptions {
        ConnectOptions {
            url: self.server.url().to_owned(),
            login,
            ..ConnectOptions::default()
        }
    }

    /// As one asks the server about itself.
    pub(crate) fn system(&self) -> ConnectOptions {
        self.connect_as(self.server.system_login())
    }

    /// As managers and nodes connect.
    pub(crate) async fn own_bus(&self) -> Bus {
        Bus::connect(self.connect_as(self.server.orch_login()))
            .await
            .unwrap()
    }

    /// As users connect.
    pub(crate) async fn client(&self) -> Client {
        Client::new(
            Bus::connect(self.connect_as(self.server.user_login()))
                .await
                .unwrap(),
        )
    }

    /// As whom nothing is exported to: everything the managers see.
    pub(crate) async fn own_client(&self) -> Client {
        Client::new(self.own_bus().await)
    }

    pub(crate) fn options(&self, manager: &str) -> ManagerOptions {
        let bus = self.connect_as(self.server.orch_login());
        options_at(name(manager), bus, self.directory.path().join(manager))
    }

    pub(crate) async fn manager(&self, manager: &str) -> ManagerHandle {
        loom_manager::start(self.options(manager)).await.unwrap()
    }
}

/// Somebody who asks, and reads their own writes.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) bus: Bus,
    written: Arc<Mutex<Revision>>,
}

impl Client {
    fn new(bus: Bus) -> Self {
        Self {
            bus,
            written: Arc::default(),
        }
    }

    pub(crate) async fn ask<Q: Serialize, R: DeserializeOwned>(
        &self,
        subject: &str,
        request: &Q,
    ) -> Result<R, CallError> {
        let written = self.written.lock().unwrap().to_string();
        let headers = [(MIN_REVISION, written)];
        self.bus.call_with(subject, request, CALL, &headers).await
    }

    pub(crate) async fn send(&self, subject: &str, payload: &[u8]) -> Result<Reply, CallError> {
        let payload = Bytes::copy_from_slice(payload);
        self.bus.call_bytes(subject, payload, &[], CALL).await
    }

    /// Asks under a command's id.
    pub(crate) async fn command<Q: Serialize, R: DeserializeOwned>(
        &self,
        id: &str,
        subject: &str,
        request: &Q,
    ) -> Result<R, CallError> {
        let headers = [(COMMAND_ID, id.to_owned())];
        self.bus.call_with(subject, request, CALL, &headers).await
    }

    pub(crate) async fn submit(&self, text: &str) -> Result<Submitted, CallError> {
        let reply = self.send("orch.job.submit", text.as_bytes()).await?;
        let submitted: Submitted = reply.decode()?;
        let mut written = self.written.lock().unwrap();
        *written = submitted.revision.max(*written);
        Ok(submitted)
    }

    pub(crate) async fn job(&self, job: &str) -> JobView {
        let asked = JobGet {
            job: name(job),
            after: None,
        };
        self.ask("orch.api.job.get", &asked).await.unwrap()
    }

    pub(crate) async fn status(&self, job: &str) -> JobStatus {
        self.job(job).await.summary.status
    }

    pub(crate) async fn nodes(&self) -> NodeList {
        self.ask("orch.api.node.list", &()).await.unwrap()
    }

    pub(crate) async fn events(&self, filter: &str) -> Vec<EventRow> {
        let query = EventQuery {
            filter: Some(filter.to_owned()),
            ..EventQuery::default()
        };
        let list: EventList = self.ask("orch.api.event.list", &query).await.unwrap();
        list.events
    }

    /// The last tokens of the events on subjects that match, oldest first.
    pub(crate) async fn told(&self, filter: &str) -> Vec<String> {
        self.events(filter)
            .await
            .into_iter()
            .map(|row| row.event.what)
            .collect()
    }
}

pub(crate) fn whole_job(job: &str) -> JobRequest {
    JobRequest {
        address: JobAddress {
            job: name(job),
            task: None,
            index: None,
        },
        reason: Some("a test".to_owned()),
    }
}
