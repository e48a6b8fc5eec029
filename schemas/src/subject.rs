//! The names of the bus. Every subject that Loom publishes or serves is built here.

use crate::ids::{Name, RunId, Slot};

/// The log's only subject.
pub const LOG: &str = "orch.log";
/// The queue of submissions: a JetStream publish, acknowledged when durable.
pub const QUEUE: &str = "orch.job.queue";
/// All events.
pub const EVENTS_ALL: &str = "orch.events.>";
/// All heartbeats.
pub const HEARTBEATS_ALL: &str = "orch.heartbeat.*";
/// All calls of nodes to the leader.
pub const CTL_ALL: &str = "orch.ctl.*.*";
/// All reads of the API.
pub const API_ALL: &str = "orch.api.*.*";

/// All writes to the cluster.
pub const ADMIN_ALL: &str = "orch.admin.*.*";
/// All managers that hand over.
pub const BYES_ALL: &str = "orch.manager.*.bye";

/// A write to a job, served by the leader: `submit`, `stop`, `restart`, `scale`, `plan`.
pub fn job(verb: &str) -> String {
    format!("orch.job.{verb}")
}

/// A write to the cluster, served by the leader.
pub fn admin(noun: &str, verb: &str) -> String {
    format!("orch.admin.{noun}.{verb}")
}

/// A read, served by every manager.
pub fn api(noun: &str, verb: &str) -> String {
    format!("orch.api.{noun}.{verb}")
}

/// A runtime command to one slot.
pub fn task(slot: &Slot, verb: &str) -> String {
    format!("orch.task.{}.{}.{}.{verb}", slot.job, slot.task, slot.index)
}

/// A runtime command to all slots of a task, or of all tasks of a job.
pub fn task_all(job: &Name, task: Option<&Name>, verb: &str) -> String {
    format!(
        "orch.task.{job}.{}.all.{verb}",
        task.map_or("all", Name::as_str)
    )
}

/// A runtime command to exactly one run.
pub fn run(run: RunId, verb: &str) -> String {
    format!("orch.run.{run}.{verb}")
}

/// A runtime command by selector or id, served by every node.
pub fn find(verb: &str) -> String {
    format!("orch.find.{verb}")
}

/// The assignment of a node, or a delta of it.
pub fn assign(node: &Name) -> String {
    format!("orch.assign.{node}")
}

/// What a node has, asked by a leader whose state has lost it.
pub fn inventory(node: &Name) -> String {
    format!("orch.inventory.{node}")
}

/// A call of a node to the leader: `hello`, `status`, `bye`.
pub fn ctl(node: &Name, verb: &str) -> String {
    format!("orch.ctl.{node}.{verb}")
}

/// The heartbeat of a node.
pub fn heartbeat(node: &Name) -> String {
    format!("orch.heartbeat.{node}")
}

/// Whether a manager lives.
pub fn manager_ping(manager: &Name) -> String {
    format!("orch.manager.{manager}.ping")
}

/// Said by a leader that hands over.
pub fn manager_bye(manager: &Name) -> String {
    format!("orch.manager.{manager}.bye")
}

/// One stream of the output of a slot.
pub fn logs(slot: &Slot, node: &Name, stream: &str) -> String {
    format!(
        "orch.logs.{}.{}.{}.{node}.{stream}",
        slot.job, slot.task, slot.index
    )
}

/// What was done to a slot by a runtime command, published by its node.
pub fn command_event(slot: &Slot) -> String {
    format!(
        "orch.events.command.{}.{}.{}",
        slot.job, slot.task, slot.index
    )
}

/// Usage figures of a node.
pub fn metrics_node(node: &Name) -> String {
    format!("orch.metrics.node.{node}")
}

/// Usage figures of a slot.
pub fn metrics_task(slot: &Slot, node: &Name) -> String {
    format!(
        "orch.metrics.task.{}.{}.{}.{node}",
        slot.job, slot.task, slot.index
    )
}
