//! A node that speaks the protocol and runs nothing: what it is told to run, runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use loom_bus::connection::Bus;
use loom_bus::serve::{Request, ServeLimits};
use loom_schemas::ids::{Epoch, Name, RunId};
use loom_schemas::record::{Capacity, Exit, Limits, Marks, NodeInfo, Order};
use loom_schemas::subject;
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::wire::{
    Assign, AssignReply, Assigned, Heartbeat, Hello, Inventory, NodeUsage, RunReport, StatusReport,
    StatusTaken, Welcome,
};
use loom_schemas::words::{DriverKind, Kind, RunState};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How often it sends a heartbeat.
const HEARTBEAT: Duration = Duration::from_millis(300);

/// What the node was told and has, for tests to look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) epoch: Epoch,
    pub(crate) generation: u64,
    pub(crate) cluster: Option<String>,
    pub(crate) assigned: BTreeMap<RunId, Assigned>,
    pub(crate) reports: BTreeMap<RunId, RunReport>,
    /// How many assignments and parts of some it took.
    pub(crate) parts: usize,
    /// Thousandths of a core that it says are in use.
    pub(crate) busy: u32,
}

#[derive(Debug)]
enum Do {
    Mute,
    End { placement: RunId, code: i32 },
}

/// A running test node; dropping it is its death.
pub(crate) struct TestNode {
    orders: mpsc::UnboundedSender<Do>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestNode {
    pub(crate) async fn start(bus: Bus, text: &str) -> Self {
        Self::start_with(bus, text, Seen::default()).await
    }

    /// One that was there before and remembers.
    pub(crate) async fn start_with(bus: Bus, text: &str, seen: Seen) -> Self {
        let (orders, taken) = mpsc::unbounded_channel();
        let seen = Arc::new(Mutex::new(seen));
        let name = Name::new(text).unwrap();
        let playing = Playing {
            bus,
            name: name.clone(),
            seen: Arc::clone(&seen),
            unsent: BTreeMap::new(),
            greeted: false,
        };
        let limits = ServeLimits {
            max_payload: 8 << 20,
            ..ServeLimits::default()
        };
        let requests = playing
            .bus
            .serve(&subject::assign(&name), None, limits)
            .await
            .unwrap();
        let inventories = playing
            .bus
            .serve(&subject::inventory(&name), None, ServeLimits::default())
            .await
            .unwrap();
        let task = tokio::spawn(playing.play(requests, inventories, taken));
        Self { orders, seen, task }
    }

    /// From now on it hangs: it has its connection and says nothing.
    pub(crate) fn mute(&self) {
        self.orders.send(Do::Mute).unwrap();
    }

    /// A run ends.
    pub(crate) fn end(&self, placement: RunId, code: i32) {
        self.orders.send(Do::End { placement, code }).unwrap();
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }

    /// Placements that run.
    pub(crate) fn running(&self) -> Vec<RunId> {
        self.look(|seen| {
            let running = seen
                .reports
                .values()
                .filter(|r| r.state == RunState::Running);
            running.map(|report| report.placement).collect()
        })
    }
}

struct Playing {
    bus: Bus,
    name: Name,
    seen: Arc<Mutex<Seen>>,
    /// Reports that no leader has taken yet.
    unsent: BTreeMap<RunId, RunReport>,
    greeted: bool,
}

impl Playing {
    async fn play(
        mut self,
        mut requests: loom_bus::serve::Requests,
        mut inventories: loom_bus::serve::Requests,
        mut orders: mpsc::UnboundedReceiver<Do>,
    ) {
        let mut beats = tokio::time::interval(HEARTBEAT);
        loop {
            self.catch_up().await;
            tokio::select! {
                request = requests.next() => {
                    let Some(request) = request else { return };
                    self.assigned(request).await;
                }
                request = inventories.next() => {
                    let Some(request) = request else { return };
                    let inventory = self.inventory();
                    request.reply(&inventory).await;
                }
                order = orders.recv() => match order {
                    Some(Do::End { placement, code }) => self.end(placement, code),
                    Some(Do::Mute) | None => {
                        // Keeps the subscription, so that requests are taken and not answered.
                        std::future::pending::<()>().await;
                    }
                },
                _ = beats.tick() => self.beat().await,
            }
        }
    }

