//! A leader that answers nodes as the protocol says, keeps what they said, and assigns what the test
//! says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use loom_bus::connection::Bus;
use loom_bus::serve::{Request, ServeLimits};
use loom_schemas::error::{ErrorCode, WireError};
use loom_schemas::ids::{Epoch, Name, RunId};
use loom_schemas::subject;
use loom_schemas::wire::{
    Assign, AssignReply, Assigned, Bye, Heartbeat, Hello, HelloPart, Inventory, InventoryQuery,
    RunReport, StatusReport, StatusTaken, Welcome,
};
use loom_schemas::words::RunState;

pub const CLUSTER: &str = "cluster-1";

#[derive(Clone)]
pub struct Leader {
    bus: Bus,
    pub said: Arc<Mutex<Said>>,
}

/// What the nodes said, and what the leader makes of it.
#[derive(Default)]
pub struct Said {
    pub cluster: String,
    pub epoch: Epoch,
    pub manner: Manner,
    pub hellos: Vec<Hello>,
    /// How many parts of hellos came.
    pub parts: usize,
    part_of: Option<Hello>,
    /// All that were taken, in order.
    pub reports: Vec<RunReport>,
    pub byes: Vec<Bye>,
    pub heartbeats: Vec<(String, Heartbeat)>,
    pub probes: usize,
    /// After how long it says that it gives a node up.
    pub lost_after_ms: Option<u64>,
    /// How far this leader says that its clock is ahead.
    pub ahead_ms: Option<i64>,
    wanted: BTreeMap<Name, BTreeMap<RunId, Assigned>>,
    generations: BTreeMap<Name, u64>,
}

/// How the leader treats calls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Manner {
    #[default]
    Answers,
    /// Calls run into their timeout.
    Silent,
    /// Status is refused, hello is answered.
    Refuses,
    /// Knows only hellos in one piece.
    KnowsNoParts,
    /// Hello is refused as from a node of another cluster.
    Conflict,
    /// Takes reports, but the node never hears that.
    LosesAnswers,
}

