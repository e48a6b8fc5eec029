//! Tests of the reader.

mod ahead;
mod documents;
mod laws;
mod right;
mod wrong;

use super::*;

/// Reads a good job.
fn good(text: &str, syntax: Syntax) -> JobSpec {
    read(text.as_bytes(), syntax, "job").unwrap_or_else(|report| panic!("{report}\n{text}"))
}

/// The only task of a YAML job with these lines beside its name.
fn task(lines: &str) -> TaskSpec {
    let mut job = good(&format!("name: a\n{lines}"), Syntax::Yaml);
    job.tasks.remove("main").unwrap()
}
