//! `loomctl schema`.

use crate::exit::Failure;
use crate::output;

/// Print the JSON Schema of the job language.
#[derive(Debug, clap::Args)]
pub(crate) struct Schema {}

impl Schema {
    /// Prints it.
    pub(crate) fn execute(self) -> Result<(), Failure> {
        let Self {} = self;
        let schema = serde_json::to_string_pretty(&loom_schemas::spec::json_schema())
            .map_err(|error| Failure::error(format!("the schema cannot be printed: {error}")))?;
        output::text(&(schema + "\n"))
    }
}
