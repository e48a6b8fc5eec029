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
    /// What the node costs by the strategy, with the points of its bias; the lower, the better.
    pub score: Score,
    /// What counted for the node or against it.
    #[serde(default, skip_serializing_if = "Bias::is_none")]
    pub bias: Bias,
    /// The next best nodes, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runners_up: Vec<RunnerUp>,
    /// The slots of those that were evicted for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evicted: Vec<Slot>,
    /// Who had the run moved here, where a rebalance chose the node: of the costs, which are those of
    /// the search, the second is that of the node that it was on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<String>,
}

/// A node that came next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerUp {
    /// The node.
    pub node: Name,
    /// What it would have cost.
    pub score: Score,
    /// What counted for it or against it.
    #[serde(default, skip_serializing_if = "Bias::is_none")]
    pub bias: Bias,
}

/// What counted for a node or against it, beside its room. Nodes are compared by failures first,
/// then by whether they are shunned, then by their scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bias {
    /// How often the task failed there lately.
    pub failures: u8,
    /// Whether it is taken only where no other has room, for a taint `prefer-not`.
    pub shunned: bool,
    /// What affinities and spreads say together, in hundredths of a node; above 0 in its favour.
    pub points: i16,
}

impl Bias {
    /// Whether nothing counted.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A cost by a strategy; equal if it is the same number bit for bit.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Score(pub f64);

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Score {}
