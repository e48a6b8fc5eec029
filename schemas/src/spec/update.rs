//! How a changed job takes the place of the one before.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TaskSpec;
use super::field::{Field, Span, Whole};
use super::lower::{Lowering, REPLICAS_MAX};
use super::policy::span;
use crate::units::Millis;

/// How a changed job takes the place of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateSpec {
    /// How many slots of a task are replaced at once.
    pub parallel: u32,
    /// How many slots of a task are replaced first, before somebody promotes the update; none if 0.
    pub canary: u32,
    /// Which run of a slot goes first; see [`order_of`](Self::order_of) where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<UpdateOrder>,
    /// How long a new run has to be healthy (to run, where nothing checks it) to count.
    pub healthy_for: Millis,
    /// A new run that does not count after so long fails the update.
    pub deadline: Millis,
    /// What becomes of an update that failed.
    pub on_failure: OnUpdateFailure,
}

/// Which run of a slot goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The new run is started, and the old one stopped once the new one counts.
    StartFirst,
    /// The old run is stopped, and the new one started once it ended.
    StopFirst,
}

/// What becomes of an update that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnUpdateFailure {
    /// The last healthy version comes back.
    #[default]
    Rollback,
    /// It stays as it is until somebody decides.
    Pause,
    /// It goes on with the next slot.
    Continue,
}

impl Default for UpdateSpec {
    fn default() -> Self {
        Self {
            parallel: 1,
            canary: 0,
            order: None,
            healthy_for: Millis::secs(10),
            deadline: Millis::secs(300),
            on_failure: OnUpdateFailure::Rollback,
        }
    }
}

impl UpdateSpec {
    /// Which run of a slot of this task goes first: where the file does not say the new one, unless
    /// both would need the same fixed port of their node.
    pub fn order_of(&self, task: &TaskSpec) -> UpdateOrder {
        let fixed = || task.ports.values().any(|port| port.host.is_some());
        match self.order {
            Some(order) => order,
            None if fixed() => UpdateOrder::StopFirst,
            None => UpdateOrder::StartFirst,
        }
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a changed job takes the place of the one before.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Update")]
pub(crate) struct UpdateFile {
    /// How many slots of a task are replaced at once. Default: 1.
    #[schemars(range(min = 1, max = 10_000))]
    parallel: Field<Whole>,
    /// How many slots of a task are replaced before somebody promotes the update. Default: 0.
    #[schemars(range(max = 10_000))]
    canary: Field<Whole>,
    /// `start-first` or `stop-first`. Default: `start-first`, of a task with fixed host ports
    /// `stop-first`.
    order: Field<UpdateOrder>,
    /// How long a new run has to be healthy to count. Default: 10s.
    healthy_for: Field<Span>,
    /// A new run that does not count after so long fails the update. Default: 5m.
    deadline: Field<Span>,
    /// `rollback`, `pause` or `continue`. Default: `rollback`.
    on_failure: Field<OnUpdateFailure>,
}

impl Lowering<'_> {
    pub(super) fn update(&mut self, field: Field<UpdateFile>) -> UpdateSpec {
        let file = field.value.unwrap_or_default();
        let default = UpdateSpec::default();
        let healthy_for = span(&file.healthy_for).unwrap_or(default.healthy_for);
        let deadline = span(&file.deadline).unwrap_or(default.deadline);
        if deadline <= healthy_for {
            let message = format!("no run can be healthy for {healthy_for} within {deadline}");
            let (field, help) = if file.deadline.present {
                (&file.deadline, "raise `deadline` or lower `healthy_for`")
            } else {
                (&file.healthy_for, "lower it, or give a longer `deadline`")
            };
            self.push(field.problem(message, help));
        }
        UpdateSpec {
            parallel: self.whole(&file.parallel, 1..=REPLICAS_MAX, default.parallel),
            canary: self.whole(&file.canary, 0..=REPLICAS_MAX, default.canary),
            order: file.order.value,
            healthy_for,
            deadline,
            on_failure: file.on_failure.value.unwrap_or_default(),
        }
    }
}
