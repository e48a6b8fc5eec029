//! `loomctl validate`.

use std::io::Read;
use std::path::{Path, PathBuf};

use loom_schemas::spec::{self, JobSpec, Syntax};
use serde::Serialize;

use crate::cli::Global;
use crate::exit::Failure;
use crate::output;

/// Check a job file without a cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Validate {
    /// Job files: YAML, TOML or JSON by extension; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Checked {
    file: String,
    job: String,
    tasks: usize,
}

impl Validate {
    /// Checks every file and prints every problem.
    pub(crate) fn execute(self, global: &Global) -> Result<(), Failure> {
        let mut good = Vec::new();
        let mut bad = None;
        for path in &self.files {
            match read_job(path) {
                Ok(job) => good.push(Checked {
                    file: path.display().to_string(),
                    job: job.spec.name.to_string(),
                    tasks: job.spec.tasks.len(),
                }),
                Err(failure) => {
                    bad = bad.or(Some(failure.code));
                    output::note(failure.message.as_deref().unwrap_or_default());
                }
            }
        }
        output::list(
            global.output,
            &good,
            |file| file.job.clone(),
            |_| {
                good.iter().fold(String::new(), |text, file| {
                    text + &format!("{}: job {} is valid\n", file.file, file.job)
                })
            },
        )?;
        bad.map_or(Ok(()), |code| Err(Failure::silent(code)))
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
}

/// Reads a job file with the scripts it names, which are relative to it.
pub(crate) fn read_job(path: &Path) -> Result<JobFile, Failure> {
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
        Failure::usage(format!(
            "{name}: expected a file ending in .yaml, .yml, .toml or .json"
        ))
    })?;
    read.map_err(|error| Failure::error(format!("{name}: {error}")))?;
    let directory = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    let mut script = |file: &str| {
        let path = directory.join(file);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let refused = |report: spec::Report| Failure::error(report.to_string());
    let spec = spec::read_with_files(&text, syntax, &name, &mut script).map_err(refused)?;
    let embedded = spec::embed_files(&text, syntax, &name, &mut script).map_err(refused)?;
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
    })
}
