//! A leader that keeps its nodes from pass to pass, and the nodes' answers where a test wants them.

use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{NodeInfo, RunRecord, SlotRecord};
use loom_schemas::spec::{JobSpec, TaskSpec};
use loom_schemas::units::{Bytes, MilliCores};
use loom_schemas::words::{Kind, RunState, Strategy};

use crate::decide::{self, Asker};
use crate::plan::{PlanOptions, plan_on};
use crate::scheduler::Cluster;
use crate::state::fixture::{at, hello_of, info, job, name, report_of, run_id, submission, task};
use crate::state::{Draft, State, live_runs};

pub(super) struct Leader {
    pub(super) state: State,
    pub(super) cluster: Cluster,
    pub(super) seconds: i64,
    /// What was told, as subjects with their reasons.
    pub(super) told: Vec<(String, String)>,
    pub(super) ids: u64,
}

/// A task that asks for so much.
pub(super) fn asking(millicores: u32, mib: u64, replicas: u32) -> TaskSpec {
    let mut task = task(replicas);
    task.resources.cpu = MilliCores(millicores);
    task.resources.memory = Bytes::mib(mib);
    task
}

/// A service of a priority.
pub(super) fn service(named: &str, priority: u8, task: TaskSpec) -> JobSpec {
    let mut spec = job(named, Kind::Service, task);
    spec.priority = priority;
    spec
}

pub(super) fn slot(job: &str, index: u32) -> Slot {
    Slot::new(name(job), Name::main(), index)
}

impl Leader {
    /// With nodes of so many cores and GiB.
    pub(super) fn new(nodes: &[(u32, u64)]) -> Self {
        let mut leader = Self {
            state: State::default(),
            cluster: Cluster::empty(Strategy::Epvm),
            seconds: 0,
            told: Vec::new(),
            ids: 0,
        };
        for (at, (cores, gib)) in nodes.iter().enumerate() {
            leader.hello(&format!("node-{}", at + 1), info(*cores, *gib));
        }
        leader
    }

    pub(super) fn edit<R>(&mut self, edit: impl FnOnce(&mut Draft) -> R) -> R {
        let mut draft = Draft::new(self.state.clone());
        let result = edit(&mut draft);
        let (decided, _) = draft.finish_unwritten();
        self.state = decided.state;
        let told = decided.events.into_iter().map(|event| {
            let subject = event.subject().replace("orch.events.", "");
            (subject, event.reason.unwrap_or_default())
        });
        self.told.extend(told);
        result
    }

    pub(super) fn hello(&mut self, node: &str, info: NodeInfo) {
        let (hello, now) = (hello_of(info, Vec::new()), at(self.seconds));
        self.edit(|draft| decide::hello(draft, &name(node), &hello, false, now));
    }

    pub(super) fn submit(&mut self, owner: &str, spec: &JobSpec) {
        self.seconds += 1;
        let now = at(self.seconds);
        let asker = Asker {
            user: owner,
            admin: false,
            request: None,
        };
        self.edit(|draft| decide::submit(draft, submission(spec), asker, now))
            .unwrap();
    }

    /// Plans until nothing is left; how many jobs were looked at.
    pub(super) fn plan(&mut self) -> usize {
        self.plan_by(PlanOptions::default().slots)
    }

    /// The same with so many slots a pass.
    pub(super) fn plan_by(&mut self, slots: usize) -> usize {
        let options = PlanOptions {
            slots,
            ..PlanOptions::default()
        };
        let mut jobs = 0;
        for _ in 0..1000 {
            let mut cluster = std::mem::replace(&mut self.cluster, Cluster::empty(Strategy::Epvm));
            let (mut next, now) = (self.ids, at(self.seconds));
            let planned = self.edit(|draft| {
                plan_on(&mut cluster, draft, now, &options, &mut || {
                    next += 1;
                    run_id(next)
                })
            });
            (self.cluster, self.ids) = (cluster, next);
            jobs += planned.jobs;
            if !planned.more && !self.state.waiting_may_fit() {
                return jobs;
            }
        }
        panic!("planning does not settle");
    }

    pub(super) fn record(&self, slot: &Slot) -> &SlotRecord {
        self.state.slot(slot).unwrap()
    }

    pub(super) fn run_of(&self, slot: &Slot) -> &RunRecord {
        self.record(slot).current.as_ref().unwrap()
    }

    /// The node says how a slot's run is.
    pub(super) fn says(&mut self, slot: &Slot, state: RunState) {
        let run = self.run_of(slot).clone();
        self.seconds += 1;
        let now = at(self.seconds);
        let report = loom_schemas::wire::RunReport {
            started_at: Some(run.started_at.unwrap_or(now)),
            ended_at: state.is_terminal().then_some(now),
            version: run.version,
            ..report_of(slot, run.run, state)
        };
        let node = run.node.unwrap();
        self.edit(|draft| decide::report(draft, &node, &[report], false, now));
    }

    /// How many slots of a job have a live run.
    pub(super) fn placed(&self, job: &str) -> usize {
        let job = name(job);
        let slots = self.state.slots_of(&job);
        slots
            .filter(|slot| live_runs(slot).next().is_some())
            .count()
    }
}
