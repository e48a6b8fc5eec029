//! What a task finds in its environment.

use std::collections::BTreeMap;

use loom_schemas::ids::RunId;
use loom_schemas::spec::shell::variable_of;
use loom_schemas::wire::Assigned;

use super::{Place, container};

/// `LOOM_JOB`, `LOOM_TASK` and the others.
pub(super) fn of_run(
    assigned: &Assigned,
    run: RunId,
    place: Place<'_>,
) -> BTreeMap<String, String> {
    let slot = &assigned.slot;
    let mut env = BTreeMap::from([
        ("LOOM_JOB".to_owned(), slot.job.to_string()),
        ("LOOM_TASK".to_owned(), slot.task.to_string()),
        ("LOOM_TASK_INDEX".to_owned(), slot.index.to_string()),
        ("LOOM_RUN".to_owned(), run.to_string()),
        ("LOOM_NODE".to_owned(), place.node.to_string()),
        ("LOOM_NODE_IP".to_owned(), place.address.to_owned()),
        ("LOOM_VERSION".to_owned(), assigned.version.to_string()),
    ]);
    for (name, value) in &assigned.task.vars {
        env.insert(variable_of("LOOM_VAR_", name), value.clone());
    }
    for (name, port) in &assigned.ports {
        let inside = container::listens_on(assigned, name, *port);
        env.insert(variable_of("LOOM_PORT_", name), inside.to_string());
        let address = reachable(place.address, *port);
        env.insert(variable_of("LOOM_ADDR_", name), address);
    }
    env.extend(gpus(assigned));
    env
}

/// What programs look at to find the gpus that are their own; nothing of a task that has none.
fn gpus(assigned: &Assigned) -> impl Iterator<Item = (String, String)> {
    let ids: Vec<&str> = assigned.gpus.iter().map(|gpu| gpu.id.as_str()).collect();
    let ids = ids.join(",");
    let all = !assigned.gpus.is_empty();
    // In a container there are no others, and numbers are counted anew.
    let process = all && assigned.task.image.is_none();
    let pairs = [
        (all, "LOOM_GPUS", ids.clone()),
        (all, "NVIDIA_VISIBLE_DEVICES", ids.clone()),
        (process, "CUDA_VISIBLE_DEVICES", ids),
        // The numbers are those of `nvidia-smi`.
        (process, "CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned()),
    ];
    let pairs = pairs.into_iter().filter(|(is_so, ..)| *is_so);
    pairs.map(|(_, name, value)| (name.to_owned(), value))
}

/// `node:port`; an IPv6 address in brackets.
fn reachable(address: &str, port: u16) -> String {
    if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}
