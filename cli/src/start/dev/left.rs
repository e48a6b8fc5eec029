//! What is left of a cluster that is ended at once.

use std::time::Duration;

use loom_bus::{Bus, ConnectOptions};
use loom_schemas::ids::Name;
use loom_schemas::subject;
use loom_schemas::wire::{NodeGet, NodeList, NodeListQuery, NodeView};

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
    let left = match running {
        None => "tasks may still run".to_owned(),
        Some((0, _)) => "no task is known to run".to_owned(),
        Some((count, named)) if count > named.len() => format!(
            "still running: {} and {} more",
            named.join(", "),
            count - named.len()
        ),
        Some((_, named)) => format!("still running: {}", named.join(", ")),
    };
    Failure::error(format!(
        "ended at once; {left} (loomctl dev on the same data directory adopts what runs)"
    ))
}

/// What runs, by the manager's word: how much, and the first of it by name.
async fn running(access: &ConnectOptions) -> Option<(usize, Vec<String>)> {
    let access = ConnectOptions {
        timeout: LAST_LOOK,
        ..access.clone()
    };
    let bus = Bus::connect(access).await.ok()?;
    let subject = subject::api("node", "list");
    let (mut count, mut named, mut query) = (0, Vec::new(), NodeListQuery::default());
    loop {
        let list: NodeList = bus.call(&subject, &query, LAST_LOOK).await.ok()?;
        for line in &list.nodes {
            count += line.runs as usize;
            if line.runs > 0 && named.len() < NAMED {
                named.extend(on_node(&bus, &line.node.name).await?);
            }
        }
        query.after = list.next;
        if query.after.is_none() {
            named.truncate(NAMED);
            return Some((count, named));
        }
    }
}

/// The first runs on a node, each as a person looks for it.
async fn on_node(bus: &Bus, node: &Name) -> Option<Vec<String>> {
    let get = NodeGet {
        node: node.clone(),
        after: None,
    };
    let subject = subject::api("node", "get");
    let view: NodeView = bus.call(&subject, &get, LAST_LOOK).await.ok()?;
    let runs = view.runs.iter().take(NAMED).map(|run| {
        let pid = run.run.pid;
        let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        format!("{} on {node}{pid}", run.slot)
    });
    Some(runs.collect())
}
