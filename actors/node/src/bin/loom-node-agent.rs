//! A node agent alone, for tests; in production it is `loomctl node start`.
//!
//! `loom-node-agent NAME URL USER PASSWORD DATA_DIR`: a node with the process driver, until killed.
//! It is its own shim.

use std::process::ExitCode;

use loom_bus::connection::{ConnectOptions, Login};
use loom_node::{BusAccess, NodeOptions};
use loom_schemas::ids::Name;

fn main() -> ExitCode {
    if let Some(code) = loom_task::shim::main_if_asked() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Ok([name, url, user, password, data_dir]) = <[String; 5]>::try_from(arguments) else {
        return ExitCode::FAILURE;
    };
    let (Ok(name), Ok(runtime)) = (Name::new(&name), tokio::runtime::Runtime::new()) else {
        return ExitCode::FAILURE;
    };
    let login = Login::User {
        name: user,
        password,
    };
    let bus = ConnectOptions {
        url,
        login,
        ..ConnectOptions::default()
    };
    let options = NodeOptions {
        allow_process: true,
        ..NodeOptions::new(name, BusAccess::Connect(bus), data_dir.into())
    };
    runtime.block_on(async {
        match loom_node::start(options).await {
            Ok(node) => {
                node.stopped().await;
                ExitCode::SUCCESS
            }
            Err(_) => ExitCode::FAILURE,
        }
    })
}
