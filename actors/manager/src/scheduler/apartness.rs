//! Whether a node is apart from those on which the replicas of a task are, asked of many nodes and
//! many slots: replicas are counted once a task.

use std::collections::HashMap;
use std::sync::Arc;

use loom_schemas::ids::{Name, Slot};
use loom_schemas::record::{NodeRecord, SlotRecord};
use loom_schemas::spec::Attribute;

use super::constraint::Attributes;
use super::request::{Apart, Request};
use super::why::Cause;
use crate::state::{State, live_runs};

/// Where the replicas of tasks are that have to be apart.
#[derive(Debug)]
pub struct Apartness<'a> {
    state: &'a State,
    tasks: HashMap<(Name, Name), Replicas>,
    /// Whether replicas count as well for which room is being made.
    claims: bool,
}

/// The nodes on which a slot is, or where room is being made for it.
fn nodes(record: &SlotRecord, claims: bool) -> impl Iterator<Item = &Name> {
    let runs = live_runs(record).filter_map(|run| run.node.as_ref());
    let claim = record.claim.as_ref().filter(|_| claims);
    runs.chain(claim.map(|claim| &claim.node))
}

/// The replicas of a task, counted.
#[derive(Debug, Default)]
struct Replicas {
    by_node: HashMap<Name, u32>,
    by_value: HashMap<Attribute, HashMap<String, u32>>,
}

impl<'a> Apartness<'a> {
    /// Of the replicas that a state has.
    pub fn of(state: &'a State) -> Self {
        Self {
            state,
            tasks: HashMap::new(),
            claims: false,
        }
    }

    /// The same, with those for which room is being made.
    pub fn with_claims(state: &'a State) -> Self {
        Self {
            claims: true,
            ..Self::of(state)
        }
    }

    /// Whether a node is apart from those of the other replicas of a slot, as far as a request asks
    /// for it.
    pub fn allows(&mut self, request: &Request, slot: &Slot, node: &Arc<NodeRecord>) -> bool {
        self.refuses(request, slot, node).is_none()
    }

    /// Why it is not.
    pub(super) fn refuses(
        &mut self,
        request: &Request,
        slot: &Slot,
        node: &Arc<NodeRecord>,
    ) -> Option<Cause> {
        if request.apart.is_empty() {
            return None;
        }
        let (state, claims) = (self.state, self.claims);
        let key = (slot.job.clone(), slot.task.clone());
        let replicas = self.tasks.entry(key).or_insert_with(|| {
            let mut replicas = Replicas::default();
            for record in state.slots_of_task(&slot.job, &slot.task) {
                for node in nodes(record, claims) {
                    *replicas.by_node.entry(node.clone()).or_default() += 1;
                }
            }
            replicas
        });
        // Its own do not count.
        let own = state.slot(slot).into_iter();
        let own: Vec<&Name> = own.flat_map(|own| nodes(own, claims)).collect();
        let mut allows = |apart: &Apart| match apart {
            Apart::Hosts => {
                let here = replicas.by_node.get(&node.name).copied();
                let mine = own.iter().filter(|own| ***own == node.name).count();
                here.unwrap_or_default() as usize <= mine
            }
            Apart::Property(attribute, most) => {
                let Some(value) = Attributes::of(node).text(attribute) else {
                    return false;
                };
                let same = |own: &&&Name| text(state, own, attribute).as_ref() == Some(&value);
                let mine = own.iter().filter(same).count();
                let count = replicas.of_value(state, attribute, &value) as usize;
                count.saturating_sub(mine) < *most as usize
            }
        };
        let refused = request.apart.iter().find(|apart| !allows(apart));
        refused.map(Apart::cause)
    }
}

impl Replicas {
    fn of_value(&mut self, state: &State, attribute: &Attribute, value: &str) -> u32 {
        if !self.by_value.contains_key(attribute) {
            let mut counts: HashMap<String, u32> = HashMap::new();
            for (node, count) in &self.by_node {
                if let Some(value) = text(state, node, attribute) {
                    *counts.entry(value).or_default() += count;
                }
            }
            self.by_value.insert(attribute.clone(), counts);
        }
        let counts = self.by_value.get(attribute);
        counts
            .and_then(|counts| counts.get(value))
            .copied()
            .unwrap_or_default()
    }
}

fn text(state: &State, node: &Name, attribute: &Attribute) -> Option<String> {
    Attributes::of(state.node(node)?).text(attribute)
}
