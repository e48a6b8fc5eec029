//! Room that is made for a slot.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{Name, RunId, Slot};
use crate::spec::Resources;

/// Room on a node that is made for a slot that waits: it is kept free for it from the time others
/// were told to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Where.
    pub node: Name,
    /// What it is to hold there.
    pub reserved: Resources,
    /// Host ports that it fixes.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<u16>,
    /// Placements that are ending, with what they hold until they have.
    pub awaits: BTreeMap<RunId, Resources>,
    /// The slots of those that were evicted for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evicted: Vec<Slot>,
}
