//! The container of a launch.

use loom_schemas::ids::Name;
use loom_schemas::spec::{Network, Operator, PortSpec};
use loom_schemas::wire::Assigned;

use super::OperatorError;
use crate::launch::{Container, PublishedPort, Word};

/// The container of a task that has an image; takes the program out of `argv`, which becomes its
/// entry point.
pub(super) fn of(
    assigned: &Assigned,
    argv: &mut Vec<Word>,
) -> Result<Option<Container>, OperatorError> {
    let task = &assigned.task;
    let Some(image) = &task.image else {
        return match task.operator {
            Operator::Image => Err(OperatorError::NoImage),
            _ => Ok(None),
        };
    };
    let entrypoint = std::mem::take(argv);
    let published = task.network == Network::Bridge;
    let ports = task.ports.iter().filter(|_| published);
    let ports = ports.filter_map(|(name, port)| {
        let host = *assigned.ports.get(name)?;
        Some(PublishedPort {
            name: name.clone(),
            port: inside(port, host),
            host,
            protocol: port.protocol,
        })
    });
    Ok(Some(Container {
        image: image.clone(),
        entrypoint: (!entrypoint.is_empty()).then_some(entrypoint),
        network: task.network,
        ports: ports.collect(),
        gpus: assigned.gpus.iter().map(|gpu| gpu.id.clone()).collect(),
    }))
}

/// The port a task has to listen on to be reached at the node's port `host`.
pub(super) fn listens_on(assigned: &Assigned, name: &Name, host: u16) -> u16 {
    let task = &assigned.task;
    match task.ports.get(name) {
        Some(port) if task.image.is_some() && task.network == Network::Bridge => inside(port, host),
        _ => host,
    }
}

fn inside(port: &PortSpec, host: u16) -> u16 {
    port.port.unwrap_or(host)
}
