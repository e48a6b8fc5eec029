//! `loomctl validate`.

use std::io::Read;
use std::path::{Path, PathBuf};

use loom_schemas::spec::{self, JobSpec, Problem, ProblemKind, Report, Sets, Syntax};
use serde::Serialize;

use crate::cli::Global;
use crate::exit::{Code, Failure};
use crate::output;

/// Check a job file without a cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loomctl validate web.yaml
  loomctl validate jobs/*.yaml -o json
  loomctl validate --set tag=1.27 web.yaml")]
pub(crate) struct Validate {
    /// Job files: YAML, TOML or JSON by extension; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Set a var of the jobs; repeatable
    #[arg(long = "set", value_name = "VAR=VALUE", value_parser = parse_set)]
    sets: Vec<(String, String)>,
}

impl JobFile {
    /// What the leader is told beside the text.
    pub(crate) fn headers(
        &self,
        if_version: Option<u32>,
    ) -> Result<Vec<(&'static str, String)>, Failure> {
        let mut headers = vec![("Content-Type", self.content_type.to_owned())];
        if let Some(version) = if_version {
            headers.push(("Orch-If-Version", version.to_string()));
        }
        if !self.sets.is_empty() {
            let sets = serde_json::to_string(&self.sets);
            let sets = sets.map_err(|error| Failure::error(error.to_string()))?;
            headers.push(("Orch-Set", sets));
        }
        Ok(headers)
    }
}

/// Reads `name=value`, as `--set` takes it.
pub(crate) fn parse_set(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair.ok_or_else(|| format!("`{text}`: expected VAR=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What became of one file.
#[derive(Serialize)]
struct Checked {
    file: String,
    valid: bool,
    job: Option<String>,
    tasks: usize,
    problems: Vec<Problem>,
}

impl Validate {
    /// Checks every file and prints every problem.
    pub(crate) fn execute(self, global: &Global) -> Result<(), Failure> {
        let mut worst = None;
        let mut all = Vec::new();
        let sets = self.sets.iter().cloned().collect();
        for path in &self.files {
            let (checked, failure) = check(path, &sets);
            if let Some(failure) = failure {
                worst = worst.or(Some(failure.code));
                if !global.output.is_for_programs() {
                    output::note(failure.message.as_deref().unwrap_or_default());
                }
            }
            if checked.valid || global.output.is_for_programs() {
                all.push(checked);
            }
        }
        output::list(
            global.output,
            &all,
            |file| file.job.clone().unwrap_or_default(),
            |_| {
                all.iter().fold(String::new(), |text, file| {
                    let job = file.job.as_deref().unwrap_or_default();
                    text + &format!("{}: job {job} is valid\n", file.file)
                })
            },
        )?;
        worst.map_or(Ok(()), |code| Err(Failure::silent(code)))
    }
}

/// Checks one file: what programs are told, and what people are.
fn check(path: &Path, sets: &Sets) -> (Checked, Option<Failure>) {
    let mut checked = Checked {
        file: path.display().to_string(),
        valid: false,
        job: None,
        tasks: 0,
        problems: Vec::new(),
    };
    let error = match read_job(path, sets) {
        Ok(job) => {
            checked.valid = true;
            checked.job = Some(job.spec.name.to_string());
            checked.tasks = job.spec.tasks.len();
            return (checked, None);
        }
        Err(error) => error,
    };
    checked.problems = match &error {
        Unread::Wrong(report) => report.problems.clone(),
        Unread::Missing(failure) => vec![Problem {
            line: 0,
            column: 0,
            path: String::new(),
            message: failure.message.clone().unwrap_or_default(),
            help: String::new(),
            kind: ProblemKind::Invalid,
        }],
    };
    (checked, Some(error.into()))
}

/// Why there is no job.
pub(crate) enum Unread {
    /// There is no file, or none that can be read.
    Missing(Failure),
    /// It does not say what it should.
    Wrong(Report),
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Missing(failure) => failure,
            Unread::Wrong(report) => Self::new(Code::Error, report.to_string()),
        }
    }
}

/// A job file as read, ready to be submitted.
pub(crate) struct JobFile {
    /// What it says, with scripts embedded.
    pub(crate) spec: JobSpec,
    /// What to submit: its own bytes, or where it names script files a JSON text with them put in.
    pub(crate) text: Vec<u8>,
    /// The content type of `text`.
    pub(crate) content_type: &'static str,
    /// What its vars are set to.
    pub(crate) sets: Sets,
}

/// Reads a job file with the scripts it names, which are relative to it.
pub(crate) fn read_job(path: &Path, sets: &Sets) -> Result<JobFile, Unread> {
    let is_stdin = path.as_os_str() == "-";
    let name = if is_stdin {
        "<stdin>".to_owned()
    } else {
        path.display().to_string()
    };
    let mut text = Vec::new();
    let read = if is_stdin {
        std::io::stdin().read_to_end(&mut text).map(drop)
    } else {
        std::fs::read(path).map(|bytes| text = bytes)
    };
    let syntax = if is_stdin {
        Some(Syntax::guess(&text))
    } else {
        Syntax::of_path(path)
    };
    let syntax = syntax.ok_or_else(|| {
        Unread::Missing(Failure::usage(format!(
            "{name}: expected a file ending in .yaml, .yml, .toml or .json"
        )))
    })?;
    read.map_err(|error| Unread::Missing(Failure::error(format!("{name}: {error}"))))?;
    let directory = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    let mut script = |file: &str| {
        let path = directory.join(file);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let spec = spec::read_with_files(&text, syntax, &name, sets, &mut script);
    let spec = spec.map_err(Unread::Wrong)?;
    let embedded = spec::embed_files(&text, syntax, &name, sets, &mut script);
    let embedded = embedded.map_err(Unread::Wrong)?;
    let content_type = match syntax {
        _ if embedded != text => "application/json",
        Syntax::Yaml => "application/yaml",
        Syntax::Toml => "application/toml",
        Syntax::Json => "application/json",
        Syntax::MessagePack => "application/msgpack",
    };
    Ok(JobFile {
        spec,
        text: embedded,
        content_type,
        sets: sets.clone(),
    })
}
