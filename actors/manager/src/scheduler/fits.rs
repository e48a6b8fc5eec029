//! Whether a request fits a node: written once, for the scheduler and for the commit.

use std::sync::Arc;

use imbl::OrdMap;
use loom_schemas::ids::{Name, RunId, Slot};
use loom_schemas::record::{Capacity, Gpu, NodeRecord, NodeStatus, RunRecord};
use loom_schemas::spec::{Gpus, TaskSpec};
use loom_schemas::words::DriverKind;

use super::constraint::{Attributes, Rule};
use super::gpus::{self, TakenGpus};
use super::request::Request;
use super::why::Cause;
use crate::state::{Held, Load, State};

/// How many resources are counted; they come in this order everywhere: cpu, memory, disk, disk rate,
/// pids, gpus.
pub(super) const DIMENSIONS: usize = 6;

/// What a node has of a resource that it does not count.
pub(super) const UNCOUNTED: u64 = u64::MAX;

impl Held {
    pub(super) fn by_dimension(&self) -> [u64; DIMENSIONS] {
        let Self {
            cpu,
            memory,
            disk,
            disk_rate,
            pids,
            gpus,
        } = *self;
        [cpu, memory, disk, disk_rate, pids, gpus]
    }
}

/// What a node has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Whether it takes new runs.
    pub up: bool,
    /// What it can run.
    pub drivers: Vec<DriverKind>,
    /// Where it is, if it said so.
    pub datacenter: Option<String>,
    /// What else it is.
    pub attributes: Attributes,
    /// What it has in all.
    pub capacity: Capacity,
    /// How much of each resource is reserved, or kept for those that wait.
    pub held: Held,
    /// Thousandths of a core that were in use lately, smoothed; 0 where nobody measured.
    pub measured_cpu: u64,
    /// Ports that are taken.
    pub ports: OrdMap<u16, u32>,
    /// Gpus that are taken.
    pub gpus: TakenGpus,
    /// How many more are kept for those that wait.
    pub kept_gpus: Gpus,
}

impl Room {
    /// What is reserved of each dimension.
    pub(super) fn held(&self) -> [u64; DIMENSIONS] {
        let held = Held {
            // Which of them are taken is what counts: of a gpu that is gone nothing is held.
            gpus: self.held_gpus(),
            ..self.held
        };
        held.by_dimension()
    }

    /// What there is of each dimension.
    pub(super) fn all(&self) -> [u64; DIMENSIONS] {
        let Capacity {
            cpu,
            memory,
            disk,
            disk_rate,
            pids,
            ports_from: _,
            ports_to: _,
            gpus,
        } = &self.capacity;
        let all = Held {
            cpu: u64::from(cpu.0),
            memory: memory.0,
            disk: disk.0,
            disk_rate: disk_rate.map_or(UNCOUNTED, |rate| rate.0),
            pids: pids.map_or(UNCOUNTED, u64::from),
            gpus: gpus.len() as u64,
        };
        all.by_dimension()
    }

    /// What is free of each dimension.
    pub(super) fn free(&self) -> [u64; DIMENSIONS] {
        let (all, held) = (self.all(), self.held());
        std::array::from_fn(|d| all[d].saturating_sub(held[d]))
    }

    /// Whether so much of each resource is left, but of gpus, which are not all the same; if not, the
    /// first of which there is not.
    pub fn has_left(&self, more: &Held) -> Result<(), Cause> {
        let (held, asked, all) = (self.held(), more.by_dimension(), self.all());
        let causes = [
            Cause::Cpu,
            Cause::Memory,
            Cause::Disk,
            Cause::DiskRate,
            Cause::Pids,
        ];
        for (d, cause) in causes.into_iter().enumerate() {
            if asked[d] > 0 && held[d].saturating_add(asked[d]) > all[d] {
                return Err(cause);
            }
        }
        Ok(())
    }

    /// What a node has left under a load, less what is kept free for those that wait.
    pub fn of(node: &Arc<NodeRecord>, load: Option<&Load>) -> Self {
        Self::keeping(node, load, |_| true)
    }

    /// What a node of a state has left, and what was measured on it.
    pub fn in_state(state: &State, node: &Arc<NodeRecord>) -> Self {
        let measured = state.node_uses().get(&node.name);
        Self {
            measured_cpu: measured.map_or(0, |measured| u64::from(measured.cpu.0)),
            ..Self::of(node, state.load(&node.name))
        }
    }

    /// The same where only the claims of some of those that wait are respected.
    pub fn keeping(
        node: &Arc<NodeRecord>,
        load: Option<&Load>,
        respected: impl Fn(&Slot) -> bool,
    ) -> Self {
        let mut load = load.cloned().unwrap_or_default();
        let claims = load.claims.clone();
        let mut kept_gpus = Gpus::default();
        for (_, claim) in claims.iter().filter(|(slot, _)| respected(slot)) {
            let kept = load.kept_free(claim);
            load.held.add(&kept);
            kept_gpus.add(&load.kept_gpus(claim));
            for port in &claim.ports {
                load.ports.entry(*port).or_insert(1);
            }
        }
        Self {
            up: node.status == NodeStatus::Up,
            drivers: node.info.drivers.clone(),
            datacenter: node.info.datacenter.clone(),
            attributes: Attributes::of(node),
            capacity: node.info.capacity.clone(),
            held: load.held,
            measured_cpu: 0,
            ports: load.ports,
            gpus: load.gpus,
            kept_gpus,
        }
    }

