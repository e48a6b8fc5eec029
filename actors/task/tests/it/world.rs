//! A server, a node's stand-in that supervises task actors, and what it was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loom_bus::connection::{Bus, ConnectOptions, Login};
use loom_bus::server::{Embedded, EmbeddedOptions};
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::Order;
use loom_schemas::spec::{
    LogSpec, Operator, Resources, RestartOn, RestartSpec, Script, SimScript, StopSpec, TaskSpec,
};
use loom_schemas::units::{Bytes, MilliCores, Millis};
use loom_schemas::wire::{Assigned, CommandReply, CommandRow, RunReport, TaskCommand};
use loom_schemas::words::{Kind, RunState};
use loom_task::driver::Driver;
use loom_task::{
    LogDirs, NodeFacts, NodeLabels, NoticeSender, OpenGate, Progress, TaskArguments, TaskNotice,
    TaskRef, spawn,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// For what is asked again: a request that meets an address just being given up is not answered.
pub(crate) const SOON: Duration = Duration::from_millis(500);

/// Takes the place of the node's actor: it supervises, and lets its tasks end.
struct Supervisor;

impl Actor for Supervisor {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[derive(Default)]
struct Notices {
    all: Mutex<Vec<TaskNotice>>,
    came: Notify,
}

pub(crate) struct World {
    /// Ends with this.
    _server: Embedded,
    pub(crate) dir: TempDir,
    /// The node's connection.
    pub(crate) bus: Bus,
    /// A user's.
    pub(crate) client: Bus,
    node: ActorRef<()>,
    notices: Arc<Notices>,
}

pub(crate) async fn connect(server: &Embedded, login: Login, name: &str) -> Bus {
    let options = ConnectOptions {
        url: server.url().to_owned(),
        login,
        name: name.to_owned(),
        ..ConnectOptions::default()
    };
    Bus::connect(options).await.unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let mut options = EmbeddedOptions::new(dir.path().join("bus"));
        options.listen = "127.0.0.1:0".parse().unwrap();
        let server = Embedded::start(options).await.unwrap();
        let bus = connect(&server, server.orch_login(), "node-1").await;
        let client = connect(&server, server.user_login(), "client").await;
        let (node, _) = Actor::spawn(None, Supervisor, ()).await.unwrap();
        let notices = Arc::default();
        Self {
            _server: server,
            dir,
            bus,
            client,
            node,
            notices,
        }
    }

    pub(crate) fn arguments(&self, assigned: Assigned, driver: Arc<dyn Driver>) -> TaskArguments {
        let notices = Arc::clone(&self.notices);
        TaskArguments {
            assigned,
            adopt: None,
            node: NodeFacts {
                name: Name::new("node-1").unwrap(),
                address: "127.0.0.1".into(),
                labels: NodeLabels::default(),
                log_dirs: LogDirs::default(),
            },
            driver,
            bus: self.bus.clone(),
            bulk: self.bus.clone(),
            notices: NoticeSender::new(move |notice| {
                notices.all.lock().unwrap().push(notice);
                notices.came.notify_waiters();
            }),
            may_start: Arc::new(OpenGate),
        }
    }

    pub(crate) async fn task(&self, assigned: Assigned, driver: Arc<dyn Driver>) -> TaskRef {
        self.spawn(self.arguments(assigned, driver)).await
    }

    pub(crate) async fn spawn(&self, arguments: TaskArguments) -> TaskRef {
        spawn(arguments, self.node.get_cell()).await.unwrap()
    }

    /// What the node would have on its disk.
    pub(crate) fn progress(&self) -> Progress {
        let all = self.notices.all.lock().unwrap();
        let kept = |notice: &TaskNotice| match notice {
            TaskNotice::Report { progress, .. } => Some((**progress).clone()),
            TaskNotice::Forgotten { .. } => None,
        };
        all.iter().rev().find_map(kept).unwrap()
    }

    pub(crate) fn reports(&self) -> Vec<RunReport> {
        let all = self.notices.all.lock().unwrap();
        let report = |notice: &TaskNotice| match notice {
            TaskNotice::Report { report, .. } => Some((**report).clone()),
            TaskNotice::Forgotten { .. } => None,
        };
        all.iter().filter_map(report).collect()
    }

    pub(crate) fn forgotten(&self) -> bool {
        let all = self.notices.all.lock().unwrap();
        all.iter()
            .any(|notice| matches!(notice, TaskNotice::Forgotten { .. }))
    }

    /// Waits for a report that is as wanted.
    pub(crate) async fn report(&self, wanted: impl Fn(&RunReport) -> bool) -> RunReport {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let came = self.notices.came.notified();
            if let Some(report) = self.reports().into_iter().rfind(&wanted) {
                return report;
            }
            let late = tokio::time::timeout_at(deadline, came).await.is_err();
            assert!(!late, "no such report among {:#?}", self.reports());
        }
    }

    pub(crate) async fn state(&self, state: RunState) -> RunReport {
        let report = self.report(|report| report.state == state).await;
        // Users learn of it by the node's connection, behind what that has subscribed before.
        if self.bus.is_connected() {
            drop(self.bus.round_trip().await);
        }
        report
    }

    /// Asks the slot's address as the CLI does.
    pub(crate) async fn ask(&self, verb: &str, command: &TaskCommand) -> CommandRow {
        let subject = format!("orch.task.web.main.0.{verb}");
        let reply: CommandReply = self.client.call(&subject, command, PATIENCE).await.unwrap();
        assert_eq!(reply.rows.len(), 1);
        reply.rows.into_iter().next().unwrap()
    }

    pub(crate) async fn signal(&self, signal: &str) -> CommandRow {
        let command = TaskCommand {
            signal: Some(signal.into()),
            ..TaskCommand::default()
        };
        self.ask("signal", &command).await
    }
}

