//! The examples and the documentation are true, and the JSON Schema agrees with both.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::file::{JOB_FIELDS, TASK_FIELDS};
use super::super::later::{JOB, TASK, later, supported};
use super::*;

const DOCUMENT: &str = include_str!("../../../../docs/jobs.md");

const SCHEDULING: &str = include_str!("../../../../docs/scheduling.md");

const NODES: &str = include_str!("../../../../docs/nodes.md");

/// A block of a document: its language and mark, and its text.
fn blocks_of(document: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut blocks = Vec::new();
    for part in document.split("\n```").skip(1).step_by(2) {
        blocks.push(part.split_once('\n').unwrap());
    }
    blocks
}

fn blocks() -> Vec<(&'static str, &'static str)> {
    blocks_of(DOCUMENT)
}

fn examples() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let paths = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let jobs = paths.filter(|path| Syntax::of_path(path).is_some());
    let mut jobs: Vec<_> = jobs
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    jobs.sort();
    jobs
}

fn read_any(text: &[u8], syntax: Syntax, name: &str) -> Result<JobSpec, Report> {
    read_with_files(text, syntax, name, &Sets::new(), &mut |_| {
        Ok("print()".to_owned())
    })
}

/// A block as a whole job.
fn whole(mark: &str, text: &str) -> String {
    if mark != "yaml task" {
        return text.to_owned();
    }
    let operator = text.starts_with("bash:") || text.contains("\nbash:");
    let operator = if operator { "" } else { "bash: echo\n" };
    format!("name: example\n{operator}{text}")
}

fn syntax_of(mark: &str) -> Option<Syntax> {
    let language = mark.split(' ').next()?;
    Syntax::of_path(Path::new(&format!("job.{language}")))
}

/// The examples and the good blocks of the documents, each as a whole job.
pub(super) fn good_texts() -> Vec<(Syntax, Vec<u8>)> {
    let examples = examples()
        .into_iter()
        .filter_map(|(path, text)| Some((Syntax::of_path(&path)?, text)));
    let blocks = [DOCUMENT, NODES, SCHEDULING]
        .into_iter()
        .flat_map(blocks_of);
    let blocks = blocks.filter(|(mark, _)| !mark.ends_with("wrong"));
    let blocks = blocks.filter_map(|(mark, text)| {
        let syntax = syntax_of(mark)?;
        Some((syntax, whole(mark, text).into_bytes()))
    });
    examples.chain(blocks).collect()
}

#[test]
fn every_example_is_a_good_job() {
    let examples = examples();
    assert!(examples.len() >= 8);
    for (path, text) in examples {
        let syntax = Syntax::of_path(&path).unwrap();
        let spec = read_any(&text, syntax, &path.display().to_string());
        spec.unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(Syntax::guess(&text), syntax, "{}", path.display());
    }
}

#[test]
fn hello_is_the_same_in_three_syntaxes() {
    let hello: Vec<JobSpec> = examples()
        .into_iter()
        .filter(|(path, _)| path.file_stem().unwrap() == "hello")
        .map(|(path, text)| read_any(&text, Syntax::of_path(&path).unwrap(), "job").unwrap())
        .collect();
    assert_eq!(hello.len(), 3);
    assert!(hello.iter().all(|job| *job == hello[0]));
}

#[test]
fn every_block_of_the_documents_is_as_it_says() {
    let good = good_blocks(&blocks(), "shop.yaml");
    assert!(good >= 8, "{good}");
    let good = good_blocks(&blocks_of(NODES), "index.yaml");
    assert!(good >= 2, "{good}");
    let good = good_blocks(&blocks_of(SCHEDULING), "task.yaml");
    assert!(good >= 1, "{good}");
}

/// Reads every block, each as its mark says; how many are good jobs.
fn good_blocks(blocks: &[(&str, &str)], name: &str) -> usize {
    let mut good = 0;
    for (index, (mark, text)) in blocks.iter().enumerate() {
        let Some(syntax) = syntax_of(mark) else {
            assert!(["text", "console"].contains(mark), "{mark}");
            continue;
        };
        let result = read_any(whole(mark, text).as_bytes(), syntax, name);
        if mark.ends_with("wrong") {
            let (_, report) = blocks[index + 1];
            assert_eq!(result.unwrap_err().to_string(), report);
        } else {
            result.unwrap_or_else(|report| panic!("{report}\n{text}"));
            good += 1;
        }
    }
    good
}

#[test]
fn the_document_names_every_field() {
    let fields = JOB_FIELDS.iter().chain(&TASK_FIELDS);
    let later = [later(JOB), later(TASK)].concat();
    for field in fields.chain(&later) {
        let named = [format!("`{field}`"), format!("`{field}.")];
        assert!(named.iter().any(|name| DOCUMENT.contains(name)), "{field}");
    }
}

/// Whether a text gives a field a value, in any of the syntaxes.
fn gives(text: &str, field: &str) -> bool {
    text.match_indices(field).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = &text[at + field.len()..];
        let whole = !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        whole && [":", " = ", "]"].iter().any(|sign| after.starts_with(sign))
    })
}

