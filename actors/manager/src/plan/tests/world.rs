//! A small cluster: a leader's state, nodes, and reports on their way.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use loom_schemas::error::WireError;
use loom_schemas::ids::{Epoch, Name, RunId, Slot};
use loom_schemas::spec::{JobSpec, OnUpdateFailure, PortSpec, Protocol, UpdateOrder};
use loom_schemas::units::{Bytes, MilliCores, Millis};
use loom_schemas::wire::{
    Bye, JobAddress, JobRequest, RollbackRequest, RunReport, ScaleRequest, UpdateRequest,
    UpdateVerb,
};
use loom_schemas::words::{Kind, Strategy};

use super::dependants::dependant;
use super::happens::Happens;
use super::nodes::SimNode;
use crate::decide;
use crate::plan::{PlanOptions, Planned, assignment, plan_on};
use crate::scheduler::Cluster;
use crate::state::fixture::{
    ANNA, at, health, hello_of, info, job, name, run_id, submission, task,
};
use crate::state::{Draft, State};

/// How many nodes there are.
const NODES: usize = 3;

/// By how many seconds their clocks are ahead: nothing is decided by these.
const CLOCKS: [i64; NODES] = [0, 400, -400];

pub(super) struct World {
    pub(super) state: State,
    pub(super) options: PlanOptions,
    /// What the leader keeps from pass to pass.
    pub(super) cluster: Cluster,
    pub(super) now: Timestamp,
    pub(super) nodes: BTreeMap<Name, SimNode>,
    pub(super) wire: Vec<(Name, RunReport)>,
    pub(super) next_id: u64,
    /// Every run ever seen, with its slot.
    pub(super) named: BTreeMap<RunId, Slot>,
    /// In how many slots of a job two runs were live.
    pub(super) doubled: BTreeMap<Name, usize>,
    /// Whether somebody said that runs are to be stopped, whatever that means for their job.
    pub(super) forced: bool,
}

impl World {
    pub(super) fn new(strategy: Strategy) -> Self {
        let mut world = Self {
            state: State::default(),
            options: PlanOptions {
                strategy,
                slots: 4,
                ..PlanOptions::default()
            },
            cluster: Cluster::empty(strategy),
            now: at(0),
            nodes: BTreeMap::new(),
            wire: Vec::new(),
            next_id: 0,
            named: BTreeMap::new(),
            doubled: BTreeMap::new(),
            forced: false,
        };
        for (number, ahead) in (1..=NODES).zip(CLOCKS) {
            let node = SimNode {
                ahead,
                ..SimNode::default()
            };
            world.nodes.insert(name(&format!("node-{number}")), node);
        }
        for node in world.nodes.keys().cloned().collect::<Vec<_>>() {
            world.hello(&node);
        }
        world
    }

    pub(super) fn node_name(which: u8) -> Name {
        name(&format!("node-{}", usize::from(which) % NODES + 1))
    }

    /// Decides, hands the assignments out, and looks at what must always hold.
    pub(super) fn decide<R>(&mut self, edit: impl FnOnce(&mut Draft, Timestamp) -> R) -> R {
        let mut draft = Draft::new(self.state.clone());
        let result = edit(&mut draft, self.now);
        let (decided, _) = draft.finish_unwritten();
        for (node, delta) in &decided.assigns {
            let sim = self.nodes.get_mut(node).unwrap();
            let message = delta.message(&decided.state, node, "c", Epoch::default());
            for assigned in message.put {
                sim.told.insert(assigned.placement, assigned);
            }
            for placement in message.remove {
                sim.told.remove(&placement);
                if !sim.silent {
                    sim.held.remove(&placement);
                }
            }
        }
        let before = std::mem::replace(&mut self.state, decided.state);
        self.check_gangs(&before);
        self.check_dependants(&before);
        self.check();
        result
    }

    pub(super) fn plan_once(&mut self) -> Planned {
        let options = self.options.clone();
        let served = self.serving();
        let placed = self.placements();
        let mut next = self.next_id;
        let mut cluster = self.take_cluster();
        let planned = self.decide(|draft, now| {
            plan_on(&mut cluster, draft, now, &options, &mut || {
                next += 1;
                run_id(next << 20)
            })
        });
        (self.cluster, self.next_id) = (cluster, next);
        self.check_placed(&placed);
        // What people have stopped at once is not there, whatever an update would leave.
        if !self.forced {
            self.check_floor(&served);
        }
        planned
    }

