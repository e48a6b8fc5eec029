//! Limits of a run that change while it runs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::RunRecord;
use crate::spec::Resources;

/// What is known of changes of a run's limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// How often they were changed (`Assigned::resize`).
    pub orders: u32,
    /// The last change, while it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingResize>,
    /// When the last one came to hold that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_at: Option<Timestamp>,
}

/// A change of limits that a run's node was told, and that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingResize {
    /// The version that the run is of once they hold.
    pub version: u32,
    /// What it then holds on its node.
    pub wanted: Resources,
    /// Since when it is wanted.
    pub since: Timestamp,
    /// Why it does not hold, in words, as its node said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Whether a run that runs is held to the limits of the version its node was told last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limits {
    /// As far as the kernel can hold it to any.
    #[default]
    Hold,
    /// They are being changed.
    Pending,
    /// The kernel, or the engine, does not change them now; it is tried again.
    Refused {
        /// In words.
        reason: String,
    },
}

impl Limits {
    /// Whether they hold.
    pub fn hold(&self) -> bool {
        *self == Self::Hold
    }
}

impl PendingResize {
    /// How it stands, in words: `is not held to the limits of version 2: memory limit: ...`.
    pub fn standing(&self) -> String {
        let version = self.version;
        match &self.refused {
            Some(reason) => format!("is not held to the limits of version {version}: {reason}"),
            None => format!("is not held to the limits of version {version} yet"),
        }
    }
}

impl RunRecord {
    /// The change of its limits that does not hold yet.
    pub fn resizing(&self) -> Option<&PendingResize> {
        self.resize.as_ref()?.pending.as_ref()
    }

    /// The version its node is told: where its limits are being changed the one they are of.
    pub fn told_version(&self) -> u32 {
        self.resizing()
            .map_or(self.version, |pending| pending.version)
    }

    /// How often its limits were changed in place.
    pub fn resize_orders(&self) -> u32 {
        self.resize.as_ref().map_or(0, |resize| resize.orders)
    }
}
