//! In what two specs differ, in the canonical form.

use std::collections::BTreeMap;

use loom_schemas::ids::Name;
use loom_schemas::spec::JobSpec;
use loom_schemas::wire::SpecChange;
use serde::Serialize;
use serde_json::Value;

/// The longest value that is shown, in characters.
const SHOWN: usize = 200;

/// In what a job differs from another, apart from tasks that only one of them has.
pub(super) fn diff(old: &JobSpec, new: &JobSpec) -> Vec<SpecChange> {
    let mut changes = Vec::new();
    let rest = |spec: &JobSpec| JobSpec {
        tasks: BTreeMap::new(),
        ..spec.clone()
    };
    compare("", &rest(old), &rest(new), &mut changes);
    for name in old
        .tasks
        .keys()
        .chain(new.tasks.keys().filter(|n| !old.tasks.contains_key(*n)))
    {
        changes.extend(task_diff(old, new, name));
    }
    changes.retain(|change| !change.path.is_empty());
    changes
}

/// The same for one task, which both have or which is named as a whole.
pub(super) fn task_diff(old: &JobSpec, new: &JobSpec, name: &Name) -> Vec<SpecChange> {
    let mut changes = Vec::new();
    let path = format!("tasks.{name}");
    let whole = |old: Option<&str>, new: Option<&str>| SpecChange {
        path: path.clone(),
        old: old.map(str::to_owned),
        new: new.map(str::to_owned),
    };
    match (old.tasks.get(name), new.tasks.get(name)) {
        (Some(old), Some(new)) if old == new => {}
        (Some(old), Some(new)) => compare(&path, old, new, &mut changes),
        (Some(task), None) => changes.push(whole(Some(task.operator.as_str()), None)),
        (None, Some(task)) => changes.push(whole(None, Some(task.operator.as_str()))),
        (None, None) => {}
    }
    changes
}

fn compare<T: Serialize>(path: &str, old: &T, new: &T, changes: &mut Vec<SpecChange>) {
    // A spec of maps, texts and numbers can be written as JSON.
    let value = |spec: &T| serde_json::to_value(spec).unwrap_or_default();
    walk(path, Some(&value(old)), Some(&value(new)), changes);
}

fn walk(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<SpecChange>) {
    if old == new {
        return;
    }
    if let (Some(Value::Object(before)), Some(Value::Object(after))) = (old, new) {
        let added = after.keys().filter(|key| !before.contains_key(*key));
        for key in before.keys().chain(added) {
            let path = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            walk(&path, before.get(key), after.get(key), changes);
        }
        return;
    }
    let shown = |value: &Value| {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        }
    };
    changes.push(SpecChange {
        path: path.to_owned(),
        old: old.map(shown),
        new: new.map(shown),
    });
}
