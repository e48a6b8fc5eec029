//! `loomctl version`.

use serde::Serialize;

use crate::cli::Global;
use crate::exit::Failure;
use crate::output;

/// Print the version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl version -o json")]
pub(crate) struct Version {}

#[derive(Serialize)]
struct Facts {
    version: &'static str,
    wire_format: u32,
    target: String,
}

impl Version {
    /// Prints it.
    pub(crate) fn execute(self, global: &Global) -> Result<(), Failure> {
        let Self {} = self;
        let facts = Facts {
            version: env!("CARGO_PKG_VERSION"),
            wire_format: loom_schemas::wire::FORMAT,
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        };
        output::one(
            global.output,
            &facts,
            |facts| facts.version.to_owned(),
            |_| {
                format!(
                    "loomctl {} (log and message format {}, {})\n",
                    facts.version, facts.wire_format, facts.target
                )
            },
        )
    }
}
