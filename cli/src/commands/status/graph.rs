//! What a job and its tasks wait for.

use loom_schemas::spec::DependsOn;
use loom_schemas::wire::{JobView, Standing, TaskStanding};

use crate::output::table;
use crate::output::tree::{self, Node};

/// The jobs that a job waits for, in a table; nothing if there are none.
pub(super) fn jobs(view: &JobView) -> String {
    if view.depends_on.is_empty() {
        return String::new();
    }
    let mut table = table::new(&["depends on", "until", "state", "reason"]);
    for other in &view.depends_on {
        let DependsOn { job, task, on } = &other.dependency;
        let name = match task {
            Some(task) => format!("{job}/{task}"),
            None => job.to_string(),
        };
        table.add_row([
            name,
            on.as_str().to_owned(),
            table::standing(other.standing),
            other.reason.clone().unwrap_or_default(),
        ]);
    }
    format!("\n{}", table::render(table))
}

/// The tasks as a tree; nothing if none waits for another.
pub(super) fn tasks(view: &JobView) -> String {
    if view.graph.is_empty() {
        return String::new();
    }
    let nodes: Vec<Node<'_>> = view.graph.iter().map(node).collect();
    let mut table = table::new(&["task", "state", "reason"]);
    for line in tree::draw(&nodes) {
        let task = &view.graph[line.node];
        let mut words: Vec<String> = task.reason.iter().cloned().collect();
        if !line.also.is_empty() && task.standing != Standing::Waiting {
            words.push(format!("also after {}", line.also.join(", ")));
        }
        table.add_row([line.drawn, table::standing(task.standing), words.join("; ")]);
    }
    format!("\n{}", table::render(table))
}

fn node(task: &TaskStanding) -> Node<'_> {
    Node {
        name: task.task.as_str(),
        after: task.after.iter().map(|after| after.task.as_str()).collect(),
    }
}