    /// What is kept from pass to pass; nothing is left of it.
    fn take_cluster(&mut self) -> Cluster {
        std::mem::replace(&mut self.cluster, Cluster::empty(self.options.strategy))
    }

    /// Plans until nothing is left.
    pub(super) fn plan(&mut self) {
        for _ in 0..200 {
            if !self.plan_once().more {
                self.check_stopped();
                return;
            }
        }
        panic!("planning does not settle");
    }

    pub(super) fn hello(&mut self, node: &Name) {
        let sim = self.nodes.get_mut(node).unwrap();
        sim.silent = false;
        let hello = hello_of(
            info(4, 8),
            sim.held.values().map(|h| h.report.clone()).collect(),
        );
        // What it says now it need not say again.
        self.wire.retain(|(from, _)| from != node);
        self.decide(|draft, now| decide::hello(draft, node, &hello, false, now));
        let whole = assignment(&self.state, node);
        let sim = self.nodes.get_mut(node).unwrap();
        sim.told
            .retain(|placement, _| sim.held.contains_key(placement));
        sim.told.extend(
            whole
                .into_iter()
                .map(|assigned| (assigned.placement, assigned)),
        );
    }

    pub(super) fn job(which: u8) -> Name {
        name(["svc", "bat", "dep"][usize::from(which)])
    }

    pub(super) fn address(which: u8, index: Option<u8>) -> JobRequest {
        let index = index.map(|index| u32::from(index).into());
        let address = JobAddress {
            job: Self::job(which),
            task: None,
            index,
        };
        JobRequest {
            address,
            reason: None,
        }
    }

    pub(super) fn spec(which: u8, replicas: u8, variant: u8) -> JobSpec {
        if which == 2 {
            return dependant(replicas, variant);
        }
        let kind = if which == 0 {
            Kind::Service
        } else {
            Kind::Batch
        };
        let mut main = task(u32::from(replicas));
        let bit = |at: u8| variant >> at & 1 == 1;
        if bit(1) {
            main.args = vec!["other".to_owned()];
        }
        main.health = bit(0).then(health);
        if which == 0 {
            let port = PortSpec {
                port: None,
                host: None,
                protocol: Protocol::Tcp,
            };
            main.ports.insert(name("http"), port);
        }
        let mut spec = job(Self::job(which).as_str(), kind, main);
        let update = &mut spec.update;
        update.order = bit(2).then_some(UpdateOrder::StopFirst);
        update.parallel = if bit(3) { 2 } else { 1 };
        update.on_failure = match (bit(4), bit(5)) {
            (true, true) => OnUpdateFailure::Continue,
            (true, false) => OnUpdateFailure::Pause,
            _ => OnUpdateFailure::Rollback,
        };
        update.canary = u32::from(bit(6));
        update.healthy_for = Millis::secs(if bit(7) { 0 } else { 10 });
        spec
    }

