//! The shim alone, for tests; in production it is a mode of `loomctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    loom_task::shim::main_if_asked().unwrap_or(ExitCode::FAILURE)
}
