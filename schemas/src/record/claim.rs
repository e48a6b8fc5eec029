//! Room that is kept for a slot, or for the gang it is of.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Name, RunId, Slot};
use crate::spec::Resources;

/// Room on a node that is kept for a slot that waits, or for those of its gang: what others leave who
/// are to end is free for nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Where.
    pub node: Name,
    /// What it is to hold there.
    pub reserved: Resources,
    /// Host ports that it fixes.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<u16>,
    /// Placements that are ending, or end by the time it is needed, with what they hold until they
    /// have.
    pub awaits: BTreeMap<RunId, Resources>,
    /// The slots of those that were evicted for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evicted: Vec<Slot>,
    /// When it is needed, where that is known: until then others may have it who end before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The placement that is to move there; of others it goes with the wait of their slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<RunId>,
}

/// How far a gang is whose runs do not fit into one commit: those that are placed are *held*, which
/// is to say that their nodes are not told of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldGang {
    /// More of it are being placed; with the last one all are released.
    Gathers,
    /// It does not come to be: the places of those that are held are given back.
    GivesBack,
}
