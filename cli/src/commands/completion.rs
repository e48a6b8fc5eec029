//! `loomctl completion`.

use clap::CommandFactory;

use crate::exit::Failure;
use crate::output;

/// Print a completion script for a shell.
///
/// For bash: `loomctl completion bash > /etc/bash_completion.d/loomctl`.
#[derive(Debug, clap::Args)]
pub(crate) struct Completion {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completion {
    /// Prints it.
    pub(crate) fn execute(self) -> Result<(), Failure> {
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
