//! The scheduler: which node takes a run. Select candidates, score, pick.
//!
//! [`Cluster`] is what the nodes have left. It is kept from pass to pass, follows the state by what
//! differs from the state it followed before, and keeps the nodes in order for each shape of
//! request that comes again: so all nodes that fit are compared, and only those that changed are
//! looked at. Everything is deterministic; ties go to the name.

mod affinity;
mod apartness;
mod cluster;
mod compare;
mod constraint;
mod evict;
mod fits;
mod floor;
pub(crate) mod gpus;
#[cfg(test)]
mod laws;
mod outlook;
mod pick;
mod queue;
mod ranking;
mod request;
mod score;
mod select;
mod shape;
mod siblings;
mod spacing;
mod spread;
#[cfg(test)]
mod tests;
mod together;
mod usage;
mod why;

use std::collections::BTreeMap;

use loom_schemas::ids::Name;
use loom_schemas::record::{Bias, Gpu, RunnerUp, Score};
use loom_schemas::spec::SpreadOver;
use loom_schemas::words::Strategy;

pub use affinity::Affinities;
pub use apartness::Apartness;
pub use cluster::Cluster;
pub use compare::{Compared, Holding, Margin};
pub use constraint::{Attributes, Rule, tolerates};
pub use evict::{Candidate, Sacrifice, least_evicted};
pub use fits::{Room, choose_ports, fits, seed};
pub use outlook::{End, Outlooks};
pub use queue::{GangKey, Queue, Rank};
pub use request::Request;
pub use siblings::Siblings;
pub use together::{earliest, how_many, together};
pub use usage::{Smoothed, noticed};
pub use why::{Cause, WhyNot};

/// Where a run goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The node.
    pub node: Name,
    /// Its ports there.
    pub ports: BTreeMap<Name, u16>,
    /// Its gpus there.
    pub gpus: Vec<Gpu>,
    /// How nodes were ranked.
    pub strategy: Strategy,
    /// What it costs there by the strategy; the lower, the better.
    pub score: Score,
    /// What counted for it or against it.
    pub bias: Bias,
    /// The next best nodes, the best first.
    pub runners_up: Vec<RunnerUp>,
}

/// What speaks for and against nodes beside their room; none of it excludes a node.
#[derive(Debug, Default)]
pub struct Preferences<'a> {
    /// How nodes are ranked; as the cluster says if none.
    pub strategy: Option<Strategy>,
    /// Where the replicas of the task live: fewer are better. What is placed is added.
    pub siblings: Option<&'a mut Siblings>,
    /// Where it failed lately, and how often: any other is better.
    pub failed: &'a [(Name, u8)],
    /// What speaks for nodes and against them.
    pub affinities: Affinities,
    /// Over what replicas are spread beside nodes.
    pub spread: &'a [SpreadOver],
    /// The node of the slot's own run, which does not count among the replicas that have to be
    /// apart.
    pub own: Option<&'a Name>,
}
