//! `loomctl completion`.

use clap::CommandFactory;

use crate::cli::Global;
use crate::exit::Failure;
use crate::output;

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loomctl completion bash > /etc/bash_completion.d/loomctl")]
pub(crate) struct Completion {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completion {
    /// Prints it.
    pub(crate) fn execute(self, global: &Global) -> Result<(), Failure> {
        global.output.must_be_default("completion")?;
        let mut script = Vec::new();
        clap_complete::generate(
            self.shell,
            &mut crate::cli::Cli::command(),
            "loomctl",
            &mut script,
        );
        output::text(&String::from_utf8_lossy(&script))
    }
}
