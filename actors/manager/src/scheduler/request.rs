//! What a run needs of a node.

use std::sync::Arc;

use loom_schemas::ids::Index;
use loom_schemas::record::NodeRecord;
use loom_schemas::spec::{Attribute, Constraint, Gpus, JobSpec, TaskSpec, Toleration};
use loom_schemas::words::DriverKind;

use super::constraint::{Attributes, Rule};
use super::fits::DIMENSIONS;
use super::why::Cause;
use crate::state::Held;

/// What a run needs of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    /// What runs it.
    pub driver: DriverKind,
    /// How much of each resource.
    pub amounts: Held,
    /// Gpus of its own, by name.
    pub gpus: Gpus,
    /// Host ports that must be free.
    pub fixed_ports: Vec<u16>,
    /// How many more ports it takes from the node's range.
    pub free_ports: usize,
    /// Where the node has to be; anywhere if none.
    pub datacenters: Vec<String>,
    /// Where its output is to go beside the node's own directories.
    pub output: Option<Arc<str>>,
    /// What the node has to be.
    pub rules: Vec<Rule>,
    /// The taints that it puts up with.
    pub tolerations: Vec<Toleration>,
    /// How replicas have to be apart.
    pub apart: Vec<Apart>,
}

/// How the replicas of a task have to be apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Apart {
    /// No two on one node.
    Hosts,
    /// At most so many where an attribute is the same, none where it is missing.
    Property(Attribute, u32),
}

impl Request {
    /// What a task needs.
    pub fn of(task: &TaskSpec) -> Self {
        let mut fixed_ports: Vec<u16> = task.ports.values().filter_map(|port| port.host).collect();
        fixed_ports.sort_unstable();
        Self {
            driver: task.driver(),
            amounts: Held::of(&task.resources),
            gpus: task.resources.gpus().clone(),
            free_ports: task.ports.len() - fixed_ports.len(),
            fixed_ports,
            datacenters: Vec::new(),
            output: output(task),
            rules: rules(task),
            tolerations: task.tolerations.clone(),
            apart: task.constraints.iter().filter_map(Apart::of).collect(),
        }
    }

    /// The same, on nodes of these datacenters; of any if none.
    #[must_use]
    pub fn within(self, datacenters: &[String]) -> Self {
        Self {
            datacenters: datacenters.to_vec(),
            ..self
        }
    }

    /// What the slot of this index of a task of the job needs.
    pub fn of_slot(job: &JobSpec, task: &TaskSpec, index: &Index) -> Self {
        let request = if task.has_own(index) {
            Self::of(&task.of_index(index))
        } else {
            Self::of(task)
        };
        request.within(&job.datacenters)
    }
}

/// Where a task wants its output, if it has any: what only plays has none.
fn output(task: &TaskSpec) -> Option<Arc<str>> {
    let to = task.logs.to.as_deref();
    to.filter(|_| task.driver() != DriverKind::Sim)
        .map(Arc::from)
}

/// What a task asks of its nodes by themselves.
fn rules(task: &TaskSpec) -> Vec<Rule> {
    let predicates = task
        .constraints
        .iter()
        .filter_map(|constraint| match constraint {
            Constraint::Node(predicate) => Some(predicate.clone()),
            Constraint::DistinctHosts | Constraint::DistinctProperty { .. } => None,
        });
    predicates.map(Rule::new).collect()
}

impl Apart {
    fn of(constraint: &Constraint) -> Option<Self> {
        match constraint {
            Constraint::Node(_) => None,
            Constraint::DistinctHosts => Some(Self::Hosts),
            Constraint::DistinctProperty { attribute, most } => {
                Some(Self::Property(attribute.clone(), *most))
            }
        }
    }

    /// As a cause why a node is out.
    pub(super) fn cause(&self) -> Cause {
        let constraint = match self {
            Self::Hosts => Constraint::DistinctHosts,
            Self::Property(attribute, most) => Constraint::DistinctProperty {
                attribute: attribute.clone(),
                most: *most,
            },
        };
        Cause::Constraint(constraint.to_string().into())
    }
}

impl Request {
    /// Whether a node is apart from those on which the other replicas are, as far as it has to be.
    pub fn is_apart(&self, node: &Arc<NodeRecord>, others: &[Arc<NodeRecord>]) -> bool {
        self.apart.iter().all(|apart| match apart {
            Apart::Hosts => others.iter().all(|other| other.name != node.name),
            Apart::Property(attribute, most) => {
                let value = |node| Attributes::of(node).text(attribute);
                let here = value(node);
                let same = others.iter().filter(|other| value(other) == here);
                here.is_some() && same.count() < *most as usize
            }
        })
    }

    /// What is asked for of each dimension.
    pub(super) fn asked(&self) -> [u64; DIMENSIONS] {
        self.amounts.by_dimension()
    }
}
