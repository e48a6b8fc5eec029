//! What a task finds in its environment.

use std::collections::BTreeMap;

use loom_schemas::ids::{Name, RunId};
use loom_schemas::spec::reference::Reference;
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
        env.insert(of_name("LOOM_VAR_", name), value.clone());
    }
    for (name, port) in &assigned.ports {
        let inside = container::listens_on(assigned, name, *port);
        env.insert(of_name("LOOM_PORT_", name), inside.to_string());
        let address = reachable(place.address, *port);
        env.insert(of_name("LOOM_ADDR_", name), address);
    }
    env
}

/// The variable that holds the value of a reference.
pub(super) fn variable(reference: &Reference) -> String {
    match reference {
        Reference::JobName => "LOOM_JOB".to_owned(),
        Reference::JobVersion => "LOOM_VERSION".to_owned(),
        Reference::TaskName => "LOOM_TASK".to_owned(),
        Reference::TaskIndex => "LOOM_TASK_INDEX".to_owned(),
        Reference::NodeName => "LOOM_NODE".to_owned(),
        Reference::NodeIp => "LOOM_NODE_IP".to_owned(),
        Reference::NodeLabel(key) => format!("LOOM_NODE_LABEL_{}", of_key(key)),
        Reference::Port(name) => of_name("LOOM_PORT_", name),
        Reference::Var(name) => of_name("LOOM_VAR_", name),
        Reference::Result(of) => {
            let task = of_name("LOOM_RESULT_OF_", &of.task);
            format!("{task}__{}", of_key(&of.key))
        }
    }
}

/// A key as a part of a variable's name; no two keys become the same.
fn of_key(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for c in key.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c);
        } else {
            name.extend(['_']);
            name.extend(format!("{:02X}", u32::from(c)).chars());
        }
    }
    name
}

pub(super) fn of_name(prefix: &str, name: &Name) -> String {
    let name = name.as_str().to_ascii_uppercase().replace('-', "_");
    format!("{prefix}{name}")
}

/// `node:port`; an IPv6 address in brackets.
fn reachable(address: &str, port: u16) -> String {
    if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}
