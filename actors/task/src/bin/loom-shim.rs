//! The shim alone: what an agent executes for each run where it is found beside `loomctl`, which is
//! twenty times as large and can do the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    loom_task::shim::main_if_asked().unwrap_or(ExitCode::FAILURE)
}