    pub(super) fn happen(&mut self, what: Happens) {
        match what {
            Happens::Submit {
                job,
                replicas,
                variant,
                limits,
            } => self.submits(job, Self::spec(job, replicas, variant), limits),
            Happens::Stop { job, index } => {
                let request = Self::address(job, index);
                drop(self.decide(|d, now| decide::stop(d, &request, ANNA, now)));
            }
            Happens::Restart { job, index } => {
                let request = Self::address(job, index);
                drop(self.decide(|d, now| decide::restart(d, &request, ANNA, now)));
            }
            Happens::Scale { job, replicas } => {
                let (job, replicas) = (Self::job(job), u32::from(replicas));
                let request = ScaleRequest {
                    job,
                    task: None,
                    replicas,
                };
                drop(self.decide(|d, now| decide::scale(d, &request, ANNA, now)));
            }
            Happens::Work => self.work(),
            Happens::Ends { node, which, code } => self.ends(&Self::node_name(node), which, code),
            Happens::Sickens { node, which } => self.sickens(&Self::node_name(node), which),
            Happens::Arrive { from, count, again } => self.arrive(from, count, again),
            Happens::Silent { node } => {
                let node = Self::node_name(node);
                self.nodes.get_mut(&node).unwrap().silent = true;
                self.decide(|draft, now| decide::node_down(draft, &node, "silent", now));
            }
            Happens::Back { node } => self.hello(&Self::node_name(node)),
            Happens::Bye { node } => {
                let (node, bye) = (
                    Self::node_name(node),
                    Bye {
                        back_within: Some(60),
                    },
                );
                self.nodes.get_mut(&node).unwrap().silent = true;
                self.decide(|draft, now| decide::bye(draft, &node, &bye, now));
            }
            Happens::Forgets { node } => {
                let node = Self::node_name(node);
                self.nodes.get_mut(&node).unwrap().held.clear();
                self.hello(&node);
            }
            Happens::Steer { job, which } => self.steer(job, which),
            Happens::Rollback { job } => self.roll_back(job),
            Happens::People(what) => self.people(what),
            Happens::Passes { seconds } => {
                if seconds % 8 == 0 {
                    // Another leader, which knows what is in the records and nothing else.
                    self.take_cluster();
                    self.state.mark_all_dirty();
                }
                self.now += SignedDuration::from_secs(i64::from(seconds));
            }
        }
    }

    fn submits(&mut self, job: u8, mut spec: JobSpec, limits: u8) {
        let main = spec.tasks.get_mut(&Name::main()).unwrap();
        // Cores run out before memory does: why a slot waits stays the same in words.
        let reserved = &mut main.resources;
        let (cpu, mib) =
            [(1000, 1024), (500, 1024), (2000, 1024), (1000, 2048)][usize::from(limits % 4)];
        main.gang = limits >= 4;
        (reserved.cpu, reserved.memory) = (MilliCores(cpu), Bytes::mib(mib));
        let submission = submission(&spec);
        let taken = self.decide(|d, now| decide::submit(d, submission, ANNA, now));
        // What it waits for has to be there, and to be checked where it has to be healthy.
        let waits = |why: &WireError| why.message.contains("depends_on") || job == 0;
        assert!(taken.as_ref().err().is_none_or(waits), "{taken:?}");
    }

    fn steer(&mut self, job: u8, which: u8) {
        let verbs = [UpdateVerb::Promote, UpdateVerb::Pause, UpdateVerb::Continue];
        let request = UpdateRequest {
            job: Self::job(job),
            verb: verbs[usize::from(which) % 3],
        };
        drop(self.decide(|d, now| decide::steer(d, &request, ANNA, now)));
    }

    fn roll_back(&mut self, job: u8) {
        let request = RollbackRequest {
            job: Self::job(job),
            to: None,
            if_version: None,
            reason: None,
        };
        drop(self.decide(|d, now| decide::rollback(d, &request, ANNA, now)));
    }

    pub(super) fn arrive(&mut self, from: u8, count: u8, again: bool) {
        let mut arrived = Vec::new();
        for _ in 0..usize::from(count).min(self.wire.len()) {
            let at = usize::from(from) % self.wire.len();
            arrived.push(self.wire.remove(at));
        }
        if again {
            self.wire.extend(arrived.iter().cloned());
        }
        self.decide(|d, now| {
            for (node, report) in arrived {
                decide::report(d, &node, &[report], false, now);
            }
        });
    }

    /// Everybody is back, everything arrives, enough time passes: until nothing changes.
    pub(super) fn settle(&mut self) {
        for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.hello(&node);
        }
        for _ in 0..300 {
            let before = self.state.clone();
            self.plan();
            self.work();
            self.wire.reverse();
            while !self.wire.is_empty() {
                self.arrive(0, 50, false);
            }
            let same = before.same_records(&self.state);
            let waits = self.state.next_delay(self.now).is_some();
            let waits = waits || self.state.next_due(self.now).is_some();
            let waits = waits || crate::plan::rebalance::due(&self.state, self.now).is_some();
            if same && !waits && self.quiet() {
                return;
            }
            if same {
                self.now += SignedDuration::from_secs(61);
            }
        }
        panic!("the cluster does not settle");
    }
}
