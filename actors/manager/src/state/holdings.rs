//! What jobs and their owners hold in all, and what there is: by which the queue is fair.

use imbl::OrdMap;
use loom_schemas::ids::Name;
use loom_schemas::record::{NodeRecord, NodeStatus, RunRecord};
use loom_schemas::spec::Resources;

use super::State;

/// An amount of each resource that is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Thousandths of a core.
    pub cpu: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk.
    pub disk: u64,
    /// Gpus.
    pub gpus: u64,
}

/// What jobs hold, summed up by owner, and what all nodes that are up have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    of_owners: OrdMap<String, Held>,
    all: Held,
}

impl Held {
    /// What is shared out of some resources.
    pub fn of(resources: &Resources) -> Self {
        Self {
            cpu: u64::from(resources.cpu.0),
            memory: resources.memory.0,
            disk: resources.disk.0,
            gpus: u64::from(resources.gpus().count()),
        }
    }

    /// The greatest share of any one resource: the dominant share of Ghodsi et al., "Dominant
    /// Resource Fairness" (NSDI 2011). Of what there is none of, nobody has a share.
    pub fn dominant_share(&self, of: &Self) -> f64 {
        let pairs = [
            (self.cpu, of.cpu),
            (self.memory, of.memory),
            (self.disk, of.disk),
            (self.gpus, of.gpus),
        ];
        #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let shares = pairs.map(|(held, all)| match all {
            0 => 0.0,
            all => held as f64 / all as f64,
        });
        shares.into_iter().fold(0.0, f64::max)
    }

    fn of_node(node: &NodeRecord) -> Self {
        let all = &node.info.capacity;
        Self {
            cpu: u64::from(all.cpu.0),
            memory: all.memory.0,
            disk: all.disk.0,
            gpus: all.gpus.len() as u64,
        }
    }

    fn add(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.disk += other.disk;
        self.gpus += other.gpus;
    }

    pub(super) fn sub(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_sub(other.cpu);
        self.memory = self.memory.saturating_sub(other.memory);
        self.disk = self.disk.saturating_sub(other.disk);
        self.gpus = self.gpus.saturating_sub(other.gpus);
    }
}

impl State {
    /// What the live runs of an owner's jobs have reserved.
    pub fn held_by(&self, owner: &str) -> Held {
        let held = self.holdings.of_owners.get(owner);
        held.copied().unwrap_or_default()
    }

    /// What the nodes that are up have in all.
    pub fn capacity(&self) -> Held {
        self.holdings.all
    }

    /// A run of a job holds something from now on.
    pub(super) fn hold(&mut self, job: &Name, run: &RunRecord) {
        let held = Held::of(&run.reserved);
        self.change_held(job, |sum| sum.add(&held));
    }

    /// It holds it no more.
    pub(super) fn release(&mut self, job: &Name, run: &RunRecord) {
        let held = Held::of(&run.reserved);
        self.change_held(job, |sum| sum.sub(&held));
    }

    fn change_held(&mut self, job: &Name, change: impl Fn(&mut Held)) {
        self.jobs.change(job, |of| change(&mut of.held));
        if let Some(record) = self.jobs.record(job) {
            update(&mut self.holdings.of_owners, &record.owner, &change);
        }
    }

    /// What a job holds passes from one owner to another.
    pub(super) fn hand_on(&mut self, job: &Name, from: Option<&str>, to: Option<&str>) {
        if from == to {
            return;
        }
        let held = self.jobs.get(job).map(|of| of.held).unwrap_or_default();
        if let Some(from) = from {
            update(&mut self.holdings.of_owners, from, |sum| sum.sub(&held));
        }
        if let Some(to) = to {
            update(&mut self.holdings.of_owners, to, |sum| sum.add(&held));
        }
    }

    /// A node is another than it was, or came, or went.
    pub(super) fn count_capacity(&mut self, old: Option<&NodeRecord>, new: Option<&NodeRecord>) {
        let is_up = |node: &&NodeRecord| node.status == NodeStatus::Up;
        let all = &mut self.holdings.all;
        if let Some(old) = old.filter(is_up) {
            all.sub(&Held::of_node(old));
        }
        if let Some(new) = new.filter(is_up) {
            all.add(&Held::of_node(new));
        }
    }
}

/// Changes one sum; one that comes to nothing is not kept.
fn update(sums: &mut OrdMap<String, Held>, owner: &str, change: impl Fn(&mut Held)) {
    let mut sum = sums.get(owner).copied().unwrap_or_default();
    change(&mut sum);
    if sum == Held::default() {
        sums.remove(owner);
    } else {
        sums.insert(owner.to_owned(), sum);
    }
}
