//! Jobs that wait for each other for ever: over `depends_on`, and over tasks that are jobs themselves.

use std::collections::HashMap;

use loom_schemas::ids::Name;
use loom_schemas::spec::{JobSpec, Operator, SubJob};

use crate::state::State;

/// At most so many jobs of a circle are named.
const NAMED_MAX: usize = 8;

/// What waits, and is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Node<'a> {
    /// All tasks of a job.
    Whole(&'a Name),
    /// What a job waits for before any of its tasks starts.
    Gate(&'a Name),
    /// One task of a job.
    Task(&'a Name, &'a Name),
}

impl<'a> Node<'a> {
    fn job(self) -> &'a Name {
        match self {
            Self::Whole(job) | Self::Gate(job) | Self::Task(job, _) => job,
        }
    }
}

/// The way from a job over those that it waits for back to one of them, in words; none if there is no
/// such way with a `depends_on` in it.
pub(super) fn circle(state: &State, spec: &JobSpec) -> Option<String> {
    let first = Node::Whole(&spec.name);
    // Where each node is that is on the way; none once all behind it was looked at.
    let mut seen: HashMap<Node<'_>, Option<usize>> = HashMap::from([(first, Some(0))]);
    let mut way = vec![(first, nexts(state, spec, first).into_iter())];
    while let Some((at, left)) = way.last_mut() {
        let Some(next) = left.next() else {
            seen.insert(*at, None);
            way.pop();
            continue;
        };
        match seen.get(&next) {
            None => {
                seen.insert(next, Some(way.len()));
                way.push((next, nexts(state, spec, next).into_iter()));
            }
            Some(Some(from)) => {
                let circle = way[*from..].iter().map(|(node, _)| *node);
                let circle: Vec<Node<'_>> = circle.chain([next]).collect();
                // Jobs that are made of each other are told otherwise.
                if circle.iter().any(|node| matches!(node, Node::Gate(_))) {
                    return Some(written(&circle, &spec.name));
                }
            }
            Some(None) => {}
        }
    }
    None
}

/// What a node waits for.
fn nexts<'a>(state: &'a State, new: &'a JobSpec, node: Node<'a>) -> Vec<Node<'a>> {
    let job = node.job();
    let spec = if *job == new.name {
        Some(new)
    } else {
        state.job(job).and_then(|record| state.spec(record))
    };
    let Some(spec) = spec else {
        return Vec::new();
    };
    match node {
        Node::Whole(_) => spec
            .tasks
            .keys()
            .map(|task| Node::Task(job, task))
            .collect(),
        Node::Gate(_) => {
            let others = spec.depends_on.iter();
            others
                .map(|other| match &other.task {
                    Some(task) => Node::Task(&other.job, task),
                    None => Node::Whole(&other.job),
                })
                .collect()
        }
        Node::Task(_, task) => {
            let Some(task) = spec.tasks.get(task) else {
                return Vec::new();
            };
            let made = match &task.operator {
                Operator::Job(SubJob { job }) => Some(Node::Whole(job)),
                _ => None,
            };
            let after = task.after.iter().map(|after| Node::Task(job, &after.task));
            [Node::Gate(job)]
                .into_iter()
                .chain(made)
                .chain(after)
                .collect()
        }
    }
}

/// The jobs of a circle, `a -> b -> a`, from the one that is looked at where it is one of them, and cut
/// where it is long.
fn written(circle: &[Node<'_>], first: &Name) -> String {
    let mut names: Vec<&str> = circle.iter().map(|node| node.job().as_str()).collect();
    names.dedup();
    if let Some(at) = names.iter().position(|name| *name == first.as_str()) {
        names.pop();
        names.rotate_left(at);
        names.push(first.as_str());
    }
    match names.as_slice() {
        [first @ .., last] if first.len() > NAMED_MAX => {
            let more = first.len() - NAMED_MAX;
            format!(
                "{} -> ({more} more) -> {last}",
                first[..NAMED_MAX].join(" -> ")
            )
        }
        names => names.join(" -> "),
    }
}
