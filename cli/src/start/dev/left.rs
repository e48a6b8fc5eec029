//! What is left of a cluster that is ended at once.

use std::time::Duration;

use loom_bus::{Bus, ConnectOptions};
use loom_schemas::subject;
use loom_schemas::wire::NodeList;

use crate::exit::Failure;

/// How many tasks are named that still run when the cluster is ended at once.
const NAMED: usize = 10;

/// How long it may take to find out which.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Says what still runs when nobody waits for its end any more.
pub(super) async fn left_behind(access: Option<&ConnectOptions>) -> Failure {
    let running = match access {
        Some(access) => running(access).await,
        None => None,
    };
    let left = match running.as_deref() {
        None => "tasks may still run".to_owned(),
        Some([]) => "no task is known to run".to_owned(),
        Some(tasks) if tasks.len() > NAMED => format!(
            "still running: {} and {} more",
            tasks[..NAMED].join(", "),
            tasks.len() - NAMED
        ),
        Some(tasks) => format!("still running: {}", tasks.join(", ")),
    };
    Failure::error(format!(
        "ended at once; {left} (loomctl dev on the same data directory adopts what runs)"
    ))
}

/// What runs, by the manager's word.
async fn running(access: &ConnectOptions) -> Option<Vec<String>> {
    let access = ConnectOptions {
        timeout: LAST_LOOK,
        ..access.clone()
    };
    let bus = Bus::connect(access).await.ok()?;
    let subject = subject::api("node", "list");
    let list: NodeList = bus.call(&subject, &(), LAST_LOOK).await.ok()?;
    let tasks = list.nodes.iter().flat_map(|node| {
        node.runs.iter().map(|run| {
            let pid = run
                .run
                .pid
                .map_or_else(String::new, |pid| format!(" (pid {pid})"));
            format!("{} on {}{pid}", run.slot, node.node.name)
        })
    });
    Some(tasks.collect())
}
