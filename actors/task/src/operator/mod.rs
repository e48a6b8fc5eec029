//! Operators: how a task is executed. Pure: spec in, launch out.
//!
//! | operator | argv |
//! |---|---|
//! | `bash` | `bash <script> args...`, the script in a file: no `-e`, it says itself what it wants |
//! | `python` | `python3 <script> args...` |
//! | `go` | `sh -c <build, then exec> <file> args...`: the run becomes the program built by `go build` |
//! | `exec` | the argv of the task, then `args` |
//! | `image` | the image's own program, or `command` and `args` in its place |
//!
//! A script beside an image runs in its container, where the interpreter is looked for. `command`
//! stands in for the interpreter of a script: `command: [bash, -eu]`. References are
//! filled per argument, never through a shell; in a `bash` script a reference becomes a quoted
//! environment variable (see [`shell`]), `python` and `go` read the environment.

mod container;
mod environment;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use loom_schemas::ids::{Name, RunId};
use loom_schemas::spec::reference::{Context, Reference, ReferenceError, ResultUse, Template};
use loom_schemas::spec::{HealthCheck, Operator, Script, TaskSpec, shell};
use loom_schemas::wire::Assigned;
use loom_schemas::words::DriverKind;

use crate::launch::{Launch, LaunchFile, Word};
use crate::output::LogDirs;

/// Scripts are read by the task's user, whoever that is.
const SCRIPT_MODE: u32 = 0o755;

/// Builds the file beside itself and becomes the program: `go run` would stay in between, turn
/// every exit code into 1 and keep signals to itself. File and arguments are never part of the text.
const GO_BUILD: &str = r#"go build -o "$0.bin" "$0" && exec "$0.bin" "$@""#;

/// So many characters of a value that was filled in are told of.
const FILLED_SHOWN: usize = 256;

/// Where a launch is made.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The node.
    pub node: &'a Name,
    /// How others reach it.
    pub address: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Where the output of tasks may go on it.
    pub log_dirs: &'a LogDirs,
}

/// Why no launch can be made of a task; such a run is rejected.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// A reference that was accepted once is not known here.
    #[error("{place}: {source}")]
    Reference {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// A script whose references cannot be replaced.
    #[error("{place}: {source}")]
    Script {
        /// The script.
        place: String,
        /// What is wrong with it.
        source: shell::ScriptError,
    },
    /// A reference to a port that the task does not have.
    #[error("{place}: the task has no port `{port}`")]
    NoPort {
        /// Where it stands.
        place: String,
        /// The port.
        port: Name,
    },
    /// A reference to a label that the node does not have.
    #[error("{place}: node {node} has no label `{key}`; start it with `--label {key}=...`")]
    NoLabel {
        /// Where it stands.
        place: String,
        /// The node.
        node: Name,
        /// The label.
        key: String,
    },
    /// A reference to a var of which the manager did not say the value.
    #[error("{place}: `${{var.{name}}}` has no value")]
    NoVar {
        /// Where it stands.
        place: String,
        /// The var.
        name: Name,
    },
    /// A reference to a value that a task has not left in its result.
    #[error("{place}: `${{{of}}}` has no value: task `{}` left no `{}` in its result", .of.task, .of.key)]
    NoResult {
        /// Where it stands.
        place: String,
        /// What was wanted.
        of: ResultUse,
    },
    /// Output that is to go where the node lets none go.
    #[error("logs.to: node {node} lets no output go to `{path}`: {}; start it with `--log-dir` and a directory above that", allowed(.dirs))]
    LogDir {
        /// The node.
        node: Name,
        /// Where to.
        path: String,
        /// Where it may go.
        dirs: Vec<String>,
    },
    /// No program to execute.
    #[error("`exec` names no program")]
    Empty,
    /// The task's program is that of its image, and it has none.
    #[error("the task says nothing to run: it has no image")]
    NoImage,
    /// A job is dispatched by the managers; nothing runs on a node for it.
    #[error("`job` is not supported yet")]
    SubJob,
    /// `command` replaces an interpreter, and `exec` has none.
    #[error("`command` cannot stand beside `exec`: put all of it into `exec`")]
    CommandOfExec,
}

