//! Reading a job: text to tree, tree to the file's types, those to the canonical form.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::file::{JOB_FIELDS, JobFile, TASK_FIELDS, TaskFile};
use super::later::{JOB, TASK, later, supported};
use super::lower::{Files, Lowering};
use super::problem::{Problem, ProblemKind, Problems, Report};
use super::reader::{Reader, unknown_field};
use super::tree::{Entry, Lines, Node, Value};
use super::{JOB_MAX, JobSpec, Sets, Syntax, json, msgpack, toml, yaml};
use crate::units::Bytes;

/// Reads a job in one of its syntaxes; `name` stands before each problem of the report.
///
/// A script `{file: path}` is refused: the program that submits a job puts the text in, see
/// [`embed_files`].
pub fn read(text: &[u8], syntax: Syntax, name: &str) -> Result<JobSpec, Report> {
    read_set(text, syntax, name, &Sets::new())
}

/// Reads a job with some of its vars set.
pub fn read_set(text: &[u8], syntax: Syntax, name: &str, sets: &Sets) -> Result<JobSpec, Report> {
    let source = Source { text, syntax, name };
    job(source, sets, None, Problems::default()).map(|(spec, _)| spec)
}

/// Reads a job, also what this build does not do yet of it.
#[cfg(test)]
pub(crate) fn read_ahead(text: &[u8], syntax: Syntax, name: &str) -> Result<JobSpec, Report> {
    let source = Source { text, syntax, name };
    job(source, &Sets::new(), None, Problems::ahead()).map(|(spec, _)| spec)
}

/// Reads a job, the texts of its script files given by `files`: path as written in, text out.
///
/// What `files` says on failure becomes the problem's message.
pub fn read_with_files(
    text: &[u8],
    syntax: Syntax,
    name: &str,
    sets: &Sets,
    files: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<JobSpec, Report> {
    let source = Source { text, syntax, name };
    job(source, sets, Some(files), Problems::default()).map(|(spec, _)| spec)
}

/// What to submit for a job file: its own bytes, or where it names script files a JSON text of
/// the same job with their texts put in. The job is read and checked on the way.
pub fn embed_files(
    text: &[u8],
    syntax: Syntax,
    name: &str,
    sets: &Sets,
    files: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<Vec<u8>, Report> {
    let mut texts = BTreeMap::new();
    let mut remember = |path: &str| {
        let text = files(path)?;
        texts.insert(path.to_owned(), text.clone());
        Ok(text)
    };
    let source = Source { text, syntax, name };
    let (_, mut tree) = job(source, sets, Some(&mut remember), Problems::default())?;
    if texts.is_empty() {
        return Ok(text.to_vec());
    }
    embed_in_job(&mut tree, &texts);
    Ok(tree.to_json().to_string().into_bytes())
}

/// A text to read.
#[derive(Clone, Copy)]
struct Source<'a> {
    text: &'a [u8],
    syntax: Syntax,
    /// As messages name it.
    name: &'a str,
}

fn job<'a>(
    source: Source<'_>,
    sets: &'a Sets,
    files: Option<&'a mut Files<'a>>,
    problems: Problems,
) -> Result<(JobSpec, Node), Report> {
    let Source { text, syntax, name } = source;
    let tree = tree(text, syntax).map_err(|problems| Report::new(name, problems))?;
    let Value::Map(entries) = &tree.value else {
        let problem = Problem::new("a job is a map of fields", "begin with `name: ...`");
        let problem = problem.at(tree.place.line, tree.place.column);
        return Err(Report::new(name, vec![problem]));
    };
    let several = entries.iter().any(|entry| entry.key == "tasks");
    let problems = RefCell::new(problems);
    let (of_job, of_task) = split(tree, several, &problems);
    let job_file = JobFile::deserialize(Reader::new(&of_job, &problems));
    let task_file = TaskFile::deserialize(Reader::new(&of_task, &problems));
    let mut lowering = Lowering::new(problems.into_inner(), files, sets, text.len());
    let spec = match (job_file, task_file) {
        (Ok(job), Ok(task)) => {
            let main = if several { None } else { Some(task) };
            lowering.job(job, main, of_job.place)
        }
        (Err(error), _) | (_, Err(error)) => {
            lowering.push(Problem::new(error.to_string(), ""));
            None
        }
    };
    match spec {
        Some(spec) if lowering.problems.is_empty() => Ok((spec, join(of_job, of_task))),
        _ => Err(lowering.problems.into_report(name)),
    }
}

