//! The JSON Schema of the language, from the types of the file.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::file::{JobFile, TaskFile};
use super::later::{JOB, TASK, later};

/// The JSON Schema (draft 2020-12) of a job file, for editors and other programs.
///
/// It describes the shape; what needs more than that (units in range, references, names that
/// belong together) is checked by the reader alone.
pub fn json_schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut task = generator.root_schema_for::<TaskFile>().to_value();
    let mut job = generator.into_root_schema_for::<JobFile>().to_value();
    remove_later(&mut task, TASK);
    remove_later(&mut job, JOB);
    for (definition, of) in [("/$defs/Task", TASK), ("/$defs/Kind", "Kind")] {
        if let Some(definition) = job.pointer_mut(definition) {
            remove_later(definition, of);
        }
    }
    let task_fields = task["properties"].as_object().cloned().unwrap_or_default();
    let operator = operators();
    let no_task_field: Map<String, Value> = task_fields
        .keys()
        .map(|name| (name.clone(), Value::Bool(false)))
        .collect();
    job["required"] = json!(["name"]);
    job["if"] = json!({ "required": ["tasks"] });
    job["then"] = json!({ "properties": no_task_field });
    job["else"] = json!({ "oneOf": operator });
    if let Some(fields) = job["properties"].as_object_mut() {
        fields.extend(task_fields);
    }
    if let Some(task) = job
        .pointer_mut("/$defs/Task")
        .and_then(Value::as_object_mut)
    {
        task.insert("oneOf".to_owned(), json!(operator));
    }
    job
}

/// Takes out what the reader refuses yet.
fn remove_later(schema: &mut Value, of: &str) {
    let later = later(of);
    // Not by index, which would leave a `null` where there is none: a schema has none.
    if let Some(Value::Object(fields)) = schema.get_mut("properties") {
        fields.retain(|name, _| !later.contains(&name.as_str()));
    }
    if let Some(Value::Array(values)) = schema.get_mut("oneOf") {
        values.retain(|value| !later.iter().any(|name| value["const"] == *name));
    }
}

/// Exactly one of the operators, or a script beside an image.
fn operators() -> Vec<Value> {
    let without = |names: &[&str]| -> Map<String, Value> {
        let refused = |name: &&str| ((*name).to_owned(), Value::Bool(false));
        names.iter().map(refused).collect()
    };
    let scripts = ["bash", "python", "go"];
    let script = |name: &str| json!({ "required": [name] });
    let mut all: Vec<Value> = scripts.iter().map(|name| script(name)).collect();
    for alone in ["exec", "job"] {
        all.push(json!({ "required": [alone], "properties": without(&["image"]) }));
    }
    let others = without(&["bash", "python", "go", "exec", "job"]);
    all.push(json!({ "required": ["image"], "properties": others }));
    all
}
