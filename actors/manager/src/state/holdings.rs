//! What jobs and their owners hold in all, and what there is: by which the queue is fair.

use imbl::OrdMap;
use loom_schemas::ids::Name;
use loom_schemas::record::{NodeRecord, NodeStatus, RunRecord};
use loom_schemas::spec::Resources;

use super::State;

/// An amount of each resource that is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// Thousandths of a core.
    pub cpu: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk.
    pub disk: u64,
    /// Bytes read, and bytes written, in a second.
    pub disk_rate: u64,
    /// Processes and threads.
    pub pids: u64,
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
            disk_rate: resources.disk_rate.map_or(0, |rate| rate.0),
            pids: resources.pids.map_or(0, u64::from),
            gpus: u64::from(resources.gpus().count()),
        }
    }

    /// The greatest share of any one resource: the dominant share of Ghodsi et al., "Dominant
    /// Resource Fairness" (NSDI 2011). Of what there is none of, nobody has a share; nor of what not
    /// every node counts.
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
            disk_rate: all.disk_rate.map_or(0, |rate| rate.0),
            pids: all.pids.map_or(0, u64::from),
            gpus: all.gpus.len() as u64,
        }
    }

    /// So much more.
    pub fn add(&mut self, other: &Self) {
        self.each(other, u64::saturating_add);
    }

    /// So much less; of what there is not so much, nothing.
    pub fn sub(&mut self, other: &Self) {
        self.each(other, u64::saturating_sub);
    }

    fn each(&mut self, other: &Self, op: impl Fn(u64, u64) -> u64) {
        let Self {
            cpu,
            memory,
            disk,
            disk_rate,
            pids,
            gpus,
        } = other;
        self.cpu = op(self.cpu, *cpu);
        self.memory = op(self.memory, *memory);
        self.disk = op(self.disk, *disk);
        self.disk_rate = op(self.disk_rate, *disk_rate);
        self.pids = op(self.pids, *pids);
        self.gpus = op(self.gpus, *gpus);
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
