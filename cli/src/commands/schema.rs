//! `loomctl schema`.

use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{self, Form};

/// Print the JSON Schema of the job language.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl schema > loom.schema.json")]
pub(crate) struct Schema {}

impl Schema {
    /// Prints it.
    pub(crate) fn execute(self, global: &Global) -> Result<(), Failure> {
        let Self {} = self;
        if global.output != Form::Json {
            global.output.must_be_default("schema")?;
        }
        let schema = serde_json::to_string_pretty(&loom_schemas::spec::json_schema())
            .map_err(|error| Failure::error(format!("the schema cannot be printed: {error}")))?;
        output::text(&(schema + "\n"))
    }
}