/// Makes the launch of one run.
pub fn launch(assigned: &Assigned, run: RunId, place: Place<'_>) -> Result<Launch, OperatorError> {
    let task = &assigned.task.of_index(&assigned.slot.index);
    let fill = Fill::new(assigned, place);
    let mut files = Vec::new();
    let mut env = environment::of_run(assigned, run, place);
    let mut argv = program(&fill, &mut files, &mut env)?;
    let builds = matches!(task.operator, Operator::Go(_)) && task.command.is_empty();
    let needs = builds.then(|| "go".to_owned()).into_iter().collect();
    let container = container::of(assigned, &mut argv)?;
    if container.is_none() && argv.is_empty() {
        return Err(OperatorError::Empty);
    }
    argv.extend(fill.words("args", &task.args)?);
    for (name, value) in &task.params {
        let value = fill.text(&format!("params.{name}"), value)?;
        env.insert(shell::variable_of("LOOM_PARAM_", name), value);
    }
    for (key, value) in &task.env {
        // What Loom says of the run is not for the job file to change.
        if !env.contains_key(key) {
            env.insert(key.clone(), fill.text(&format!("env.{key}"), value)?);
        }
    }
    let workdir = task.workdir.as_ref();
    let workdir = workdir.map(|text| fill.text("workdir", text)).transpose()?;
    let user = task.user.as_ref();
    let user = user.map(|text| fill.text("user", text)).transpose()?;
    let mut logs = task.logs.clone();
    if let Some(pattern) = &logs.to {
        let path = fill.text("logs.to", pattern)?;
        logs.to = Some(log_place(path, task.driver(), place)?);
    }
    let result = container.is_some() && (task.result || !files.is_empty());
    Ok(Launch {
        run,
        slot: assigned.slot.clone(),
        argv,
        needs,
        env,
        container,
        files,
        workdir: workdir.map(PathBuf::from),
        user,
        resources: task.resources.clone(),
        logs,
        result,
        filled: fill.filled.into_inner(),
        sim: task.sim.clone(),
    })
}

/// The real place of a task's output, if it may go there; what only plays has none.
fn log_place(path: String, driver: DriverKind, place: Place<'_>) -> Result<String, OperatorError> {
    if driver == DriverKind::Sim {
        return Ok(path);
    }
    let real = place.log_dirs.place(Path::new(&path));
    let real = real.and_then(|real| real.into_os_string().into_string().ok());
    real.ok_or_else(|| OperatorError::LogDir {
        node: place.node.clone(),
        path,
        dirs: place.log_dirs.names(),
    })
}

fn allowed(dirs: &[String]) -> String {
    match dirs {
        [] => "to none but its own directories".to_owned(),
        dirs => format!("only beneath {}", dirs.join(", ")),
    }
}

/// The program of a task with its first arguments; the files and variables it needs are added.
fn program(
    fill: &Fill<'_>,
    files: &mut Vec<LaunchFile>,
    env: &mut BTreeMap<String, String>,
) -> Result<Vec<Word>, OperatorError> {
    let task = &fill.assigned.task;
    Ok(match &task.operator {
        Operator::Bash(script) => {
            let text =
                shell::with_variables(&script.text).map_err(|source| OperatorError::Script {
                    place: named("bash", script),
                    source,
                })?;
            fill.variables(&script.text, &named("bash", script), env)?;
            scripted(fill, task, &["bash"], "script.sh", &text, files)?
        }
        Operator::Python(script) => {
            scripted(fill, task, &["python3"], "script.py", &script.text, files)?
        }
        Operator::Go(script) => scripted(
            fill,
            task,
            &["sh", "-c", GO_BUILD],
            "main.go",
            &script.text,
            files,
        )?,
        Operator::Exec(_) if !task.command.is_empty() => {
            return Err(OperatorError::CommandOfExec);
        }
        Operator::Exec(argv) => fill.words("exec", argv)?,
        Operator::Image => fill.words("command", &task.command)?,
        Operator::Job(_) => return Err(OperatorError::SubJob),
    })
}

/// A health check of a task, every reference in it filled in.
pub fn health_check(
    assigned: &Assigned,
    check: &HealthCheck,
    place: Place<'_>,
) -> Result<HealthCheck, OperatorError> {
    let fill = Fill::new(assigned, place);
    Ok(match check {
        HealthCheck::Http { path, port } => HealthCheck::Http {
            path: fill.text("health.http", path)?,
            port: port.clone(),
        },
        HealthCheck::Tcp { port } => HealthCheck::Tcp { port: port.clone() },
        HealthCheck::Exec(argv) => {
            let words = argv.iter().enumerate();
            let words = words.map(|(at, word)| fill.text(&format!("health.exec[{at}]"), word));
            HealthCheck::Exec(words.collect::<Result<_, _>>()?)
        }
    })
}