/// The tree of a text, within the limits of size and depth.
fn tree(text: &[u8], syntax: Syntax) -> Result<Node, Vec<Problem>> {
    if text.len() > JOB_MAX {
        let size = Bytes(text.len() as u64);
        let message = format!(
            "the job has {size}, at most {} are read",
            Bytes(JOB_MAX as u64)
        );
        return Err(vec![Problem::new(message, "").of(ProblemKind::TooLarge)]);
    }
    if syntax == Syntax::MessagePack {
        return msgpack::parse(text).map_err(|problem| vec![problem]);
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            let valid = &text[..error.valid_up_to()];
            let lines = String::from_utf8_lossy(valid);
            let place = Lines::new(&lines).place(valid.len());
            let problem = Problem::new("the text is not UTF-8", "save the file as UTF-8");
            return Err(vec![problem.at(place.line, place.column)]);
        }
    };
    // A byte order mark is no part of the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match syntax {
        Syntax::Toml => toml::parse(text),
        Syntax::Json => json::parse(text).map_err(|problem| vec![problem]),
        Syntax::Yaml | Syntax::MessagePack => yaml::parse(text).map_err(|problem| vec![problem]),
    }
}

/// The fields of the job and, where there is no `tasks`, those of its only task. What belongs to
/// neither is a problem.
fn split(tree: Node, several: bool, problems: &RefCell<Problems>) -> (Node, Node) {
    let place = tree.place;
    let mut of_job = Vec::new();
    let mut of_task = Vec::new();
    let entries = match tree.value {
        Value::Map(entries) => entries,
        _ => Vec::new(),
    };
    let mut problems = problems.borrow_mut();
    for entry in entries {
        let key = entry.key.as_str();
        let later_of_task = problems.refuses(TASK, key);
        let of_a_task = TASK_FIELDS.contains(&key) || later_of_task;
        let problem = if problems.refuses(JOB, key) {
            Problem::not_yet(key)
        } else if JOB_FIELDS.contains(&key) {
            of_job.push(entry);
            continue;
        } else if several && of_a_task {
            Problem::new(
                format!("`{key}` stands beside `tasks`"),
                "move it into the tasks",
            )
        } else if later_of_task {
            Problem::not_yet(key)
        } else if of_a_task {
            of_task.push(entry);
            continue;
        } else if ["timezone", "overlap"].contains(&key) {
            let help = "write `schedule: {cron: \"0 3 * * *\", timezone: Europe/Berlin}`";
            Problem::new(format!("`{key}` is a part of `schedule`"), help)
        } else if problems.is_full() {
            continue;
        } else {
            let mut fields = supported(JOB, &JOB_FIELDS);
            let mut not_yet = later(JOB);
            if !several {
                fields.extend(supported(TASK, &TASK_FIELDS));
                not_yet.extend(later(TASK));
            }
            unknown_field(key, &fields, &not_yet)
        };
        let path = super::problem::shown(key);
        problems.push(problem.at(entry.place.line, entry.place.column).on(path));
    }
    let node = |entries| Node {
        place,
        value: Value::Map(entries),
    };
    (node(of_job), node(of_task))
}

fn join(mut job: Node, task: Node) -> Node {
    if let (Value::Map(entries), Value::Map(more)) = (&mut job.value, task.value) {
        entries.extend(more);
    }
    job
}

fn embed_in_job(job: &mut Node, texts: &BTreeMap<String, String>) {
    let Value::Map(entries) = &mut job.value else {
        return;
    };
    embed_in_task(entries, texts);
    let tasks = entries.iter_mut().filter(|entry| entry.key == "tasks");
    for task in tasks.flat_map(|entry| entries_of(&mut entry.node)) {
        if let Value::Map(entries) = &mut task.node.value {
            embed_in_task(entries, texts);
        }
    }
}

fn embed_in_task(entries: &mut [Entry], texts: &BTreeMap<String, String>) {
    for entry in entries {
        let Value::Map(script) = &mut entry.node.value else {
            continue;
        };
        let is_script = matches!(entry.key.as_str(), "bash" | "python" | "go");
        let file = script.iter().find(|field| field.key == "file");
        let has_text = script.iter().any(|field| field.key == "text");
        let (true, false, Some(file)) = (is_script, has_text, file) else {
            continue;
        };
        let place = file.place;
        let text = file
            .node
            .value
            .as_written()
            .and_then(|path| texts.get(path));
        if let Some(text) = text {
            script.push(Entry {
                key: "text".to_owned(),
                place,
                node: Node {
                    place,
                    value: Value::Text(text.clone()),
                },
            });
        }
    }
}

fn entries_of(node: &mut Node) -> &mut [Entry] {
    match &mut node.value {
        Value::Map(entries) => entries,
        _ => &mut [],
    }
}
