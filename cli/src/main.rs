//! `loomctl`, the command line of Loom: starts clusters, and talks to them.

mod address;
mod cli;
mod client;
mod commands;
mod exit;
mod fanout;
mod output;
mod start;
mod usage;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::exit::{Code, Failure};

// Records of the log are many small allocations: it takes a third off the time to plan a large job.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A shim or a bus server guard is this program under another name, before any thread starts.
    if let Some(code) = loom_task::shim::main_if_asked() {
        return code;
    }
    if let Some(code) = loom_bus::server::exec_if_asked() {
        return code;
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = &failure.message {
                output::note(&plain(message));
            }
            ExitCode::from(failure.code.number())
        }
    }
}

/// A message as people read it: several problems a line each, and no numbers of the system.
fn plain(message: &str) -> String {
    let text = match message.lines().count() {
        0 | 1 => format!("loomctl: {message}"),
        count => format!("loomctl: {count} problems\n{message}"),
    };
    let mut parts = text.split(" (os error ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                plain.push_str(rest);
            }
            _ => plain = format!("{plain} (os error {part}"),
        }
    }
    plain
}

fn run(cli: cli::Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::error(format!("the runtime cannot be started: {error}")))?;
    let done = runtime.block_on(cli.verb.execute(&cli.global));
    // What still blocks a thread, such as a disk that hangs, keeps nobody waiting.
    runtime.shutdown_background();
    done
}

/// Verbs that are decided but not built.
const LATER: &[&str] = &[
    "dispatch",
    "wait",
    "remove",
    "gc",
    "resize",
    "exec",
    "cmd",
    "checkpoint",
    "attach",
    "cp",
    "cluster",
    "top",
    "output",
];

/// Help and version end with 0, bad usage with 64 (2 means something else here).
fn usage(error: &clap::Error) -> ExitCode {
    let word = error.get(ContextKind::InvalidSubcommand);
    if let Some(ContextValue::String(word)) = word
        && LATER.contains(&word.as_str())
    {
        output::note(&format!("loomctl: `{word}` is not supported yet"));
        return ExitCode::from(Code::Usage.number());
    }
    if !error.use_stderr() {
        // Nobody can be told that the terminal is gone.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Whoever types only `loomctl` wants to know what there is.
        let _ = error.print();
    } else {
        for line in usage::lines(&error.render().to_string()) {
            output::note(&line);
        }
    }
    ExitCode::from(Code::Usage.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_system_are_left_out() {
        assert_eq!(
            plain("a.yaml: No such file (os error 2)"),
            "loomctl: a.yaml: No such file"
        );
        assert_eq!(
            plain("no bus (refused (os error 111)); start one"),
            "loomctl: no bus (refused); start one"
        );
        assert_eq!(plain("x (os error"), "loomctl: x (os error");
        assert_eq!(plain("a\nb"), "loomctl: 2 problems\na\nb");
    }
}