    async fn catch_up(&mut self) {
        let wait = Duration::from_millis(500);
        if !self.greeted {
            let hello = self.hello();
            let subject = subject::ctl(&self.name, "hello");
            match self.bus.call::<_, Welcome>(&subject, &hello, wait).await {
                Ok(welcome) => {
                    self.greeted = true;
                    self.take(welcome.assignment);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        if self.greeted && !self.unsent.is_empty() {
            let cluster = self.seen.lock().unwrap().cluster.clone().unwrap();
            let report = StatusReport {
                cluster,
                runs: self.unsent.values().cloned().collect(),
            };
            let subject = subject::ctl(&self.name, "status");
            match self
                .bus
                .call::<_, StatusTaken>(&subject, &report, wait)
                .await
            {
                Ok(_) => self.unsent.clear(),
                Err(loom_bus::call::CallError::Refused(_)) => self.greeted = false,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn hello(&self) -> Hello {
        let seen = self.seen.lock().unwrap();
        Hello {
            cluster: seen.cluster.clone(),
            info: info(&self.name),
            epoch: seen.epoch,
            generation: seen.generation,
            runs: seen.reports.values().cloned().collect(),
            holdings: Vec::new(),
        }
    }

    fn inventory(&self) -> Inventory {
        let seen = self.seen.lock().unwrap();
        Inventory {
            cluster: seen.cluster.clone(),
            epoch: seen.epoch,
            placements: seen.assigned.values().cloned().collect(),
            more: false,
        }
    }

    async fn beat(&self) {
        let heartbeat = {
            let seen = self.seen.lock().unwrap();
            Heartbeat {
                at: Timestamp::now(),
                epoch: seen.epoch,
                generation: seen.generation,
                usage: NodeUsage {
                    cpu_millis: seen.busy,
                    ..NodeUsage::default()
                },
            }
        };
        let payload = loom_bus::codec::encode_msgpack(&heartbeat).unwrap();
        let subject = subject::heartbeat(&self.name);
        let _ = self.bus.publish(&subject, payload, &[]).await;
    }

    async fn assigned(&mut self, request: Request) {
        let Ok(assign) = request.decode::<Assign>() else {
            return;
        };
        let (epoch, generation) = {
            let seen = self.seen.lock().unwrap();
            (seen.epoch, seen.generation)
        };
        if assign.epoch > epoch {
            // A new leader: greet it.
            self.seen.lock().unwrap().epoch = assign.epoch;
            self.greeted = false;
        }
        let reply = if assign.epoch < epoch {
            AssignReply::Stale { epoch }
        } else if assign.base.is_some_and(|base| base != generation) {
            AssignReply::Resync { generation }
        } else {
            let generation = assign.generation;
            self.take(assign);
            AssignReply::Taken { generation }
        };
        request.reply(&reply).await;
    }

    fn take(&mut self, assign: Assign) {
        let mut changed = Vec::new();
        {
            let mut seen = self.seen.lock().unwrap();
            seen.epoch = assign.epoch;
            seen.generation = assign.generation;
            seen.cluster = Some(assign.cluster);
            if assign.base.is_none() {
                seen.assigned
                    .retain(|placement, _| assign.keep.contains(placement));
            }
            seen.parts += 1;
            for placement in assign.remove {
                seen.assigned.remove(&placement);
                seen.reports.remove(&placement);
            }
            for put in assign.put {
                changed.push(put.clone());
                seen.assigned.insert(put.placement, put);
            }
        }
        for assigned in changed {
            self.carry_out(&assigned);
        }
    }

    fn carry_out(&mut self, assigned: &Assigned) {
        let known = self
            .seen
            .lock()
            .unwrap()
            .reports
            .get(&assigned.placement)
            .cloned();
        match (&assigned.order, known) {
            (Order::Run, None) => {
                let mut report = report(assigned);
                report.passed = vec![RunState::Preparing, RunState::Starting];
                self.report(report.clone());
                if assigned.kind == Kind::Batch && assigned.task.args != ["wait"] {
                    self.ended(report, RunState::Completed, Some(0));
                }
            }
            (Order::Stop { .. }, Some(report)) if !report.state.is_terminal() => {
                self.ended(report, RunState::Killed, None);
            }
            (Order::Stop { .. }, None) => {
                let report = report(assigned);
                self.ended(report, RunState::Killed, None);
            }
            _ => {}
        }
    }

    fn end(&mut self, placement: RunId, code: i32) {
        let known = self.seen.lock().unwrap().reports.get(&placement).cloned();
        if let Some(report) = known {
            let state = if code == 0 {
                RunState::Completed
            } else {
                RunState::Failed
            };
            self.ended(report, state, Some(code));
        }
    }

    fn ended(&mut self, mut report: RunReport, state: RunState, code: Option<i32>) {
        report.passed = vec![RunState::Preparing, RunState::Starting, RunState::Running];
        report.state = state;
        report.exit = Some(Exit {
            code,
            ..Exit::default()
        });
        report.ended_at = Some(Timestamp::now());
        self.report(report);
    }

    fn report(&mut self, report: RunReport) {
        self.seen
            .lock()
            .unwrap()
            .reports
            .insert(report.placement, report.clone());
        self.unsent.insert(report.placement, report);
    }
}

fn report(assigned: &Assigned) -> RunReport {
    RunReport {
        run: assigned.placement,
        placement: assigned.placement,
        slot: assigned.slot.clone(),
        version: assigned.version,
        state: RunState::Running,
        passed: Vec::new(),
        marks: Marks::default(),
        health: None,
        restarts: 0,
        will_restart: false,
        pid: Some(1),
        image: None,
        exit: None,
        reason: None,
        limits: Limits::default(),
        unenforced: Vec::new(),
        filled: BTreeMap::new(),
        result: None,
        started_at: Some(Timestamp::now()),
        ended_at: None,
        change: 0,
    }
}

fn info(name: &Name) -> NodeInfo {
    NodeInfo {
        hostname: name.to_string(),
        address: "127.0.0.1".to_owned(),
        arch: "amd64".to_owned(),
        os: "test".to_owned(),
        kernel: "test".to_owned(),
        agent: "test".to_owned(),
        datacenter: None,
        labels: BTreeMap::new(),
        capacity: Capacity {
            cpu: MilliCores(64_000),
            memory: Bytes::mib(1024 * 1024),
            disk: Bytes::mib(1024 * 1024),
            disk_rate: None,
            pids: None,
            ports_from: 20_000,
            ports_to: 29_999,
            gpus: Vec::new(),
        },
        drivers: vec![DriverKind::Process],
        log_dirs: Vec::new(),
        attributes: std::collections::BTreeMap::new(),
        format: 1,
    }
}
