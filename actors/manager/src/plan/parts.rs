//! Assignments that are larger than a message, in parts.

use loom_schemas::wire::{Assign, Assigned};

use crate::size::size_of;

/// A part is closed at so many bytes of placements; a single one may have up to 4 MB more.
pub const PART_BYTES: usize = 3 << 20;

/// Cuts an assignment into parts of so many bytes, each valid alone: after any of them the node
/// has nothing that it should not have.
///
/// The first is the set or delta it was, with the names of what is still to come (`keep`), so that
/// nothing is stopped that only later parts describe. The others describe more placements of the
/// generation that the node has by then, so taking one twice changes nothing.
pub fn parts(assign: Assign, bytes: usize) -> Vec<Assign> {
    if assign.put.len() <= 1 {
        return vec![assign];
    }
    let Assign {
        cluster,
        epoch,
        generation,
        base,
        put,
        mut keep,
        remove,
        labels,
    } = assign;
    let mut chunks = chunks(put, bytes).into_iter();
    let first = chunks.next().unwrap_or_default();
    let rest: Vec<Assign> = chunks
        .map(|put| Assign {
            cluster: cluster.clone(),
            epoch,
            generation,
            base: Some(generation),
            put,
            keep: Vec::new(),
            remove: Vec::new(),
            labels: labels.clone(),
        })
        .collect();
    if base.is_none() {
        let to_come = rest.iter().flat_map(|part| &part.put);
        keep.extend(to_come.map(|put| put.placement));
    }
    let first = Assign {
        cluster,
        epoch,
        generation,
        base,
        put: first,
        keep,
        remove,
        labels,
    };
    std::iter::once(first).chain(rest).collect()
}

fn chunks(put: Vec<Assigned>, bytes: usize) -> Vec<Vec<Assigned>> {
    let mut chunks: Vec<Vec<Assigned>> = Vec::new();
    let mut filled = 0;
    for assigned in put {
        let size = size_of(&assigned);
        match chunks.last_mut() {
            Some(chunk) if filled + size <= bytes => {
                filled += size;
                chunk.push(assigned);
            }
            _ => {
                filled = size;
                chunks.push(vec![assigned]);
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use loom_schemas::ids::{Epoch, RunId};
    use loom_schemas::words::Kind;

    use super::*;
    use crate::plan::{PlanOptions, assignment, plan};
    use crate::state::fixture::{
        ANNA, at, counter, decide, job, name, submission, task, with_nodes,
    };

    fn whole(replicas: u32) -> Assign {
        let spec = job("web", Kind::Service, task(replicas));
        let mut ids = counter();
        let state = decide(&with_nodes(1, replicas), |draft| {
            crate::decide::submit(draft, submission(&spec), ANNA, at(1)).unwrap();
            plan(draft, at(1), &PlanOptions::default(), &mut ids);
        })
        .state;
        Assign {
            cluster: "c".to_owned(),
            epoch: Epoch::default(),
            generation: 9,
            base: None,
            put: assignment(&state, &name("node-1")),
            keep: Vec::new(),
            remove: Vec::new(),
            labels: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn what_fits_stays_whole() {
        let assign = whole(5);
        assert_eq!(parts(assign.clone(), PART_BYTES), [assign]);
    }

    #[test]
    fn the_parts_of_a_set_name_all_of_it_from_the_first_on() {
        let assign = whole(7);
        let one = size_of(&assign.put[0]);
        for bytes in [1, one * 2, one * 3, one * 6] {
            let parts = parts(assign.clone(), bytes);
            assert!(parts.len() > 1);
            let all: BTreeSet<RunId> = assign.put.iter().map(|put| put.placement).collect();
            let first = &parts[0];
            let named: BTreeSet<RunId> = first
                .put
                .iter()
                .map(|put| put.placement)
                .chain(first.keep.iter().copied())
                .collect();
            assert_eq!(named, all);
            assert_eq!((first.base, first.generation), (None, 9));
            assert!(
                parts[1..]
                    .iter()
                    .all(|part| part.base == Some(9) && part.generation == 9)
            );
            let put: Vec<Assigned> = parts.into_iter().flat_map(|part| part.put).collect();
            assert_eq!(put, assign.put);
        }
    }

    #[test]
    fn a_delta_keeps_its_base_and_what_it_removes_in_its_first_part() {
        let removed = RunId(uuid::Uuid::nil());
        let delta = Assign {
            base: Some(8),
            remove: vec![removed],
            labels: std::collections::BTreeMap::new(),
            ..whole(3)
        };
        let parts = parts(delta, 1);
        assert_eq!(parts.len(), 3);
        assert_eq!((parts[0].base, &parts[0].remove), (Some(8), &vec![removed]));
        assert!(
            parts[0].keep.is_empty(),
            "a delta removes only what it names"
        );
        assert!(parts[1].remove.is_empty());
    }
}