/// Interpreter and script, the script as a file of the launch.
fn scripted(
    fill: &Fill<'_>,
    task: &TaskSpec,
    interpreter: &[&str],
    name: &str,
    text: &str,
    files: &mut Vec<LaunchFile>,
) -> Result<Vec<Word>, OperatorError> {
    files.push(LaunchFile {
        name: name.to_owned(),
        contents: text.as_bytes().to_vec(),
        mode: SCRIPT_MODE,
    });
    let mut argv = if task.command.is_empty() {
        let word = |word: &&str| Word::Text((*word).to_owned());
        interpreter.iter().map(word).collect()
    } else {
        fill.words("command", &task.command)?
    };
    argv.push(Word::File(name.to_owned()));
    Ok(argv)
}

fn named(operator: &str, script: &Script) -> String {
    match &script.file {
        Some(file) => format!("{operator} ({file})"),
        None => operator.to_owned(),
    }
}

/// Fills references with the values of one run.
struct Fill<'a> {
    assigned: &'a Assigned,
    place: Place<'a>,
    /// What was filled in so far.
    filled: RefCell<BTreeMap<String, String>>,
}

impl<'a> Fill<'a> {
    fn new(assigned: &'a Assigned, place: Place<'a>) -> Self {
        Self {
            assigned,
            place,
            filled: RefCell::default(),
        }
    }

    fn words(&self, field: &str, texts: &[String]) -> Result<Vec<Word>, OperatorError> {
        let word = |(index, text): (usize, &String)| {
            self.text(&format!("{field}[{index}]"), text)
                .map(Word::Text)
        };
        texts.iter().enumerate().map(word).collect()
    }

    fn text(&self, place: &str, text: &str) -> Result<String, OperatorError> {
        let template = Template::parse(text, Context::Argument).map_err(|source| {
            OperatorError::Reference {
                place: place.to_owned(),
                source,
            }
        })?;
        template.try_fill(|reference| self.value(place, reference))
    }

    /// Adds the variables that stand for the references of a shell script.
    fn variables(
        &self,
        text: &str,
        place: &str,
        env: &mut BTreeMap<String, String>,
    ) -> Result<(), OperatorError> {
        let template = Template::parse(text, Context::Script);
        let template = template.map_err(|source| OperatorError::Reference {
            place: place.to_owned(),
            source,
        })?;
        for reference in template.references() {
            let value = self.value(place, reference)?;
            env.entry(shell::variable(reference)).or_insert(value);
        }
        Ok(())
    }

    fn value(&self, place: &str, reference: &Reference) -> Result<String, OperatorError> {
        let value = self.known(place, reference)?;
        let cut = value.char_indices().nth(FILLED_SHOWN);
        let shown = match cut {
            Some((at, _)) => format!("{}...", &value[..at]),
            None => value.clone(),
        };
        let mut filled = self.filled.borrow_mut();
        filled.insert(reference.to_string(), shown);
        Ok(value)
    }

    fn known(&self, place: &str, reference: &Reference) -> Result<String, OperatorError> {
        let place = || place.to_owned();
        let slot = &self.assigned.slot;
        Ok(match reference {
            Reference::JobName => slot.job.to_string(),
            Reference::JobVersion => self.assigned.version.to_string(),
            Reference::TaskName => slot.task.to_string(),
            Reference::TaskIndex => slot.index.to_string(),
            Reference::NodeName => self.place.node.to_string(),
            Reference::NodeIp => self.place.address.to_owned(),
            Reference::Port(name) => match self.assigned.ports.get(name) {
                Some(port) => container::listens_on(self.assigned, name, *port).to_string(),
                None => {
                    return Err(OperatorError::NoPort {
                        place: place(),
                        port: name.clone(),
                    });
                }
            },
            Reference::NodeLabel(key) => match self.place.labels.get(key) {
                Some(value) => value.clone(),
                None => {
                    return Err(OperatorError::NoLabel {
                        place: place(),
                        node: self.place.node.clone(),
                        key: key.clone(),
                    });
                }
            },
            Reference::Var(name) => match self.assigned.task.vars.get(name) {
                Some(value) => value.clone(),
                None => {
                    return Err(OperatorError::NoVar {
                        place: place(),
                        name: name.clone(),
                    });
                }
            },
            Reference::Result(of) => match self.assigned.results.get(&of.to_string()) {
                Some(value) => value.clone(),
                None => {
                    return Err(OperatorError::NoResult {
                        place: place(),
                        of: of.clone(),
                    });
                }
            },
        })
    }
}

#[cfg(test)]
mod tests;
