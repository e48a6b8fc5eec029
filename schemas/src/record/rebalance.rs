//! Runs that are moved to other nodes because they cost less there.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Name, RunId, Slot};
use crate::record::Score;
use crate::words::Strategy;

/// A rebalance that is under way, or was the last: moves that were decided together and are carried out a few at a
/// time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalance {
    /// Who wants it so, as the server knows them.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
    /// At most so many runs are moved at once.
    pub at_once: u32,
    /// How many are not begun: so many, the last ones, of the list that is kept beside this.
    #[serde(default)]
    pub left: u32,
    /// Those that are begun and not done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub under_way: Vec<Relocation>,
    /// How many are done.
    #[serde(default)]
    pub moved: u32,
    /// How many were given up, or turned out to be needless.
    #[serde(default)]
    pub dropped: u32,
    /// When the last of them was; none while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<Timestamp>,
}

/// The moves of a rebalance in their order, as they were decided. A record of its own that never changes:
/// each step of a rebalance is a small commit, however long the list is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovesRecord {
    /// All of them.
    pub moves: Vec<Relocation>,
}

/// A run that is to go to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocation {
    /// Its slot.
    pub slot: Slot,
    /// The first run of its placement.
    pub placement: RunId,
    /// Where it is.
    pub from: Name,
    /// Where it is to go.
    pub to: Name,
    /// How nodes are ranked for it.
    pub strategy: Strategy,
    /// What it costs where it is, once those before it are moved.
    pub here: Score,
    /// What it costs where it is to go.
    pub there: Score,
    /// Whether it leaves a node with a taint `prefer-not` for one without, whatever that costs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub avoids: bool,
    /// Until when its run has to serve there, once it is begun; it is given up then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Whether the run that takes over from it was placed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tried: bool,
}