/// Waits for a condition, with a deadline.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A service `web/0` whose operator is a shell script.
pub(crate) fn bash(text: &str) -> Assigned {
    Assigned {
        placement: RunId(Uuid::now_v7()),
        slot: Slot::new(Name::new("web").unwrap(), Name::main(), 0),
        version: 7,
        kind: Kind::Service,
        task: TaskSpec {
            operator: Operator::Bash(Script {
                text: text.into(),
                file: None,
            }),
            image: None,
            network: loom_schemas::spec::Network::default(),
            command: Vec::new(),
            args: Vec::new(),
            replicas: 1,
            per_index: BTreeMap::new(),
            gang: false,
            env: BTreeMap::new(),
            params: BTreeMap::new(),
            vars: BTreeMap::new(),
            result: false,
            results: std::collections::BTreeSet::new(),
            workdir: None,
            user: None,
            resources: Resources {
                cpu: MilliCores(100),
                memory: Bytes::mib(128),
                pids: Some(512),
                ..Resources::default()
            },
            ports: BTreeMap::new(),
            constraints: Vec::new(),
            affinities: Vec::new(),
            spread: Vec::new(),
            tolerations: Vec::new(),
            restart: RestartSpec {
                on: RestartOn::Never,
                attempts: 1,
                delay: Millis(1),
                max_delay: Millis(5),
                window: None,
            },
            stop: StopSpec {
                signal: "SIGTERM".into(),
                grace: Millis::secs(10),
            },
            timeout: None,
            after: Vec::new(),
            health: None,
            logs: LogSpec {
                max_size: Bytes::mib(10),
                keep: 5,
                ship: true,
                to: None,
            },
            sim: None,
        },
        labels: BTreeMap::new(),
        ports: BTreeMap::new(),
        gpus: Vec::new(),
        results: BTreeMap::new(),
        holds_address: true,
        replicas: 1,
        order: Order::Run,
        restart: 0,
        spent: 0,
        resize: 0,
    }
}

/// The same for the `sim` driver.
pub(crate) fn sim(script: SimScript) -> Assigned {
    let mut assigned = bash("true");
    assigned.task.sim = Some(script);
    assigned
}

pub(crate) fn stopped(mut assigned: Assigned) -> Assigned {
    assigned.order = Order::Stop {
        reason: "stopped by alice".into(),
    };
    assigned
}