#[test]
fn every_field_has_an_example_in_the_document() {
    let good = |mark: &str| syntax_of(mark).is_some() && !mark.ends_with("wrong");
    let blocks = blocks().into_iter().filter(|(mark, _)| good(mark));
    let text: Vec<&str> = blocks.map(|(_, text)| text).collect();
    let text = text.join("\n");
    let fields = [supported(JOB, &JOB_FIELDS), supported(TASK, &TASK_FIELDS)].concat();
    let missing: Vec<&str> = fields.into_iter().filter(|f| !gives(&text, f)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn the_schema_has_every_field_with_a_description() {
    let schema = json_schema();
    let names = |of: &Value| -> BTreeMap<String, Value> {
        let fields = of["properties"].as_object().unwrap().clone();
        fields.into_iter().collect()
    };
    let task = names(&schema["$defs"]["Task"]);
    let of_task = supported(TASK, &TASK_FIELDS);
    let mut expected = of_task.clone();
    expected.sort_unstable();
    assert_eq!(task.keys().collect::<Vec<_>>(), expected);
    let mut expected = [supported(JOB, &JOB_FIELDS), of_task].concat();
    expected.sort_unstable();
    assert_eq!(names(&schema).keys().collect::<Vec<_>>(), expected);
    for (name, field) in names(&schema).into_iter().chain(task) {
        assert!(field["description"].is_string(), "{name}: {field}");
    }
    assert_eq!(schema["additionalProperties"], json!(false));
    // No keyword of JSON Schema may be null: a validator refuses the whole schema.
    assert!(!schema.to_string().contains(":null"), "{schema}");
}

#[test]
fn the_schema_takes_every_example_and_refuses_other_shapes() {
    let schema = json_schema();
    for (path, text) in examples() {
        let job = as_json(&text, Syntax::of_path(&path).unwrap());
        assert_eq!(mismatch(&schema, &schema, &job), None, "{}", path.display());
    }
    for (mark, text) in blocks() {
        let Some(syntax) = syntax_of(mark).filter(|_| !mark.ends_with("wrong")) else {
            continue;
        };
        let job = as_json(whole(mark, text).as_bytes(), syntax);
        assert_eq!(mismatch(&schema, &schema, &job), None, "{text}");
    }
    for wrong in [
        json!([]),
        json!({"bash": "x"}),
        json!({"name": 1, "bash": "x"}),
        json!({"name": "a", "bash": "x", "memory": 5}),
        json!({"name": "a", "bash": "x", "memory": null}),
        json!({"name": "a", "bash": "x", "cpus": 5}),
        json!({"name": "a", "tasks": {"b": {"bash": "x", "stop": {"signl": "TERM"}}}}),
        json!({"name": "a", "bash": "x", "kind": "sevice"}),
        json!({"name": "a", "tasks": {"b": {"exec": "x"}}}),
    ] {
        assert!(mismatch(&schema, &schema, &wrong).is_some(), "{wrong}");
    }
}

fn as_json(text: &[u8], syntax: Syntax) -> Value {
    let text = std::str::from_utf8(text).unwrap();
    let tree = match syntax {
        Syntax::Toml => super::super::toml::parse(text).unwrap(),
        Syntax::Json => super::super::json::parse(text).unwrap(),
        _ => super::super::yaml::parse(text).unwrap(),
    };
    tree.to_json()
}

/// Where a value is not as a schema says, by the keywords that tell its shape.
fn mismatch(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let no = |what: &str| Some(format!("{what}: {value} {schema}"));
    if *schema == json!(false) {
        return no("refused");
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        return mismatch(root, target, value);
    }
    for any in ["anyOf", "oneOf"] {
        let Some(forms) = schema[any].as_array() else {
            continue;
        };
        let fits = forms
            .iter()
            .filter(|form| mismatch(root, form, value).is_none())
            .count();
        if fits == 0 || (any == "oneOf" && fits > 1) {
            return no(any);
        }
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        Value::Null => vec![],
        kind => vec![kind.clone()],
    };
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        kind => panic!("{kind}"),
    };
    if !kinds.is_empty() && !kinds.iter().any(is) {
        return no("type");
    }
    if schema["const"] != Value::Null && schema["const"] != *value {
        return no("const");
    }
    if schema["enum"]
        .as_array()
        .is_some_and(|values| !values.contains(value))
    {
        return no("enum");
    }
    let required = schema["required"].as_array().into_iter().flatten();
    for name in required {
        if value.get(name.as_str().unwrap()).is_none() {
            return no("required");
        }
    }
    if let Some(items) = value.as_array()
        && let Some(of) = schema.get("items")
    {
        return items.iter().find_map(|item| mismatch(root, of, item));
    }
    for (key, field) in value.as_object().into_iter().flatten() {
        let of = schema["properties"]
            .get(key)
            .or(schema.get("additionalProperties"));
        let of = of.cloned().unwrap_or(json!(true));
        if let Some(found) = mismatch(root, &of, field) {
            return Some(found);
        }
    }
    None
}