impl Leader {
    pub async fn start(bus: Bus) -> Self {
        let said = Said {
            cluster: CLUSTER.to_owned(),
            epoch: Epoch {
                incarnation: 1,
                sequence: 10,
            },
            ..Said::default()
        };
        let leader = Self {
            bus: bus.clone(),
            said: Arc::new(Mutex::new(said)),
        };
        let mut requests = bus
            .serve(subject::CTL_ALL, None, ServeLimits::default())
            .await
            .unwrap();
        let mut heartbeats = bus.subscribe(subject::HEARTBEATS_ALL).await.unwrap();
        bus.round_trip().await.unwrap();
        let serving = leader.clone();
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                serving.answer(request).await;
            }
        });
        let listening = leader.clone();
        tokio::spawn(async move {
            while let Some(message) = heartbeats.next().await {
                let node = message.subject.rsplit('.').next().unwrap().to_owned();
                let heartbeat = rmp_serde::from_slice(&message.payload).unwrap();
                listening.said().heartbeats.push((node, heartbeat));
            }
        });
        leader
    }

    pub fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap()
    }

    pub fn manner(&self, manner: Manner) {
        self.said().manner = manner;
    }

    async fn answer(&self, request: Request) {
        let node = Name::new(request.token(2).unwrap()).unwrap();
        let manner = self.said().manner;
        if manner == Manner::Silent {
            // Never answered: a request that is dropped would be.
            std::mem::forget(request);
            return;
        }
        match request.token(3).unwrap() {
            "hello" if manner == Manner::Conflict => {
                let error = WireError::new(ErrorCode::Conflict, "this is cluster other");
                request.refuse(error).await;
            }
            "hello-part" if manner == Manner::KnowsNoParts => {
                request.refuse(WireError::not_found("not said")).await;
            }
            "hello-part" if !self.is_whole(&request) => {
                request.reply(&StatusTaken::default()).await;
            }
            said @ ("hello" | "hello-part") => {
                if said == "hello" {
                    let hello: Hello = request.decode().unwrap();
                    self.said().hellos.push(hello);
                }
                let assignment = self.whole(&node);
                let cluster = assignment.cluster.clone();
                let (lost_after_ms, ahead_ms) = {
                    let said = self.said();
                    (said.lost_after_ms, said.ahead_ms)
                };
                let welcome = Welcome {
                    cluster,
                    assignment,
                    lost_after_ms,
                    ahead_ms,
                };
                request.reply(&welcome).await;
            }
            "status" if manner == Manner::Refuses => {
                request.refuse(WireError::unavailable("not leading")).await;
            }
            "status" => {
                let report: StatusReport = request.decode().unwrap();
                self.take(report);
                if manner == Manner::LosesAnswers {
                    std::mem::forget(request);
                } else {
                    request.reply(&StatusTaken::default()).await;
                }
            }
            "bye" => {
                let bye: Bye = request.decode().unwrap();
                self.said().byes.push(bye);
                request.reply(&StatusTaken::default()).await;
            }
            other => panic!("unexpected call {other}"),
        }
    }

    /// Takes in a part of a hello; true if that is all of it.
    fn is_whole(&self, request: &Request) -> bool {
        let part: HelloPart = request.decode().unwrap();
        let mut said = self.said();
        if part.part == 0 {
            said.part_of = Some(part.hello);
        } else {
            let whole = said.part_of.as_mut().unwrap();
            whole.runs.extend(part.hello.runs);
        }
        said.parts += 1;
        if part.last {
            let whole = said.part_of.take().unwrap();
            said.hellos.push(whole);
        }
        part.last
    }

    fn take(&self, report: StatusReport) {
        let mut said = self.said();
        if report.runs.is_empty() {
            said.probes += 1;
        }
        said.reports.extend(report.runs);
    }

    /// The whole assignment of a node, as it stands.
    pub fn whole(&self, node: &Name) -> Assign {
        let said = self.said();
        Assign {
            cluster: said.cluster.clone(),
            epoch: said.epoch,
            generation: said.generations.get(node).copied().unwrap_or_default(),
            base: None,
            put: said
                .wanted
                .get(node)
                .map(|set| set.values().cloned().collect())
                .unwrap_or_default(),
            keep: Vec::new(),
            remove: Vec::new(),
            labels: std::collections::BTreeMap::new(),
        }
    }

    /// Changes what a node shall have and sends it the difference.
    pub async fn assign(&self, node: &str, put: &[&Assigned], remove: &[RunId]) -> AssignReply {
        let node = Name::new(node).unwrap();
        let assign = {
            let mut said = self.said();
            let wanted = said.wanted.entry(node.clone()).or_default();
            for run in remove {
                wanted.remove(run);
            }
            wanted.extend(put.iter().map(|put| (put.placement, (*put).clone())));
            let generation = said.generations.entry(node.clone()).or_default();
            let base = *generation;
            *generation += 1;
            Assign {
                cluster: said.cluster.clone(),
                epoch: said.epoch,
                generation: base + 1,
                base: Some(base),
                put: put.iter().copied().cloned().collect(),
                keep: Vec::new(),
                remove: remove.to_vec(),
                labels: std::collections::BTreeMap::new(),
            }
        };
        match self.send(&node, &assign).await {
            AssignReply::Resync { .. } => self.send(&node, &self.whole(&node)).await,
            reply => reply,
        }
    }

    /// What is wanted without a word to the node.
    pub fn want(&self, node: &str, put: &[&Assigned], remove: &[RunId]) {
        let node = Name::new(node).unwrap();
        let mut said = self.said();
        *said.generations.entry(node.clone()).or_default() += 1;
        let wanted = said.wanted.entry(node).or_default();
        for run in remove {
            wanted.remove(run);
        }
        wanted.extend(put.iter().map(|put| (put.placement, (*put).clone())));
    }

    /// What a node says that it was told to have.
    pub async fn inventory(&self, node: &str) -> Inventory {
        let subject = subject::inventory(&Name::new(node).unwrap());
        let query = InventoryQuery::default();
        let wait = Duration::from_secs(5);
        self.bus.call(&subject, &query, wait).await.unwrap()
    }

    pub async fn send(&self, node: &Name, assign: &Assign) -> AssignReply {
        let subject = subject::assign(node);
        self.bus
            .call(&subject, assign, Duration::from_secs(5))
            .await
            .unwrap()
    }
}

impl Said {
    /// The last report of a placement.
    pub fn of(&self, placement: RunId) -> Option<&RunReport> {
        self.reports
            .iter()
            .rev()
            .find(|report| report.placement == placement)
    }

    pub fn is(&self, placement: RunId, state: RunState) -> bool {
        self.of(placement)
            .is_some_and(|report| report.state == state)
    }
}