    /// Whether nothing is otherwise but how much of it is in use.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let Self {
            up,
            drivers,
            datacenter,
            attributes,
            capacity,
            ..
        } = self;
        let same = attributes == &other.attributes;
        same && (*up, drivers, datacenter, capacity)
            == (other.up, &other.drivers, &other.datacenter, &other.capacity)
    }

    /// Takes what a request needs.
    pub(super) fn take(
        &mut self,
        request: &Request,
        ports: impl Iterator<Item = u16>,
        gpus: &[Gpu],
    ) {
        gpus::take(&mut self.gpus, gpus);
        self.held.add(&request.amounts);
        for port in ports {
            *self.ports.entry(port).or_insert(0) += 1;
        }
    }

    /// Gives back what a request took.
    pub(super) fn give_back(
        &mut self,
        request: &Request,
        ports: impl Iterator<Item = u16>,
        gpus: &[Gpu],
    ) {
        gpus::give_back(&mut self.gpus, gpus);
        self.held.sub(&request.amounts);
        for port in ports {
            match self.ports.get(&port) {
                Some(&count) if count > 1 => self.ports.insert(port, count - 1),
                _ => self.ports.remove(&port),
            };
        }
    }

    /// Has what a run holds be free.
    pub fn give_up(&mut self, run: &RunRecord) {
        self.held.sub(&Held::of(&run.reserved));
        for port in run.ports.values() {
            self.ports.remove(port);
        }
        gpus::give_back(&mut self.gpus, run.own_gpus());
    }

    /// How many ports of its range are free.
    pub(super) fn free_ports(&self) -> usize {
        let Capacity {
            ports_from,
            ports_to,
            ..
        } = self.capacity;
        if ports_from == 0 || ports_to < ports_from {
            return 0;
        }
        let taken = self.ports.range(ports_from..=ports_to).count();
        usize::from(ports_to - ports_from) + 1 - taken
    }
}

/// Whether a request fits; if not, the first cause in a fixed order, so that counts add up to the
/// number of nodes.
pub fn fits(room: &Room, request: &Request) -> Result<(), Cause> {
    suits(room, request)?;
    has_room(room, request)
}

/// Whether the node is one that the request may go to, whatever it has left.
pub(super) fn suits(room: &Room, request: &Request) -> Result<(), Cause> {
    if !room.up {
        return Err(Cause::Down);
    }
    if room.attributes.is_draining() {
        return Err(Cause::Draining);
    }
    let within = |here: &String| request.datacenters.contains(here);
    if !request.datacenters.is_empty() && !room.datacenter.as_ref().is_some_and(within) {
        return Err(Cause::Datacenter);
    }
    if !room.drivers.contains(&request.driver) {
        return Err(Cause::Driver(request.driver));
    }
    let refused = |to: &&Arc<str>| !room.attributes.takes_output(to);
    if let Some(to) = request.output.as_ref().filter(refused) {
        return Err(Cause::LogDir(Arc::clone(to)));
    }
    let unlike = |rule: &&Rule| !rule.holds(&room.attributes);
    if let Some(rule) = request.rules.iter().find(unlike) {
        return Err(Cause::Constraint(rule.text().clone()));
    }
    if let Some(taint) = room.attributes.refuses(&request.tolerations) {
        return Err(Cause::Taint(taint.to_string()));
    }
    Ok(())
}

/// Whether the node has left what the request needs.
pub(super) fn has_room(room: &Room, request: &Request) -> Result<(), Cause> {
    room.has_left(&request.amounts)?;
    room.has_gpus(request)?;
    if let Some(port) = request
        .fixed_ports
        .iter()
        .find(|port| room.ports.contains_key(*port))
    {
        return Err(Cause::PortTaken(*port));
    }
    let (from, to) = (room.capacity.ports_from, room.capacity.ports_to);
    let in_range = request
        .fixed_ports
        .iter()
        .filter(|port| (from..=to).contains(port))
        .count();
    if request.free_ports > 0 && request.free_ports + in_range > room.free_ports() {
        return Err(Cause::Ports);
    }
    Ok(())
}

/// The ports of a run on a node it fits: fixed ones as they are, the others from the node's range,
/// the search beginning at a place that depends on the run, so that a port is not taken again at
/// once.
pub fn choose_ports(
    room: &Room,
    task: &TaskSpec,
    run: RunId,
) -> Option<std::collections::BTreeMap<Name, u16>> {
    let mut chosen = std::collections::BTreeMap::new();
    for (name, port) in &task.ports {
        if let Some(host) = port.host {
            chosen.insert(name.clone(), host);
        }
    }
    let (from, to) = (room.capacity.ports_from, room.capacity.ports_to);
    let size = u64::from(to.saturating_sub(from)) + 1;
    let start = u64::from(seed(run)) % size;
    let mut candidates =
        (0..size).filter_map(|step| u16::try_from(u64::from(from) + (start + step) % size).ok());
    for name in task.ports.keys() {
        if chosen.contains_key(name) {
            continue;
        }
        let taken = |port: &u16| {
            room.ports.contains_key(port) || chosen.values().any(|other| other == port)
        };
        let port = candidates.find(|port| !taken(port))?;
        chosen.insert(name.clone(), port);
    }
    Some(chosen)
}

/// The random part of a run's id: what its ports are drawn with.
pub fn seed(run: RunId) -> u32 {
    // The last bits of a version 7 id are random.
    let [.., a, b, c, d] = *run.0.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}
