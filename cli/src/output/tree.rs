//! What waits for what, drawn as a tree: who waits stands below the one it waits for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// How many levels are set in; what is deeper stands below without moving further to the right.
const LEVELS_MAX: usize = 16;

/// One of those that are drawn.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Those of the others that it waits for.
    pub(crate) after: Vec<&'a str>,
}

/// A line of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Which of the nodes.
    pub(crate) node: usize,
    /// The branch that stands before its name: `│  └─ `.
    pub(crate) lead: String,
    /// What else it waits for than the one it stands below.
    pub(crate) also: Vec<&'a str>,
}

/// The lines of the tree, each node once: below the one it waits for that has the longest way
/// before it, of equals the first by name.
pub(crate) fn draw<'a>(nodes: &[Node<'a>]) -> Vec<Line<'a>> {
    let places: BTreeMap<&str, usize> = nodes
        .iter()
        .zip(0..)
        .map(|(node, at)| (node.name, at))
        .collect();
    let depths = depths(nodes, &places);
    let mut below: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    let mut parents = Vec::new();
    for node in nodes {
        let known = node
            .after
            .iter()
            .filter_map(|after| places.get(after).copied());
        let parent = known.max_by_key(|at| (depths[*at], Reverse(nodes[*at].name)));
        below.entry(parent).or_default().push(parents.len());
        parents.push(parent);
    }
    let mut lines = Vec::new();
    let mut left: Vec<Branch> = branches(&below, None, "", 0);
    let mut drawn = BTreeSet::new();
    while let Some(Branch {
        node,
        lead,
        stem,
        level,
    }) = left.pop()
    {
        if !drawn.insert(node) {
            continue;
        }
        let parent = parents[node].map(|at| nodes[at].name);
        let also = nodes[node]
            .after
            .iter()
            .filter(|after| Some(**after) != parent);
        lines.push(Line {
            node,
            lead,
            also: also.copied().collect(),
        });
        left.extend(branches(&below, Some(node), &stem, level + 1));
    }
    lines
}

/// What is still to be drawn.
struct Branch {
    node: usize,
    /// What stands before its name.
    lead: String,
    /// What stands before the branches below it.
    stem: String,
    level: usize,
}

/// The branches below a node, the first last, as they are taken from the end.
fn branches(
    below: &BTreeMap<Option<usize>, Vec<usize>>,
    node: Option<usize>,
    stem: &str,
    level: usize,
) -> Vec<Branch> {
    let children = below.get(&node).map_or(&[][..], Vec::as_slice);
    let branches = children.iter().enumerate().map(|(place, child)| {
        let is_last = place + 1 == children.len();
        let (lead, stem) = match (level, is_last) {
            (0, _) => (String::new(), String::new()),
            (level, _) if level > LEVELS_MAX => (format!("{stem}· "), stem.to_owned()),
            (_, true) => (format!("{stem}└─ "), format!("{stem}   ")),
            (_, false) => (format!("{stem}├─ "), format!("{stem}│  ")),
        };
        Branch {
            node: *child,
            lead,
            stem,
            level,
        }
    });
    branches.rev().collect()
}

/// The longest way to each node from one that waits for nobody.
fn depths(nodes: &[Node<'_>], places: &BTreeMap<&str, usize>) -> Vec<usize> {
    let mut waits = vec![0; nodes.len()];
    let mut waited: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        for other in node.after.iter().filter_map(|after| places.get(after)) {
            waits[at] += 1;
            waited[*other].push(at);
        }
    }
    let mut depths = vec![0; nodes.len()];
    let mut free: Vec<usize> = (0..nodes.len()).filter(|at| waits[*at] == 0).collect();
    while let Some(at) = free.pop() {
        for other in &waited[at] {
            depths[*other] = depths[*other].max(depths[at] + 1);
            waits[*other] -= 1;
            if waits[*other] == 0 {
                free.push(*other);
            }
        }
    }
    depths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(nodes: &[(&str, &[&str])]) -> String {
        let nodes: Vec<Node<'_>> = nodes
            .iter()
            .map(|(name, after)| Node {
                name,
                after: after.to_vec(),
            })
            .collect();
        let lines = draw(&nodes).into_iter().map(|line| {
            let drawn = format!("{}{}", line.lead, nodes[line.node].name);
            match line.also.as_slice() {
                [] => drawn,
                also => format!("{drawn} (and {})", also.join(", ")),
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn who_waits_stands_below_the_one_it_waits_for() {
        let tree = drawn(&[
            ("build", &[]),
            ("deploy", &["lint", "test"]),
            ("lint", &["build"]),
            ("page", &["build"]),
            ("seed", &[]),
            ("test", &["build", "seed"]),
        ]);
        let expected = "\
build
├─ lint
│  └─ deploy (and test)
├─ page
└─ test (and seed)
seed";
        assert_eq!(tree, expected);
    }

    #[test]
    fn the_longest_way_decides_below_whom() {
        let tree = drawn(&[("a", &[]), ("b", &["a"]), ("c", &["a", "b"])]);
        assert_eq!(tree, "a\n└─ b\n   └─ c (and a)");
    }

    #[test]
    fn a_long_chain_stays_on_the_page() {
        let names: Vec<String> = (0..1000).map(|n| format!("step-{n:03}")).collect();
        let nodes: Vec<Node<'_>> = (0..1000)
            .map(|n| Node {
                name: &names[n],
                after: n
                    .checked_sub(1)
                    .map(|before| names[before].as_str())
                    .into_iter()
                    .collect(),
            })
            .collect();
        let lines = draw(&nodes);
        assert_eq!(lines.len(), 1000);
        assert!(lines.iter().zip(0..).all(|(line, at)| line.node == at));
        assert!(lines.iter().all(|line| line.lead.chars().count() < 60));
    }
}
