//! Why a run is where it is.

use serde::{Deserialize, Serialize};

use crate::ids::{Name, Revision, Slot};
use crate::words::Strategy;

/// How the node of a run was chosen: what the choice was made from, and how near the others came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// How nodes were ranked.
    pub strategy: Strategy,
    /// The last entry of the log that the choice knew of; what its leader had decided since and not
    /// written yet it knew as well.
    pub revision: Revision,
    /// Where in the range of its node the search for free ports began.
    pub seed: u32,
    /// What the node costs by the strategy; the lower, the better.
    pub score: Score,
    /// The next best nodes, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runners_up: Vec<RunnerUp>,
    /// The slots of those that were evicted for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evicted: Vec<Slot>,
}

/// A node that came next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerUp {
    /// The node.
    pub node: Name,
    /// What it would have cost.
    pub score: Score,
}

/// A cost by a strategy; equal if it is the same number bit for bit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Score(pub f64);

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Score {}
