//! The nodes of the state, and who has something to do when one changes.

use std::sync::Arc;

use imbl::OrdSet;
use loom_schemas::ids::Name;
use loom_schemas::record::{NodeRecord, NodeStatus, Taint};
use loom_schemas::words::TaintEffect;

use super::State;

impl State {
    /// A node.
    pub fn node(&self, name: &Name) -> Option<&Arc<NodeRecord>> {
        self.nodes.get(name)
    }

    /// All nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.nodes.values()
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes that are down.
    pub fn down_nodes(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.down.iter().filter_map(|name| self.nodes.get(name))
    }

    /// Nodes that runs have to leave: those that are drained, and those with a taint that evicts.
    pub fn left_nodes(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.left.iter().filter_map(|name| self.nodes.get(name))
    }

    pub(super) fn set_node(&mut self, name: &Name, record: Option<Arc<NodeRecord>>) {
        let old = self.nodes.get(name).map(AsRef::as_ref);
        if old
            .zip(record.as_deref())
            .is_some_and(|(old, new)| is_as_before(old, new))
        {
            // Only the generation moved: nothing to plan.
            if let Some(record) = record {
                self.nodes.insert(name.clone(), record);
            }
            return;
        }
        let old = self.nodes.get(name).cloned();
        self.count_capacity(old.as_deref(), record.as_deref());
        // One that does not answer helps nobody.
        if record
            .as_ref()
            .is_some_and(|node| node.status == NodeStatus::Up)
        {
            self.freed.insert(name.clone());
        }
        // Those as well for which room is made or kept on it.
        let slots = self.loads.get(name).into_iter().flat_map(|load| {
            let placed = load.placements.values().map(AsRef::as_ref);
            placed.chain(load.claims.keys())
        });
        let jobs: OrdSet<Name> = slots.map(|slot| slot.job.clone()).collect();
        for job in &jobs {
            self.mark_dirty(job);
        }
        self.dirty.extend(self.ties.system().iter().cloned());
        match &record {
            Some(record) if record.status != NodeStatus::Up => self.down.insert(name.clone()),
            _ => self.down.remove(name),
        };
        match &record {
            Some(record) if is_left(record) => self.left.insert(name.clone()),
            _ => self.left.remove(name),
        };
        match record {
            Some(record) => self.nodes.insert(name.clone(), record),
            None => self.nodes.remove(name),
        };
    }
}

/// Whether only the generation moved.
fn is_as_before(old: &NodeRecord, new: &NodeRecord) -> bool {
    // Taken apart so that a new field has to be thought of here.
    let NodeRecord {
        name,
        info,
        status,
        since,
        reason,
        generation: _,
        back_by,
        lost,
        labels,
        taints,
        drain,
    } = old;
    let stands =
        (status, since, back_by, lost) == (&new.status, &new.since, &new.back_by, &new.lost);
    let told = (labels, taints, drain) == (&new.labels, &new.taints, &new.drain);
    stands && told && (name, info, reason) == (&new.name, &new.info, &new.reason)
}

/// Whether runs have to leave a node, all of them or some.
fn is_left(node: &NodeRecord) -> bool {
    let evicts = |taint: &Taint| taint.effect == TaintEffect::Evict;
    node.drain.is_some() || node.taints.iter().any(evicts)
}
