//! Moving runs to where they cost less: `orch.admin.node.rebalance`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Name, Slot};
use crate::record::{Relocation, Score};
use crate::words::Strategy;

/// `orch.admin.node.rebalance`: has runs of services be moved to nodes where they cost less.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RebalanceRequest {
    /// Only say what would be moved.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Begin no further move of the rebalance that is under way; beside it nothing else counts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
    /// By how much a move has to lower the cost, in percent, from 1 to 90; 10 if none. By `epvm` of
    /// what the run costs where it is, by the other strategies of a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin_percent: Option<u8>,
    /// At most so many moves, up to 500; 100 if none. With 0 nothing is looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// So many at once, from 1 to 64; 4 if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
}

/// The answer to [`RebalanceRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebalanceView {
    /// What is moved, or would be, in this order.
    pub moves: Vec<MoveView>,
    /// Whether there may be more: not all were looked at, or there were more than were asked for.
    #[serde(default)]
    pub more: bool,
    /// By how much each lowers the cost at least, in percent.
    #[serde(default)]
    pub margin_percent: u8,
    /// What all nodes cost together by `epvm`: the sum of `n^u` over nodes and resources.
    pub cost_before: Score,
    /// The same after the moves.
    pub cost_after: Score,
    /// How many runs may be moved.
    #[serde(default)]
    pub movable: u32,
    /// How many of them were looked at, or are like one that was.
    #[serde(default)]
    pub looked: u32,
    /// How many stay where they are, by why: `run to completion`, `are of gangs`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stay: BTreeMap<String, u32>,
    /// How many moves were begun when this was first asked under its command id: it is not done again,
    /// and nothing was looked for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated: Option<u32>,
    /// The rebalance that is under way, or was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<RebalanceProgress>,
}

/// A run and where it costs less.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveView {
    /// Its slot.
    pub slot: Slot,
    /// Where it is.
    pub from: Name,
    /// Where it costs less.
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
}

/// How far a rebalance is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebalanceProgress {
    /// Who wants it so, as the server knows them.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
    /// How many are moved at once.
    pub at_once: u32,
    /// How many are not begun.
    pub pending: u32,
    /// Those that are begun.
    pub under_way: Vec<Relocation>,
    /// How many are done.
    pub moved: u32,
    /// How many were given up, or turned out to be needless.
    pub dropped: u32,
    /// When the last of them was; none while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<Timestamp>,
}
