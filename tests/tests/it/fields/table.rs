//! `tests/fields.md` names a test for each field of the language, and each test that it names exists.

use std::collections::BTreeSet;
use std::fs;

use loom_tests::cluster::{checkout, run_alone};
use serde_json::Value;

const TABLE: &str = "tests/fields.md";

/// What has to be done about a field without a row.
const WHAT_TO_DO: &str = "a field that this build takes has a test that shows what it does to \
                          running tasks, and that fails when the field has no effect: write it \
                          (tests/tests/it/fields is the room for it) and add its row";

/// A row of the table: the field, and the tests with the files they are in.
struct Row {
    field: String,
    tests: Vec<(String, String)>,
}

fn rows() -> Vec<Row> {
    let table = fs::read_to_string(checkout().join(TABLE)).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(" | ").collect();
        assert_eq!(cells.len(), 3, "{TABLE}: {line}");
        let linked = |link: &str| {
            let (name, rest) = link.split_once("](")?;
            let (file, _) = rest.split_once(')')?;
            Some((name.trim_matches('`').to_owned(), file.to_owned()))
        };
        Row {
            field: cells[0].trim_matches(['|', ' ', '`']).to_owned(),
            tests: cells[2].split('[').filter_map(linked).collect(),
        }
    };
    let lines = table.lines().filter(|line| line.starts_with("| `"));
    lines.map(row).collect()
}

/// The fields of a schema: of a map each value as `*`, of an enumeration each of its values apart.
fn fields(root: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let place = name.strip_prefix('#').unwrap();
        return fields(root, root.pointer(place).unwrap(), path, found);
    }
    let alternatives = |key: &str| schema[key].as_array().cloned().unwrap_or_default();
    let within = |found: &mut BTreeSet<String>, properties: &Value| {
        for (name, schema) in properties.as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            fields(root, schema, path.trim_start_matches('.'), found);
        }
    };
    let values: Vec<String> = alternatives("oneOf")
        .iter()
        .filter_map(|value| Some(format!("{path}: {}", value["const"].as_str()?)))
        .collect();
    let forms = alternatives("anyOf");
    if !values.is_empty() {
        found.extend(values);
    } else if !forms.is_empty() {
        // The short form is the field itself; of the long one each field counts.
        found.insert(path.trim_end_matches(".*").to_owned());
        for form in forms.iter().filter(|form| is_map(root, form)) {
            fields(root, form, path, found);
        }
    } else if is_map(root, schema) {
        within(found, &schema["properties"]);
    } else if schema["items"].is_object() {
        fields(root, &schema["items"], path, found);
    } else if schema["additionalProperties"].is_object() && path != "tasks" {
        fields(
            root,
            &schema["additionalProperties"],
            &format!("{path}.*"),
            found,
        );
    } else {
        found.insert(path.trim_end_matches(".*").to_owned());
    }
}

/// Whether a form has fields of its own.
fn is_map(root: &Value, schema: &Value) -> bool {
    let name = schema["$ref"]
        .as_str()
        .and_then(|name| name.strip_prefix('#'));
    let schema = name.map_or(schema, |name| root.pointer(name).unwrap());
    let properties = schema["properties"].as_object();
    properties.is_some_and(|properties| !properties.is_empty())
}

#[test]
fn every_field_of_the_language_is_in_the_table() {
    let schema = run_alone(&["schema"]).expect_code(0).json();
    let mut taken = BTreeSet::new();
    fields(&schema, &schema, "", &mut taken);
    // A walk that finds little proves little.
    for field in [
        "name",
        "update.order: stop-first",
        "ports.*.host",
        "restart.on: never",
    ] {
        assert!(taken.contains(field), "{field}: {taken:#?}");
    }
    let listed: Vec<String> = rows().into_iter().map(|row| row.field).collect();
    let once: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), once.len(), "{TABLE}: a field has two rows");
    let missing: Vec<&String> = taken.difference(&once).collect();
    assert!(
        missing.is_empty(),
        "{TABLE} has no row for {missing:#?}: {WHAT_TO_DO}"
    );
    let unknown: Vec<&String> = once.difference(&taken).collect();
    assert!(
        unknown.is_empty(),
        "{TABLE} has rows for what is no field of `loomctl schema`: {unknown:#?}"
    );
}

#[test]
fn every_test_in_the_table_exists() {
    for row in rows() {
        let field = &row.field;
        assert!(
            !row.tests.is_empty(),
            "{TABLE}: {field}: no test; {WHAT_TO_DO}"
        );
        for (test, file) in row.tests {
            let (module, name) = test.rsplit_once("::").unwrap();
            let path = checkout().join("tests").join(&file);
            let text = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{TABLE}: {field}: {file}: {error}"));
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let begins = [format!("fn {name}("), format!("async fn {name}(")];
            let is_it = |line: &&str| begins.iter().any(|begin| line.starts_with(begin));
            let at = lines.iter().position(is_it);
            let at = at.unwrap_or_else(|| panic!("{TABLE}: {field}: no test {name} in {file}"));
            let before = lines[..at].iter().rev();
            let mut attributes = before.take_while(|line| line.starts_with("#["));
            assert!(
                attributes.any(|line| line.contains("test")),
                "{TABLE}: {field}: {name} in {file} is no test"
            );
            let place = file
                .replace("/mod.rs", "")
                .replace(".rs", "")
                .replace('/', "::");
            assert!(
                place.ends_with(&format!("::{module}")),
                "{TABLE}: {field}: {test} is not in {file}"
            );
        }
    }
}
