//! The ways to make room for those of one request and priority, kept from one of them to the next: what
//! one takes changes a node or two, and the others are as they were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use loom_schemas::ids::Name;
use loom_schemas::record::NodeRecord;

use super::evict::Way;
use crate::scheduler::Sacrifice;
use crate::state::{Load, State};

/// So many are kept of one request: about as many as a pass can take.
const KEPT_MAX: usize = 256;

/// The cheapest ways, at most one a node.
#[derive(Default)]
pub(super) struct Ways {
    /// As what is held was when they were looked for.
    loads: OrdMap<Name, Arc<Load>>,
    best: BTreeSet<(Sacrifice, Name)>,
    by_node: BTreeMap<Name, Way>,
    /// The cheapest that was not kept.
    beyond: Option<(Sacrifice, Name)>,
}

impl Ways {
    /// Those that `way` finds on the nodes of a state.
    pub(super) fn of(state: &State, way: &impl Fn(&Arc<NodeRecord>) -> Option<Way>) -> Self {
        let mut ways = Self {
            loads: state.node_loads().clone(),
            ..Self::default()
        };
        for found in state.nodes().filter_map(way) {
            ways.put(found);
        }
        ways
    }

    /// Takes the cheapest in a state in which something else may be held.
    pub(super) fn take_of(
        &mut self,
        state: &State,
        way: &impl Fn(&Arc<NodeRecord>) -> Option<Way>,
    ) -> Option<Way> {
        self.follow(state, way);
        let unknown = self.beyond.as_ref();
        if unknown.is_some_and(|unknown| self.best.first().is_none_or(|best| best > unknown)) {
            *self = Self::of(state, way);
        }
        self.take()
    }

    /// Takes the cheapest.
    pub(super) fn take(&mut self) -> Option<Way> {
        let (_, node) = self.best.pop_first()?;
        self.by_node.remove(&node)
    }

    /// Looks again at the nodes on which something else is held now.
    fn follow(&mut self, state: &State, way: &impl Fn(&Arc<NodeRecord>) -> Option<Way>) {
        let loads = state.node_loads();
        let changed: Vec<Name> = self
            .loads
            .diff(loads)
            .map(|item| match item {
                DiffItem::Add(name, _)
                | DiffItem::Remove(name, _)
                | DiffItem::Update { new: (name, _), .. } => name.clone(),
            })
            .collect();
        for name in changed {
            self.drop(&name);
            if let Some(found) = state.node(&name).and_then(way) {
                self.put(found);
            }
        }
        self.loads = loads.clone();
    }

    fn put(&mut self, way: Way) {
        self.best.insert((way.sacrifice.clone(), way.node.clone()));
        self.by_node.insert(way.node.clone(), way);
        if self.best.len() > KEPT_MAX
            && let Some(dearest) = self.best.pop_last()
        {
            self.by_node.remove(&dearest.1);
            let known = self.beyond.take();
            self.beyond =
                Some(known.map_or_else(|| dearest.clone(), |known| known.min(dearest.clone())));
        }
    }

    fn drop(&mut self, node: &Name) {
        if let Some(way) = self.by_node.remove(node) {
            self.best.remove(&(way.sacrifice, way.node));
        }
    }
}
