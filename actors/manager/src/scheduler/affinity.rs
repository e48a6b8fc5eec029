//! Affinities of a task, ready to be asked of many nodes.

use std::sync::Arc;

use loom_schemas::spec::TaskSpec;

use super::constraint::Rule;

/// What speaks for nodes and against them, each with its weight from -100 to 100. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Affinities(Arc<[(Rule, i8)]>);

impl Affinities {
    /// Those of a task.
    pub fn of(task: &TaskSpec) -> Self {
        let affinities = task.affinities.iter();
        let ready = affinities.map(|affinity| {
            let rule = Rule::new(affinity.predicate.clone());
            (rule, affinity.weight)
        });
        Self(ready.collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Rule, i8)> {
        self.0.iter()
    }
}
